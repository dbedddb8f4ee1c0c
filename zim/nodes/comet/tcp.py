"""TCP clients, who are let in as they come."""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from zim.net.accept import PatientServer, listen
from zim.net.handshakes import Handshakes
from zim.net.sockets import prepare, shown_address
from zim.net.tls import AnySocket, pipe_of
from zim.nodes.comet.edge import Edge
from zim.protocol.framings.tcp import TCP


class TcpListener(PatientServer):
    """Accepts TCP clients, once started.

    Raises:
        NodeError: the address cannot be had.
    """

    def __init__(
        self,
        address: tuple[str, int],
        edge: Edge,
        keepalive_s: int,
        handshakes: Handshakes,
        is_anonymous: bool = False,
    ) -> None:
        super().__init__(listen("tcp", address), self.do_handle)  # gevent wants a handler, but calls do_handle
        self._edge, self._keepalive_s, self.is_anonymous = edge, keepalive_s, is_anonymous
        self._handshakes = handshakes

    @override
    def do_handle(self, *args: Any) -> None:
        """Takes a client, in the accept loop; refuses one too many. No word is said: nobody knows what it speaks."""
        sock, address = args
        is_known = not self._handshakes.may_be_anothers(address)
        if (is_known and self._edge.turn_away(address[0])) or not self._edge.admit():
            sock.close()
        elif prepare(sock, self._keepalive_s):
            self._handshakes.begin(sock, address, self._serve, self._edge.release)
        else:
            self._edge.release()

    def _serve(self, sock: AnySocket, address: tuple[Any, ...]) -> None:
        if self._handshakes.introduces and self._edge.turn_away(address[0], is_admitted=True):
            sock.close()
            self._edge.release()
            return
        self._edge.serve(pipe_of(sock), TCP, shown_address(address), is_anonymous=self.is_anonymous)

    @override
    def close(self) -> None:
        super().close()
        self._handshakes.close()
