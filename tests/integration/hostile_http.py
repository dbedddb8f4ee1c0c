"""Requests that two servers may read in two ways, and upgrades that are none: each with the statuses that are right.

Behind each stands, or is hidden in it, a push to user 666 that nobody who reads it right ever takes: a proxy in front
has let one request through. Sources: RFC 9112 (6.3, 7.1, 11.2), RFC 9110, and what has been found in proxies and
servers: CL.TE, TE.CL, TE.TE, bare LF, chunk extensions, spaces before colons, folded lines.
"""

from __future__ import annotations

import os
import re
import ssl
from contextlib import suppress

from gevent import socket

WAIT_S = 10.0
HIDDEN = b"POST /1/push?uid=666 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1"
_START = b"POST /1/push?uid=1 HTTP/1.1\r\nHost: localhost\r\n"
_CHUNK = b"Transfer-Encoding: chunked\r\n"
_END = b"0\r\n\r\n"
_LENGTH = b"Content-Length: %d\r\n"

_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n")


def answers(address: str, data: bytes, tls: ssl.SSLContext | None = None) -> list[int]:
    """Sends it, says that nothing more comes, and reads until the server hangs up: the statuses of its answers.

    Args:
        tls: whom to believe; None without TLS. The server is localhost.
    """
    host, _, port = address.rpartition(":")
    plain = socket.create_connection((host, int(port)), timeout=WAIT_S)
    with plain if tls is None else tls.wrap_socket(plain, server_hostname="localhost") as sock:
        answer = b""
        with suppress(OSError):
            sock.sendall(data)
            with socket.socket(fileno=os.dup(sock.fileno())) as raw:  # one in TLS would forget its keys
                raw.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            while piece := sock.recv(1 << 16):
                answer += piece
    return [int(status) for status in _STATUS.findall(answer)]


def _head(*lines: bytes, start: bytes = _START) -> bytes:
    return start + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def _coded(line: bytes, status: int) -> tuple[bytes, list[int]]:
    """A coding in some spelling beside a length that covers what is hidden: whoever does not see it takes a body."""
    body = _END + HIDDEN
    return _START + _LENGTH % len(body) + line + b"\r\n\r\n" + body, [status]


def _chunks(chunks: bytes, *statuses: int) -> tuple[bytes, list[int]]:
    return _START + _CHUNK + b"\r\n" + chunks + HIDDEN, list(statuses)


def _length(line: bytes, status: int) -> tuple[bytes, list[int]]:
    return _head(line) + b"12345" + HIDDEN, [status]


def _line(line: bytes, *statuses: int) -> tuple[bytes, list[int]]:
    return line + b"\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", list(statuses)


def _hiding(line: bytes) -> bytes:
    """A request with a length whose body is a request."""
    return line + b"\r\nHost: localhost\r\n" + _LENGTH % len(HIDDEN) + b"\r\n" + HIDDEN


# By name: what is sent, and the statuses of all answers.
SMUGGLED: dict[str, tuple[bytes, list[int]]] = {
    # two framings
    "CL.TE": (_head(_LENGTH[:-2] % 6, _CHUNK[:-2]) + _END + HIDDEN, [400]),
    "TE.CL": (_head(_CHUNK[:-2], _LENGTH[:-2] % 4) + b"80\r\n" + HIDDEN.ljust(0x80) + b"\r\n" + _END, [400]),
    "CL.0: a length of 0, and chunks": (_head(b"Content-Length: 0", _CHUNK[:-2]) + _END + HIDDEN, [400]),
    "HTTP/1.0 with chunks": (_head(_CHUNK[:-2], start=_START.replace(b"1.1", b"1.0")) + _END + HIDDEN, [400]),
    # codings that are spelled so that one of two servers passes over them
    "TE.TE: twice": _coded(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x", 400),
    "TE.TE: another first": _coded(b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked", 400),
    "TE: xchunked": _coded(b"Transfer-Encoding: xchunked", 400),
    "TE: chunked, identity": _coded(b"Transfer-Encoding: chunked, identity", 400),
    "TE: identity": _coded(b"Transfer-Encoding: identity", 400),
    "TE: a space before the colon": _coded(b"Transfer-Encoding : chunked", 400),
    "TE: a tab": _coded(b"Transfer-Encoding:\tchunked", 400),
    "TE: a vertical tab": _coded(b"Transfer-Encoding: \x0bchunked", 400),
    "TE: a NUL": _coded(b"Transfer-Encoding: chunked\0", 400),
    "TE: quoted": _coded(b'Transfer-Encoding: "chunked"', 400),
    "TE: with a parameter": _coded(b"Transfer-Encoding: chunked;q=1", 400),
    "TE: folded": _coded(b"Transfer-Encoding:\r\n chunked", 400),
    "TE: behind a folded line": _coded(b"X: y\r\n Transfer-Encoding: chunked", 400),
    "TE: behind a bare LF": _coded(b"X: y\nTransfer-Encoding: chunked", 400),
    "TE: behind a bare CR": _coded(b"X: y\rTransfer-Encoding: chunked", 400),
    "TE: a line that begins with a space": _coded(b" Transfer-Encoding: chunked", 400),
    "TE: a name of other bytes": _coded(b"Transfer-Encoding\xa0: chunked", 400),
    "TE: in capitals": _coded(b"TRANSFER-ENCODING: CHUNKED", 400),
    "TE: empty": _coded(b"Transfer-Encoding:", 400),
    "TE: with an underscore": _coded(b"Transfer_Encoding: chunked", 200),  # another header: the length counts
    "TE: with a prefix": _coded(b"X-Transfer-Encoding: chunked", 200),
    "TE: chunked alone is last": (_head(b"Transfer-Encoding: gzip, chunked") + _END, [501]),
    # lengths
    "CL: twice": (_head(b"Content-Length: 5", b"Content-Length: 5") + b"12345" + HIDDEN, [400]),
    "CL: two that differ": (_head(b"Content-Length: 5", b"Content-Length: 6") + b"12345" + HIDDEN, [400]),
    "CL: a list": _length(b"Content-Length: 5, 5", 400),
    "CL: a sign": _length(b"Content-Length: +5", 400),
    "CL: below 0": _length(b"Content-Length: -5", 400),
    "CL: hexadecimal": _length(b"Content-Length: 0x5", 400),
    "CL: a fraction": _length(b"Content-Length: 5.0", 400),
    "CL: an exponent": _length(b"Content-Length: 5e0", 400),
    "CL: an underscore": _length(b"Content-Length: 0_5", 400),
    "CL: two words": _length(b"Content-Length: 5 5", 400),
    "CL: empty": _length(b"Content-Length:", 400),
    "CL: a NUL": _length(b"Content-Length: 5\0", 400),
    "CL: a space before the colon": _length(b"Content-Length : 5", 400),
    "CL: beyond 64 bits": _length(b"Content-Length: 18446744073709551621", 400),
    "CL: folded": _length(b"Content-Length:\r\n 5", 400),
    "CL: another alphabet": _length("Content-Length: ５".encode(), 400),
    "CL: quoted": _length(b'Content-Length: "5"', 400),
    # chunks
    "chunks: a bare LF behind the size": _chunks(b"5\n12345\r\n" + _END, 400),
    "chunks: a bare LF behind the data": _chunks(b"5\r\n12345\n" + _END, 400),
    "chunks: a bare CR behind the size": _chunks(b"5\r12345\r\n" + _END, 400),
    "chunks: two CR": _chunks(b"5\r\r\n12345\r\n" + _END, 400),
    "chunks: nothing behind the data": _chunks(b"5\r\n12345" + _END, 400),
    "chunks: two bytes too many": _chunks(b"5\r\n1234567\r\n" + _END, 400),
    "chunks: a space before the size": _chunks(b" 5\r\n12345\r\n" + _END, 400),
    "chunks: 0x": _chunks(b"0x5\r\n12345\r\n" + _END, 400),
    "chunks: a sign": _chunks(b"+5\r\n12345\r\n" + _END, 400),
    "chunks: below 0": _chunks(b"-5\r\n12345\r\n" + _END, 400),
    "chunks: no size": _chunks(b"\r\n12345\r\n" + _END, 400),
    "chunks: beyond 64 bits": _chunks(b"10000000000000005\r\n12345\r\n" + _END, 400),
    "chunks: the largest size": _chunks(b"ffffffffffffffff\r\n12345\r\n" + _END),
    "chunks: more than may be": _chunks(b"fffffff\r\n" + b"x" * 2_000_000, 413),
    "chunks: an extension with a bare LF": _chunks(b"5;a\n12345\r\n" + _END, 400),
    "chunks: an extension with a NUL": _chunks(b"5;a=\0\r\n12345\r\n" + _END, 400),
    "chunks: an extension in quotes with a line end": _chunks(b'5;a="\r\n12345\r\n' + _END, 400),
    "chunks: extensions without end": _chunks(b"5;" + b"a" * 100_000, 400),
    "chunks: the last one with a bare LF": _chunks(b"5\r\n12345\r\n0\n\n", 400),
    "chunks: a trailer with a bare LF": _chunks(b"0\r\nX: y\n\r\n", 400),
    "chunks: a trailer that is folded": _chunks(b"0\r\nX: y\r\n z\r\n\r\n", 400),
    "chunks: a trailer with a space before the colon": _chunks(b"0\r\nX : y\r\n\r\n", 400),
    "chunks: cut off": (_START + _CHUNK + b"\r\n5\r\n123", []),
    # heads
    "a bare LF behind the first line": (
        _START.replace(b"\r\n", b"\n", 1) + b"Content-Length: 0\r\n\r\n" + HIDDEN,
        [400],
    ),
    "bare LFs alone": (b"POST /1/push?uid=1 HTTP/1.1\nHost: localhost\nContent-Length: 0\n\n" + HIDDEN, [400]),
    "a bare CR in a value": (_head(b"X: y\rZ: z", b"Content-Length: 0") + HIDDEN, [400]),
    "a line without a colon": (_head(b"nothing", b"Content-Length: 0") + HIDDEN, [400]),
    "an empty name": (_head(b": x", b"Content-Length: 0") + HIDDEN, [400]),
    "a folded line": (_head(b"X: y", b" z", b"Content-Length: 0") + HIDDEN, [400]),
    "a fold before the first header": (_START.replace(b"\r\nHost", b"\r\n Host") + b"\r\n" + HIDDEN, [400]),
    "a NUL in a value": (_head(b"X: \0", b"Content-Length: 0") + HIDDEN, [400]),
    "a control character in a name": (_head(b"X\x01: y", b"Content-Length: 0") + HIDDEN, [400]),
    "two Hosts": (_head(b"Host: y", b"Content-Length: 0") + HIDDEN, [400]),
    "no Host": (b"POST /1/push?uid=1 HTTP/1.1\r\nContent-Length: 0\r\n\r\n" + HIDDEN, [400]),
    # first lines
    "two spaces": _line(b"POST  /1/push?uid=1 HTTP/1.1", 200),  # llhttp takes it, as RFC 9112 3 allows
    "a tab": _line(b"POST\t/1/push?uid=1 HTTP/1.1", 400),
    "a space at its end": _line(b"POST /1/push?uid=1 HTTP/1.1 ", 400),
    "a space before it": _line(b" POST /1/push?uid=1 HTTP/1.1", 400),
    "a space in the URL": _line(b"POST /1/push?uid=1 2 HTTP/1.1", 400),
    "small letters": _line(b"post /1/push?uid=1 HTTP/1.1", 400),
    "HTTP/0.9": _line(b"GET /healthz", 505),
    "HTTP/1.2": _line(b"POST /1/push?uid=1 HTTP/1.2", 400),
    "HTTP/1.10": _line(b"POST /1/push?uid=1 HTTP/1.10", 400),
    "HTTP/3.0": _line(b"POST /1/push?uid=1 HTTP/3.0", 400),
    "http/1.1": _line(b"POST /1/push?uid=1 http/1.1", 400),
    "ICE/1.0": _line(b"SOURCE /1/push?uid=1 ICE/1.0", 405),
    "RTSP": _line(b"DESCRIBE /1/push?uid=1 RTSP/1.0", 405),
    "CONNECT": _line(b"CONNECT x:80 HTTP/1.1", 400),
    "OPTIONS *": _line(b"OPTIONS * HTTP/1.1", 404),
    "TRACE": _line(b"TRACE /1/push?uid=1 HTTP/1.1", 405),
    "h2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400]),
    "a fragment": _line(b"POST /1/push#?uid=666 HTTP/1.1", 200),  # no uid: 65535 in goim's API
    "a NUL in the URL": _line(b"POST /1/push?uid=1\0 HTTP/1.1", 400),
    # bodies where few have one
    "GET with a body": (
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + _LENGTH % len(HIDDEN) + b"\r\n" + HIDDEN,
        [200],
    ),
    "HEAD with a body": (
        b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n" + _LENGTH % len(HIDDEN) + b"\r\n" + HIDDEN,
        [200],
    ),
    "an unknown path with a body": (
        b"PUT /x HTTP/1.1\r\nHost: localhost\r\n" + _LENGTH % len(HIDDEN) + b"\r\n" + HIDDEN,
        [404],
    ),
    "h2c with a body": (
        _START
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
        + _LENGTH % len(HIDDEN)
        + b"\r\n"
        + HIDDEN,
        [200],
    ),
    "Expect of something else": (_head(b"Expect: x", _LENGTH[:-2] % len(HIDDEN)) + HIDDEN, [200]),
    "Connection names the length": (_head(b"Connection: content-length", _LENGTH[:-2] % len(HIDDEN)) + HIDDEN, [200]),
    "closed behind the first": (_head(b"Connection: close", b"Content-Length: 0") + HIDDEN, [200]),
    # what is right, so that the rest is not refused for another reason
    "right: a length": (_head(b"Content-Length: 1") + b"1", [200]),
    "right: chunks": (_START + _CHUNK + b"\r\n1;a=b\r\n1\r\n0\r\nX: y\r\n\r\n", [200]),
    "right: the absolute form": (
        b"POST http://localhost/1/push?uid=1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1",
        [200],
    ),
    "right: two in one": (2 * (_head(b"Content-Length: 1") + b"1"), [200, 200]),
    "right: an empty line before": (b"\r\n" + _head(b"Content-Length: 1") + b"1", [200]),
    "right: what is hidden in a body": (_head(_LENGTH[:-2] % len(HIDDEN)) + HIDDEN, [200]),
}

_UPGRADE = {
    b"Host": b"localhost",
    b"Upgrade": b"websocket",
    b"Connection": b"Upgrade",
    b"Sec-WebSocket-Version": b"13",
    b"Sec-WebSocket-Key": b"dGhlIHNhbXBsZSBub25jZQ==",
}


def _upgrade(*more: bytes, start: bytes = b"GET /sub HTTP/1.1", **other: bytes | None) -> bytes:
    """other: a header's value, with underscores in its name; None takes it away. more: whole lines."""
    headers = _UPGRADE | {name.replace("_", "-").encode(): value for name, value in other.items()}
    lines = [b"%s: %s" % (name, value) for name, value in headers.items() if value is not None]
    return b"\r\n".join([start, *lines, *more, b"", b""])


UPGRADES: dict[str, tuple[bytes, list[int]]] = {
    "as it should be": (_upgrade(), [101]),
    "in small letters": (_upgrade().lower().replace(b"get /sub http", b"GET /sub HTTP"), [101]),
    "names in small letters": (_upgrade().replace(b"Upgrade: ", b"upgrade: ").replace(b"Sec-Web", b"sec-web"), [101]),
    "WebSocket": (_upgrade(Upgrade=b"WebSocket"), [101]),
    "among others": (_upgrade(Upgrade=b"h2c, websocket", Connection=b"keep-alive, upgrade"), [101]),
    "a version behind it": (_upgrade(Upgrade=b"websocket/13"), [400]),
    "another protocol": (_upgrade(Upgrade=b"h2c"), [400]),
    "without Upgrade": (_upgrade(Upgrade=None), [426]),
    "without Connection": (_upgrade(Connection=None), [426]),
    "Connection: close": (_upgrade(Connection=b"close"), [426]),
    "without a key": (_upgrade(Sec_WebSocket_Key=None), [400]),
    "two keys": (_upgrade(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), [400]),
    "a key of 15 bytes": (_upgrade(Sec_WebSocket_Key=b"dGhlIHNhbXBsZSBub25j"), [400]),
    "a key of 17 bytes": (_upgrade(Sec_WebSocket_Key=b"dGhlIHNhbXBsZSBub25jZTE="), [400]),
    "a key with a line": (_upgrade(Sec_WebSocket_Key=b"dGhlIHNhbXBs\r\n ZSBub25jZQ=="), [400]),
    "without a version": (_upgrade(Sec_WebSocket_Version=None), [426]),
    "version 8": (_upgrade(Sec_WebSocket_Version=b"8"), [426]),
    "two versions": (_upgrade(Sec_WebSocket_Version=b"13, 8"), [426]),
    "version 0xd": (_upgrade(Sec_WebSocket_Version=b"0xd"), [426]),
    "an extension that is not spoken": (_upgrade(b"Sec-WebSocket-Extensions: permessage-deflate"), [101]),
    "extensions that are broken": (_upgrade(b"Sec-WebSocket-Extensions: ;;,=,x; y=\x80"), [101]),
    "subprotocols": (_upgrade(b"Sec-WebSocket-Protocol: a, b"), [101]),
    "a query": (_upgrade(start=b"GET /sub?token=x HTTP/1.1"), [101]),
    "another spelling": (_upgrade(start=b"GET /%73ub HTTP/1.1"), [101]),
    "a slash more": (_upgrade(start=b"GET /sub/ HTTP/1.1"), [404]),
    "two slashes": (_upgrade(start=b"GET //sub HTTP/1.1"), [404]),
    "up and down": (_upgrade(start=b"GET /x/../sub HTTP/1.1"), [404]),
    "the absolute form": (_upgrade(start=b"GET http://localhost/sub HTTP/1.1"), [101]),
    "HEAD": (_upgrade(start=b"HEAD /sub HTTP/1.1"), [405]),
    "CONNECT": (_upgrade(start=b"CONNECT x:80 HTTP/1.1"), [400]),
    "HTTP/1.0": (_upgrade(start=b"GET /sub HTTP/1.0"), [400]),
    "two Hosts": (_upgrade(b"Host: y"), [400]),
    "without Host": (_upgrade(Host=None), [400]),
    "Host of another": (_upgrade(Host=b"app.example.com"), [403]),
    "a page of another": (_upgrade(b"Origin: https://evil.example"), [403]),
    "a page without a name": (_upgrade(b"Origin: null"), [403]),
    "a body": (_upgrade(b"Content-Length: 5") + b"12345", [413]),
    "a body of nothing": (_upgrade(b"Content-Length: 0"), [101]),
    "chunks": (_upgrade(b"Transfer-Encoding: chunked") + b"5\r\n12345\r\n0\r\n\r\n", [413]),
    "both": (_upgrade(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"0\r\n\r\n", [400]),
    "a push behind it": (_upgrade() + HIDDEN, [101]),  # it is a broken frame
    "a push behind what is no upgrade": (_upgrade(Upgrade=None) + HIDDEN, [426]),
    "a push alone": (HIDDEN, [404]),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n", [400]),
    "a PROXY header": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + _upgrade(), [400]),
}
