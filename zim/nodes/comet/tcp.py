"""goim's packets over TCP: one greenlet reads each connection, and holds almost nothing while it is idle."""

from __future__ import annotations

from typing import Any

import gevent
from gevent import socket

from zim.nodes.comet.accept import BACKLOG, PatientAccept, prepare
from zim.nodes.comet.connection import Connection
from zim.nodes.comet.edge import READ_BYTES, Edge
from zim.protocol import frame
from zim.protocol.client import Dialect


class TcpListener(PatientAccept):
    """Accepts TCP clients."""

    def __init__(self, address: tuple[str, int], edge: Edge, keepalive_s: int) -> None:
        super().__init__(address, self._serve, backlog=BACKLOG)
        self._edge, self._keepalive_s = edge, keepalive_s

    def do_handle(self, *args: Any) -> None:
        """Refuses a client in the accept loop when the comet is full; else gives it a greenlet."""
        if self._edge.admit():
            gevent.spawn_raw(self._serve, args[0])
        else:
            args[0].close()

    def _serve(self, sock: socket.socket, _: Any = None) -> None:
        prepare(sock, self._keepalive_s)
        self._edge.serve(sock, Dialect.V1_TCP, lambda connection: read(sock, connection, self._edge))


def read(sock: socket.socket, connection: Connection, edge: Edge) -> str:
    """Reads packets until the client closes. Switches: to read, and during auth.

    Raises:
        WireError: the client broke the wire.
        OSError: the connection broke, or was closed from our side.
    """
    max_bytes = edge.limits.max_packet_bytes
    rest = b""
    while data := sock.recv(READ_BYTES):
        packets, rest = frame.split(rest + data, max_bytes)
        for packet in packets:
            edge.packet(connection, packet)
        if len(data) == READ_BYTES:
            gevent.sleep(0)  # who never stops sending must not keep others from running
        del data, packets
    return "closed by the client"
