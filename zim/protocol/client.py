"""The dialects of the client wire: how one push looks on TCP and as JSON in WebSocket text frames.

goim v1 on WebSocket speaks text frames: from the client one object `{"ver","op","seq","body"}`, to the client an array
of them. A body is any JSON value there (goim `libs/proto/proto.go`, `WriteWebsocket`). zim's own dialect is the same
with version 3, and tells stream and offset of each push.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NoReturn

import msgspec

from zim.protocol import frame, websocket
from zim.protocol.errors import WireError
from zim.protocol.frame import Op, Packet

FRAME_BYTES = 64 << 10  # of one text frame that carries several packets: client libraries limit what they take

_INT16, _INT32 = 1 << 15, 1 << 31


class Dialect(IntEnum):
    """What a connection speaks; an index into what is encoded once per push."""

    V1_TCP = 0
    V1_TEXT = 1
    ZIM_TCP = 2
    ZIM_TEXT = 3

    @property
    def is_text(self) -> bool:
        """JSON in WebSocket frames."""
        return self in (Dialect.V1_TEXT, Dialect.ZIM_TEXT)

    @property
    def is_zim(self) -> bool:
        """Its clients know of streams and offsets."""
        return self in (Dialect.ZIM_TCP, Dialect.ZIM_TEXT)

    def of_version(self, version: int) -> Dialect:
        """What a connection speaks whose auth packet has this version."""
        if version != frame.VERSION:
            return self
        return Dialect.ZIM_TEXT if self.is_text else Dialect.ZIM_TCP


# ---------------------------------------------------------------- JSON


def _refuse(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


# Numbers stay text: Python's own limits on them are not JSON's.
_STRICT = json.JSONDecoder(parse_constant=_refuse, parse_int=str, parse_float=str)


def json_body(body: bytes) -> bytes:
    """A push's body as a JSON client gets it: JSON as it is, nothing as `{}`, anything else as a JSON string.

    Bytes that are not UTF-8 become U+FFFD in that string.
    """
    if not body:
        return b"{}"
    try:
        _STRICT.decode(body.decode())
    except (ValueError, RecursionError):
        return json.dumps(body.decode(errors="replace"), ensure_ascii=False).encode()
    return body


def parse_text(text: bytes) -> Packet:
    """One packet from a client's text frame, as Go's encoding/json reads it into goim's Proto.

    Keys match in any case, null and absence are zero, what follows the object is ignored. The body stays as it was
    written: the token `7` and the token `"7"` are different.

    Raises:
        WireError: not JSON, not an object, or a number beyond its field.
    """
    try:
        found = _fields(text)
    except (ValueError, RecursionError):
        raise WireError("not a packet in JSON") from None
    return Packet(
        op=_number(found, "op", _INT32),
        seq=_number(found, "seq", _INT32),
        version=_number(found, "ver", _INT16),
        body=found.get("body", b""),
    )


def _fields(text: bytes) -> dict[str, bytes]:
    """The object's fields as raw JSON."""
    try:
        raw = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        return {key.lower(): bytes(value) for key, value in raw.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # msgspec is stricter than Go in corners: what follows the object, lone surrogates. Rare, so it may be slow.
        string = text.decode()
        start = len(string) - len(string.lstrip(" \t\r\n"))
        value, _ = json.JSONDecoder(parse_constant=_refuse).raw_decode(string, start)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise ValueError("not an object") from None
        return {key.lower(): json.dumps(item).encode() for key, item in value.items()}


def _number(found: dict[str, bytes], key: str, limit: int) -> int:
    raw = found.get(key, b"null").strip()
    if raw == b"null":
        return 0
    try:
        value: Any = msgspec.json.decode(raw, type=int)
    except msgspec.DecodeError:
        raise WireError(f"{key} is not a whole number") from None
    if not -limit <= value < limit:
        raise WireError(f"{key} is beyond its field")
    return int(value)


def _json_packet(op: int, seq: int, version: int, body: bytes) -> bytes:
    return b'{"ver":%d,"op":%d,"seq":%d,"body":%b}' % (version, op, seq, body)


# ---------------------------------------------------------------- what the server says


def reply(dialect: Dialect, packet: Packet) -> bytes:
    """The bytes of an answer to one client. On WebSocket the body is raw JSON already, and absence is `{}`."""
    if not dialect.is_text:
        return frame.encode(packet)
    text = _json_packet(packet.op, packet.seq, packet.version, packet.body or b"{}")
    return websocket.frame(websocket.TEXT, b"[" + text + b"]")


class Content:
    """What one push is in all its streams, encoded once, when the first connection that needs it comes up."""

    __slots__ = ("_json", "_json_body", "_packet", "body", "op")

    def __init__(self, op: int, body: bytes) -> None:
        self.op, self.body = op, body
        self._packet: bytes | None = None
        self._json: bytes | None = None
        self._json_body: bytes | None = None

    @property
    def packet(self) -> bytes:
        """goim's packet; v1 pushes carry version 0 and seq 0."""
        if self._packet is None:
            self._packet = frame.encode(Packet(self.op, 0, 0, self.body))
        return self._packet

    @property
    def json_body(self) -> bytes:
        """See the function of that name."""
        if self._json_body is None:
            self._json_body = json_body(self.body)
        return self._json_body

    @property
    def json(self) -> bytes:
        """The object that stands in a v1 text frame's array."""
        if self._json is None:
            self._json = _json_packet(self.op, 0, 0, self.json_body)
        return self._json


class Encoded:
    """One push in one stream, encoded once per dialect, when the first connection that speaks it comes up.

    Attributes:
        content: what it shares with the same push in other streams.
        stream, offset: where it is.
        only: keys of the sessions that it is for; all of them if empty.
    """

    __slots__ = ("_chunks", "content", "offset", "only", "stream")

    def __init__(self, content: Content, stream: str, offset: int, only: tuple[str, ...] = ()) -> None:
        self.content, self.stream, self.offset, self.only = content, stream, offset, only
        self._chunks: dict[Dialect, bytes] = {}

    def packet(self, dialect: Dialect) -> bytes:
        """On TCP."""
        if dialect is Dialect.V1_TCP:
            return self.content.packet
        return frame.encode(Packet(self.content.op, 0, frame.VERSION, self.content.body, self.stream, self.offset))

    def json(self, dialect: Dialect) -> bytes:
        """The object that stands in a text frame's array."""
        if dialect is Dialect.V1_TEXT:
            return self.content.json
        place = (frame.VERSION, self.content.op, self.content.json_body, msgspec.json.encode(self.stream), self.offset)
        return b'{"ver":%d,"op":%d,"seq":0,"body":%b,"stream":%b,"offset":%d}' % place

    def chunk(self, dialect: Dialect) -> bytes:
        """What goes to a socket if this push goes alone."""
        found = self._chunks.get(dialect)
        if found is None:
            found = self._chunks[dialect] = join(dialect, [self])
        return found


def join(dialect: Dialect, pushes: Sequence[Encoded]) -> bytes:
    """Several pushes, in order, as one write. Text frames are cut at FRAME_BYTES."""
    if not dialect.is_text:
        return b"".join([push.packet(dialect) for push in pushes])
    frames: list[bytes] = []
    texts: list[bytes] = []
    size = 0
    for push in pushes:
        text = push.json(dialect)
        if texts and size + len(text) > FRAME_BYTES:
            frames.append(websocket.frame(websocket.TEXT, b"[" + b",".join(texts) + b"]"))
            texts, size = [], 0
        texts.append(text)
        size += len(text) + 1
    frames.append(websocket.frame(websocket.TEXT, b"[" + b",".join(texts) + b"]"))
    return b"".join(frames)


def answer(dialect: Dialect, packet: Packet) -> bytes | None:
    """The answer to a packet of an authenticated client, where it needs nobody else.

    Returns:
        The bytes of the reply, or nothing: an unknown operation, a second auth, on which v1 closes the connection.
    """
    op, seq, version, body = packet[:4]
    if op == Op.HEARTBEAT:
        return reply(dialect, Packet(Op.HEARTBEAT_REPLY, seq, version))
    if op == Op.UPSTREAM:
        return reply(dialect, Packet(Op.PUSH, seq, version, body))
    if op == Op.TEST:
        return reply(dialect, Packet(Op.TEST_REPLY, seq, version, b'{"test":"come on"}'))
    return None
