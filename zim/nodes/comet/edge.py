"""All connections of a comet: who may come, what their packets do, whose time is over."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Mapping

import gevent

from zim.fabric.refusals import Refusals
from zim.fabric.streams import user_stream
from zim.net.fairness import give_way
from zim.net.pipe import Pipe
from zim.nodes.comet.connection import ClientLimits, Connection
from zim.nodes.comet.doorkeeper import Doorkeeper, TurnedAway
from zim.nodes.comet.effects import (
    CursorMoved,
    Expelled,
    Gapped,
    HistoryRead,
    Joined,
    Left,
    Opened,
    SendOn,
    SessionEffect,
)
from zim.nodes.comet.elsewhere import Elsewhere
from zim.nodes.comet.gate import GRACE_S, Gate
from zim.nodes.comet.inflow import Inflow
from zim.nodes.comet.phases import SILENT, Cause, Phase
from zim.nodes.comet.runner import CometRunner
from zim.nodes.effects import Effect
from zim.protocol.endings import Ending
from zim.protocol.errors import WireError
from zim.protocol.frame import HEADER_BYTES, Op, Packet
from zim.protocol.framings.base import Alive, Framing, Goodbye
from zim.protocol.orders import Why
from zim.protocol.speech import speech
from zim.protocol.vocabularies.base import Cursors, Join, Leave, ReadHistory, Refresh, Request

log = logging.getLogger(__name__)

SWEEP_S = 1.0
_ENDINGS: Mapping[Why, Ending] = {
    "banned": Ending.BANNED,
    "kicked": Ending.KICKED,
    "sent away": Ending.SENT_AWAY,
    "replaced": Ending.REPLACED,
    "too many": Ending.TOO_MANY,
}

ANSWER_S = 2.0  # how long a client's next packet waits for the answer to its last one, which may come later


def _told_of(connection: Connection, now: float) -> dict[str, object]:
    """For the log, at its end."""
    found: dict[str, object] = {
        "reason": connection.reason,
        "client": connection.address,
        "key": connection.key if connection.uid else "",
        "seconds": round(now - connection.since, 1),
    }
    if (traffic := connection.pipe.traffic()) is not None:
        found["acked_bytes"], found["received_bytes"] = traffic
    return found


def _is_probe(connection: Connection, told: Mapping[str, object]) -> bool:
    """Whether somebody has only looked whether we live, as balancers do every other second: it came, and went."""
    said = told.get("received_bytes")
    is_by_them = connection.ending in (Ending.CLIENT, Ending.LOST)
    return is_by_them and not connection.uid and isinstance(said, int) and said <= HEADER_BYTES


class Edge:
    """See the module.

    Attributes:
        limits: for each connection that comes.
        max_connections: sockets open at once.
        gate: what clients may do; doorkeeper: who is let in by their address; inflow: how much clients may send.
        is_open: new connections are welcome.
        elsewhere: where clients go that are sent to another comet.
        places: sockets that are open.
        accepted, refused: how many sockets came, and how many of them found the comet full.
        closed_for: how many connections ended, by the word for it.
    """

    def __init__(
        self,
        runner: CometRunner,
        perform: Callable[[Iterable[Effect]], None],
        limits: ClientLimits,
        max_connections: int,
    ) -> None:
        """
        Args:
            perform: does what the runner returns.
        """
        self.limits = limits
        self.is_open = True
        self._hub, self._perform = runner.hub, perform
        self.doorkeeper, self.inflow = Doorkeeper(), Inflow()
        self.elsewhere = Elsewhere()
        self.gate = Gate(runner, perform)
        self.max_connections = max_connections
        self._conns = itertools.count(1)
        self._connections: dict[Connection, None] = {}
        self._on_speaking = self._speak  # one object for all who are parked
        self.places = self.accepted = self.refused = 0
        self.closed_for = {ending.word: 0 for ending in Ending}

    # -- coming and going

    def turn_away(self, host: str, *, is_admitted: bool = False) -> TurnedAway | None:
        """Looks at the address of a client before anything else is done for it: why it is not let in, or None.

        Args:
            host: its address without a port; that of the client, not of what stands in front.
            is_admitted: it has a place already: a proxy has said only then whose connection it is.
        """
        found = self.doorkeeper.look(host, time.monotonic())
        self.accepted += found is not None and not is_admitted  # else it is counted by `admit`
        return found

    def admit(self) -> bool:
        """Takes a place for one more socket, or says that the comet is full. Give it back with `release`."""
        self.accepted += 1
        if not self.is_open or self.places >= self.max_connections:
            self.refused += 1
            return False
        self.places += 1
        return True

    def release(self) -> None:
        """A socket that was admitted is closed."""
        self.places -= 1

    def serve(
        self,
        pipe: Pipe,
        framing: Framing,
        address: str,
        sent: bytes = b"",
        cookie: bytes = b"",
        is_anonymous: bool = False,
    ) -> None:
        """A client that was admitted. Does not switch.

        Args:
            address: of the client, `127.0.0.1:54321`.
            sent: what it has sent already.
            cookie: a token that its browser has shown.
            is_anonymous: it may come without a token.
        """
        connection = Connection(next(self._conns), speech(framing), pipe, address, self.limits, self)
        connection.cookie, connection.is_anonymous = cookie, is_anonymous
        self._connections[connection] = None
        if sent:
            gevent.spawn_raw(self._speak, connection, sent)
        else:
            pipe.park(self._on_speaking, connection)

    def _speak(self, connection: Connection, sent: bytes = b"") -> None:
        """The greenlet of a connection whose client speaks. An error closes this connection and nothing else."""
        try:
            ended = self._read(connection, sent)
        except WireError as e:
            ended = None
            connection.close(e.ending, e.reason, e.code)
        except OSError as e:
            ended = e.strerror or type(e).__name__
        except Exception:
            log.exception("a connection failed", extra={"uid": connection.uid})
            ended = "failed"
        if ended is None:
            connection.pipe.park(self._on_speaking, connection)
        else:
            connection.drop(ended)

    def _read(self, connection: Connection, data: bytes) -> str | None:
        """Takes what its client says until it is silent (None) or has closed (""). Switches.

        Once it is over nothing is taken any more, until the client closes too, or the connection's own timer does.

        Raises:
            WireError: the client broke the wire.
            OSError: the connection broke, or was closed from our side.
        """
        receive = connection.pipe.receive
        reader = connection.speech.framing.reader(self.limits.max_packet_bytes)
        found = data or receive(waits=False)
        while found:
            if not connection.phase.is_over:
                said = self._take(connection, reader.receive(found))
                if self.inflow.is_on:
                    self._slow_down(connection, said, len(found))
                if connection.phase.is_over or not reader.is_within:
                    return None  # one read for each turn: who never stops sending must not keep others from theirs
            give_way()
            found = None  # not to be held while the next is waited for
            found = receive(waits=not connection.phase.is_over)
        return None if found is None else ""

    def _slow_down(self, connection: Connection, packets: int, size: int) -> None:
        """Its client has sent so much. Switches: while that is too much, and nothing is read.

        Raises:
            WireError: it goes on like that.
        """
        self.inflow.came(connection.conn, packets, size, time.monotonic())
        while not connection.phase.is_over and (
            pause_s := self.inflow.pause_s(connection.conn, connection.address, time.monotonic())
        ):
            if self.inflow.goes_on(connection.conn):
                raise WireError(Ending.TOO_FAST.word, ending=Ending.TOO_FAST)
            gevent.sleep(pause_s)
            connection.heard()  # it could not be

    def _take(self, connection: Connection, came: Iterable[Packet | Alive | Goodbye]) -> int:
        """All that came at once; returns how many there were. Switches: until packets are answered.

        Raises:
            WireError: see `_read`.
        """
        alive: Alive | None = None
        count = 0
        try:
            for said in came:
                count += 1
                if isinstance(said, Alive):
                    alive = said if said.reply or alive is None else alive
                    continue
                self._on_alive(connection, alive)
                alive = None
                if isinstance(said, Packet):
                    self.on_packet(connection, said)
                else:
                    connection.close(Ending.CLIENT, code=said.code)
                if connection.phase.is_over:
                    break
        finally:
            self._on_alive(connection, alive)
        return count

    def _on_alive(self, connection: Connection, alive: Alive | None) -> None:
        """Of many pings in a row only the last one is answered (RFC 6455 5.5.3)."""
        if alive is not None and not connection.phase.is_over:
            connection.heard()
            if alive.reply:
                connection.write(alive.reply)

    def on_closed(self, connection: Connection) -> None:
        """Its socket is closed. Does not switch."""
        del self._connections[connection]
        now = time.monotonic()
        self.inflow.forget(connection.conn)
        self.gate.forget(connection)
        self.closed_for[connection.ending.word] += 1
        told = _told_of(connection, now)
        log.log(logging.DEBUG if _is_probe(connection, told) else logging.INFO, "disconnected", extra=told)
        self._perform(self._hub.leave(connection, now))

    @property
    def refusals(self) -> tuple[Refusals, ...]:
        """What limits have refused here."""
        return self.doorkeeper.refusals, self.inflow.refusals, self.gate.refusals

    def waiting_bytes(self) -> int:
        """What waits in the outboxes of all connections."""
        return sum(connection.waiting_bytes for connection in self._connections)

    # -- effects

    def perform(self, effect: SessionEffect) -> None:
        """Tells a client something. Does not switch."""
        connection = effect.session
        assert isinstance(connection, Connection)
        match effect:
            case Opened(starts=starts):
                connection.open(starts)
                fields = {"key": connection.key, "client": connection.address, "rooms": len(connection.rooms)}
                log.info("connected", extra=fields)
            case Joined(seq=seq, starts=starts):
                connection.tell(connection.vocabulary.encode_joined(seq, starts), Join)
            case Left(seq=seq, streams=streams, reason=reason):
                connection.tell(connection.vocabulary.encode_left(seq, streams, reason), Leave)
            case Expelled():
                ending = _ENDINGS[effect.why]
                connection.close(ending, ending.because(effect.reason))
            case SendOn(to=to, after_s=after_s):
                connection.close(Ending.DRAINED, onward=self.elsewhere.onward(connection, to, after_s))
            case HistoryRead(seq=seq, past=past):
                self.gate.tell_history(connection, past, seq)
            case CursorMoved(stream=stream, offset=offset):
                seq = connection.seq_of(Cursors)
                connection.tell(connection.vocabulary.encode_acknowledged(seq, stream, offset), Cursors)
            case Gapped(missed=missed, is_kept=is_kept):
                packet = connection.vocabulary.encode_missed(missed)
                if packet is None and is_kept:  # a client that cannot be told is closed, and comes back fresh
                    why = f"messages of {missed.stream} are missing: {missed.reason}"
                    connection.close(Ending.MISSING, why)
                connection.tell(packet)

    # -- packets

    def on_packet(self, connection: Connection, packet: Packet) -> None:
        """What a client said. Switches: until it is answered.

        Raises:
            WireError: it may not say that here; the connection is to be closed.
        """
        phase = connection.on(Cause.AUTH if packet.op == Op.AUTH else Cause.PACKET)
        if phase is Phase.AUTHENTICATING:
            self.gate.log_in(connection, packet)
        elif phase is Phase.OPEN:
            said = connection.vocabulary.parse(packet)
            connection.heard()
            if isinstance(said, Packet):
                connection.write(connection.speech.framing.encode(said))
            else:
                answered = connection.await_reply(packet, type(said))
                self._ask(connection, said, packet.seq)
                if not answered.wait(ANSWER_S) and isinstance(said, ReadHistory):
                    self.gate.give_up_history(connection, said, packet.seq)

    def _ask(self, connection: Connection, request: Request, seq: int) -> None:
        """What others decide.

        Raises:
            WireError: its client may not have that.
        """
        if isinstance(request, Join):
            self.gate.join(connection, request, seq)
        elif isinstance(request, Refresh):
            self.gate.refresh(connection, request, seq)
        elif isinstance(request, ReadHistory):
            self.gate.read_history(connection, request, seq)
        elif isinstance(request, Leave):
            self.gate.leave(connection, request, seq)
        else:
            own = user_stream(connection.uid)
            if set(request.offsets) != {own}:
                raise WireError(f"acknowledge: only {own} has a cursor here", ending=Ending.REQUEST)
            self._perform(self._hub.acknowledge(connection, request.offsets[own], time.monotonic()))

    # -- time

    def sweep(self) -> None:
        """Closes who is silent for too long, before auth and after, and whose grant is over. Runs for ever."""
        while True:
            gevent.sleep(SWEEP_S)
            for connection in list(self._connections):
                give_way()
                now = time.monotonic()
                if connection.phase.is_over:
                    continue
                if connection.deadline < now:
                    connection.close(SILENT[connection.phase])
                elif connection.expires + GRACE_S < now:
                    connection.close(Ending.EXPIRED)

    def close_barred(self) -> None:
        """Closes who comes from a banned network. Switches: others have their turn."""
        for connection in list(self._connections):
            give_way()
            if not connection.phase.is_over and (why := self._hub.barred.reason(connection.host)) is not None:
                connection.close(Ending.BANNED, Ending.BANNED.because(why))

    def close(self) -> None:
        """The comet stops: everybody is sent away. Switches."""
        self.is_open = False
        for connection in list(self._connections):
            connection.close(Ending.GOING_AWAY)
            give_way()
