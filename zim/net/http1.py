"""HTTP/1: bytes in, requests out, for the HTTP APIs and for WebSocket's upgrade. llhttp reads them (by httptools); what
it leaves open is decided here.

Strict where a proxy in front could read it otherwise.

Source: RFC 9112 (3 request line, 6 body, 9.3 persistence); Go net/http, which is what goim's clients know.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from io import BytesIO
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import httptools

from zim.errors import ZimError

MAX_HEAD_BYTES = 32_768  # of request line and headers; of what comes in a body without being a part of it
MAX_HEADERS = 100  # with the trailers
MAX_BODIES_BYTES = 256 << 20  # held by one process at once; above it,
SMALL_BODY_BYTES = 64 << 10  # only bodies up to this are taken

_TLS_HANDSHAKE = b"\x16\x03"  # RFC 8446, 5.1: the type of the record, and the version that all give
_CODING = "HTTP_TRANSFER_ENCODING"

_PLAIN_PATH = re.compile(rb"[A-Za-z0-9/._~!$&'()*+,;=:@-]*")  # RFC 3986 3.3: what needs no percent sign
_quote = partial(quote, safe="!$&'()*+,;=:@")


class Refused(ZimError):
    """A request that no application will see; its connection ends with it.

    Attributes:
        status: the HTTP status that says why.
        retry_after_s: when it is worth another try; None: nobody knows.
    """

    def __init__(self, status: int, reason: str, retry_after_s: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.retry_after_s = status, retry_after_s


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """How many bytes the body of one request may have.

    Attributes:
        usual: of most requests.
        by_path: of those to some paths.
    """

    usual: int
    by_path: Mapping[str, int] = field(default_factory=dict)

    def of(self, path: str) -> int:
        """Of a request to this path."""
        return self.by_path.get(path, self.usual)


class Bodies:
    """How many bytes of bodies a process holds.

    Attributes:
        n_bytes: of requests: being read, or with the app.
        answers_bytes: of answers that their clients have not taken.
    """

    def __init__(self) -> None:
        self.n_bytes = 0
        self.answers_bytes = 0


@dataclass(slots=True)
class Request:
    """A request.

    Attributes:
        environ: what WSGI (PEP 3333) wants to know of it. But the path is not decoded, see `one_spelling`.
        keeps_alive: the client may send another request on this connection.
        held_bytes: what of `Bodies` is its.
    """

    environ: dict[str, Any]
    keeps_alive: bool
    body: BytesIO = field(default_factory=BytesIO)
    held_bytes: int = 0


class Requests:
    """The requests of one connection.

    Attributes:
        ready: those that are whole, oldest first; `release` each of them.
        refused: why there will not be another one after these.
        rest: what came behind an upgrade, in the other protocol.
    """

    def __init__(self, bodies: Bodies, limits: BodyLimits, upgrades: bool = False) -> None:
        """
        Args:
            upgrades: a request that asks for another protocol is the last one; else that is passed over.
        """
        self._upgrades, self.rest = upgrades, b""
        self.ready: deque[Request] = deque()
        self.refused: Refused | None = None
        self._bodies, self._limits = bodies, limits
        self._parser = httptools.HttpRequestParser(self)
        self._start_over()

    @property
    def is_between(self) -> bool:
        """Nothing of the next request has come."""
        return not self._has_begun and not self._fruitless_bytes

    @property
    def environ(self) -> dict[str, Any]:
        """Of the request whose body is being read; empty if none is."""
        return self._begun.environ if self._begun else {}

    @property
    def is_in_chunks(self) -> bool:
        """Chunks of a body have come, and more are to come."""
        return self._begun is not None and _CODING in self._begun.environ

    def must_continue(self) -> bool:
        """Whether the client has to be told `100 Continue`; true once for each request."""
        if self._begun is None or self._begun.environ["SERVER_PROTOCOL"] == "HTTP/1.0":
            return False
        return str(self._begun.environ.pop("HTTP_EXPECT", "")).lower() == "100-continue"

    def feed(self, data: bytes) -> None:
        """Take what came. The more at once, the more may a head be over its limit."""
        self._fruitless_bytes += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            cause = error.__context__  # from one of the callbacks below
            if cause and not isinstance(cause, (Refused, httptools.HttpParserError)):
                raise cause from None  # a defect of ours
            # Without the frames that lead back to this: else it would keep the body until the garbage collector comes.
            self.refused = (
                cause.with_traceback(None) if isinstance(cause, Refused) else Refused(400, self._why(data, error))
            )
            self.refused.__context__ = None
        else:
            if self._fruitless_bytes > MAX_HEAD_BYTES:
                is_line_over = self._n_headers or 0 < len(self._url) < MAX_HEAD_BYTES // 2
                status = 400 if self._begun else 431 if is_line_over else 414
                self.refused = Refused(status, "head, trailers or chunk extensions too long")

    def _why(self, data: bytes, error: httptools.HttpParserError) -> str:
        """What is wrong with what came; data: the last of it."""
        if self._fruitless_bytes > len(data) or self._begun is not None:
            return str(error)
        if data.startswith(_TLS_HANDSHAKE):
            return "it begins with a TLS handshake, and no TLS is spoken here"
        if data.startswith(b"\0"):
            return "it is no HTTP, but may be a packet for a comet's tcp"
        return str(error)

    def release(self, request: Request) -> None:
        """Its body is held no longer."""
        self._bodies.n_bytes -= request.held_bytes
        request.held_bytes = 0

    def close(self) -> None:
        """Nobody wants what is left."""
        for request in (*self.ready, *([self._begun] if self._begun else [])):
            self.release(request)
        self.ready.clear()
        self.refused = None  # its frames, too, lead back to this, once it was raised
        self._start_over()
        del self._parser  # which refers to this: neither would go before the garbage collector comes

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                return self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                # To speak h2c or so, as Java's client offers with every first request. A server may ignore it
                # (RFC 9110 7.8), llhttp cannot: so another parser reads on, behind a head without an offer.
                data = data[offer.args[0] :]
                if self._upgrades and self._begun:
                    if _CODING in self._begun.environ:  # llhttp would hand on its chunks as the other protocol
                        self.refused = Refused(413, "an upgrade with a body")
                        return None
                    self.rest = data
                    self.ready.append(self._begun)
                    return self._start_over()
            environ = self._begun.environ if self._begun else {}
            length = environ.get("CONTENT_LENGTH", "0")
            framing = "Transfer-Encoding: chunked" if _CODING in environ else f"Content-Length: {length}"
            self._parser = httptools.HttpRequestParser(self)
            self._parser.feed_data(f"POST / HTTP/1.1\r\n{framing}\r\n\r\n".encode())
        return None

    def _start_over(self) -> None:
        self._begun: Request | None = None  # its head is whole
        self._has_begun = False
        self._url = b""
        self._fields = bytearray()  # the headers so far, a line each: in pieces they would take more than twice as much
        self._n_headers = self._head_bytes = 0
        self._fruitless_bytes = 0  # that came since the last end of a request, or the last piece of a body

    def _check_size(self, request: Request, n_bytes: int) -> None:
        limit = self._limits.of(request.environ["PATH_INFO"])
        if n_bytes > limit:
            raise Refused(413, f"the body has more than {limit} bytes")

    def _hold(self, request: Request, n_bytes: int) -> None:
        """Make room for what has come of a body. What is only announced takes no memory."""
        more = n_bytes - request.held_bytes
        self._check_size(request, n_bytes)
        if n_bytes > SMALL_BODY_BYTES and self._bodies.n_bytes + more > MAX_BODIES_BYTES:
            raise Refused(503, "too many bodies at once", retry_after_s=1)
        self._bodies.n_bytes += more
        request.held_bytes = n_bytes

    # What httptools calls; an error goes to `feed`.

    def on_message_begin(self) -> None:
        """A request comes."""
        self._has_begun = True

    def on_url(self, url: bytes) -> None:
        """A piece of its path and query."""
        self._url += url
        self._count(len(url), 414)

    def _count(self, n_bytes: int, status: int) -> None:
        """Part of a head: the same limit, however it is cut."""
        self._head_bytes += n_bytes
        if self._head_bytes > MAX_HEAD_BYTES:
            raise Refused(status, f"the head has more than {MAX_HEAD_BYTES} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or behind chunks a trailer."""
        self._n_headers += 1
        if self._n_headers > MAX_HEADERS:
            raise Refused(431, f"more than {MAX_HEADERS} headers")
        self._count(len(name) + len(value) + 4, 431)
        if not self._begun and b"_" not in name:  # no trailer; X_Y and X-Y would be one name to a WSGI application
            self._fields += b"%b:%b\n" % (name, value)

    def on_headers_complete(self) -> None:
        """All headers are there: is it a request that may go on?"""
        if self._begun:
            return
        environ, version = _environ(bytes(self._fields)), self._parser.get_http_version()
        self._fields.clear()  # the body may take long
        if version not in ("1.1", "1.0"):
            raise Refused(505, "HTTP version")
        if version == "1.1" and "HTTP_HOST" not in environ:
            raise Refused(400, "no Host")  # RFC 9112 3.2
        if _CODING in environ and version == "1.0":
            raise Refused(400, "chunks in HTTP/1.0")  # RFC 9112 6.1: a smuggled request
        if environ.get(_CODING, "chunked").lower() != "chunked":
            raise Refused(501, "transfer encoding")
        url = httptools.parse_url(self._url)
        self._begun = Request(environ, self._parser.should_keep_alive())
        environ["REQUEST_METHOD"] = self._parser.get_method().decode()
        environ["PATH_INFO"] = one_spelling(url.path or b"/")
        environ["QUERY_STRING"] = (url.query or b"").decode("latin-1")
        environ["SERVER_PROTOCOL"] = f"HTTP/{version}"
        environ["wsgi.input"], environ["wsgi.input_terminated"] = self._begun.body, True
        self._check_size(self._begun, int(environ.get("CONTENT_LENGTH", 0)))

    def on_body(self, piece: bytes) -> None:
        """A piece of its body."""
        assert self._begun
        self._fruitless_bytes = 0
        self._begun.body.write(piece)
        self._hold(self._begun, self._begun.body.tell())

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._begun and not self._parser.should_upgrade():
            self._begun.environ["CONTENT_LENGTH"] = str(self._begun.body.tell())
            self._begun.body.seek(0)
            self.ready.append(self._begun)
            self._start_over()


def one_spelling(path: bytes) -> str:
    """A path in the one spelling of all that mean the same: each segment decoded, and encoded only where it must be.

    So a slash in a name stays %2F, and is not taken for the end of a segment.
    """
    if _PLAIN_PATH.fullmatch(path):
        return path.decode()
    return "/".join(_quote(unquote_to_bytes(segment)) for segment in path.split(b"/"))


def _environ(fields: bytes) -> dict[str, Any]:
    """Headers as WSGI has them. fields: a line each; llhttp lets no line end into a value."""
    environ: dict[str, Any] = {}
    for line in fields.split(b"\n")[:-1]:
        name, _, value = line.partition(b":")
        key, text = _key(name), value.rstrip(b" \t").decode("latin-1")
        if key == "HTTP_HOST" and key in environ:
            raise Refused(400, "two Host headers")  # RFC 9112 3.2
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    return environ


@lru_cache(1_024)
def _key(name: bytes) -> str:
    """A header's name in WSGI."""
    key = name.decode("latin-1").upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
