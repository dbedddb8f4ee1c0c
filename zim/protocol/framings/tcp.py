"""Packets as they are, one after the other. The layout is `zim.protocol.frame`'s."""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import override

from zim.protocol import frame
from zim.protocol.frame import Packet
from zim.protocol.framings.base import Framing


class TcpReader:
    """Cuts a byte stream into packets. It holds fewer bytes than one packet may have."""

    __slots__ = ("_extended", "_max_bytes", "_rest")

    def __init__(self, max_bytes: int, extended: bool = False) -> None:
        """
        Args:
            max_bytes, extended: see `zim.protocol.frame.parse`.
        """
        self._max_bytes, self._extended = max_bytes, extended
        self._rest = bytearray()

    @property
    def is_within(self) -> bool:
        """A packet has begun, and is not whole."""
        return bool(self._rest)

    def receive(self, data: bytes) -> Iterator[Packet]:
        """The packets that are complete with `data`, one by one.

        Raises:
            WireError: see `zim.protocol.frame.parse`. Packets before it have been yielded.
        """
        self._rest += data
        while (found := frame.parse(self._rest, 0, self._max_bytes, self._extended)) is not None:
            packet, end = found
            del self._rest[:end]
            yield packet


class Tcp(Framing):
    """goim's packets on TCP."""

    __slots__ = ()

    @override
    def reader(self, max_bytes: int) -> TcpReader:
        return TcpReader(max_bytes)

    @override
    def encode_part(self, packet: Packet) -> bytes:
        return frame.encode(packet)


TCP = Tcp()
