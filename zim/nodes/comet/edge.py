"""All connections of a comet: who may come, what their packets do, who has been silent for too long."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Sequence

import gevent
from gevent import socket

from zim.errors import Unavailable
from zim.fabric.streams import name_problem, room_stream, user_stream
from zim.nodes.comet.connection import GOING_AWAY, TRY_AGAIN, Connection, Limits
from zim.nodes.comet.hub import Hub
from zim.protocol import client, dialect3
from zim.protocol.client import Dialect
from zim.protocol.errors import WireError
from zim.protocol.frame import Op, Packet
from zim.protocol.messages import Authed

log = logging.getLogger(__name__)

SWEEP_S = 1.0
BATCH = 256  # connections between two chances for others to run

ANSWER_S = 2.0  # how long a client's next packet waits for the answer to its last one, which may come later

# Why connections are closed, for counting: of others there is no end.
_REASONS = (
    "closed by the client",
    "handshake timeout",
    "heartbeat timeout",
    "slow consumer",
    "the server is going away",
    "try again",
)
GAP, OTHER = "messages are missing", "other"

# Whom a token stands for. Switches; raises Unavailable.
Identify = Callable[[bytes], Authed]

# Reads packets of a connection, and gives them to Edge.packet, until its client is silent (None) or has closed (how it
# ended). Switches. Takes the connection, and what its client has sent already.
Read = Callable[[Connection, bytes], str | None]


def _discard(connection: Connection) -> str | None:
    """After our close frame: reads on until the client closes too, or the connection's own timer closes it."""
    while data := connection.receive(waits=False):
        gevent.sleep(0)
    return None if data is None else connection.reason


def _granted(connection: Connection, rooms: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of these rooms, those that the connection may join, and those that it may not."""
    may = connection.may_join
    return tuple(r for r in rooms if may is None or r in may), tuple(
        r for r in rooms if may is not None and r not in may
    )


class Edge:
    """See the module.

    Attributes:
        limits: for each connection.
        is_open: new connections are welcome.
        places: sockets that are open.
        accepted, refused: how many sockets came, and how many of them found the comet full.
        closed_for: how many connections were closed, by reason.
        broken: how many of them because their client broke the wire.
    """

    def __init__(self, hub: Hub, identify: Identify, limits: Limits, max_connections: int) -> None:
        self.limits = limits
        self.is_open = True
        self._hub, self._identify, self._max_connections = hub, identify, max_connections
        self._conns = itertools.count(1)
        self._connections: dict[Connection, None] = {}
        self._readers: dict[Read, Callable[[Connection], None]] = {}
        self.places = self.accepted = self.refused = self.broken = 0
        self.closed_for = dict.fromkeys([*_REASONS, GAP, OTHER], 0)

    # -- coming and going

    def admit(self) -> bool:
        """Takes a place for one more socket, or says that the comet is full. Give it back with `release`."""
        self.accepted += 1
        if not self.is_open or self.places >= self._max_connections:
            self.refused += 1
            return False
        self.places += 1
        return True

    def release(self) -> None:
        """A socket that was admitted is closed."""
        self.places -= 1

    def serve(self, sock: socket.socket, dialect: Dialect, read: Read, sent: bytes = b"") -> None:
        """A socket that speaks the client wire. Does not switch.

        Args:
            read: reads this dialect.
            sent: what its client has sent already.
        """
        connection = Connection(next(self._conns), dialect, sock, self.limits, self)
        self._connections[connection] = None
        if sent:
            gevent.spawn_raw(self._go_on, read, connection, sent)
        else:
            connection.park(self._readers[read])

    def reader(self, read: Read) -> Read:
        """Makes a way of reading known, once for all connections."""
        self._readers[read] = lambda connection: self._go_on(read, connection)
        return read

    def _go_on(self, read: Read, connection: Connection, sent: bytes = b"") -> None:
        """The greenlet of a connection whose client speaks. An error closes this connection and nothing else."""
        try:
            ended = _discard(connection) if connection.is_closed else read(connection, sent)
        except WireError as e:
            ended = None
            self.broken += not connection.is_closed
            connection.close(e.reason, e.code)
        except OSError as e:
            ended = e.strerror or type(e).__name__
        except Exception:
            log.exception("a connection failed", extra={"uid": connection.uid})
            ended = "failed"
        if ended is None:
            connection.park(self._readers[read])
        else:
            connection.drop(ended)

    def closed(self, connection: Connection) -> None:
        """See Owner."""
        del self._connections[connection]
        reason = connection.reason
        self.closed_for[reason if reason in _REASONS else GAP if reason.startswith("messages of ") else OTHER] += 1
        self._hub.leave(connection, time.monotonic())
        log.debug("disconnected", extra={"uid": connection.uid, "reason": connection.reason})

    def waiting_bytes(self) -> int:
        """What waits in the outboxes of all connections."""
        return sum(connection.waiting_bytes for connection in self._connections)

    # -- packets

    def packet(self, connection: Connection, packet: Packet) -> None:
        """What a client said. Switches: during auth.

        Raises:
            WireError: it may not say that here; the connection is to be closed.
        """
        if connection.is_closed:
            return
        if not connection.uid:
            if packet.op != Op.AUTH:
                raise WireError("the first packet must be auth")
            self._authenticate(connection, packet)
            return
        reply = client.answer(connection.dialect, packet)
        if reply is None and not (connection.dialect.is_zim and packet.op in (Op.JOIN, Op.LEAVE, Op.ACKNOWLEDGE)):
            raise WireError("operation not known")
        connection.heard()
        if reply is not None:
            connection.write(reply)
            return
        answered = connection.await_reply(packet)
        self._ask(connection, packet)
        answered.wait(ANSWER_S)

    def _authenticate(self, connection: Connection, packet: Packet) -> None:
        connection.dialect = connection.dialect.of_version(packet.version)
        auth = dialect3.parse_auth(packet.body) if connection.dialect.is_zim else None
        try:
            who = self._identify(packet.body if auth is None else dialect3.token(auth))
        except Unavailable as e:
            log.warning("nobody to authenticate with", extra={"error": str(e)})
            connection.close("try again", TRY_AGAIN)
            return
        if connection.is_closed:
            return
        names = [user_stream(who.uid), *map(room_stream, who.rooms)]
        if problem := next((problem for name in names if (problem := name_problem(name))), ""):
            log.error("the token handler names what cannot be", extra={"problem": problem})
            raise WireError("not a user")
        rooms, refused = who.rooms, tuple[str, ...]()
        if auth is not None:
            connection.may_join = None if who.may_join is None else (*who.rooms, *who.may_join)
            if auth.rooms is not None:
                rooms, refused = _granted(connection, auth.rooms)
        answered = connection.await_reply(packet)
        self._hub.join(connection, who.uid, rooms, time.monotonic(), auth.resume if auth else None, refused)
        answered.wait()

    def _ask(self, connection: Connection, packet: Packet) -> None:
        """What only zim's clients ask for.

        Raises:
            WireError: the packet is not what its op says.
        """
        now = time.monotonic()
        if packet.op == Op.JOIN:
            join = dialect3.parse_join(packet.body)
            rooms, refused = _granted(connection, join.rooms)
            if len(connection.rooms) + len(rooms) > dialect3.STREAMS:
                raise WireError(f"more than {dialect3.STREAMS} rooms")
            self._hub.join_rooms(connection, rooms, packet.seq, now, join.resume, refused)
        elif packet.op == Op.LEAVE:
            self._hub.leave_rooms(connection, dialect3.parse_leave(packet.body).rooms, packet.seq, now)
        else:
            offsets = dialect3.parse_acknowledge(packet.body)
            own = user_stream(connection.uid)
            if set(offsets) != {own}:
                raise WireError(f"acknowledge: only {own} has a cursor here")
            self._hub.acknowledge(connection, offsets[own], now)

    # -- time

    def sweep(self) -> None:
        """Closes who is silent for too long, before auth and after. Runs for ever."""
        while True:
            gevent.sleep(SWEEP_S)
            for i, connection in enumerate(list(self._connections)):
                if i % BATCH == BATCH - 1:
                    gevent.sleep(0)
                if connection.deadline < time.monotonic():
                    if connection.is_open:
                        connection.close("heartbeat timeout", GOING_AWAY)
                    else:
                        connection.close("handshake timeout", TRY_AGAIN if connection.uid else 0)

    def close(self) -> None:
        """The comet stops: everybody is sent away. Switches."""
        self.is_open = False
        for i, connection in enumerate(list(self._connections)):
            connection.close("the server is going away", GOING_AWAY)
            if i % BATCH == BATCH - 1:
                gevent.sleep(0)
