"""WebSocket clients: gevent-websocket for the upgrade and for reading frames, with what version 0.10.1 lacks around it.

It takes frames of any size: there is a limit. It takes unmasked frames: RFC 6455 5.1 wants the connection closed. It
writes pongs and closes straight to the socket: here all goes through the connection, the only writer. It validates
UTF-8 and unmasks byte by byte in Python: here both are one call in C. And its environment and handler would stay in
memory behind every connection: here they go once the upgrade is done.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
from gevent import pywsgi, socket
from geventwebsocket.exceptions import ProtocolError, WebSocketError
from geventwebsocket.handler import WebSocketHandler
from geventwebsocket.websocket import Header, WebSocket

from zim.net.accept import PatientServer, listen
from zim.net.sockets import prepare
from zim.nodes.comet.connection import READ_BYTES, Connection
from zim.nodes.comet.edge import Edge
from zim.protocol import client, websocket
from zim.protocol.client import Dialect
from zim.protocol.errors import WireError

log = logging.getLogger(__name__)

PATH = "/sub"
VERSION = "13"  # RFC 6455 4.4
HEAD_BYTES = 16 << 10  # of a request's head

_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


# ---------------------------------------------------------------- the upgrade


class _Head:
    """A request's head, as the file that pywsgi reads; what the client sent after it is left in `rest`."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._left = HEAD_BYTES
        self.rest = b""
        self.closed = False

    def readline(self, limit: int = HEAD_BYTES) -> bytes:
        """One line with its end, or what came before the client closed. Switches."""
        while (end := self.rest.find(b"\n", 0, limit) + 1) == 0 and len(self.rest) < limit:
            data = self._socket.recv(min(READ_BYTES, self._left)) if self._left else b""
            if not data:
                break
            self._left -= len(data)
            self.rest += data
        line = self.rest[: end or limit]
        self.rest = self.rest[len(line) :]
        return line

    def read(self, size: int = -1) -> bytes:
        """Nothing: a request that becomes a WebSocket has no body."""
        return b""


class _Handler(WebSocketHandler):  # type: ignore[misc]
    """Upgrades, hands the socket over, and is forgotten."""

    server: WebSocketListener
    socket: Any = None
    websocket: Any
    is_adopted = False

    def __init__(self, sock: socket.socket, address: Any, server: WebSocketListener) -> None:
        super().__init__(sock, address, server, rfile=_Head(sock))

    def run_application(self) -> None:
        """Other paths, methods and broken requests get an answer in words; `/sub` is upgraded."""
        environ = self.environ
        if environ["PATH_INFO"] != PATH:
            self._refuse("404 Not Found", f"WebSocket clients connect to {PATH}")
        elif environ["REQUEST_METHOD"] != "GET":
            self._refuse("405 Method Not Allowed", "a WebSocket upgrade is a GET", [("Allow", "GET")])
        elif self.request_version != "HTTP/1.1" or not _is_key(environ.get("HTTP_SEC_WEBSOCKET_KEY", "")):
            self._refuse("400 Bad Request", "not a WebSocket upgrade: see RFC 6455, section 4.1")
        elif environ.get("HTTP_SEC_WEBSOCKET_VERSION") != VERSION:
            self._refuse("426 Upgrade Required", "only version 13 is spoken", [("Sec-WebSocket-Version", VERSION)])
        else:
            super().run_application()

    def _refuse(self, status: str, text: str, headers: list[tuple[str, str]] | None = None) -> None:
        self.close_connection = True
        self.start_response(status, [("Content-Type", "text/plain"), ("Connection", "close"), *(headers or [])])
        self.result = [text.encode() + b"\n"]
        self.process_result()

    def run_websocket(self) -> None:
        """The 101 is out: the socket goes to a greenlet of its own, and nothing of the request stays."""
        sock, rest = self.socket, self.rfile.rest
        self.websocket.closed = True  # its __del__ would write a close frame into the client's stream
        self.socket = self.websocket = None
        self.is_adopted = True
        self.wsgi_input = pywsgi.Input(self.rfile, None)
        self.server.adopt(sock, rest)

    def log_request(self) -> None:
        """No access log."""

    def log_error(self, msg: str, *args: Any) -> None:
        """A client that breaks HTTP is not the operator's business."""
        log.debug("bad request", extra={"error": msg % args if args else msg})

    def _log_error(self, t: Any, v: Any, tb: Any) -> None:
        log.error("upgrade failed", exc_info=(t, v, tb))

    def _handle_client_error(self, ex: Exception) -> Any:
        self.log_error("%s", repr(ex))
        return "400", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def _is_key(key: str) -> bool:
    """Sec-WebSocket-Key: 16 bytes in base64 (RFC 6455 4.1)."""
    try:
        return len(base64.b64decode(key.strip(), validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _no_application(environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
    start_response("426 Upgrade Required", [("Upgrade", "websocket"), ("Connection", "close, Upgrade")])
    return [b"this address speaks WebSocket\n"]


class WebSocketListener(PatientServer, pywsgi.WSGIServer):
    """Accepts WebSocket clients, once started.

    Raises:
        NodeError: the address cannot be had.
    """

    handler_class = _Handler
    logger = logging.getLogger("zim.nodes.comet.websocket.upgrade")  # gevent-websocket would make one that prints

    def __init__(self, address: tuple[str, int], edge: Edge, keepalive_s: int) -> None:
        environ = {"SERVER_NAME": address[0]}  # else pywsgi asks the DNS for it
        sock = listen("ws", address)
        pywsgi.WSGIServer.__init__(self, sock, _no_application, log=None, error_log=self.logger, environ=environ)
        self.logger.setLevel(logging.ERROR)
        self._edge, self._keepalive_s = edge, keepalive_s
        self._read = edge.reader(partial(read, edge))

    def do_handle(self, *args: Any) -> None:
        """Refuses a client in the accept loop when the comet is full; else gives it a greenlet."""
        if self._edge.admit():
            gevent.spawn(self._upgrade, *args)
            return
        sock = args[0]
        try:
            sock._sock.send(_FULL)
        except OSError:
            pass
        finally:
            sock.close()

    def _upgrade(self, sock: socket.socket, address: Any) -> None:
        handler: _Handler | None = None
        try:
            prepare(sock, self._keepalive_s)
            with gevent.Timeout(self._edge.limits.handshake_timeout_s, False):  # type: ignore[arg-type]
                handler = _Handler(sock, address, self)
                handler.handle()
        except OSError:
            pass  # it was gone before it was here
        except Exception:
            log.exception("an upgrade failed")
        finally:
            if handler is None or not handler.is_adopted:
                sock.close()
                self._edge.release()

    def adopt(self, sock: socket.socket, rest: bytes) -> None:
        """Takes over a socket after its upgrade, with what its client sent already."""
        self._edge.serve(sock, Dialect.V1_TEXT, self._read, rest)


# ---------------------------------------------------------------- reading


class _Stream:
    """The file that gevent-websocket reads: exactly what it asks for, or what came before the client closed."""

    __slots__ = ("_connection", "_has_read", "_rest")

    def __init__(self, connection: Connection, rest: bytes) -> None:
        self._connection, self._rest = connection, rest
        self._has_read = bool(rest)

    def begin(self) -> bool | None:
        """Whether a message begins; False if the client has closed, None if this turn is over. Does not switch.

        One read for each turn: who never stops sending must not keep others from theirs.
        """
        if self._rest:
            return True
        if self._has_read:
            return None
        self._has_read = True
        data = self._connection.receive(waits=False)
        if data is None:
            return None
        self._rest = data
        return bool(data)

    def read(self, size: int) -> bytes:
        """Switches."""
        while len(self._rest) < size:
            gevent.sleep(0)
            data = self._connection.receive(waits=True)
            if not data:
                break
            self._rest += data
        found, self._rest = self._rest[:size], self._rest[size:]
        return found


class _NoValidator:
    def reset(self) -> None:
        """A message is validated when it is whole, by the decoder."""


class _Reader(WebSocket):  # type: ignore[misc]
    """gevent-websocket's reading side, strict and bounded. What it answers goes through the connection."""

    __slots__ = ("_connection", "_max_bytes", "_size")

    utf8validator = _NoValidator()

    def __init__(self, stream: _Stream, connection: Connection, max_bytes: int) -> None:
        self.stream: _Stream = stream  # type: ignore[misc]
        self.raw_read, self.closed = stream.read, False  # type: ignore[misc]
        self._connection, self._max_bytes, self._size = connection, max_bytes, 0

    def __del__(self) -> None:
        """The base class would send a close frame here."""

    def read_frame(self) -> tuple[Header, bytes]:
        """One frame, unmasked. Switches.

        Raises:
            WireError: it breaks RFC 6455, or its message is too large.
            WebSocketError: the client is gone.
        """
        header = Header.decode_header(self.stream)
        if header.flags:
            raise WireError("reserved bits are set", 1002)
        if not header.mask:
            raise WireError("clients must mask their frames", 1002)
        if header.opcode in (websocket.TEXT, websocket.BINARY):
            self._size = 0
        if header.opcode < websocket.CLOSE:
            self._size += header.length
            if self._size > self._max_bytes:
                raise WireError("message too large", 1009)
        payload = self.raw_read(header.length) if header.length else b""
        if len(payload) != header.length:
            raise WebSocketError("closed within a frame")
        return header, websocket.unmask(payload, header.mask)

    def validate_utf8(self, payload: bytes) -> None:
        """See _NoValidator."""

    def _decode_bytes(self, bytestring: bytes) -> str:
        return bytestring.decode()

    def handle_ping(self, header: Header, payload: bytes) -> None:
        """RFC 6455 5.5.2."""
        self._heard()
        self._connection.write(websocket.frame(websocket.PONG, payload))

    def handle_pong(self, header: Header, payload: bytes) -> None:
        """A sign of life."""
        self._heard()

    def _heard(self) -> None:
        if self._connection.is_open:  # else the time for the handshake goes on
            self._connection.heard()

    def close(self, code: int = 1000, message: Any = b"") -> None:
        """The client closes: it gets its code back (RFC 6455 5.5.1)."""
        self._connection.close("closed by the client", code)


def read(edge: Edge, connection: Connection, rest: bytes) -> str | None:
    """See zim.nodes.comet.edge.Read.

    Raises:
        WireError: the client broke the wire.
        OSError: the connection broke, or was closed from our side.
    """
    stream = _Stream(connection, rest)
    reader = _Reader(stream, connection, edge.limits.max_packet_bytes)
    while is_there := stream.begin():
        try:
            message = reader.read_message()
        except UnicodeError:
            raise WireError("text must be UTF-8", 1007) from None
        except ProtocolError:  # its text shows our memory
            raise WireError("not a frame of RFC 6455", 1002) from None
        except WebSocketError as e:
            return str(e)
        if message is None:
            return None  # it said goodbye, and got its answer: it hangs up next
        if not isinstance(message, str):
            raise WireError("binary frames speak goim v2, which is not spoken here: send text", 1003)
        edge.packet(connection, client.parse_text(message.encode()))
        if connection.is_closed:
            return None
    return None if is_there is None else "closed by the client"
