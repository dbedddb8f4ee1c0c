"""A connection's backlog: what its socket did not take. Bounded in bytes. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from zim.nodes.comet.results import Row

GATHER = 64  # chunks of one system call
CHUNK_BYTES = 160  # what memory holds of a chunk beside its bytes


class Outbox:
    """Whole chunks, in order, of which the first may be sent in part, or under way, already.

    Attributes:
        dropped: how many chunks had to go for newer ones.
    """

    __slots__ = ("_bytes", "_chunks", "_is_begun", "_limit_bytes", "dropped")

    def __init__(self, limit_bytes: int) -> None:
        self._chunks: deque[tuple[bytes, Sequence[Row], float]] = deque()
        self._is_begun = False
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self.dropped = 0

    def __bool__(self) -> bool:
        return bool(self._chunks)

    @property
    def waiting_bytes(self) -> int:
        """What memory holds of all that is not sent."""
        return self._bytes + CHUNK_BYTES * len(self._chunks)

    def begin(
        self, chunk: bytes, sent: int, rows: Sequence[Row] = (), until: float = 0.0, is_begun: bool = False
    ) -> None:
        """The first chunk: of which `sent` bytes are with the socket already.

        Args:
            is_begun: of the rest some are under way (Pipe.is_begun).
        """
        self._chunks.append((chunk[sent:], rows, until))
        self._is_begun = is_begun or sent > 0
        self._bytes += len(chunk) - sent

    def put(self, chunk: bytes, rows: Sequence[Row] = (), until: float = 0.0) -> bool:
        """Takes a chunk, or refuses it because the outbox is full.

        Args:
            rows: of the entries in it; each is told what becomes of it, once it is taken.
            until: it is sent before that or not at all; monotonic seconds, 0 for whenever.
        """
        if self._chunks and self.waiting_bytes + CHUNK_BYTES + len(chunk) > self._limit_bytes:
            return False
        self._chunks.append((chunk, rows, until))
        self._bytes += len(chunk)
        return True

    def put_newest(self, chunk: bytes, rows: Sequence[Row] = (), until: float = 0.0) -> None:
        """Takes a chunk, and lets go of the oldest ones for it; never of one that is sent in part."""
        while not self.put(chunk, rows, until):
            if self._is_begun and len(self._chunks) == 1:
                self._chunks.append((chunk, rows, until))
                self._bytes += len(chunk)
                return
            self._drop(1 if self._is_begun else 0, "shed")

    def end_with(self, chunk: bytes, outcome: str) -> None:
        """Lets go of all but the rest of the one that is sent in part; this one, if it is not empty, goes last.

        Args:
            outcome: what the rows of the others are told: "shed" or "gone".
        """
        while len(self._chunks) > self._is_begun:
            self._drop(len(self._chunks) - 1, outcome)
        if chunk:
            self._chunks.append((chunk, (), 0.0))
            self._bytes += len(chunk)

    def abandon(self, outcome: str) -> None:
        """Lets go of everything."""
        while self._chunks:
            self._drop(len(self._chunks) - 1, outcome)

    def _drop(self, at: int, outcome: str) -> None:
        chunk, rows, _ = self._chunks[at]
        self._bytes -= len(chunk)
        del self._chunks[at]
        self.dropped += outcome != "expired"
        for row in rows:
            row.settle(outcome)

    def head(self, now: float) -> list[bytes]:
        """What one system call may send. What is worth nothing any more goes, unless a part of it is sent."""
        chunks, at = self._chunks, 0
        found: list[bytes] = []
        while at < len(chunks) and at < GATHER:
            chunk, _, until = chunks[at]
            if until and until <= now and (at or not self._is_begun):
                self._drop(at, "expired")
            else:
                found.append(chunk)
                at += 1
        return found

    def sent(self, count: int, is_begun: bool = False) -> None:
        """That many bytes of `head` are with the socket. is_begun: of those behind them some are under way."""
        self._bytes -= count
        while count:
            first, rows, until = self._chunks[0]
            if count < len(first):
                self._chunks[0] = first[count:], rows, until
                self._is_begun = True
                break
            count -= len(first)
            self._chunks.popleft()
            self._is_begun = False
            for row in rows:
                row.settle("delivered")
        self._is_begun |= is_begun
