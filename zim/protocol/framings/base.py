"""What a framing is: how packets lie in a byte stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from zim.protocol.frame import Packet


class Alive(NamedTuple):
    """A client has said something that is no packet. reply: what it is answered with."""

    reply: bytes = b""


class Goodbye(NamedTuple):
    """A client says nothing more. code: what its goodbye is answered with, see `Framing.encode_close`."""

    code: int


class PacketReader(Protocol):
    """Cuts what one client sends. It lives while a packet is being read; an idle connection has none."""

    @property
    def is_within(self) -> bool:
        """A packet has begun, and is not whole."""

    def receive(self, data: bytes) -> Iterable[Packet | Alive | Goodbye]:
        """What is complete with `data`, one by one.

        Raises:
            WireError: the client broke the wire. What came before has been yielded.
        """


class Framing(ABC):
    """How packets lie in a byte stream. It has no state: there is one object of each."""

    __slots__ = ()

    @abstractmethod
    def reader(self, max_bytes: int) -> PacketReader:
        """Reads packets of at most so many bytes from a client."""

    def encode_body(self, body: bytes) -> bytes:
        """A push's body, which may be any bytes, as it stands in a packet here."""
        return body

    @abstractmethod
    def encode_part(self, packet: Packet) -> bytes:
        """A packet as it stands in a write that may carry several."""

    def join(self, parts: Sequence[bytes]) -> bytes:
        """Packets, at least one, as one write."""
        return b"".join(parts)

    def encode(self, packet: Packet) -> bytes:
        """One packet as one write."""
        return self.join([self.encode_part(packet)])

    def encode_close(self, code: int, reason: str) -> bytes:
        """The framing's own last words; nothing where it has none.

        Args:
            code: of RFC 6455 7.4.1; 0 for a close without a word.
        """
        return b""
