"""A log that keeps the last seconds of every stream in memory, for repair, and forgets all when the router ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from zim.nodes.router.log import NewRecord, Page
from zim.nodes.state import StateDir
from zim.protocol.messages import Record

RECORD_BYTES = 300  # what a record costs beside its body
IDLE_S = 60.0  # how long a stream without records and subscribers is remembered: many leases
IDLE_STREAMS = 1_000  # of them looked at in one trim, so that no trim takes long


class _Book:
    """One stream."""

    __slots__ = ("epoch", "head", "records")

    def __init__(self, epoch: str) -> None:
        self.epoch, self.head = epoch, 0
        self.records: deque[Record] = deque()


class MemoryLog:
    """See zim.nodes.router.log.Log. A stream's epoch names the run of the router, and which stream it was in it."""

    def __init__(self, term: int, state: StateDir, clock: Callable[[], float], keep_s: float, keep_bytes: int) -> None:
        self._term, self._state, self._clock = term, state, clock
        self._keep_s, self._keep_bytes = keep_s, keep_bytes
        self._books: dict[str, _Book] = {}
        self._made = 0
        self._bytes = 0
        self._ages: deque[tuple[float, str, int]] = deque()  # of every record: since when, whose, how large
        self._idle: dict[str, float] = {}  # streams without records, and since when; oldest first

    def _book(self, stream: str) -> _Book:
        book = self._books.get(stream)
        if book is None:
            self._made += 1
            book = self._books[stream] = _Book(f"{self._term:x}.{self._made:x}")
            self._idle[stream] = self._clock()
        return book

    def append(self, records: Sequence[NewRecord]) -> list[int]:
        """See Log."""
        now, offsets = self._clock(), []
        last = ""
        for stream, push_id, op, body in records:
            book = self._book(stream)
            book.head += 1
            book.records.append(Record(book.head, push_id, op, body))
            size = RECORD_BYTES + (len(body) if push_id != last else 0)  # one body, however many streams it is in
            last = push_id
            self._ages.append((now, stream, size))
            self._bytes += size
            self._idle.pop(stream, None)
            offsets.append(book.head)
        while self._bytes > self._keep_bytes:
            self._drop_oldest(now)
        return offsets

    def read(self, stream: str, after: int, upto: int, max_bytes: int) -> Page:
        """See Log."""
        book = self._book(stream)
        found: list[Record] = []
        floor, size = book.head - len(book.records), 0
        for at in range(max(after, floor) + 1, min(upto, book.head) + 1):
            record = book.records[at - floor - 1]
            size += RECORD_BYTES + len(record.body)
            if found and size > max_bytes:
                break
            found.append(record)
        return Page(book.epoch, floor, book.head, found)

    def head(self, stream: str) -> tuple[str, int]:
        """See Log."""
        book = self._book(stream)
        return book.epoch, book.head

    def reserve_seqs(self, count: int) -> int:
        """See Log. Durable; blocks for a sync of the disk."""
        first = self._state.read("seqs") + 1
        self._state.write("seqs", first + count - 1)
        return first

    def trim(self, now: float, is_served: Callable[[str], bool]) -> None:
        """See Log."""
        while self._ages and self._ages[0][0] < now - self._keep_s:
            self._drop_oldest(now)
        for stream in list(islice(self._idle, IDLE_STREAMS)):
            if self._idle[stream] > now - IDLE_S:
                break
            del self._idle[stream]
            if is_served(stream):
                self._idle[stream] = now
            else:
                del self._books[stream]

    def _drop_oldest(self, now: float) -> None:
        _, stream, size = self._ages.popleft()
        self._bytes -= size
        book = self._books[stream]
        book.records.popleft()
        if not book.records:
            self._idle[stream] = now
