"""The rule at every hop: begin at once when idle; while one batch is under way, gather what arrives for the next one.

Idle, nothing waits. Under load one commit, one ZeroMQ message, one system call carries many. There is no timer and no
size to tune, only limits in bytes. Pure.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

CUT_BYTES = 256 << 10  # of one batch: larger ones hold up what comes after them


class Batches(Generic[T]):
    """A bounded queue in front of one worker.

    Attributes:
        waiting_bytes: of what no batch has taken yet.
        dropped: how many items found the queue full.
        is_busy: a batch is under way.
    """

    def __init__(self, limit_bytes: int, cut_bytes: int = CUT_BYTES) -> None:
        """
        Args:
            limit_bytes: above it, put refuses.
            cut_bytes: a batch ends before the item that would carry it past this; one item may be larger alone.
        """
        self._limit_bytes, self._cut_bytes = limit_bytes, cut_bytes
        self._items: deque[tuple[T, int]] = deque()
        self.waiting_bytes = self.dropped = 0
        self.is_busy = False

    def __bool__(self) -> bool:
        return bool(self._items)

    def put(self, item: T, size: int) -> bool:
        """Takes an item of that many bytes, or refuses it because the queue is full."""
        if self._items and self.waiting_bytes + size > self._limit_bytes:
            self.dropped += 1
            return False
        self._items.append((item, size))
        self.waiting_bytes += size
        return True

    def begin(self) -> list[T]:
        """The next batch, which is under way from now on; nothing if nothing waits, or one is under way already."""
        if self.is_busy or not self._items:
            return []
        self.is_busy = True
        items, size = self._items, 0
        batch: list[T] = []
        while items and (not batch or size + items[0][1] <= self._cut_bytes):
            item, item_size = items.popleft()
            batch.append(item)
            size += item_size
        self.waiting_bytes -= size
        return batch

    def end(self) -> None:
        """The batch is done with."""
        self.is_busy = False

    def halt(self) -> None:
        """No batch begins any more: what became of the last one cannot be told."""
        self.is_busy = True

    def drain(self) -> list[T]:
        """Gives up what waits, and returns it."""
        items = [item for item, _ in self._items]
        self._items.clear()
        self.waiting_bytes = 0
        return items
