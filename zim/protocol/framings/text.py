"""Packets as JSON in WebSocket text frames.

    from the client   one object a frame     {"ver":1,"op":7,"seq":1,"body":7}
    to the client     an array of objects    [{"ver":0,"op":5,"seq":0,"body":{}}]; with "stream" and "offset" if the
                                             packet tells its place

A body is any JSON value (goim `libs/proto/proto.go`, `WriteWebsocket`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from typing_extensions import override

from zim.json_text import STRICT, Scanner, is_json, is_too_deep
from zim.protocol import websocket
from zim.protocol.errors import WireError
from zim.protocol.frame import Packet
from zim.protocol.framings.base import Alive, Framing, Goodbye
from zim.protocol.websocket import FrameReader

PATH = "/sub"  # of the upgrade
FRAME_BYTES = 64 << 10  # of one text frame that carries several packets: client libraries limit what they take

_INT16, _INT32 = 1 << 15, 1 << 31


def encode_json(body: bytes) -> bytes:
    """A push's body as a JSON client gets it: JSON as it is, nothing as `{}`, anything else as a JSON string.

    Bytes that are not UTF-8 become U+FFFD in that string.
    """
    if not body:
        return b"{}"
    return body if is_json(body) else json.dumps(body.decode(errors="replace"), ensure_ascii=False).encode()


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
        is_array = text.lstrip().startswith(b"[")
        raise WireError("an array; right is one object a frame" if is_array else "not a packet in JSON") from None
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
        if is_too_deep(text):
            raise ValueError("nested too deeply") from None
        scanner = Scanner(text.decode(), STRICT)
        if scanner.take("null"):
            return {}
        scanner.want("{")
        return {key.lower(): raw.encode() for key, _, raw in scanner.items("}", scanner.member)}


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


class TextReader:
    """Packets in a client's text frames."""

    __slots__ = ("_frames",)

    def __init__(self, max_bytes: int) -> None:
        self._frames = FrameReader(max_bytes, is_server=True)

    @property
    def is_within(self) -> bool:
        """A message has begun, and is not whole."""
        return self._frames.is_within

    def receive(self, data: bytes) -> Iterator[Packet | Alive | Goodbye]:
        """What is complete with `data`, one by one.

        Raises:
            WireError: the client broke RFC 6455, or says what is no packet. What came before has been yielded.
        """
        for said in self._frames.receive(data):
            match said:
                case websocket.Text(body):
                    yield parse_text(body)
                case websocket.Binary():
                    raise WireError("binary frames are not spoken here: send text", websocket.UNSUPPORTED)
                case websocket.Ping(body):
                    yield Alive(websocket.encode_frame(websocket.PONG, body))
                case websocket.Pong():
                    yield Alive()
                case websocket.Close(code):
                    yield Goodbye(code or websocket.NORMAL)  # it gets its code back (RFC 6455 5.5.1)


class WsText(Framing):
    """JSON in WebSocket text frames."""

    __slots__ = ()

    @override
    def reader(self, max_bytes: int) -> TextReader:
        return TextReader(max_bytes)

    @override
    def encode_body(self, body: bytes) -> bytes:
        return encode_json(body)

    @override
    def encode_part(self, packet: Packet) -> bytes:
        """The body is raw JSON already, and absence is `{}`."""
        op, seq, version, body, stream, offset = packet
        head = b'{"ver":%d,"op":%d,"seq":%d,"body":%b' % (version, op, seq, body or b"{}")
        return b'%b,"stream":%b,"offset":%d}' % (head, msgspec.json.encode(stream), offset) if stream else head + b"}"

    @override
    def join(self, parts: Sequence[bytes]) -> bytes:
        """Frames are cut at FRAME_BYTES."""
        if len(parts) == 1:
            return websocket.encode_frame(websocket.TEXT, b"[" + parts[0] + b"]")
        frames: list[list[bytes]] = []
        size = FRAME_BYTES
        for part in parts:
            if size + len(part) > FRAME_BYTES:
                frames.append([])
                size = 0
            frames[-1].append(part)
            size += len(part) + 1
        return b"".join([websocket.encode_frame(websocket.TEXT, b"[" + b",".join(f) + b"]") for f in frames])

    @override
    def encode_close(self, code: int, reason: str) -> bytes:
        return websocket.encode_close(code, reason) if code else b""


class WsObjects(WsText):
    """One packet a frame, and no array: goim's clients before v1.2 expect that."""

    __slots__ = ()

    @override
    def join(self, parts: Sequence[bytes]) -> bytes:
        return b"".join([websocket.encode_frame(websocket.TEXT, part) for part in parts])


TEXT = WsText()
TEXT_OBJECTS = WsObjects()
