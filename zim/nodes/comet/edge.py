"""All connections of a comet: who may come, what their packets do, who has been silent for too long."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable

import gevent
from gevent import socket

from zim.errors import Unavailable
from zim.nodes.comet.connection import GOING_AWAY, TRY_AGAIN, Connection, Limits
from zim.nodes.comet.hub import Hub
from zim.protocol import client
from zim.protocol.client import Dialect
from zim.protocol.errors import WireError
from zim.protocol.frame import Op, Packet

log = logging.getLogger(__name__)

SWEEP_S = 1.0
BATCH = 256  # connections between two chances for others to run

# Whom a token stands for: uid and rooms. Switches; raises Unavailable.
Identify = Callable[[bytes], tuple[str, tuple[str, ...]]]

# Reads packets of a connection, and gives them to Edge.packet, until its client is silent (None) or has closed (how it
# ended). Switches. Takes the connection, and what its client has sent already.
Read = Callable[[Connection, bytes], str | None]


def _discard(connection: Connection) -> str | None:
    """After our close frame: reads on until the client closes too, or the connection's own timer closes it."""
    while data := connection.receive(waits=False):
        gevent.sleep(0)
    return None if data is None else connection.reason


class Edge:
    """See the module.

    Attributes:
        limits: for each connection.
        is_open: new connections are welcome.
    """

    def __init__(self, hub: Hub, identify: Identify, limits: Limits, max_connections: int) -> None:
        self.limits = limits
        self.is_open = True
        self._hub, self._identify, self._max_connections = hub, identify, max_connections
        self._conns = itertools.count(1)
        self._connections: dict[Connection, None] = {}
        self._readers: dict[Read, Callable[[Connection], None]] = {}
        self._places = 0

    # -- coming and going

    def admit(self) -> bool:
        """Takes a place for one more socket, or says that the comet is full. Give it back with `release`."""
        if not self.is_open or self._places >= self._max_connections:
            return False
        self._places += 1
        return True

    def release(self) -> None:
        """A socket that was admitted is closed."""
        self._places -= 1

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
        self._hub.leave(connection, time.monotonic())
        log.debug("disconnected", extra={"uid": connection.uid, "reason": connection.reason})

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
        if reply is None:
            raise WireError("operation not known")
        connection.heard()
        connection.write(reply)

    def _authenticate(self, connection: Connection, packet: Packet) -> None:
        try:
            uid, rooms = self._identify(packet.body)
        except Unavailable as e:
            log.warning("nobody to authenticate with", extra={"error": str(e)})
            connection.close("try again", TRY_AGAIN)
            return
        if connection.is_closed:
            return
        answered = connection.await_reply(packet)
        self._hub.join(connection, uid, rooms, time.monotonic())
        answered.wait()

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
