"""The client's end of the wire: bytes ⇄ packets (see zim.protocol.frame), no socket in here.

On TCP packets go as they are. In a WebSocket text frame one is a JSON object `{"ver", "op", "seq", "body"}`, with
`"stream"` and `"offset"` too in zim's vocabulary; the server sends arrays of them.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from typing_extensions import override

from zim.errors import ZimError
from zim.fabric.limits import STREAM_BYTES
from zim.json_text import Scanner
from zim.protocol import frame
from zim.protocol.errors import WireError
from zim.protocol.frame import Packet
from zim.protocol.framings.tcp import TcpReader

MAX_PACKET_BYTES = 16 << 20
_HTTP = b"HTTP"  # as a packet's length it would be more than that
_ZEROMQ = b"\xff"  # its greeting (ZMTP 3.1, 3.2); a packet's length would be negative
_OF_SILENCE = " (is that a comet's `tcp`, without TLS and `proxy_protocol`? With TLS it is tls://)"

_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
# Python's limit on the digits of a number is not JSON's; no field has more than 19.
_DECODER = json.JSONDecoder(parse_int=lambda text: int(text) if len(text) < 20 else text)
_NUMBERS = {"ver": (-(1 << 15), 1 << 15), "op": (0, 1 << 31), "seq": (-(1 << 31), 1 << 31), "offset": (0, 1 << 63)}


class Wire(ABC):
    """How packets lie on a stream of bytes.

    Attributes:
        opening: what the client says before anything else.
        is_open: packets may be sent.
        broken: why nothing more can be read; told beside the packets, so that those before it are not lost.
        of_silence: what it may mean if the other side ends it now.
    """

    opening = b""
    is_open = True
    broken: ZimError | None = None
    of_silence = ""

    @abstractmethod
    def send(self, packet: Packet) -> bytes:
        """The bytes of a packet."""

    def receive(self, data: bytes) -> list[Packet]:
        """The packets that are complete with `data`. Afterwards look at `broken`."""
        packets: list[Packet] = []
        if self.broken is None:
            try:
                packets.extend(self._read(data))
            except ZimError as error:
                self.broken = error
        return packets

    def replies(self) -> bytes:
        """What the stream itself asks to be answered, once."""
        return b""

    def closing(self) -> bytes:
        """The client's last words."""
        return b""

    @abstractmethod
    def _read(self, data: bytes) -> Iterator[Packet]:
        """The packets, one by one; an error after those before it."""


class TcpWire(Wire):
    """Packets on a TCP stream."""

    def __init__(self, max_packet_bytes: int = MAX_PACKET_BYTES) -> None:
        self.of_silence = _OF_SILENCE
        self._reader = TcpReader(max_packet_bytes, extended=True)
        self._has_begun = False

    @override
    def send(self, packet: Packet) -> bytes:
        return frame.encode(packet)

    @override
    def _read(self, data: bytes) -> Iterator[Packet]:
        if not self._has_begun and data.startswith(_HTTP):
            raise WireError("HTTP speaks there, not TCP packets; a comet's WebSocket is at ws://host:port")
        if not self._has_begun and data.startswith(_ZEROMQ):
            raise WireError("ZeroMQ speaks there, not TCP packets; a comet's TCP is on its `tcp`")
        self._has_begun = True
        self.of_silence = ""
        return self._reader.receive(data)


def encode_text(packet: Packet) -> bytes:
    """A packet as a JSON object. A body that is not JSON goes as a JSON string."""
    try:
        json.loads(packet.body.decode())
        body = packet.body
    except (ValueError, RecursionError):
        body = json.dumps(packet.body.decode(errors="replace")).encode() if packet.body else b"null"
    return b'{"ver":%d,"op":%d,"seq":%d,"body":%s}' % (packet.version, packet.op, packet.seq, body)


def decode_text(text: str) -> list[Packet]:
    """The packets of a text frame: one JSON object, or an array of them.

    Raises:
        WireError: it is anything else.
    """
    try:
        return _Scanner(text, _DECODER).packets()
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        raise WireError("text frame that is not an array of packets", 1007) from None


class _Scanner(Scanner):
    def packets(self) -> list[Packet]:
        packets = list(self.items("]", self._packet)) if self.take("[") else [self._packet()]
        self.end()
        return packets

    def _packet(self) -> Packet:
        found: dict[str, int] = {}
        stream, body = "", b""
        self.want("{")
        for key, value, raw in self.items("}", self.member):
            if key == "body":
                body = raw.encode()
            elif key == "stream":
                stream = _name(value)
            elif key in _NUMBERS:
                low, high = _NUMBERS[key]
                if type(value) is not int or not low <= value < high:
                    raise ValueError(f"{key} is beyond its field")
                found[key] = value
        offset = found.get("offset", 0) if stream else 0
        return Packet(found["op"], found.get("seq", 0), found.get("ver", 0), body, stream, offset)

    @override
    def value(self) -> tuple[Any, str]:
        try:
            return super().value()
        except RecursionError:  # how deep it goes depends on who calls; a message must not depend on that
            start, self.at = self.at, _end_of_nested(self.text, self.at)
            return None, self.text[start : self.at]


def _name(value: object) -> str:
    """A stream's name."""
    if not isinstance(value, str) or not 0 < len(value.encode()) <= STREAM_BYTES:
        raise ValueError("no stream's name")
    return value


def _end_of_nested(text: str, at: int) -> int:
    """Where the array or object ends that begins there; what is in it is not looked at."""
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text, at):
        if match[0] in "[{":
            depth += 1
        elif match[0] in "]}":
            depth -= 1
            if depth == 0:
                return match.end()
    raise ValueError("an array or object without an end")
