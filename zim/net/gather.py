"""The rule at every hop: send at once when idle; while a send is under way, gather what arrives and send it as one.

Idle, nothing waits. Under load one commit, one ZeroMQ message, one system call carries many. There is no timer and no
size to tune, only limits in bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from gevent.event import Event

T = TypeVar("T")

CUT_BYTES = 256 << 10  # of one gathered message: larger ones hold up what comes after them


class Gatherer(Generic[T]):
    """A bounded queue in front of one sender.

    Attributes:
        waiting_bytes: of what is not handed to send yet.
        dropped: how many items found the queue full.
    """

    def __init__(self, send: Callable[[list[T]], None], limit_bytes: int, cut_bytes: int = CUT_BYTES) -> None:
        """
        Args:
            send: takes what has gathered, in order, at least one item. It may switch; no second call overlaps it.
            limit_bytes: above it, put refuses.
            cut_bytes: a batch ends before the item that would carry it past this; one item may be larger alone.
        """
        self._send = send
        self._limit_bytes, self._cut_bytes = limit_bytes, cut_bytes
        self._items: deque[tuple[T, int]] = deque()
        self._wake = Event()
        self.waiting_bytes = 0
        self.dropped = 0

    def put(self, item: T, size: int) -> bool:
        """Takes an item of that many bytes, or refuses it because the queue is full. Does not switch."""
        if self._items and self.waiting_bytes + size > self._limit_bytes:
            self.dropped += 1
            return False
        self._items.append((item, size))
        self.waiting_bytes += size
        self._wake.set()
        return True

    def drain(self) -> list[T]:
        """Gives up what waits, and returns it."""
        items = [item for item, _ in self._items]
        self._items.clear()
        self.waiting_bytes = 0
        return items

    def take(self) -> list[T]:
        """The next batch, for the one who sends; nothing if nothing waits."""
        items, size = self._items, 0
        batch: list[T] = []
        while items and (not batch or size + items[0][1] <= self._cut_bytes):
            item, item_size = items.popleft()
            batch.append(item)
            size += item_size
        self.waiting_bytes -= size
        return batch

    def run(self) -> None:
        """The sender's greenlet.

        Switches: wherever send does, and to wait. What is put before the hub comes back to it goes out as one.
        """
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._items:
                self._send(self.take())
