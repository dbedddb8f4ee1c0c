"""HTTP to one logic node: POST, over connections that are kept alive."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
import time
from dataclasses import dataclass

from typing_extensions import override

from zim.client.address import logic_address
from zim.client.errors import ClientError, PushUnavailable, PushUnknown, PushUntrusted
from zim.client.tls import not_verified, why
from zim.program import zim_command

_IDLE_S = 5.0
_KEY = re.compile(r"[A-Za-z0-9._~+/-]{1,200}=*")
_PIECE_BYTES = 64 << 10
_START = b"HTTP/"
_GREETING = b"\xff"  # of ZeroMQ, which speaks first (ZMTP 3.1, 3.2)
_ELSEWHERE = "HTTP is on a logic's `http`"
_SHORT = 200  # characters of what is said again
OF_SILENCE = f"; if that is a comet's `tcp`, {_ELSEWHERE}"  # what it may mean to be hung up on without a word


def line_of(body: bytes) -> str:
    """What an answer says that is one short line of plain text, as to HTTP where TLS is spoken; "" for all others."""
    text = body[: _SHORT + 1].decode(errors="replace").strip()
    return text if len(body) <= _SHORT and text.isprintable() and not text.startswith(("<", "{", "[")) else ""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What the server says.

    Attributes:
        push_id: of the header X-Zim-Push-Id; "" without.
        retry_after_s: 0 if it does not say.
    """

    status: int
    body: bytes
    push_id: str
    retry_after_s: float


class NotHttp(http.client.HTTPException):
    """What answers is not HTTP. The text says what it is, and where HTTP is."""


class ZeroMq(NotHttp):
    """A ZeroMQ port answers."""


class HttpResponse(http.client.HTTPResponse):
    """An answer, of which the first bytes say whether it is one: the end of its first line may never come."""

    @override
    def begin(self) -> None:
        """Raises: NotHttp."""
        start = self.fp.peek(len(_START))[: len(_START)]
        if start.startswith(_GREETING):
            raise ZeroMq(f"a ZeroMQ port answers there; {_ELSEWHERE}")
        if not _START.startswith(start):
            raise NotHttp(f"what answers there is not HTTP; {_ELSEWHERE}")
        super().begin()


class HttpLink:
    """Threads and greenlets may share it: each has its own connection.

    Attributes:
        address: `host:port`.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float,
        max_answer_bytes: int = 16 << 20,
        tls: ssl.SSLContext | None = None,
        api_key: str = "",
    ) -> None:
        """Does not connect yet.

        Args:
            url: `http://host:port`, `host:port` or `https://host`.
            timeout_s: for connecting, and for the answer.
            tls: whom to believe, for a URL with TLS.
            api_key: to show with each request; "" for none.

        Raises:
            AddressError: the URL is something else.
            ClientError: the API key is none.
        """
        self._headers = {"Authorization": f"Bearer {check_key(api_key)}"} if api_key else {}
        self.address, self._host, self._port, is_tls = logic_address(url)
        self._tls = tls if is_tls else None
        self._timeout_s = timeout_s
        self._max_answer_bytes = max_answer_bytes
        self._local = threading.local()

    def post(self, path: str, body: bytes, content_type: str = "", wait_s: float = 0.0) -> HttpAnswer:
        """Sends a request and waits for the answer.

        Args:
            wait_s: how much longer than usual the answer may take.

        Raises:
            PushUnavailable: there is no connection, or one to a ZeroMQ port; nothing was accepted. PushUntrusted: for
                its certificate.
            PushUnknown: it was sent, and not answered.
        """
        link, timeout_s = self._connected(), self._timeout_s + wait_s
        link.sock.settimeout(timeout_s)
        try:
            deadline = time.monotonic() + timeout_s
            kind = {"Content-Type": content_type} if content_type else {}
            link.request("POST", path, body, {**self._headers, **kind})
            response = link.getresponse()
            text = self._read(response, deadline)
        except ZeroMq as error:
            self.close()
            raise PushUnavailable(f"no answer from {self.address}: {error}") from None
        except (OSError, http.client.HTTPException) as error:
            self.close()
            what = f"{self.address} hung up before it answered ({why(error)})"
            if isinstance(error, TimeoutError):
                what = f"no answer from {self.address} in {timeout_s:g} s"
            elif isinstance(error, NotHttp):
                what = f"no answer from {self.address}: {error}"
            elif isinstance(error, ConnectionResetError) and not hasattr(self._local, "used_at"):
                what += OF_SILENCE
            raise PushUnknown(f"{what}; it is not known whether the push was accepted") from None
        self._local.used_at = time.monotonic()
        if response.will_close:
            self.close()
        wait_s = _seconds(response.getheader("Retry-After"))
        return HttpAnswer(response.status, text, response.getheader("X-Zim-Push-Id") or "", wait_s)

    def close(self) -> None:
        """Closes this thread's connection. The next request opens another."""
        link = self._link()
        if link is not None:
            link.close()
        self._local.link = None

    def _read(self, response: http.client.HTTPResponse, deadline: float) -> bytes:
        pieces, size = [], 0
        while piece := response.read1(_PIECE_BYTES):
            pieces.append(piece)
            size += len(piece)
            if size > self._max_answer_bytes:
                raise http.client.HTTPException(f"an answer of more than {self._max_answer_bytes} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError
        if response.length:  # read1 does not say that something is missing
            raise http.client.IncompleteRead(b"", response.length)
        response.read()  # and not that the connection is free again
        return b"".join(pieces)

    def _link(self) -> http.client.HTTPConnection | None:
        link: http.client.HTTPConnection | None = getattr(self._local, "link", None)
        return link

    def _connected(self) -> http.client.HTTPConnection:
        """A connection that is open as far as one can see.

        A POST must not be sent again when a connection turns out to be dead (RFC 9110 9.2.2), so that is looked at
        before: servers close what is idle for long, and then the end of the stream is waiting to be read.
        """
        link = self._link()
        if link is not None and link.sock is not None and self._is_fresh(link.sock):
            return link
        self.close()
        if self._tls is None:
            link = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        else:
            link = http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=self._tls)
        link.response_class = HttpResponse
        try:
            link.connect()
        except ssl.SSLCertVerificationError as error:
            raise PushUntrusted(not_verified(self.address, error)) from None
        except ConnectionRefusedError:
            raise PushUnavailable(f"nothing listens on {self.address}; is the fabric up? {zim_command()} up") from None
        except TimeoutError:
            raise PushUnavailable(f"no connection to {self.address} in {self._timeout_s:g} s") from None
        except (OSError, UnicodeError) as error:
            raise PushUnavailable(f"no connection to {self.address}: {why(error)}") from None
        self._local.link = link
        return link

    def _is_fresh(self, sock: socket.socket) -> bool:
        if time.monotonic() - self._local.used_at > _IDLE_S:
            return False
        try:
            sock.settimeout(0)
            sock.recv(1)  # whatever comes, nobody has asked for it
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False


def check_key(api_key: str) -> str:
    """An API key, as it can stand in a header. Raises: ClientError: it cannot. The error does not show it."""
    if not isinstance(api_key, str) or not _KEY.fullmatch(api_key):
        raise ClientError("the API key is none: right is what zim api-key make has printed, zim_…")
    return api_key


def _seconds(text: str | None) -> float:
    return float(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else 0.0
