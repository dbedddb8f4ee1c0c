"""The HTTP server under the app: gevent's pywsgi listens and accepts, what is said on a connection is decided here.

pywsgi's own handler has no time limit for reading, reads bodies that it refuses to their end, prints a traceback for
some broken requests, and sends an answer in two packets. Here a request is read whole, within a time and a size, before
the app sees it; so the app never waits for a client, and no time limit of the reading runs while it works.

Nothing that a client does is worth more than a debug line in the log.
"""

from __future__ import annotations

import errno
import logging
import socket
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import gevent
import gevent.socket
from gevent.pywsgi import WSGIServer

from zim.errors import NodeError
from zim.web.head import BadRequest, Head, parse_head
from zim.web.reading import read_chunks, read_exactly, read_head

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 10_000  # open at once; above it the kernel's backlog waits
BACKLOG = 1_024
LINGER_S = 1.0  # how long, and
LINGER_READS = 64  # for how many reads of 16 kB, a refused client may go on sending before it is reset
ACCEPT_PAUSE_S = 0.1  # before the next try when the machine has no more files or memory

_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_REFUSAL = b'{"ret":65535}'  # clients of goim v1 look for it, whatever the status
_REFUSAL_HEADERS = f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(_REFUSAL)}\r\nConnection: close"


def serve(app: WSGIApplication, listener: tuple[str, int], timeout_s: float, max_request_bytes: int) -> Server:
    """Listen and serve.

    Args:
        app: a WSGI application; it may switch.
        listener: host and port; port 0 is any free one, `server_port` tells which.
        timeout_s: for reading one request, head and body; for waiting for the next; for writing one answer.
        max_request_bytes: of a request's body; above it the answer is 413, without reading it.

    Returns:
        The server, accepting. `stop(timeout_s)` ends it: it lets requests under way finish, that long.

    Raises:
        NodeError: the address cannot be listened on.
    """
    host, port = listener
    sock = gevent.socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(listener)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise NodeError(f"cannot listen for HTTP on {host}:{port}: {error.strerror}") from error
    server = Server(app, sock, timeout_s, max_request_bytes)
    server.start()
    return server


class Server(WSGIServer):
    """See `serve`.

    Attributes:
        timeout_s, max_request_bytes: as there.
        idle: connections between two requests.
    """

    def __init__(
        self, app: WSGIApplication, listener: gevent.socket.socket, timeout_s: float, max_request_bytes: int
    ) -> None:
        super().__init__(
            listener,
            app,
            spawn=MAX_CONNECTIONS,
            log=None,
            error_log=log,
            environ={"SERVER_NAME": listener.getsockname()[0]},  # else pywsgi asks the DNS for it
        )
        self.timeout_s = timeout_s
        self.max_request_bytes = max_request_bytes
        self.idle: set[Connection] = set()
        self._is_full = False

    def do_read(self) -> tuple[gevent.socket.socket, Any] | None:  # type: ignore[override]
        """Accept a connection. Runs in the hub, so what waits or logs is handed to a greenlet."""
        try:
            accepted = super().do_read()
        except OSError as error:
            if self.is_fatal_error(error):
                raise
            if error.errno in _FULL:
                self._pause(error)
            return None  # else the client is gone already
        if accepted is None and self._is_full:  # nobody waits, and there was a file for one: accept() takes that first
            self._is_full = False
            gevent.spawn(log.warning, "accepting again")
        return accepted

    def handle(self, sock: gevent.socket.socket, address: tuple[str, int]) -> None:  # type: ignore[override]
        """Serve one connection: pywsgi calls this in a greenlet of its own."""
        Connection(sock, address, self).handle()

    def stop(self, timeout: float | None = None) -> None:
        """Stop accepting, hang up on idle clients, and wait for the requests under way.

        Switches.

        Args:
            timeout: seconds after which what is left is killed; None is pywsgi's 1.
        """
        self.close()
        for connection in list(self.idle):
            connection.hang_up()
        super().stop(timeout)

    def _pause(self, error: OSError) -> None:
        if not self._is_full:
            self._is_full = True
            gevent.spawn(log.error, "cannot accept connections", extra={"error": error.strerror})
        self.stop_accepting()
        gevent.spawn_later(ACCEPT_PAUSE_S, self._resume)

    def _resume(self) -> None:
        if self.started:
            self.start_accepting()


class Connection:
    """One client: a greenlet that reads a request, calls the app, answers, and starts over."""

    def __init__(self, sock: gevent.socket.socket, address: tuple[str, int], server: Server) -> None:
        self._socket = sock
        self._rfile = sock.makefile("rb")
        self._address = address
        self._server = server

    def handle(self) -> None:
        """Serve requests until one side ends the connection.

        Switches.
        """
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each answer may wait 40 ms
            self._socket.settimeout(self._server.timeout_s)  # for one read while idle, and for writing an answer
            while self._handle_request():
                gevent.sleep(0)  # a client that pipelines must not starve the others
        except OSError as error:
            self._client_gone(error)
        except Exception:
            log.exception("connection failed")
        finally:
            self._rfile.close()
            self._socket.close()

    def hang_up(self) -> None:
        """Wake this connection out of its wait for a request, as if the client had ended it."""
        try:
            self._socket.shutdown(socket.SHUT_RD)
        except OSError as error:
            self._client_gone(error)

    def _handle_request(self) -> bool:
        """Read a request and answer it. False: it was the last one."""
        if not self._wait():
            return False
        try:
            head, body = self._read_request()
        except BadRequest as error:
            self._refuse(error)
            return False
        return self._answer(head, body)

    def _wait(self) -> bool:
        """Wait for the first byte of a request. False: there will be none."""
        if not self._server.started:
            return False
        self._server.idle.add(self)
        try:
            return bool(self._rfile.peek(1))
        finally:
            self._server.idle.discard(self)

    def _read_request(self) -> tuple[Head, bytes]:
        late = gevent.Timeout(self._server.timeout_s)
        late.start()
        try:
            head = parse_head(read_head(self._rfile))
            return head, self._read_body(head)
        except gevent.Timeout as timeout:
            if timeout is not late:
                raise
            raise BadRequest(408, "too slow") from None
        finally:
            late.close()

    def _read_body(self, head: Head) -> bytes:
        limit = self._server.max_request_bytes
        length = head.content_length or 0
        if length > limit:
            raise BadRequest(413, "body too large")
        if head.expects_continue and (length or head.is_chunked):
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return read_chunks(self._rfile, limit) if head.is_chunked else read_exactly(self._rfile, length)

    def _answer(self, head: Head, body: bytes) -> bool:
        """Call the app and send what it says, in one piece. False: no other request may follow."""
        try:
            status, headers, data = _call(self._server.application, self._environ(head, body))
        except (Exception, gevent.Timeout):
            log.exception("app failed")
            status, headers, data = "500 Internal Server Error", [], _REFUSAL
        keeps_alive = head.keeps_alive and self._server.started
        lines = [
            f"HTTP/1.1 {status}",
            *[f"{name}: {value}" for name, value in headers],
            f"Date: {_date(int(time.time()))}",
        ]
        if head.method != "HEAD" and not any(name == "Content-Length" for name, _ in headers):
            lines.append(f"Content-Length: {len(data)}")
        if not keeps_alive:
            lines.append("Connection: close")
        elif head.version == "HTTP/1.0":
            lines.append("Connection: keep-alive")
        answer = "\r\n".join([*lines, "\r\n"]).encode("latin-1")
        self._socket.sendall(answer if head.method == "HEAD" else answer + data)
        return keeps_alive

    def _environ(self, head: Head, body: bytes) -> WSGIEnvironment:
        environ = self._server.get_environ()
        for key, value in head.headers.items():
            environ["HTTP_" + key] = value
        environ.pop("HTTP_CONTENT_LENGTH", None)
        environ.update(
            {
                "REQUEST_METHOD": head.method,
                "PATH_INFO": unquote(head.path, "latin-1") if "%" in head.path else head.path,
                "QUERY_STRING": head.query,
                "SERVER_PROTOCOL": head.version,
                "REMOTE_ADDR": self._address[0],
                "REMOTE_PORT": str(self._address[1]),
                "CONTENT_TYPE": environ.pop("HTTP_CONTENT_TYPE", ""),
                "CONTENT_LENGTH": str(len(body)),
                "wsgi.input": BytesIO(body),
                "wsgi.input_terminated": True,
            }
        )
        return environ

    def _refuse(self, refused: BadRequest) -> None:
        """Answer a request that the app will not see, and end the connection."""
        log.debug("bad request", extra={"status": refused.status, "reason": str(refused), "client": self._address})
        phrase = HTTPStatus(refused.status).phrase
        head = f"HTTP/1.1 {refused.status} {phrase}\r\n{_REFUSAL_HEADERS}\r\n\r\n"
        self._socket.sendall(head.encode() + _REFUSAL)
        # Closing with unread bytes would reset the connection, and the client might lose the answer (RFC 9112 9.6).
        self._socket.shutdown(socket.SHUT_WR)
        late = gevent.Timeout(LINGER_S)
        late.start()
        try:
            for _ in range(LINGER_READS):
                if not self._socket.recv(16_384):
                    break
        except gevent.Timeout as timeout:
            if timeout is not late:
                raise
        finally:
            late.close()

    def _client_gone(self, error: OSError) -> None:
        log.debug("client gone", extra={"error": str(error), "client": self._address})


def _call(app: WSGIApplication, environ: WSGIEnvironment) -> tuple[str, list[tuple[str, str]], bytes]:
    """Call a WSGI application (PEP 3333): its status, headers and whole body."""
    status = ""
    headers: list[tuple[str, str]] = []
    written: list[bytes] = []

    def start_response(
        its_status: str, its_headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        nonlocal status, headers
        status, headers = its_status, its_headers
        return written.append

    result: Iterable[bytes] = app(environ, start_response)
    try:
        body = b"".join(result)
    finally:
        if hasattr(result, "close"):
            result.close()
    return status, headers, b"".join(written) + body


@lru_cache(maxsize=1)
def _date(unix_s: int) -> str:
    return formatdate(unix_s, usegmt=True)
