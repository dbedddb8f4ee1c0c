"""The links between nodes. With `zap` the only importer of zmq.

What libzmq does by default is wrong for us in several places, each measured with 4.3.5 and noted at its option. Every
socket has one owner: one greenlet reads it, and sends never block.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import gevent
import zmq.green as zmq
from gevent.event import Event
from zmq.utils.monitor import recv_monitor_message

from zim.errors import NodeError
from zim.net.fairness import give_way
from zim.net.holders import in_use, refuse_taken
from zim.net.link_keys import LINKS, LinkKeys, Rest
from zim.net.names import host_and_port, is_same
from zim.net.zap import public_of

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 64 << 20  # from a peer; a push to very many users is the largest there is

_BUFFER_BYTES = 256 << 10
_HWM = 16  # counts messages, not bytes, and the kernel's buffers come on top: our own queues stand in front
_AGAIN_S = 1.0  # until who was refused knocks again
_REBIND_S = 0.05  # until an address that is still in use is bound again
_WORTH_A_WORD = 20  # of these tries
_UNTOLD = 3  # handshakes in a row that end without a word: one may just have met a peer's end

_FAILED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL


def _socket(kind: int) -> zmq.Socket[bytes]:
    try:
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    except zmq.ZMQError as e:
        raise NodeError(f"a link cannot be made: {os.strerror(e.errno or 0)}") from None
    socket.setsockopt(zmq.LINGER, 0)  # else Ctrl-C hangs on what nobody will read
    socket.setsockopt(zmq.SNDHWM, _HWM)
    socket.setsockopt(zmq.RCVHWM, _HWM)
    socket.setsockopt(zmq.SNDBUF, _BUFFER_BYTES)
    socket.setsockopt(zmq.RCVBUF, _BUFFER_BYTES)
    # A cut link is noticed by the kernel. Not by ZMTP heartbeats: while a reader is slow and its pipe full, as after
    # SIGSTOP, they break healthy links, and their timer then aborts the process (libzmq issues 3937, 4364, 4767:
    # "Assertion failed: !_io_error"; seen with 4.3.5).
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
    socket.setsockopt(zmq.TCP_MAXRT, 3000)
    # Nor does a connect wait for the kernel, which asks a machine that is away more and more seldom, for two minutes:
    # who has just come back would wait as long again.
    socket.setsockopt(zmq.CONNECT_TIMEOUT, 2000)
    socket.setsockopt(zmq.RECONNECT_IVL, 50)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
    socket.setsockopt(zmq.IPV6, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    return socket


class _Link:
    """A socket and the greenlet that reads it.

    What comes is handed to a function. A loop over an iterator would keep the last message, which may be a large one,
    until the next one comes.
    """

    def __init__(self, socket: zmq.Socket[bytes], endpoint: str) -> None:
        self.endpoint = endpoint
        self._socket = socket

    def close(self) -> None:
        """Ends it; what has not left is dropped."""
        self._socket.close()

    def _receive(self, take: Callable[[Sequence[bytes], str], object], keys: LinkKeys | None = None) -> None:
        """Hands over all that comes until it is closed, each as its frames. Switches: to wait, and to give way.

        Args:
            take: is told who has said it, too; "" without keys.
            keys: who is known. What others say is passed over, and counted.
        """
        if keys is not None:
            self._receive_of(keys, take)
            return
        while (frames := self._next()) is not None:
            take(frames, "")
            del frames
            give_way()

    def _receive_of(self, keys: LinkKeys, take: Callable[[Sequence[bytes], str], object]) -> None:
        while (parts := self._next(copy=False)) is not None:
            # A client's own metadata never stands in its place: libzmq takes up what the ZAP server said first.
            speaker = keys.name_of(parts[-1].get("User-Id"))
            frames = [part.bytes for part in parts]
            del parts
            if speaker:
                take(frames, speaker)
            else:
                keys.refused_messages += 1
            del frames
            give_way()

    def _next(self, copy: bool = True) -> Sequence[Any] | None:
        try:
            return self._socket.recv_multipart(0, copy)
        except zmq.ZMQError:
            if self._socket.closed:
                return None
            raise


class _Bound(_Link):
    """A socket that others connect to; with keys a CURVE server."""

    def __init__(self, kind: int, endpoint: str, keys: LinkKeys | None, domain: bytes) -> None:
        refuse_taken(endpoint)
        super().__init__(_socket(kind), endpoint)
        self._keys = keys if domain == LINKS else None  # of publishers no key is known
        self._secret = b"" if keys is None else keys.secret
        if keys is not None:
            self._socket.setsockopt(zmq.CURVE_SERVER, 1)
            self._socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
            self._socket.setsockopt(zmq.ZAP_DOMAIN, domain)
            self._socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # else without a ZAP server everybody is let in
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as e:
            self._socket.close()
            if e.errno == zmq.EADDRINUSE:
                raise NodeError(in_use("bind", endpoint)) from None
            raise NodeError(f"{endpoint} cannot be bound: {os.strerror(e.errno or 0)}") from None
        self._at = self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")  # as libzmq calls it
        if keys is not None:
            keys.call_on_change(lambda changed, lost: self._follow(keys, lost))

    def _follow(self, keys: LinkKeys, lost: frozenset[str]) -> Rest | None:
        """Cuts all connections where a key is not what it was: libzmq asks who somebody is at the handshake alone. Who
        may come in is back at once."""
        is_cut = keys.secret != self._secret or (self._keys is not None and lost)
        if self._socket.closed or not is_cut:
            return None
        self._secret = keys.secret
        self._socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
        with suppress(zmq.ZMQError):
            self._socket.unbind(self._at)
        return None if self._bind_again() else self._go_on_binding

    def let_nobody_in(self) -> None:
        """Who is connected stays; nobody else comes in."""
        if not self._socket.closed:
            with suppress(zmq.ZMQError):
                self._socket.unbind(self._at)

    def _bind_again(self) -> bool:
        try:
            self._socket.bind(self.endpoint)
        except zmq.ZMQError:
            return False
        return True

    def _go_on_binding(self) -> None:
        """libzmq unbinds in its own thread: for a moment the address may be in use. Switches: to wait."""
        tries = 0
        while not self._socket.closed and not self._bind_again():
            tries += 1
            if tries == _WORTH_A_WORD:
                log.error("an address cannot be bound again, and is tried on", extra={"address": self.endpoint})
            gevent.sleep(_REBIND_S)


class Inbox(_Bound):
    """PULL: takes what any number of Outlets send."""

    def __init__(self, endpoint: str, keys: LinkKeys | None = None) -> None:
        """Binds.

        Args:
            keys: who may come in; None for everybody.

        Raises:
            NodeError: the endpoint is in use, or cannot be bound.
        """
        super().__init__(zmq.PULL, endpoint, keys, LINKS)

    def receive(self, take: Callable[[bytes, str], object]) -> None:
        """Hands over every message's frame, and who has sent it, "" without keys; until it is closed. Switches."""
        self._receive(lambda frames, speaker: take(frames[-1], speaker), self._keys)


class Server(_Bound):
    """ROUTER: takes requests of any number of peers, and answers each where it came from.

    Attributes:
        dropped: answers that could not be sent: the peer is gone, or its pipe is full. It times out and asks again.
    """

    def __init__(self, endpoint: str, keys: LinkKeys | None = None, domain: bytes = LINKS) -> None:
        """Binds.

        Args:
            keys: who may come in; None for everybody.
            domain: LINKS, or PUBLISHERS, who may have any key: nobody knows who they are by it.

        Raises:
            NodeError: the endpoint is in use, or cannot be bound.
        """
        super().__init__(zmq.ROUTER, endpoint, keys, domain)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # else an answer to nobody vanishes uncounted
        self.dropped = 0

    def receive(self, take: Callable[[tuple[bytes, ...], bytes, str], object]) -> None:
        """Hands over envelope and frame of every request, and who has sent it, "" without keys; until it is closed.

        The envelope holds the empty frame of a REQ, so that it works too.

        Switches.
        """
        self._receive(lambda frames, speaker: take(tuple(frames[:-1]), frames[-1], speaker), self._keys)

    def send(self, envelope: tuple[bytes, ...], frame: bytes) -> bool:
        """Answers, or drops and counts. Never blocks: one full peer would hold up all others."""
        try:
            self._socket.send_multipart([*envelope, frame], zmq.NOBLOCK)
        except zmq.ZMQError as e:
            if e.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH, zmq.ENOTSOCK):  # the last one: it is closed
                raise
            self.dropped += 1
            return False
        return True


class _Connecting(_Link):
    """A connecting socket that knows whether somebody is there; with keys a CURVE client.

    Attributes:
        is_connected: a peer has shaken hands and its link has not been seen to break. A peer that is stopped, or whose
            link is cut, still counts as connected until TCP_MAXRT ends, with something on its way to it.
        has_name: its address is a name, so it does nothing until `names.follow` says where to connect to.
        keys: of all nodes; None if the link is not encrypted.
    """

    def __init__(self, kind: int, endpoint: str, keys: LinkKeys | None, peer: str) -> None:
        socket = _socket(kind)
        socket.setsockopt(zmq.IMMEDIATE, 1)  # else it takes 1,000 messages for a peer that is not there
        super().__init__(socket, endpoint)
        self.keys, self._peer = keys, peer
        self._is_up, self._is_down = Event(), Event()
        self._is_down.set()
        events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        self._monitor = socket.get_monitor_socket(events | _FAILED if keys is not None else events)
        self.has_name = host_and_port(endpoint) is not None
        self._at = ""  # the number that stands for its name now
        self._untold = 0
        self._is_let_in = True  # the peer has a key that we know
        if keys is not None:
            self._take_keys(keys)
        if not self.has_name:
            self._connect(endpoint)

    @property
    def is_connected(self) -> bool:
        return self._is_up.is_set()

    @property
    def trouble(self) -> str:
        """What the list of link keys says against this link, in words; "" if nothing."""
        if not self._is_let_in:
            return f"{self._peer} has no link key in the list"
        if self.keys is not None and not self.keys.is_listed:
            return "we have no link key in the list"
        return ""

    def connect_to(self, endpoint: str) -> None:
        """Gives its name the meaning of this number, unless it has it already. Does not switch."""
        if endpoint == self._at:
            return
        before, self._at = self._at, endpoint
        if before:
            self._disconnect(before)
        self._connect(endpoint)

    def take_keys(self) -> None:
        """Connects anew, with the keys as they are now. Does not switch."""
        assert self.keys is not None
        if self._socket.closed:
            return
        at = self._at or ("" if self.has_name else self.endpoint)
        if at:
            self._disconnect(at)
        self._is_up.clear()
        self._is_down.set()
        self._take_keys(self.keys)
        if at:
            self._connect(at)

    def _take_keys(self, keys: LinkKeys) -> None:
        key = keys.key_of(self._peer)
        self._is_let_in = key is not None
        if key is None:
            return
        self._socket.setsockopt(zmq.CURVE_SERVERKEY, key)
        self._socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
        self._socket.setsockopt(zmq.CURVE_PUBLICKEY, bytes.fromhex(public_of(keys.secret.hex())))

    def _connect(self, endpoint: str) -> None:
        if self._is_let_in:
            self._socket.connect(endpoint)

    def _disconnect(self, endpoint: str) -> None:
        with suppress(zmq.ZMQError):  # it is not connected, and libzmq may have let go of it
            self._socket.disconnect(endpoint)

    def wait(self, is_connected: bool, timeout_s: float | None = None) -> bool:
        """Waits until it is so, or the time is up; whether it is. Switches."""
        return bool((self._is_up if is_connected else self._is_down).wait(timeout_s))

    def watch(self) -> Iterator[bool | str]:
        """Follows the connection; yields each change of is_connected, and in words why hands were not shaken. Switches:
        to wait."""
        while True:
            event = recv_monitor_message(self._monitor)
            if self._at and not is_same(event["endpoint"].decode(), self._at):
                continue  # of a number that its name had before
            kind = event["event"]
            if kind & _FAILED:
                if why := self._why_failed(kind):
                    yield why
                if kind != zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
                    self._knock_again()
                continue
            if kind == zmq.EVENT_DISCONNECTED and not self._is_up.is_set():
                continue  # before hands were shaken: nothing has changed
            is_up = kind == zmq.EVENT_HANDSHAKE_SUCCEEDED
            now, before = (self._is_up, self._is_down) if is_up else (self._is_down, self._is_up)
            before.clear()
            now.set()
            self._untold = 0
            yield is_up

    def _why_failed(self, event: int) -> str:
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return "it does not know our link key"
        if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            return "it does not speak as we do; are its links encrypted, with [links]?"
        self._untold += 1
        return "it ends handshakes; has it the link key that our list has for it?" if self._untold == _UNTOLD else ""

    def _knock_again(self) -> None:
        """libzmq gives up for ever on a peer that refuses it. Lists of keys change, and not everywhere at once."""
        gevent.spawn_later(_AGAIN_S, self._reconnect, self._at or self.endpoint)

    def _reconnect(self, at: str) -> None:
        if not self._socket.closed and at == (self._at or self.endpoint) and not self.is_connected:
            self._disconnect(at)
            self._connect(at)

    def send(self, frame: bytes) -> bool:
        """Sends, or says that it cannot: nobody is there, or the pipe is full. Does not switch."""
        try:
            self._socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def close(self) -> None:
        self._socket.disable_monitor()
        super().close()


class Outlet(_Connecting):
    """PUSH to one Inbox."""

    def __init__(self, endpoint: str, keys: LinkKeys | None = None, peer: str = "") -> None:
        """
        Args:
            keys: of all nodes; None for a link that is not encrypted.
            peer: whose key the other end must have.
        """
        super().__init__(zmq.PUSH, endpoint, keys, peer)


class Dealer(_Connecting):
    """DEALER to one Server. One a peer, so that the asker chooses whom to ask again."""

    def __init__(self, endpoint: str, keys: LinkKeys | None = None, peer: str = "") -> None:
        """See Outlet."""
        super().__init__(zmq.DEALER, endpoint, keys, peer)

    def receive(self, take: Callable[[bytes], object]) -> None:
        """Hands over every answer's frame, until it is closed. Switches."""
        self._receive(lambda frames, _: take(frames[-1]))
