"""The HTTP server under the app: gevent's pywsgi listens and accepts, what is said on a connection is decided here.

pywsgi's own handler has no time limit for reading, reads bodies that it refuses to their end, prints a traceback for
some broken requests, and sends an answer in two packets. Here a request is read whole, within a time and a size, before
the app sees it; so the app never waits for a client, and no time limit of the reading runs while it works.

Nothing that a client does is worth more than a debug line in the log.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, cast
from wsgiref.types import WSGIApplication

import gevent
import gevent.socket
import msgspec
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer
from typing_extensions import override

from zim.net.accept import PatientServer, listen
from zim.net.fairness import give_way
from zim.net.handshakes import Handshakes
from zim.net.http1 import Bodies, BodyLimits, Refused, Request, Requests
from zim.net.sockets import shown_address
from zim.net.tls import AnySocket
from zim.net.visitors import ANYBODY, Visitors
from zim.web.problems import API, PROBLEM_JSON, Problem, defect, refused
from zim.web.wsgi import IS_GONE, Headers, call_app

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 10_000  # open at once; above it the kernel's backlog waits
READ_BYTES = 65_536  # at once
MAX_ANSWERS_BYTES = 32 << 20  # that wait for their clients to read them; above it questions get 503
OTHER_ANSWERS_BYTES = 16 << 20  # beyond these, for what does something: who reads no history holds up no push
UNREAD = "too many answers are not read"
LINGER_S = 1.0  # how long, and
LINGER_READS = 16  # how many reads, a refused client may go on sending before it is reset

# Of all connections: nothing switches between a read and its copy. If each read had memory of its own for the most that
# may come, what is left of it would lie in holes between what connections keep.
_BUFFER = bytearray(READ_BYTES)
_READ = memoryview(_BUFFER)

Said = tuple[str, Headers, bytes]  # status, headers and body

_REFUSAL = b'{"ret":65535}'  # clients of goim v1 look for it, whatever the status


# What a page that is welcome may send beside what any page may (Fetch standard, CORS-preflight).
_PREFLIGHT = [
    ("Access-Control-Allow-Methods", "GET, POST, DELETE"),
    ("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key"),
    ("Access-Control-Max-Age", "600"),
]


def _cors(origin: str) -> list[tuple[str, str]]:
    exposed = ("Access-Control-Expose-Headers", "Retry-After, X-Zim-Push-Id")
    return [("Access-Control-Allow-Origin", origin), exposed, ("Vary", "Origin")]


def _answers_bytes(environ: Mapping[str, Any]) -> int:
    """How much may wait to be read where another answer is to be made."""
    is_question = environ["REQUEST_METHOD"] in ("GET", "HEAD")
    return MAX_ANSWERS_BYTES if is_question else MAX_ANSWERS_BYTES + OTHER_ANSWERS_BYTES


def _is_preflight(request: Request) -> bool:
    environ = request.environ
    return environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ


class HttpServer(PatientServer, WSGIServer):
    """Serves an app. Clients may connect from now on; they wait until `start`.

    Args:
        app: a WSGI application; it may switch.
        listener: host and port; port 0 is any free one, `server_port` tells which.
        timeout_s: for reading one request, head and body; for writing one answer.
        idle_s: for waiting for the next request. Load balancers keep connections for a minute, and give their users
            502 if the server ends one first.
        visitors: who is welcome; others get 403.
        limits: of requests' bodies; above them the answer is 413, without reading it.
        key: of the address in the topology, for the error.
        beside: another one for the same app. All limits are over both together.
        handshakes: what stands before its connections.

    Attributes:
        idle: connections between two requests.
        bodies: of all connections, those of `beside` too.
        refused: how many requests the app did not see, by the status that they were answered.

    Raises:
        NodeError: the address cannot be had.
    """

    refusal_level = logging.DEBUG  # of the log's line about a request that the app does not see

    def __init__(
        self,
        app: WSGIApplication,
        listener: tuple[str, int],
        timeout_s: float,
        limits: BodyLimits,
        key: str = "http",
        idle_s: float = 75.0,
        visitors: Visitors = ANYBODY,
        beside: HttpServer | None = None,
        handshakes: Handshakes | None = None,
    ) -> None:
        environ = {"SERVER_NAME": listener[0]}  # else pywsgi asks the DNS for it
        sock = listen(key, listener)
        pool = Pool(MAX_CONNECTIONS) if beside is None else beside.pool
        WSGIServer.__init__(self, sock, app, spawn=pool, log=None, error_log=log, environ=environ)
        self.timeout_s, self.idle_s, self.limits, self.visitors = timeout_s, idle_s, limits, visitors
        self.handshakes = Handshakes(timeout_s) if handshakes is None else handshakes
        self.idle: set[HttpConnection] = set()
        self.bodies: Bodies = Bodies() if beside is None else beside.bodies
        self.refused: Counter[int] = Counter()

    @override
    def do_handle(self, *args: Any) -> None:
        """Takes a client, in the accept loop."""
        self.handshakes.begin(args[0], args[1], self._begin, lambda: None)

    def _begin(self, sock: AnySocket, address: tuple[Any, ...]) -> None:
        super().do_handle(cast(socket.socket, sock), address)  # in a greenlet of the pool

    @override
    def handle(self, sock: AnySocket, address: tuple[str, int]) -> None:  # type: ignore[override]
        """Serve one connection: pywsgi calls this in a greenlet of its own."""
        HttpConnection(sock, address, self).handle()

    def judge(self, why: Refused, environ: Mapping[str, Any]) -> Refused:
        """Why a request is refused. environ: as much of it as has come."""
        return why

    def say(self, problem: Problem, environ: Mapping[str, Any]) -> Said:
        """Status, headers and body for a problem, in the way of the API that the path belongs to."""
        content_type, body = "text/plain; charset=utf-8", _REFUSAL
        if problem.status == 403:
            body = msgspec.json.encode({"ret": 65535, "why": problem.detail}) + b"\n"
        if environ.get("PATH_INFO", "").startswith(API):
            content_type, body = PROBLEM_JSON, problem.encode() + b"\n"
        return status_line(problem.status), [("Content-Type", content_type), *problem.headers.items()], body

    def leave(self) -> None:
        """Stop accepting, and hang up on idle clients."""
        self.close()
        self.handshakes.close()
        for connection in list(self.idle):
            connection.hang_up()

    @override
    def stop(self, timeout: float | None = None) -> None:
        """Stop accepting, hang up on idle clients, and wait for the requests under way.

        Switches.

        Args:
            timeout: seconds after which what is left is killed; None is pywsgi's 1.
        """
        self.leave()
        super().stop(timeout)


class HttpConnection:
    """One client: a greenlet that reads a request, calls the app, answers, and starts over."""

    def __init__(self, sock: AnySocket, address: tuple[str, int], server: HttpServer) -> None:
        self._socket, self._peer, self._server = sock, address, server
        self._address: tuple[Any, ...] = address  # of the client: a proxy may be in between
        self._requests = Requests(server.bodies, server.limits)
        self._wait_s = server.timeout_s  # for the next request: a client that has sent none yet has less time

    def handle(self) -> None:
        """Serve requests until one side ends the connection.

        Switches.
        """
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each answer may wait 40 ms
            while self._handle_request():
                give_way()  # a client that pipelines must not starve the others
        except OSError as error:
            log.debug("client gone", extra={"error": str(error), "client": shown_address(self._address)})
        except Exception:
            log.exception("connection failed")
        finally:
            self._server.idle.discard(self)
            self._requests.close()
            self._socket.close()

    def hang_up(self) -> None:
        """Wake this connection out of its wait for a request, as if the client had ended it."""
        with suppress(OSError):  # the client is gone already
            self._socket.shutdown(socket.SHUT_RD)

    def _handle_request(self) -> bool:
        """Read a request and answer it. False: it was the last one."""
        try:
            request = self._read_request()
        except Refused as refused:
            self._refuse(refused, self._requests.environ)
            return False
        if request is None:
            return False
        self._address = self._server.handshakes.client(self._peer, request.environ)
        if why := self._server.visitors.refusal(request.environ):
            self._requests.release(request)
            self._refuse(Refused(403, why), request.environ)
            return False
        if _is_preflight(request) and (origin := self._server.visitors.allowed_origin(request.environ)):
            self._requests.release(request)
            self._send(_message("200 OK", [*_cors(origin), *_PREFLIGHT], b""))
            return request.keeps_alive and self._server.started
        if self._server.bodies.answers_bytes > _answers_bytes(request.environ):
            self._requests.release(request)
            self._refuse(Refused(503, UNREAD, 1), request.environ)
            return False
        return self._answer(request)

    def _read_request(self) -> Request | None:
        """The next request; None: there will be none.

        Raises:
            Refused: the app is not to see it.
        """
        requests, server = self._requests, self._server
        if requests.is_between and not requests.ready:
            if not server.started:
                return None
            server.idle.add(self)
        deadline = time.monotonic() + (self._wait_s if self in server.idle else server.timeout_s)
        while not requests.ready:
            if requests.refused:
                raise requests.refused
            if requests.must_continue():
                self._send(b"HTTP/1.1 100 Continue\r\n\r\n")
            try:
                data = self._receive(deadline)
            except TimeoutError:
                if self in server.idle:
                    return None
                raise Refused(408, "too slow") from None
            if not data:
                return None
            if self in server.idle:
                server.idle.discard(self)
                deadline = time.monotonic() + server.timeout_s
            requests.feed(data)
            del data  # not to be held while the next is waited for
            if requests.is_in_chunks:
                give_way()  # nor one with chunks of a byte each, which take long to parse
        self._wait_s = server.idle_s
        return requests.ready.popleft()

    def _receive(self, deadline: float) -> bytes:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._socket.settimeout(left_s)
        size = self._socket.recv_into(_BUFFER)
        return bytes(_READ[:size])

    def _answer(self, request: Request) -> bool:
        """Call the app and send what it says, in one piece. False: no other request may follow."""
        environ = self._server.get_environ()
        environ.update(request.environ, REMOTE_ADDR=self._address[0], REMOTE_PORT=str(self._address[1]))
        environ[IS_GONE] = self._is_gone
        headers: Iterable[tuple[str, str]]
        try:
            status, headers, body = call_app(self._server.application, environ)
        except (Exception, gevent.Timeout):
            log.exception("app failed")
            status, headers, body = self._server.say(defect(), environ)
        finally:
            self._requests.release(request)
        if environ["REQUEST_METHOD"] == "GET" and self._server.bodies.answers_bytes > _answers_bytes(environ):
            # So many were asked for while this one was made. It is not to be kept, and a question changes nothing.
            status, headers, body = self._server.say(refused(503, UNREAD, 1), environ)
        keeps_alive = request.keeps_alive and self._server.started
        headers = [*headers, ("Date", _date(int(time.time())))]
        if origin := self._server.visitors.allowed_origin(request.environ):
            headers += _cors(origin)
        if not keeps_alive:
            headers.append(("Connection", "close"))
        elif environ["SERVER_PROTOCOL"] == "HTTP/1.0":
            headers.append(("Connection", "keep-alive"))
        self._send(_message(status, headers, body, environ["REQUEST_METHOD"] == "HEAD"))
        return keeps_alive

    def _refuse(self, why: Refused, environ: Mapping[str, Any]) -> None:
        """Answer a request that the app will not see, and end the connection."""
        why = self._server.judge(why, environ)
        self._server.refused[why.status] += 1
        # 403: a page is after us, or a name is not said.
        level = logging.WARNING if why.status == 403 else self._server.refusal_level
        client = shown_address(self._address)
        log.log(level, "request refused", extra={"status": why.status, "reason": str(why), "client": client})
        status, headers, body = self._server.say(refused(why.status, str(why), why.retry_after_s), environ)
        self._send(_message(status, [*headers, ("Connection", "close")], body))
        # Closing with unread bytes would reset the connection, and the client might lose the answer (RFC 9112 9.6).
        self._socket.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + LINGER_S
        with suppress(TimeoutError):
            for _ in range(LINGER_READS):
                if not self._receive(deadline):
                    break

    def _is_gone(self) -> bool:
        """The client has closed: it will not read its answer. One that has only ended what it sends counts as well, as
        with Go's server."""
        self._socket.settimeout(0.0)
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _send(self, data: bytes) -> None:
        self._socket.settimeout(self._server.timeout_s)
        self._server.bodies.answers_bytes += len(data)
        try:
            self._socket.sendall(data)
        finally:
            self._server.bodies.answers_bytes -= len(data)


def status_line(status: int) -> str:
    """A status with its words."""
    return f"{status} {HTTPStatus(status).phrase}"


def _message(status: str, headers: Iterable[tuple[str, str]], body: bytes, is_head: bool = False) -> bytes:
    """An answer. The app's Content-Length stands: the one to HEAD is of what is not there."""
    lines = [f"HTTP/1.1 {status}", *[f"{name}: {value}" for name, value in headers]]
    if not any(name == "Content-Length" for name, _ in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1") + (b"" if is_head else body)


@lru_cache(maxsize=1)
def _date(unix_s: int) -> str:
    return formatdate(unix_s, usegmt=True)
