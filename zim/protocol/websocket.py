"""WebSocket frames, for both ends: bytes ⇄ values (RFC 6455 5.2).

    byte 0                        byte 1                 then
    FIN 1 | RSV 3 | opcode 4      MASK 1 | size 7        size uint16 after 126, uint64 after 127 | mask, 4 bytes | body

Strict: whatever the RFC forbids is a WireError with the close code that it asks for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from zim.protocol.errors import WireError

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NORMAL, PROTOCOL_ERROR, UNSUPPORTED, INVALID, TOO_LARGE = 1000, 1002, 1003, 1007, 1009  # RFC 6455 7.4.1

CONTROL_BYTES = 125  # of a control frame's body (RFC 6455 5.5)
CLOSE_REASON_BYTES = CONTROL_BYTES - 2  # the code takes two

_OPCODES = (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG)
# Codes that a close frame may carry: RFC 6455 7.4.1, the IANA registry for 1012 to 1014, and 7.4.2 for the last two.
_CODES = (range(1000, 1004), range(1007, 1015), range(3000, 4000), range(4000, 5000))
# By the seven bits of the size: where the size ends, and the smallest one that may be written so.
_SIZES = {126: (4, 126), 127: (10, 1 << 16)}


class Text(NamedTuple):
    """A whole text message, which is UTF-8."""

    body: bytes


class Binary(NamedTuple):
    """A whole binary message."""

    body: bytes


class Ping(NamedTuple):
    """It is to be answered with a pong of the same body (RFC 6455 5.5.2)."""

    body: bytes


class Pong(NamedTuple):
    """The other end lives."""

    body: bytes


class Close(NamedTuple):
    """The other end says nothing more. code: 0 where none was given."""

    code: int = 0
    reason: str = ""


def encode_frame(opcode: int, body: bytes, mask: bytes = b"") -> bytes:
    """One whole frame (FIN set).

    Args:
        mask: four random bytes from a client, nothing from a server.
    """
    size, bit = len(body), 0x80 if mask else 0
    if size < 126:
        head = bytes((0x80 | opcode, bit | size))
    elif size < 1 << 16:
        head = struct.pack(">BBH", 0x80 | opcode, bit | 126, size)
    else:
        head = struct.pack(">BBQ", 0x80 | opcode, bit | 127, size)
    return head + mask + apply_mask(body, mask) if mask else head + body


def encode_close(code: int, reason: str = "", mask: bytes = b"") -> bytes:
    """A close frame; the reason is cut to what a control frame holds, at a character."""
    text = reason.encode()[:CLOSE_REASON_BYTES].decode(errors="ignore").encode()
    return encode_frame(CLOSE, struct.pack(">H", code) + text, mask)


def apply_mask(body: bytes | bytearray, mask: bytes) -> bytes:
    """Masks or unmasks (RFC 6455 5.3), as one big XOR instead of a loop over bytes."""
    size = len(body)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(body, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


class FrameReader:
    """What the other end sends, however it is cut: whole messages and control frames come out.

    It holds at most one message of the limit, and one frame's header or control frame beside it. Each byte is looked
    at once or twice, however few come at a time.
    """

    __slots__ = ("_is_over", "_is_server", "_max_bytes", "_opcode", "_parts", "_rest")

    def __init__(self, max_bytes: int, is_server: bool) -> None:
        """
        Args:
            max_bytes: of a message.
            is_server: it reads what a client sends, whose frames must be masked; a server's must not be.
        """
        self._max_bytes, self._is_server = max_bytes, is_server
        self._rest = bytearray()
        self._parts = bytearray()  # of a message in fragments
        self._opcode = 0  # of that message
        self._is_over = False

    @property
    def is_within(self) -> bool:
        """A message has begun, and is not whole."""
        return bool(self._rest or self._opcode)

    def receive(self, data: bytes) -> Iterator[Text | Binary | Ping | Pong | Close]:
        """What is complete with `data`, one by one. Nothing is read after a close.

        Raises:
            WireError: the other end broke RFC 6455, or its message is too large. What came before has been yielded.
        """
        if not self._is_over:
            self._rest += data
        while (frame := self._frame()) is not None:
            opcode, is_final, body = frame
            if opcode == PING:
                yield Ping(body)
            elif opcode == PONG:
                yield Pong(body)
            elif opcode == CLOSE:
                self._is_over, self._opcode = True, 0
                self._rest, self._parts = bytearray(), bytearray()
                yield _parse_close(body)
            elif not is_final:
                self._opcode = self._opcode or opcode
                self._parts += body
            else:
                yield self._message(self._opcode or opcode, body)

    def _frame(self) -> tuple[int, bool, bytes] | None:
        """Takes one frame, if it is whole: opcode, FIN, and the body without its mask."""
        rest = self._rest
        if len(rest) < 2:
            return None
        is_final, opcode, is_masked, size = rest[0] >= 0x80, rest[0] & 15, rest[1] >= 0x80, rest[1] & 127
        if rest[0] & 0x70:
            raise WireError("reserved bits are set, though no extension was agreed on", PROTOCOL_ERROR)
        if opcode not in _OPCODES:
            raise WireError(f"unknown opcode {opcode}", PROTOCOL_ERROR)
        if is_masked != self._is_server:
            raise WireError("masked frame from a server" if is_masked else "unmasked frame", PROTOCOL_ERROR)
        if opcode >= CLOSE:
            if size > CONTROL_BYTES or not is_final:
                raise WireError("control frame that is long or in fragments", PROTOCOL_ERROR)
        elif (opcode == CONTINUATION) != bool(self._opcode):
            raise WireError("fragments out of order", PROTOCOL_ERROR)
        at = 2
        if size in _SIZES:
            at, least = _SIZES[size]
            if len(rest) < at:
                return None
            size = int.from_bytes(rest[2:at], "big")
            if not least <= size < 1 << 63:
                raise WireError("a frame's size that is not in its shortest form", PROTOCOL_ERROR)
        if opcode < CLOSE and len(self._parts) + size > self._max_bytes:
            raise WireError(f"message of more than {self._max_bytes} bytes", TOO_LARGE)
        start = at + 4 * is_masked
        end = start + size
        if len(rest) < end:
            return None
        body = apply_mask(rest[start:end], bytes(rest[at:start])) if is_masked else bytes(rest[start:end])
        del rest[:end]
        return opcode, is_final, body

    def _message(self, opcode: int, body: bytes) -> Text | Binary:
        if self._parts:
            body = bytes(self._parts + body)
            self._parts = bytearray()
        self._opcode = 0
        if opcode == BINARY:
            return Binary(body)
        try:
            body.decode()
        except UnicodeDecodeError:
            raise WireError("text must be UTF-8", INVALID) from None
        return Text(body)


def _parse_close(body: bytes) -> Close:
    if not body:
        return Close()
    code = int.from_bytes(body[:2], "big")
    if len(body) == 1 or not any(code in codes for codes in _CODES):
        raise WireError("a close code that cannot be", PROTOCOL_ERROR)
    try:
        return Close(code, body[2:].decode())
    except UnicodeDecodeError:
        raise WireError("a close reason must be UTF-8", INVALID) from None
