"""WebSocket clients: gevent-websocket for the upgrade. From then on their frames are read and written by zim alone.

Its environment, handler and reader would stay in memory behind every connection: here they go once the upgrade is
done. And its reader takes frames of any size, also unmasked ones, and answers pings straight to the socket.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from io import BytesIO
from typing import Any

import gevent
from gevent import pywsgi, socket
from geventwebsocket.handler import WebSocketHandler
from typing_extensions import override

from zim.net.accept import Farewell, PatientServer, listen
from zim.net.handshakes import Handshakes
from zim.net.http1 import Bodies, BodyLimits, Refused, Requests
from zim.net.pipe import READ_BYTES
from zim.net.sockets import prepare, shown_address
from zim.net.tls import AnySocket, pipe_of
from zim.net.visitors import ANYBODY, Visitors
from zim.nodes.comet.doorkeeper import TurnedAway
from zim.nodes.comet.edge import Edge
from zim.protocol.framings.base import Framing
from zim.protocol.framings.text import PATH, TEXT

log = logging.getLogger(__name__)

VERSION = "13"  # RFC 6455 4.4
_OFFER = ("Upgrade", "websocket")
_BY_A_PROXY = "; a proxy in between has to speak HTTP/1.1 and to pass on Upgrade and Connection"

_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def _read_head(sock: AnySocket) -> tuple[dict[str, Any], bytes] | None:
    """The head of a request, as WSGI has it, and what came behind it; nothing if the client has closed.

    Switches.

    Raises:
        Refused: it breaks HTTP, or a limit.
    """
    requests = Requests(Bodies(), BodyLimits(0), upgrades=True)
    try:
        while not requests.ready:
            if why := requests.refused:
                if why.status == 413 and _problem(requests.environ):  # a push, say: the head alone says what is wrong
                    return requests.environ, b""
                raise why
            data = sock.recv(READ_BYTES)
            if not data:
                return None
            requests.feed(data)
            del data  # not to be held while the next is waited for
        return requests.ready[0].environ, requests.rest
    finally:
        requests.close()


class _Handler(WebSocketHandler):  # type: ignore[misc]
    """Upgrades, hands the socket over, and is forgotten."""

    server: WebSocketListener
    socket: Any = None
    websocket: Any
    is_adopted = False

    def __init__(
        self, sock: AnySocket, address: Any, server: WebSocketListener, head: dict[str, Any], rest: bytes
    ) -> None:
        super().__init__(sock, address, server, rfile=BytesIO())
        self._head, self._rest = head, rest

    @override
    def handle_one_request(self) -> None:
        """What pywsgi would read has been read."""
        self.wsgi_input = pywsgi.Input(self.rfile, None)
        self.environ = {**self.server.get_environ(), **self._head, "wsgi.input": self.wsgi_input}
        self.command, self.request_version = self.environ["REQUEST_METHOD"], self.environ["SERVER_PROTOCOL"]
        self.requestline = self.path = self.environ["PATH_INFO"]
        self.response_length, self.close_connection = 0, self.request_version == "HTTP/1.0"
        self.application = self.server.application
        self.handle_one_response()

    @override
    def run_application(self) -> None:
        """Other paths, methods and broken requests get an answer in words; `/sub` is upgraded."""
        environ = self.environ
        if why := self.server.visitors.refusal(environ):
            self._refuse("403 Forbidden", why)
        elif problem := _problem(environ):
            self._refuse(*problem)
        else:
            environ["HTTP_UPGRADE"] = "websocket"  # RFC 6455 4.2.1: it may stand among others
            super().run_application()

    def _refuse(self, status: str, why: str, *headers: tuple[str, str]) -> None:
        self.server.say_refused(int(status[:3]), why, self.client_address)
        self.close_connection = True
        self.start_response(status, [("Content-Type", "text/plain"), ("Connection", "close"), *headers])
        self.result = [why.encode() + b"\n"]
        self.process_result()

    @override
    def run_websocket(self) -> None:
        """The 101 is out: the socket goes to a greenlet of its own, and nothing of the request stays."""
        sock, rest, cookies = self.socket, self._rest, str(self._head.get("HTTP_COOKIE", ""))
        self.websocket.closed = True  # its __del__ would write a close frame into the client's stream
        self.socket = self.websocket = None
        self.is_adopted = True
        self.wsgi_input = pywsgi.Input(self.rfile, None)
        self.server.adopt(sock, shown_address(self.client_address), rest, cookies)

    @override
    def log_request(self) -> None:
        """No access log."""

    @override
    def log_error(self, msg: str, *args: Any) -> None:
        """A client that breaks HTTP is not the operator's business."""
        log.debug("bad request", extra={"error": msg % args if args else msg})

    @override
    def _log_error(self, t: Any, v: Any, tb: Any) -> None:
        log.error("upgrade failed", exc_info=(t, v, tb))

    @override
    def _handle_client_error(self, ex: Exception) -> Any:
        self.log_error("%s", repr(ex))
        return "400", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def _problem(environ: Mapping[str, Any]) -> tuple[str, str] | tuple[str, str, tuple[str, str]] | None:
    """Why a request is no upgrade (RFC 6455 4.2.1): the status, words, and a header that says what would be right."""
    if environ["PATH_INFO"] != PATH:
        return "404 Not Found", f"WebSocket clients connect to {PATH}; pushes go to a logic's `http`"
    if environ["REQUEST_METHOD"] != "GET":
        return "405 Method Not Allowed", "a WebSocket upgrade is a GET", ("Allow", "GET")
    if (version := environ["SERVER_PROTOCOL"]) != "HTTP/1.1":
        return "400 Bad Request", f"WebSocket needs HTTP/1.1, not {version}{_BY_A_PROXY}"
    if not environ.get("HTTP_UPGRADE"):
        return "426 Upgrade Required", f"no WebSocket upgrade: Upgrade is missing{_BY_A_PROXY}", _OFFER
    if "upgrade" not in _names(environ.get("HTTP_CONNECTION", "")):
        return "426 Upgrade Required", f"no WebSocket upgrade: Connection does not name it{_BY_A_PROXY}", _OFFER
    if "websocket" not in _names(environ["HTTP_UPGRADE"]) or not _is_key(environ.get("HTTP_SEC_WEBSOCKET_KEY", "")):
        return "400 Bad Request", "not a WebSocket upgrade: see RFC 6455, section 4.1"
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != VERSION:
        return "426 Upgrade Required", "only version 13 is spoken", ("Sec-WebSocket-Version", VERSION)
    return None


def _names(header: str) -> list[str]:
    return [name.strip().lower() for name in header.split(",")]


def _is_key(key: str) -> bool:
    """Sec-WebSocket-Key: 16 bytes in base64 (RFC 6455 4.1)."""
    try:
        return len(base64.b64decode(key.strip(), validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _cookie(cookies: str, name: str) -> bytes:
    """The value of one of them; nothing if it is not there, or there twice (RFC 6265 4.2)."""
    pairs = [pair.strip().partition("=") for pair in cookies.split(";")]
    values = [value.strip().strip('"') for key, _, value in pairs if key == name]
    return values[0].encode("latin-1", "replace") if len(values) == 1 else b""


def _refusal(why: Refused) -> bytes:
    text = f"{why}\n".encode()
    head = f"HTTP/1.1 {why.status} {HTTPStatus(why.status).phrase}\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text


def _turned_away(why: TurnedAway) -> bytes:
    head = f"HTTP/1.1 {why.status} {HTTPStatus(why.status).phrase}\r\nRetry-After: {why.retry_after_s}\r\n"
    return f"{head}Connection: close\r\nContent-Length: 0\r\n\r\n".encode()


def _no_application(environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
    raise AssertionError("what is no upgrade has been refused")


class WebSocketListener(PatientServer, pywsgi.WSGIServer):
    """Accepts WebSocket clients, once started.

    Attributes:
        refused: how many upgrades were refused, by the status that they were answered.

    Raises:
        NodeError: the address cannot be had.
    """

    handler_class = _Handler
    logger = logging.getLogger("zim.nodes.comet.websocket.upgrade")  # gevent-websocket would make one that prints

    def __init__(
        self,
        address: tuple[str, int],
        edge: Edge,
        keepalive_s: int,
        handshakes: Handshakes,
        visitors: Visitors = ANYBODY,
        framing: Framing = TEXT,
        is_anonymous: bool = False,
        cookie: str = "",
    ) -> None:
        """
        Args:
            is_anonymous: people may come without a token.
            cookie: the name of the one that has a token; "" for none.
        """
        environ = {"SERVER_NAME": address[0]}  # else pywsgi asks the DNS for it
        sock = listen("ws", address)
        pywsgi.WSGIServer.__init__(self, sock, _no_application, log=None, error_log=self.logger, environ=environ)
        self.logger.setLevel(logging.ERROR)
        self._edge, self._keepalive_s, self._framing = edge, keepalive_s, framing
        self._handshakes, self._farewell = handshakes, Farewell()
        self.refused: Counter[int] = Counter()
        self.is_anonymous, self.cookie, self.visitors = is_anonymous, cookie, visitors

    @override
    def do_handle(self, *args: Any) -> None:
        """Refuses one client too many in the accept loop; else gives it a greenlet."""
        sock, address = args
        turned_away = None if self._handshakes.may_be_anothers(address) else self._edge.turn_away(address[0])
        if turned_away is not None:
            self._say(sock, _turned_away(turned_away))
        elif not self._edge.admit():
            self._say(sock, _FULL)
        elif prepare(sock, self._keepalive_s):
            self._handshakes.begin(sock, address, self._begin, self._edge.release)
        else:
            self._edge.release()

    def _say(self, sock: socket.socket, words: bytes) -> None:
        """The last words to one that is not let in; none where TLS would have to come before."""
        if self._handshakes.is_none:
            self._farewell.say(sock, words)
        else:
            sock.close()

    def _begin(self, sock: AnySocket, address: tuple[Any, ...]) -> None:
        gevent.spawn(self._upgrade, sock, address)

    def _upgrade(self, sock: AnySocket, address: tuple[Any, ...]) -> None:
        handler: _Handler | None = None
        try:
            with gevent.Timeout(self._edge.limits.handshake_timeout_s, False):  # type: ignore[arg-type]
                if (found := _read_head(sock)) is not None:
                    peer, address = address, self._handshakes.client(address, found[0])
                    is_anothers = self._handshakes.introduces or address[0] != peer[0]
                    if is_anothers and (why := self._edge.turn_away(address[0], is_admitted=True)):
                        sock.sendall(_turned_away(why))
                        return
                    handler = _Handler(sock, address, self, *found)
                    handler.handle()
        except Refused as refused:
            self.say_refused(refused.status, str(refused), address)
            with suppress(OSError):
                pipe_of(sock).send(_refusal(refused))
        except OSError:
            pass  # it was gone before it was here
        except Exception:
            log.exception("an upgrade failed")
        finally:
            if handler is None or not handler.is_adopted:
                sock.close()
                self._edge.release()

    def say_refused(self, status: int, why: str, address: tuple[Any, ...]) -> None:
        """Counts an upgrade that was refused, and says so in the log."""
        self.refused[status] += 1
        # 403: a page is after us, or a name is not said.
        level = logging.WARNING if status == 403 else logging.INFO
        log.log(level, "request refused", extra={"status": status, "reason": why, "client": shown_address(address)})

    @override
    def close(self) -> None:
        super().close()
        self._handshakes.close()

    def adopt(self, sock: AnySocket, address: str, rest: bytes, cookies: str) -> None:
        """Takes over a socket after its upgrade, with what its client sent already, and the cookies of its browser."""
        cookie = _cookie(cookies, self.cookie) if self.cookie else b""
        self._edge.serve(pipe_of(sock), self._framing, address, rest, cookie, self.is_anonymous)
