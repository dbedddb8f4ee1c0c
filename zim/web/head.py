"""The head of an HTTP/1 request: lines in, a frozen value or an error out.

Strict where a proxy in front could read it otherwise.

Source: RFC 9112 (3 request line, 5 fields, 6 body, 9.3 persistence); Go net/http, which is what goim's clients know.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from zim.protocol.errors import ZimError

MAX_HEAD_BYTES = 32_768  # request line and headers together
MAX_HEADERS = 100

_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~\x80-\xff]+) HTTP/([0-9])\.([0-9])")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*)")
_LENGTH = re.compile(r"[0-9]{1,18}")


class BadRequest(ZimError):
    """A request that is refused before any application sees it; its connection ends with it.

    Attributes:
        status: the HTTP status that says why.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Head:
    """A request without its body.

    Attributes:
        path: as sent, with its escapes and without the query.
        query: behind the first `?`, as sent.
        version: "HTTP/1.1" or "HTTP/1.0"; any later minor version counts as 1.1.
        headers: by upper-case name with `_` for `-`; of several of one name the values in order, joined by `,`.
        content_length: of the body; None without one, or where it is chunked.
        is_chunked: the body comes in chunks.
        keeps_alive: the client may send another request on this connection.
        expects_continue: the client waits for `100 Continue` before it sends the body.
    """

    method: str
    path: str
    query: str
    version: str
    headers: dict[str, str]
    content_length: int | None
    is_chunked: bool
    keeps_alive: bool
    expects_continue: bool


def parse_head(lines: Sequence[bytes]) -> Head:
    """Parse request line and headers; each line with or without its line end.

    Raises:
        BadRequest: 400, 431, 501 or 505.
    """
    match = _REQUEST_LINE.fullmatch(_text(lines[0])) if lines else None
    if match is None:
        raise BadRequest(400, "request line")
    method, target, major, minor = match.groups()
    if major != "1":
        raise BadRequest(505, "HTTP version")
    is_11 = minor != "0"
    headers = _parse_headers(lines[1:])
    if is_11 and "HOST" not in headers:
        raise BadRequest(400, "no Host")  # RFC 9112 3.2
    if target.startswith("http://"):  # RFC 9112 3.2.2, the form for proxies
        target = "/" + target[7:].partition("/")[2]
    if target[0] != "/" and target != "*":
        raise BadRequest(400, "request target")
    path, _, query = target.partition("?")
    is_chunked, content_length = _parse_framing(headers, is_11)
    options = headers.get("CONNECTION", "").lower()
    return Head(
        method=method,
        path=path,
        query=query,
        version="HTTP/1.1" if is_11 else "HTTP/1.0",
        headers=headers,
        content_length=content_length,
        is_chunked=is_chunked,
        keeps_alive="close" not in options if is_11 else "keep-alive" in options,
        expects_continue=is_11 and headers.get("EXPECT", "").lower() == "100-continue",
    )


def _text(line: bytes) -> str:
    return line.removesuffix(b"\n").removesuffix(b"\r").decode("latin-1")


def _parse_headers(lines: Sequence[bytes]) -> dict[str, str]:
    if len(lines) > MAX_HEADERS:
        raise BadRequest(431, "too many headers")
    headers: dict[str, str] = {}
    for line in lines:
        match = _HEADER.fullmatch(_text(line))  # a folded line has no name, and is refused (RFC 9112 5.2)
        if match is None:
            raise BadRequest(400, "header")
        name, value = match.groups()
        if "_" in name:  # X_Y and X-Y would be one name to a WSGI application
            continue
        key = name.upper().replace("-", "_")
        value = value.rstrip(" \t")
        headers[key] = f"{headers[key]},{value}" if key in headers else value
    return headers


def _parse_framing(headers: dict[str, str], is_11: bool) -> tuple[bool, int | None]:
    """Whether the body is chunked, and its length."""
    lengths = (
        {length.strip(" \t") for length in headers["CONTENT_LENGTH"].split(",")}
        if "CONTENT_LENGTH" in headers
        else set()
    )
    if len(lengths) > 1 or not all(_LENGTH.fullmatch(length) for length in lengths):
        raise BadRequest(400, "Content-Length")
    encoding = headers.get("TRANSFER_ENCODING")
    if encoding is None:
        return False, int(lengths.pop()) if lengths else None
    if lengths or not is_11:
        raise BadRequest(400, "both Content-Length and Transfer-Encoding")  # RFC 9112 6.1: a smuggled request
    if encoding.lower() != "chunked":
        raise BadRequest(501, "transfer encoding")
    return True, None
