"""The client side of WebSocket (RFC 6455): bytes in, packets out, no socket in here."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator

from typing_extensions import override

from zim.client.errors import ConnectionLost, LoginRefused
from zim.client.wire import MAX_PACKET_BYTES, Wire, decode_text, encode_text
from zim.protocol import websocket
from zim.protocol.errors import WireError
from zim.protocol.frame import Packet
from zim.protocol.websocket import FrameReader, encode_close, encode_frame

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3
_START = b"HTTP/1."
_OF_SILENCE = " (if that is a comet's `tcp`, WebSocket is on its `ws`)"
_A_LOGIC = b"404 page not found\n"  # goim's answer, and so a logic's, to a path that is none
_MAX_HEAD_BYTES = 16 << 10
_MAX_SHOWN_BYTES = 300
_NOT_HTTP = "the answer to the WebSocket request is not HTTP; is this a WebSocket port?"


def random_mask() -> bytes:
    """Of a frame from a client (RFC 6455 5.3)."""
    return os.urandom(4)


def accept_key(key: bytes) -> bytes:
    """What Sec-WebSocket-Accept must be (RFC 6455 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def opening_request(address: str, path: str, key: bytes) -> bytes:
    """The client's HTTP request (RFC 6455 4.1)."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key.decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def check_response(head: bytes, key: bytes, path: str = "/sub", body: bytes = b"") -> None:
    """Checks the server's answer, up to its empty line. body: what has come of what is behind it.

    Raises:
        LoginRefused: the server answered, with something else than 101.
        WireError: this is no WebSocket server, or it answers somebody else's request.
    """
    first, *lines = head.split(b"\r\n")
    parts = first.split(None, 2)
    if len(parts) < 2 or not parts[0].startswith(_START) or not parts[1].isdigit():
        raise WireError(_NOT_HTTP)
    headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(b":") for line in lines)}
    if parts[1] != b"101":
        status = b" ".join(parts[1:]).decode("latin-1")
        is_told = headers.get(b"content-type", b"").startswith(b"text/plain")
        reason = _first_line(body) if is_told else ""
        if parts[1] == b"404" and body == _A_LOGIC:
            reason = "a logic answers there; clients connect to a comet's `ws`"
        raise LoginRefused(f"HTTP {status} for {path} instead of a WebSocket" + (f": {reason}" if reason else ""))
    if headers.get(b"upgrade", b"").lower() != b"websocket":
        raise WireError("HTTP 101 without Upgrade: websocket")
    if headers.get(b"sec-websocket-accept") != accept_key(key):
        raise WireError("wrong Sec-WebSocket-Accept")


def _first_line(body: bytes) -> str:
    """What a server says for people, as far as it can be shown."""
    text = body.partition(b"\n")[0][:_MAX_SHOWN_BYTES].decode(errors="replace")
    return "".join(char for char in text if char.isprintable())


class WsWire(Wire):
    """Packets as JSON in WebSocket text frames."""

    def __init__(self, address: str, path: str = "/sub", max_packet_bytes: int = MAX_PACKET_BYTES) -> None:
        self._key = base64.b64encode(os.urandom(16))
        self._path = path
        self.opening = opening_request(address, path, self._key)
        self.is_open = False
        self.of_silence = _OF_SILENCE
        self._head = b""
        self._frames = FrameReader(max_packet_bytes, is_server=False)
        self._replies = b""

    @override
    def send(self, packet: Packet) -> bytes:
        return encode_frame(websocket.TEXT, encode_text(packet), random_mask())

    @override
    def _read(self, data: bytes) -> Iterator[Packet]:
        if self.is_open or (data := self._shake_hands(data)):
            for said in self._frames.receive(data):
                yield from self._handle(said)

    def _shake_hands(self, data: bytes) -> bytes:
        """Reads the answer to `opening`. What follows it is returned."""
        self._head += data
        self.of_silence = ""
        if not _START.startswith(self._head[: len(_START)]):
            raise WireError(_NOT_HTTP)  # at once: its first line may never end
        head, end, data = self._head.partition(b"\r\n\r\n")
        if not end:
            if len(self._head) > _MAX_HEAD_BYTES:
                raise WireError("the answer to the WebSocket request has no end")
            return b""
        check_response(head, self._key, self._path, data)
        self.is_open = True
        self._head = b""
        return data

    @override
    def replies(self) -> bytes:
        replies, self._replies = self._replies, b""
        return replies

    @override
    def closing(self) -> bytes:
        return encode_close(websocket.NORMAL, mask=random_mask())

    def _handle(self, said: object) -> list[Packet]:
        match said:
            case websocket.Text(body):
                return decode_text(body.decode())
            case websocket.Binary():
                raise WireError("binary frame for a client that speaks text", websocket.UNSUPPORTED)
            case websocket.Ping(body):
                self._replies += encode_frame(websocket.PONG, body, random_mask())
            case websocket.Close(code, reason):
                with_code = f" with code {code}" if code else ""
                raise ConnectionLost(f"closed by the server{with_code}" + (f": {reason}" if reason else ""))
        return []
