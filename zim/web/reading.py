"""Read an HTTP/1 request from a stream: within a number of bytes, whatever the client sends.

How long it may take is the caller's to limit. Every function switches, and raises ConnectionError where the stream
ends too early.
"""

from __future__ import annotations

import re
from io import BufferedReader

import gevent

from zim.web.head import MAX_HEAD_BYTES, BadRequest

CHUNKS_PER_TURN = 100  # a client that sends a body in chunks of a byte must not starve the others
MAX_CHUNK_LINE_BYTES = 1_024  # of one chunk's size and its extensions, and of one trailer
MAX_TRAILERS = 100

_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")


def read_head(rfile: BufferedReader) -> list[bytes]:
    """Read request line and headers, without the blank line that ends them.

    Raises:
        BadRequest: 414 or 431, too long.
    """
    lines: list[bytes] = []
    left = MAX_HEAD_BYTES
    while left:
        line = rfile.readline(left)
        left -= len(line)
        if not line.endswith(b"\n"):
            if left:
                raise ConnectionError("end of stream in a head")
        elif line not in (b"\r\n", b"\n"):
            lines.append(line)
        elif lines:  # else a blank line before the request, which RFC 9112 2.2 forgives
            return lines
    raise BadRequest(431 if lines else 414, "head too long")


def read_exactly(rfile: BufferedReader, length: int) -> bytes:
    """Read so many bytes."""
    data = rfile.read(length) if length else b""
    if len(data) < length:
        raise ConnectionError("end of stream in a body")
    return data


def read_chunks(rfile: BufferedReader, limit: int) -> bytes:
    """Read a chunked body, and its trailers, which are dropped (RFC 9112 7.1).

    Raises:
        BadRequest: 400 not chunks, 413 more than `limit` bytes.
    """
    body = bytearray()
    n_chunks = 0
    while size := _read_chunk_size(rfile):
        if len(body) + size > limit:
            raise BadRequest(413, "body too large")
        body += read_exactly(rfile, size)
        if read_exactly(rfile, 2) != b"\r\n":
            raise BadRequest(400, "chunk without an end")
        n_chunks += 1
        if n_chunks % CHUNKS_PER_TURN == 0:
            gevent.sleep(0)
    for _ in range(MAX_TRAILERS):
        if _read_line(rfile) in (b"\r\n", b"\n"):
            return bytes(body)
    raise BadRequest(400, "too many trailers")


def _read_chunk_size(rfile: BufferedReader) -> int:
    match = _CHUNK_SIZE.fullmatch(_read_line(rfile))
    if match is None:
        raise BadRequest(400, "chunk size")
    return int(match[1], 16)


def _read_line(rfile: BufferedReader) -> bytes:
    line = rfile.readline(MAX_CHUNK_LINE_BYTES)
    if not line.endswith(b"\n"):
        if len(line) < MAX_CHUNK_LINE_BYTES:
            raise ConnectionError("end of stream in a chunk")
        raise BadRequest(400, "chunk line too long")
    return line
