"""A connection's backlog: what its socket did not take. Bounded in bytes. Pure."""

from __future__ import annotations

from collections import deque

GATHER = 64  # chunks of one system call


class Outbox:
    """Whole chunks, in order, of which the first may be sent in part already.

    Attributes:
        waiting_bytes: of all that is not sent.
        dropped: how many chunks had to go for newer ones.
    """

    __slots__ = ("_chunks", "_is_begun", "_limit_bytes", "dropped", "waiting_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self._chunks: deque[bytes] = deque()
        self._is_begun = False
        self._limit_bytes = limit_bytes
        self.waiting_bytes = 0
        self.dropped = 0

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def begin(self, chunk: bytes, sent: int) -> None:
        """The first chunk: of which `sent` bytes are with the socket already."""
        self._chunks.append(chunk[sent:])
        self._is_begun = sent > 0
        self.waiting_bytes += len(chunk) - sent

    def put(self, chunk: bytes) -> bool:
        """Takes a chunk, or refuses it because the outbox is full."""
        if self._chunks and self.waiting_bytes + len(chunk) > self._limit_bytes:
            return False
        self._chunks.append(chunk)
        self.waiting_bytes += len(chunk)
        return True

    def put_newest(self, chunk: bytes) -> None:
        """Takes a chunk, and lets go of the oldest ones for it; never of one that is sent in part."""
        while not self.put(chunk):
            if self._is_begun and len(self._chunks) == 1:
                self._chunks.append(chunk)
                self.waiting_bytes += len(chunk)
                return
            self._drop(1 if self._is_begun else 0)

    def end_with(self, chunk: bytes) -> None:
        """Lets go of all but the rest of the one that is sent in part; this one, if it is not empty, goes last."""
        while len(self._chunks) > self._is_begun:
            self._drop(len(self._chunks) - 1)
        if chunk:
            self._chunks.append(chunk)
            self.waiting_bytes += len(chunk)

    def _drop(self, at: int) -> None:
        self.waiting_bytes -= len(self._chunks[at])
        del self._chunks[at]
        self.dropped += 1

    def head(self) -> list[bytes]:
        """What one system call may send."""
        return [self._chunks[i] for i in range(min(GATHER, len(self._chunks)))]

    def sent(self, count: int) -> None:
        """That many bytes of `head` are with the socket."""
        self.waiting_bytes -= count
        while count:
            first = self._chunks[0]
            if count < len(first):
                self._chunks[0] = first[count:]
                self._is_begun = True
                return
            count -= len(first)
            self._chunks.popleft()
            self._is_begun = False
