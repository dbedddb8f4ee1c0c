"""The client wire as the chaos clients speak it, written from its description: bytes ⇄ values. Only WebSocket
frames are zim's own, whose reader is stricter than one for a test would be.

A packet, big-endian: length int32, header length int16, version int16, op int32, seq int32; in version 3 a push's
header goes on with offset uint64 and the stream's name; then the body. In WebSocket text frames it is a JSON object,
from the server an array of such objects.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from zim.protocol import websocket
from zim.protocol.errors import WireError
from zim.protocol.websocket import FrameReader, encode_frame

HEARTBEAT, HEARTBEAT_REPLY, UPSTREAM, PUSH, CLOSING, AUTH, AUTH_REPLY = 2, 3, 4, 5, 6, 7, 8
JOIN, JOINED, LEAVE, LEFT, ACKNOWLEDGE, ACKNOWLEDGED, GAP = 20, 21, 22, 23, 24, 25, 26

_HEADER = struct.Struct(">ihhii")
_MASK = b"\x1f\x2e\x3d\x4c"


class Said(NamedTuple):
    """One packet from the server. body: parsed if it is JSON, else the bytes. stream: "" where none is told."""

    op: int
    seq: int
    version: int
    body: Any
    stream: str = ""
    offset: int = 0


class Garbled(Exception):
    """The server broke the wire."""


def packet(op: int, body: bytes, seq: int = 0, version: int = 3) -> bytes:
    """A client's packet on TCP."""
    return _HEADER.pack(_HEADER.size + len(body), _HEADER.size, version, op, seq) + body


def text(op: int, body: bytes, seq: int = 0, version: int = 3) -> bytes:
    """A client's packet as a masked text frame; body is JSON."""
    return encode_frame(
        websocket.TEXT, b'{"ver":%d,"op":%d,"seq":%d,"body":%b}' % (version, op, seq, body or b"null"), _MASK
    )


class WireReader:
    """Cuts what a server sends into packets.

    Attributes:
        close: code and reason of a WebSocket close frame, once it has come.
    """

    def __init__(self, is_ws: bool) -> None:
        self.close: tuple[int, str] | None = None
        self._is_ws = is_ws
        self._rest = b""
        self._frames = FrameReader(1 << 26, is_server=False)

    def feed(self, data: bytes) -> list[Said]:
        """What has come whole.

        Raises:
            Garbled: it is no packet.
        """
        self._rest += data
        try:
            return list(self._texts() if self._is_ws else self._packets())
        except (ValueError, KeyError, TypeError, struct.error, WireError) as e:
            raise Garbled(f"{type(e).__name__}: {e}") from None

    def _packets(self) -> Iterator[Said]:
        while len(self._rest) >= _HEADER.size:
            length, header, version, op, seq = _HEADER.unpack_from(self._rest)
            if not _HEADER.size <= header <= length:
                raise Garbled(f"a packet of {length} bytes with a header of {header}")
            if len(self._rest) < length:
                return
            stream, offset = "", 0
            if header > _HEADER.size:
                (offset,) = struct.unpack_from(">Q", self._rest, _HEADER.size)
                stream = self._rest[_HEADER.size + 8 : header].decode()
            body, self._rest = self._rest[header:length], self._rest[length:]
            yield Said(op, seq, version, _parsed(body), stream, offset)

    def _texts(self) -> Iterator[Said]:
        rest, self._rest = self._rest, b""
        for found in self._frames.receive(rest):
            if isinstance(found, websocket.Close):
                self.close = (found.code, found.reason)
            elif isinstance(found, websocket.Text):
                for p in json.loads(found.body):
                    yield Said(p["op"], p["seq"], p["ver"], p["body"], p.get("stream", ""), p.get("offset", 0))


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body
