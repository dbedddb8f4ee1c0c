"""The client side of WebSocket (RFC 6455): bytes in, packets out, no socket in here."""

from __future__ import annotations

import base64
import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from zim.client.errors import ConnectionLost, LoginRefused, WireError, ZimError
from zim.client.wire import MAX_PACKET_BYTES, decode_text, encode_text
from zim.protocol.frame import Packet

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3
_MAX_HEAD_BYTES = 16 << 10
_MAX_CONTROL_BYTES = 125  # RFC 6455 5.5


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame, or a whole message put together from its fragments."""

    opcode: int
    body: bytes


def encode_frame(opcode: int, body: bytes, mask: bytes | None = None) -> bytes:
    """A frame from the client: final and masked (RFC 6455 5.3).

    Args:
        mask: four bytes; random ones when left out.
    """
    mask = os.urandom(4) if mask is None else mask
    size = len(body)
    if size < 126:
        head = struct.pack(">BB", 0x80 | opcode, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", 0x80 | opcode, 0x80 | 126, size)
    else:
        head = struct.pack(">BBQ", 0x80 | opcode, 0x80 | 127, size)
    return head + mask + apply_mask(body, mask)


def apply_mask(body: bytes, mask: bytes) -> bytes:
    """Masks or unmasks: XOR with the four bytes of the mask, as one big number."""
    size = len(body)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(body, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def accept_key(key: bytes) -> bytes:
    """What Sec-WebSocket-Accept must be (RFC 6455 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def opening_request(address: str, path: str, key: bytes) -> bytes:
    """The client's HTTP request (RFC 6455 4.1)."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key.decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def check_response(head: bytes, key: bytes, path: str = "/sub") -> None:
    """Checks the server's answer, up to its empty line.

    Raises:
        LoginRefused: the server answered, with something else than 101.
        WireError: this is no WebSocket server, or it answers somebody else's request.
    """
    first, *lines = head.split(b"\r\n")
    parts = first.split(None, 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
        raise WireError("the answer to the WebSocket request is not HTTP; is this a WebSocket port?")
    if parts[1] != b"101":
        status = b" ".join(parts[1:]).decode("latin-1")
        raise LoginRefused(f"HTTP {status} for {path} instead of a WebSocket")
    headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(b":") for line in lines)}
    if headers.get(b"upgrade", b"").lower() != b"websocket":
        raise WireError("HTTP 101 without Upgrade: websocket")
    if headers.get(b"sec-websocket-accept") != accept_key(key):
        raise WireError("wrong Sec-WebSocket-Accept")


class Frames:
    """Frames from the server; fragments come out as whole messages."""

    def __init__(self, max_bytes: int = MAX_PACKET_BYTES) -> None:
        self._max = max_bytes
        self._rest = bytearray()
        self._opcode = 0
        self._parts = bytearray()

    def receive(self, data: bytes) -> Iterator[Frame]:
        """The messages and control frames that are complete with `data`, one by one.

        Raises:
            WireError: the server broke RFC 6455, or a message is above the limit; what came before has been yielded.
        """
        self._rest += data
        while (frame := self._next()) is not None:
            yield from self._join(*frame)

    def _next(self) -> tuple[int, bool, bytes] | None:
        rest = self._rest
        if len(rest) < 2:
            return None
        first, size, at = rest[0], rest[1], 2
        opcode, is_final = first & 15, first >= 0x80
        if first & 0x70:
            raise WireError("reserved bits set, though no extension was agreed on")
        if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise WireError(f"unknown opcode {opcode}")
        if size & 0x80:
            raise WireError("masked frame from the server")
        if opcode >= CLOSE and (size > _MAX_CONTROL_BYTES or not is_final):
            raise WireError("control frame that is long or in fragments")
        if size >= 126:
            at = 4 if size == 126 else 10
            if len(rest) < at:
                return None
            size = int.from_bytes(rest[2:at], "big")
        if size + len(self._parts) > self._max:
            raise WireError(f"message of more than {self._max} bytes", 1009)
        if len(rest) < at + size:
            return None
        body = bytes(rest[at : at + size])
        del rest[: at + size]
        return opcode, is_final, body

    def _join(self, opcode: int, is_final: bool, body: bytes) -> list[Frame]:
        if opcode >= CLOSE:
            return [Frame(opcode, body)]
        if (opcode == CONTINUATION) != bool(self._opcode):
            raise WireError("fragments out of order")
        self._opcode = self._opcode or opcode
        self._parts += body
        if not is_final:
            return []
        frame = Frame(self._opcode, bytes(self._parts))
        self._opcode = 0
        self._parts.clear()
        return [frame]


class WsDialect:
    """Packets as JSON in WebSocket text frames. Same attributes as TcpDialect."""

    def __init__(self, address: str, path: str = "/sub", max_packet_bytes: int = MAX_PACKET_BYTES) -> None:
        self._key = base64.b64encode(os.urandom(16))
        self._path = path
        self.opening = opening_request(address, path, self._key)
        self.closing = encode_frame(CLOSE, struct.pack(">H", 1000))
        self.is_open = False
        self.broken: ZimError | None = None
        self._head = b""
        self._frames = Frames(max_packet_bytes)
        self._replies = b""

    def send(self, packet: Packet) -> bytes:
        """The bytes of a packet."""
        return encode_frame(TEXT, encode_text(packet))

    def receive(self, data: bytes) -> list[Packet]:
        """The packets that are complete with `data`. Afterwards look at `broken`."""
        packets: list[Packet] = []
        if self.broken is None:
            try:
                if self.is_open or (data := self._shake_hands(data)):
                    for frame in self._frames.receive(data):
                        packets += self._handle(frame)
            except ZimError as error:
                self.broken = error
        return packets

    def _shake_hands(self, data: bytes) -> bytes:
        """Reads the answer to `opening`. What follows it is returned."""
        self._head += data
        head, end, data = self._head.partition(b"\r\n\r\n")
        if not end:
            if len(self._head) > _MAX_HEAD_BYTES:
                raise WireError("the answer to the WebSocket request has no end")
            return b""
        check_response(head, self._key, self._path)
        self.is_open = True
        self._head = b""
        return data

    def replies(self) -> bytes:
        """Pongs that are due, once."""
        replies, self._replies = self._replies, b""
        return replies

    def _handle(self, frame: Frame) -> list[Packet]:
        if frame.opcode == TEXT:
            try:
                return decode_text(frame.body.decode())
            except UnicodeDecodeError:
                raise WireError("text frame that is not UTF-8", 1007) from None
        if frame.opcode == BINARY:
            raise WireError("binary frame for a client that speaks text", 1003)
        if frame.opcode == PING:
            self._replies += encode_frame(PONG, frame.body)
        elif frame.opcode == CLOSE:
            raise ConnectionLost(_close_reason(frame.body))
        return []


def _close_reason(body: bytes) -> str:
    if len(body) < 2:
        return "closed by the server"
    code = int.from_bytes(body[:2], "big")
    text = body[2:].decode(errors="replace")
    return f"closed by the server with code {code}" + (f": {text}" if text else "")
