"""Connects, logs in, sends heartbeats, and comes back when the connection is lost. What is said is a session's."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from zim.client.address import CometAddress, comet_address, list_addresses
from zim.client.backoff import Backoff
from zim.client.connection import Line
from zim.client.errors import CertificateError, ClientError, ConnectionLost, LoginRefused, SentAway, Unreachable
from zim.client.goim import GoimSession
from zim.client.itinerary import Itinerary, SentElsewhere, sent_on
from zim.client.session import ZimSession
from zim.client.tls import make_context
from zim.client.token import NO_TOKEN
from zim.client.values import Event, State, StateName
from zim.client.waiting import Waker, wait
from zim.errors import ZimError
from zim.protocol.errors import WireError
from zim.protocol.frame import Op, Packet

log = logging.getLogger(__name__)

_FOR_GOOD = range(4400, 4600)  # codes of endings, see docs/client-protocol.md
EXPIRED = 4205  # come back with another token
FRESH = "; a function that gives fresh tokens would do"
_LAST_WORDS_S = 1.0  # for an acknowledgement to be confirmed when one leaves
_MIN_HEARTBEAT_S = 0.1
_STATES: dict[type[ZimError], StateName] = {
    Unreachable: "unreachable",
    CertificateError: "unreachable",
    LoginRefused: "refused",
    SentAway: "refused",
}


class Lifeline:
    """A session, and the connections that it lives on, one after another.

    One thread iterates over `events`; any thread may call `wake`, and `close`, more than once.
    """

    def __init__(
        self,
        session: ZimSession | GoimSession,
        addresses: str | Sequence[str],
        heartbeat_s: float,
        timeout_s: float,
        max_packet_bytes: int,
        backoff: Backoff | None,
        on_state: Callable[[State], object] | None,
        *,
        acks: bool = False,
        ca: str | os.PathLike[str] | None = None,
    ) -> None:
        """Does not connect yet. See Listener for the arguments.

        Raises:
            AddressError: there is no address, or one that is none.
            ClientError: `ca` is no file of certificates.
        """
        texts = list_addresses(addresses, "127.0.0.1:8080")
        self.session = session
        self._itinerary = Itinerary([comet_address(text) for text in texts])
        self._tls = make_context(texts, ca)
        self._untrusted: set[CometAddress] = set()
        self._heartbeat_s = heartbeat_s
        self._timeout_s = timeout_s
        self._max_packet_bytes = max_packet_bytes
        self._backoff = backoff or Backoff()
        self._on_state = on_state or _Warning()
        self._acks = acks
        self._is_closed = False
        self._lock = threading.RLock()
        self._waker: Waker | None = None
        self._connection: Line | None = None
        self._packets: deque[Packet] = deque()  # that have come and are not handled
        self._is_busy = False
        self._is_logged_in = False
        self._thread = 0
        self._heartbeat_at = 0.0
        self._reply_by: float | None = None

    # ------------------------------------------------------------ from any thread

    def wake(self) -> None:
        """The session has something to say."""
        with self._lock:
            if self._waker is not None:
                self._waker.wake()

    def close(self) -> None:
        """Ends the iteration."""
        with self._lock:
            self._is_closed = True
            connection = self._connection
            is_mine = self._thread == threading.get_ident()
            # The one that waits says its last words and hangs up; one that is busy with an event may never come back.
            if connection is not None and self._is_busy and not is_mine:
                connection.cut()
            self.wake()
        if connection is not None and self._is_busy and is_mine:
            self._hang_up(connection)

    # ------------------------------------------------------------ from the one that iterates

    def events(self) -> Iterator[Event]:
        """What the session tells, without end until close().

        Raises:
            CertificateError: no address is left whose certificate can be verified. One that cannot is left out until
                a connection to another is made.
            SentAway: the server says that there is no use in coming back.
            ClientError: somebody iterates already.
        """
        with self._lock:
            if self._waker is not None:
                raise ClientError("somebody iterates over this listener already")
            waker = self._waker = Waker()
        self._untrusted.clear()
        try:
            while not self._is_closed:
                address = self._itinerary.next()
                if address not in self._untrusted:
                    yield from self._connected(address, waker)
        finally:
            with self._lock:
                self._waker = None
                waker.close()

    def _connected(self, address: CometAddress, waker: Waker) -> Iterator[Event]:
        """One connection, and the pause after it."""
        self._on_state(State("connecting", str(address)))
        since: float | None = None
        after_s: float | None = None
        name: StateName = "disconnected"
        reason = ""
        connection = Line(address, waker, self._timeout_s, self._max_packet_bytes, self._tls)
        self._packets.clear()
        with self._lock:
            self._connection = connection
        try:
            events, packets = self._log_in(connection)
            since = time.monotonic()
            self._is_logged_in = True
            self._untrusted.clear()
            self._on_state(State("connected", str(address)))
            yield from self._receive(connection, events, packets)
        except (ClientError, WireError) as error:
            name = _STATES.get(type(error), "disconnected")
            reason = f"the server broke the wire: {error}" if isinstance(error, WireError) else str(error)
            if isinstance(error, SentAway):
                self._on_state(State(name, str(address), reason))
                raise
            if isinstance(error, SentElsewhere):
                after_s = self._itinerary.send_on(address, error, 0.0 if since is None else time.monotonic() - since)
            if isinstance(error, CertificateError):
                self._untrusted.add(address)
                if self._untrusted.issuperset(self._itinerary.addresses):
                    self._on_state(State(name, str(address), reason))
                    raise
        finally:
            self._hang_up(connection)
        if not self._is_closed:
            self._pause(name, address, reason, since, after_s)

    def _pause(
        self, name: StateName, address: CometAddress, reason: str, since: float | None, after_s: float | None
    ) -> None:
        """Tells the state and waits until it is time to try again, or for close(). after_s: as the server wishes."""
        # A server that lets everybody in and throws them out at once must not be hammered.
        if since is not None and time.monotonic() - since >= self._backoff.cap_s:
            self._backoff.reset()
        retry_s = self._backoff.next_s() if after_s is None else after_s
        self._on_state(State(name, str(address), reason, retry_s))
        until = time.monotonic() + retry_s
        while not self._is_closed and (left_s := until - time.monotonic()) > 0 and self._waker is not None:
            wait(None, self._waker, left_s)

    def _log_in(self, connection: Line) -> tuple[list[Event], list[Packet]]:
        """Connects and authenticates. Gives what the reply tells, and the packets that came with it.

        Raises:
            ConnectionLost: no connection, or no reply in time.
            LoginRefused: the server ended it first.
            WireError: the server broke the wire.
        """
        deadline = time.monotonic() + self._timeout_s
        connection.connect()
        auth = self.session.begin(connection.address.transport)
        has_asked = False
        packets: list[Packet] = []
        while not packets:
            if connection.is_open and not has_asked:
                connection.send(auth)
                has_asked = True
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise ConnectionLost(f"no answer to the login in {self._timeout_s:g} s")
            if self._is_closed:
                raise ConnectionLost("closed")
            packets = self._read_login(connection, left_s)
        first = packets.pop(0)
        if first.op == Op.DISCONNECT:
            reason, code = _reason(first)
            if code == EXPIRED and self.session.token.is_fixed:
                raise SentAway(f"the server says: {reason}{FRESH}", code)
            raise _ending(first) or _onward(first) or LoginRefused(f"the server says: {_reason(first)[0]}")
        if first.op != Op.AUTH_REPLY or first.stream:
            raise WireError(f"op {first.op} where the login's reply should be")
        return self.session.logged_in(first), packets

    def _read_login(self, connection: Line, left_s: float) -> list[Packet]:
        try:
            packets = connection.receive(left_s) or []
        except ConnectionLost as error:
            if self._is_closed:
                raise
            raise LoginRefused(f"{error} before it answered the login") from None
        if connection.broken is not None and not packets:
            if type(connection.broken) is ConnectionLost:
                raise LoginRefused(str(connection.broken))
            raise connection.broken
        return packets

    def _receive(self, connection: Line, events: list[Event], packets: list[Packet]) -> Iterator[Event]:
        """The events of one connection, from the login on until close().

        Raises:
            ConnectionLost: it ended.
            WireError: the server broke the wire.
        """
        self._reply_by = None
        self._heartbeat_at = time.monotonic() + self._interval_s()
        while True:
            for event in self._told(events, packets):
                self._thread, self._is_busy = threading.get_ident(), True
                yield event
                self._is_busy = False
                if self._acks:
                    self.session.taken(event)
                if self._is_closed:
                    return
                self._speak(connection)
            if connection.broken is not None:
                raise connection.broken
            self._speak(connection)
            until = min(self._heartbeat_at, self._reply_by or math.inf, self.session.token.next_at or math.inf)
            # Read before judging: after a long pause of the application the reply is there, unread.
            found = connection.receive(until - time.monotonic()) if not self._is_closed else None
            if self._is_closed:
                self._packets.extend(found or [])
                return
            if found is not None:
                self._reply_by = None
            elif self._reply_by is not None and time.monotonic() >= self._reply_by:
                raise ConnectionLost(f"no reply to a heartbeat in {self._timeout_s:g} s")
            events, packets = [], found or []

    def _told(self, events: list[Event], packets: list[Packet]) -> Iterator[Event]:
        """These events, and those in the packets."""
        self._packets.extend(packets)
        yield from events
        while self._packets:
            packet = self._packets.popleft()
            if packet.op == Op.DISCONNECT and not packet.stream:
                raise (
                    _ending(packet)
                    or _onward(packet)
                    or ConnectionLost(f"disconnected by the server: {_reason(packet)[0]}")
                )
            yield from self.session.receive(packet)

    def _speak(self, connection: Line) -> None:
        """Sends what is due: a heartbeat, what the session wants."""
        now = time.monotonic()
        if now >= self._heartbeat_at:
            self.session.ask_again()
            connection.send(Packet(Op.HEARTBEAT, 0, self.session.version))
            self._heartbeat_at = now + self._interval_s()
            self._reply_by = now + self._timeout_s if self._reply_by is None else self._reply_by
        if self.session.is_due:
            connection.send(*self.session.due())
        token = self.session.token
        if token.next_at is not None and now >= token.next_at and (shown := self.session.refresh()) is not None:
            connection.send(shown)

    def _interval_s(self) -> float:
        """Between two heartbeats: at most half of what the fabric allows."""
        allowed_s = self.session.heartbeat_s
        return min(self._heartbeat_s, max(allowed_s / 2, _MIN_HEARTBEAT_S)) if allowed_s else self._heartbeat_s

    def _hang_up(self, connection: Line) -> None:
        """Says the last words, if somebody may still hear them, and closes."""
        is_logged_in, self._is_logged_in = self._is_logged_in, False
        with contextlib.suppress(ClientError, WireError):
            self._confirm(self._packets)
            if is_logged_in and self.session.is_due and connection.broken is None:
                connection.send(*self.session.due())
            # What has come unread would reset the connection, and an acknowledgement on its way be lost with it.
            until = time.monotonic() + _LAST_WORDS_S
            while is_logged_in and self.session.awaits_ack and (left_s := until - time.monotonic()) > 0:
                self._confirm(connection.receive(left_s) or [])
                connection.send(*self.session.due())
                if connection.broken is not None:
                    break
        connection.say_goodbye()
        with self._lock:
            self._connection = None
            self._is_busy = False
            connection.close()

    def _confirm(self, packets: Iterable[Packet]) -> None:
        """Takes of these what needs nobody to hand it over to."""
        for packet in packets:
            if packet.op == Op.ACKNOWLEDGED and not packet.stream:
                self.session.receive(packet)


class _Warning:
    """What states are told to where nobody wants them: it warns of an application that gives no token.

    Once, until there has been a connection: all else that keeps one from connecting is the fabric's, and passes.
    """

    def __init__(self) -> None:
        self._is_said = False

    def __call__(self, state: State) -> None:
        if state.name == "connected":
            self._is_said = False
        elif state.reason.startswith(NO_TOKEN) and not self._is_said:
            self._is_said = True
            log.warning("%s; it is asked again. on_state of the listener is told each time", state.reason)


def _reason(packet: Packet) -> tuple[str, int]:
    """Why the server ends it, and the code of that: zim's `{"reason": …, "code": …}`, or any text and 0."""
    text, code = packet.body[:1000].decode(errors="replace"), 0
    with contextlib.suppress(ValueError, RecursionError, AttributeError):
        found = json.loads(text)
        code = found.get("code") if isinstance(found.get("code"), int) else 0
        text = found["reason"] if isinstance(found.get("reason"), str) else text
    return text[:200], code


def _onward(packet: Packet) -> SentElsewhere | None:
    """The error, if it is to go to another comet."""
    with contextlib.suppress(ValueError, RecursionError):
        return sent_on(_reason(packet)[0], json.loads(packet.body))
    return None


def _ending(packet: Packet) -> SentAway | None:
    """The error, if there is no use in coming back."""
    reason, code = _reason(packet)
    return SentAway(f"the server says: {reason}", code) if code in _FOR_GOOD else None
