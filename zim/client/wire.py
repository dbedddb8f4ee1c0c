"""goim's packets, as a client sees them: bytes ⇄ values. Applications take only this, nothing of the nodes.

One packet, big-endian (goim libs/proto/proto.go):

    0         4               6         8     12     16
    | length  | header length | version | op  | seq  | body …
    | int32   | int16, 16     | int16   | i32 | i32  | length - 16 bytes

In a WebSocket text frame the same is a JSON object `{"ver", "op", "seq", "body"}`; the server sends arrays of them.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass

from zim.client.errors import WireError, ZimError

HEADER = struct.Struct(">ihhii")
MAX_PACKET_BYTES = 16 << 20

OP_HEARTBEAT = 2
OP_HEARTBEAT_REPLY = 3
OP_PUSH = 5
OP_DISCONNECT = 6
OP_AUTH = 7
OP_AUTH_REPLY = 8

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet. In text frames the body is JSON, byte for byte as the server wrote it; `b""` if there is none."""

    op: int
    body: bytes = b""
    seq: int = 0
    ver: int = 1


def encode(packet: Packet) -> bytes:
    """A packet as it goes over TCP."""
    length = HEADER.size + len(packet.body)
    return HEADER.pack(length, HEADER.size, packet.ver, packet.op, packet.seq) + packet.body


class TcpDialect:
    """Packets on a TCP stream.

    Attributes:
        opening: what the client says before anything else.
        closing: its last words.
        is_open: packets may be sent.
        broken: why nothing more can be read; told beside the packets, so that those before it are not lost.
    """

    opening = b""
    closing = b""

    def __init__(self, max_packet_bytes: int = MAX_PACKET_BYTES) -> None:
        self.is_open = True
        self.broken: ZimError | None = None
        self._max = max_packet_bytes
        self._rest = bytearray()

    def send(self, packet: Packet) -> bytes:
        """The bytes of a packet."""
        return encode(packet)

    def receive(self, data: bytes) -> list[Packet]:
        """The packets that are complete with `data`. Afterwards look at `broken`."""
        packets: list[Packet] = []
        if self.broken is not None:
            return packets
        self._rest += data
        rest, at = self._rest, 0
        while len(rest) - at >= HEADER.size:
            length, header, ver, op, seq = HEADER.unpack_from(rest, at)
            if not HEADER.size <= header <= length:
                self.broken = WireError(f"packet of {length} bytes with a header of {header}")
                break
            if length > self._max:
                self.broken = WireError(f"packet of {length} bytes, more than {self._max}", 1009)
                break
            if len(rest) - at < length:
                break
            packets.append(Packet(op, bytes(rest[at + header : at + length]), seq, ver))
            at += length
        del rest[:at]
        return packets

    def replies(self) -> bytes:
        """What the stream itself asks to be answered; on TCP nothing."""
        return b""


def encode_text(packet: Packet) -> bytes:
    """A packet as a JSON object. A body that is not JSON goes as a JSON string."""
    try:
        json.loads(packet.body.decode())
        body = packet.body
    except (ValueError, RecursionError):
        body = json.dumps(packet.body.decode(errors="replace")).encode() if packet.body else b"null"
    return b'{"ver":%d,"op":%d,"seq":%d,"body":%s}' % (packet.ver, packet.op, packet.seq, body)


def decode_text(text: str) -> list[Packet]:
    """The packets of a text frame: one JSON object, or an array of them.

    Raises:
        WireError: it is anything else.
    """
    try:
        return _Scanner(text).packets()
    except (ValueError, RecursionError, OverflowError):
        raise WireError("text frame that is not an array of packets", 1007) from None


class _Scanner:
    """Reads the objects by hand, so that a body stays the bytes it was; json would turn 1.0e0 into 1.0."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def packets(self) -> list[Packet]:
        packets = []
        if self._take("["):
            if not self._take("]"):
                packets.append(self._packet())
                while self._take(","):
                    packets.append(self._packet())
                self._want("]")
        else:
            packets.append(self._packet())
        if self._take("") and self._at != len(self._text):
            raise ValueError("text after the end")
        return packets

    def _packet(self) -> Packet:
        numbers = {"ver": 0, "op": -1, "seq": 0}
        body = b""
        self._want("{")
        more = not self._take("}")
        while more:
            key, _ = self._value()
            self._want(":")
            value, raw = self._value()
            if key == "body":
                body = raw.encode()
            elif key in numbers:
                if type(value) is not int or not -(1 << 31) <= value < 1 << 31:
                    raise ValueError(f"{key} is not an int32")
                numbers[str(key)] = value
            more = self._take(",")
            if not more:
                self._want("}")
        if numbers["op"] < 0:
            raise ValueError("no op")
        return Packet(numbers["op"], body, numbers["seq"], numbers["ver"])

    def _value(self) -> tuple[object, str]:
        self._take("")
        start = self._at
        value, self._at = _DECODER.raw_decode(self._text, start)
        return value, self._text[start : self._at]

    def _take(self, mark: str) -> bool:
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at
        if not self._text.startswith(mark, self._at):
            return False
        self._at += len(mark)
        return True

    def _want(self, mark: str) -> None:
        if not self._take(mark):
            raise ValueError(f"no {mark}")
