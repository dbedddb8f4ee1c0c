"""TCP clients, who are let in as they come."""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from zim.net.accept import PatientServer, listen
from zim.net.pipe import SocketPipe
from zim.net.sockets import prepare, shown_address
from zim.nodes.comet.edge import Edge
from zim.protocol.framings.tcp import TCP


class TcpListener(PatientServer):
    """Accepts TCP clients, once started.

    Raises:
        NodeError: the address cannot be had.
    """

    def __init__(self, address: tuple[str, int], edge: Edge, keepalive_s: int, is_anonymous: bool = False) -> None:
        super().__init__(listen("tcp", address), self.do_handle)  # gevent wants a handler, but calls do_handle
        self._edge, self._keepalive_s, self.is_anonymous = edge, keepalive_s, is_anonymous

    @override
    def do_handle(self, *args: Any) -> None:
        """Takes a client, in the accept loop; refuses one too many. No word is said: nobody knows what it speaks."""
        sock, address = args
        if self._edge.turn_away(address[0]) is not None or not self._edge.admit():
            sock.close()
            return
        try:
            prepare(sock, self._keepalive_s)
        except OSError:  # it was gone before it was here
            sock.close()
            self._edge.release()
            return
        self._edge.serve(SocketPipe(sock), TCP, shown_address(address), is_anonymous=self.is_anonymous)
