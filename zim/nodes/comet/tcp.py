"""goim's packets over TCP. An idle connection holds almost nothing; a greenlet reads it when its client speaks."""

from __future__ import annotations

from functools import partial
from typing import Any

import gevent

from zim.net.accept import PatientServer, listen
from zim.net.sockets import prepare
from zim.nodes.comet.connection import Connection
from zim.nodes.comet.edge import Edge
from zim.protocol import frame
from zim.protocol.client import Dialect


class TcpListener(PatientServer):
    """Accepts TCP clients, once started.

    Raises:
        NodeError: the address cannot be had.
    """

    def __init__(self, address: tuple[str, int], edge: Edge, keepalive_s: int) -> None:
        super().__init__(listen("tcp", address), self.do_handle)  # gevent wants a handler, but calls do_handle
        self._edge, self._keepalive_s = edge, keepalive_s
        self._read = edge.reader(partial(read, edge))

    def do_handle(self, *args: Any) -> None:
        """Takes a client, in the accept loop; refuses it when the comet is full."""
        sock = args[0]
        if not self._edge.admit():
            sock.close()
            return
        try:
            prepare(sock, self._keepalive_s)
        except OSError:  # it was gone before it was here
            sock.close()
            self._edge.release()
            return
        self._edge.serve(sock, Dialect.V1_TCP, self._read)


def read(edge: Edge, connection: Connection, rest: bytes) -> str | None:
    """See zim.nodes.comet.edge.Read.

    Raises:
        WireError: the client broke the wire.
        OSError: the connection broke, or was closed from our side.
    """
    max_bytes = edge.limits.max_packet_bytes
    while data := connection.receive(waits=bool(rest)):
        packets, rest = frame.split(rest + data, max_bytes)
        for packet in packets:
            edge.packet(connection, packet)
        if connection.is_closed or not rest:
            return None  # one read for each turn: who never stops sending must not keep others from theirs
        gevent.sleep(0)
    return None if data is None else "closed by the client"
