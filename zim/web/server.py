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
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import gevent
import gevent.socket
from gevent.pywsgi import WSGIServer
from werkzeug.wrappers import Response

from zim.errors import NodeError
from zim.web.parsing import Bodies, Refused, Request, Requests

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 10_000  # open at once; above it the kernel's backlog waits
BACKLOG = 1_024
READ_BYTES = 16_384  # at once
LINGER_S = 1.0  # how long, and
LINGER_READS = 64  # how many reads, a refused client may go on sending before it is reset
ACCEPT_PAUSE_S = 0.1  # before the next try when the machine has no more files or memory

_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_REFUSAL = b'{"ret":65535}'  # clients of goim v1 look for it, whatever the status
_REFUSAL_HEADERS = f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(_REFUSAL)}\r\nConnection: close"


def listen(app: WSGIApplication, listener: tuple[str, int], timeout_s: float, max_request_bytes: int) -> Server:
    """Take an address for the app.

    Args:
        app: a WSGI application; it may switch.
        listener: host and port; port 0 is any free one, `server_port` tells which.
        timeout_s: for reading one request, head and body; for waiting for the next; for writing one answer.
        max_request_bytes: of a request's body; above it the answer is 413, without reading it.

    Returns:
        The server. Clients may connect; they wait until `start()`. `stop(timeout_s)` ends it: it lets requests under
        way finish, that long.

    Raises:
        NodeError: the address cannot be listened on; says so of `http`, its key in the topology.
    """
    server = Server(app, listener, timeout_s, max_request_bytes)
    try:
        server.init_socket()
    except OSError as error:
        reason = str(error.strerror).partition(": (")[0]  # gevent appends the address
        raise NodeError(f"http {listener[0]}:{listener[1]}: {reason}") from error
    return server


class Server(WSGIServer):
    """See `listen`.

    Attributes:
        timeout_s, max_request_bytes: as there.
        idle: connections between two requests.
        bodies: of all connections.
    """

    def __init__(
        self, app: WSGIApplication, listener: tuple[str, int], timeout_s: float, max_request_bytes: int
    ) -> None:
        super().__init__(
            listener,
            app,
            backlog=BACKLOG,
            spawn=MAX_CONNECTIONS,
            log=None,
            error_log=log,
            environ={"SERVER_NAME": listener[0]},  # else pywsgi asks the DNS for it
        )
        self.timeout_s = timeout_s
        self.max_request_bytes = max_request_bytes
        self.idle: set[Connection] = set()
        self.bodies = Bodies()
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
        self._address = address
        self._server = server
        self._requests = Requests(server.bodies, server.max_request_bytes)

    def handle(self) -> None:
        """Serve requests until one side ends the connection.

        Switches.
        """
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each answer may wait 40 ms
            while self._handle_request():
                gevent.sleep(0)  # a client that pipelines must not starve the others
        except OSError as error:
            self._client_gone(error)
        except Exception:
            log.exception("connection failed")
        finally:
            self._requests.close()
            self._socket.close()

    def hang_up(self) -> None:
        """Wake this connection out of its wait for a request, as if the client had ended it."""
        try:
            self._socket.shutdown(socket.SHUT_RD)
        except OSError as error:
            self._client_gone(error)

    def _handle_request(self) -> bool:
        """Read a request and answer it. False: it was the last one."""
        try:
            request = self._next_request()
        except Refused as refused:
            self._refuse(refused)
            return False
        if request is None:
            return False
        try:
            return self._answer(request)
        finally:
            self._requests.release(request)

    def _next_request(self) -> Request | None:
        """The next request. None: there will be none.

        Raises:
            Refused: the next one is not to be answered by the app.
        """
        requests = self._requests
        if not requests.ready and requests.is_between and not self._wait():
            return None
        deadline = time.monotonic() + self._server.timeout_s
        while not requests.ready and not requests.refused:
            if requests.begun and requests.begun.awaits_continue:
                self._send(b"HTTP/1.1 100 Continue\r\n\r\n")
                requests.begun.awaits_continue = False
            try:
                data = self._receive(deadline)
            except TimeoutError:
                raise Refused(408, "too slow") from None
            if not data:
                return None
            requests.feed(data)
            gevent.sleep(0)
        if requests.ready:
            return requests.ready.popleft()
        assert requests.refused
        raise requests.refused

    def _wait(self) -> bool:
        """Wait for the first bytes of a request. False: there will be none."""
        if not self._server.started:
            return False
        self._server.idle.add(self)
        try:
            data = self._receive(time.monotonic() + self._server.timeout_s)
        finally:
            self._server.idle.discard(self)
        self._requests.feed(data)
        return bool(data)

    def _receive(self, deadline: float) -> bytes:
        """What the client sends, b"" at its end.

        Raises:
            TimeoutError: nothing came in time.
        """
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._socket.settimeout(left_s)
        return self._socket.recv(READ_BYTES)

    def _send(self, data: bytes) -> None:
        self._socket.settimeout(self._server.timeout_s)
        self._socket.sendall(data)

    def _answer(self, request: Request) -> bool:
        """Call the app and send what it says, in one piece. False: no other request may follow."""
        try:
            response = Response.from_app(self._server.application, self._environ(request), buffered=True)
            data = response.get_data()
        except (Exception, gevent.Timeout):
            log.exception("app failed")
            response, data = Response(status=500), _REFUSAL
        keeps_alive = request.keeps_alive and self._server.started
        headers = response.headers
        headers["Date"] = _date(int(time.time()))
        headers.setdefault("Content-Length", str(len(data)))
        if not keeps_alive:
            headers["Connection"] = "close"
        elif request.environ["SERVER_PROTOCOL"] == "HTTP/1.0":
            headers["Connection"] = "keep-alive"
        lines = [f"HTTP/1.1 {response.status}", *[f"{name}: {value}" for name, value in headers], "\r\n"]
        head = "\r\n".join(lines).encode("latin-1")
        self._send(head if request.environ["REQUEST_METHOD"] == "HEAD" else head + data)
        return keeps_alive

    def _environ(self, request: Request) -> WSGIEnvironment:
        return {
            **self._server.get_environ(),
            **request.environ,
            "REMOTE_ADDR": self._address[0],
            "REMOTE_PORT": str(self._address[1]),
            "wsgi.input": request.body,
            "wsgi.input_terminated": True,
        }

    def _refuse(self, refused: Refused) -> None:
        """Answer a request that the app will not see, and end the connection."""
        log.debug("bad request", extra={"status": refused.status, "reason": str(refused), "client": self._address})
        retry = "" if refused.retry_after_s is None else f"\r\nRetry-After: {refused.retry_after_s}"
        head = f"HTTP/1.1 {refused.status} {HTTPStatus(refused.status).phrase}\r\n{_REFUSAL_HEADERS}{retry}\r\n\r\n"
        self._send(head.encode() + _REFUSAL)
        # Closing with unread bytes would reset the connection, and the client might lose the answer (RFC 9112 9.6).
        self._socket.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + LINGER_S
        with suppress(TimeoutError):
            for _ in range(LINGER_READS):
                if not self._receive(deadline):
                    break

    def _client_gone(self, error: OSError) -> None:
        log.debug("client gone", extra={"error": str(error), "client": self._address})


@lru_cache(maxsize=1)
def _date(unix_s: int) -> str:
    return formatdate(unix_s, usegmt=True)
