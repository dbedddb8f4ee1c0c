"""A log in memory. For live-only streams it keeps the last seconds, and forgets all when the router ends; over a store
that outlives it, it is a durable engine for simulations.

Pure: no I/O, no switch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, NamedTuple

from typing_extensions import override

from zim.fabric.retention import Retention
from zim.nodes.router.log import (
    RECORD_BYTES,
    Appended,
    Fenced,
    Head,
    Lease,
    Log,
    NewRecord,
    StreamPage,
    unavailable,
    unknown,
)
from zim.protocol.messages import Record

IDLE_S = 60.0  # how long a live stream without records and subscribers is remembered: many leases
IDLE_STREAMS = 1_000  # of them looked at in one call, so that none takes long

Failure = Literal["unavailable", "unknown, stored", "unknown, lost"]


class Kept(NamedTuple):
    """A record, and when it ceases to be one: 0 for never."""

    record: Record
    expires_ms: int


class MemoryKey(NamedTuple):
    """Where a keyed push is in a stream."""

    offset: int
    digest: bytes
    until_ms: int


@dataclass(slots=True)
class Book:
    """One stream: what is kept of it ends at its head."""

    epoch: str
    head: int = 0
    kept: deque[Kept] = field(default_factory=deque)

    @property
    def floor(self) -> int:
        """Nothing at or below it is kept."""
        return self.head - len(self.kept)


@dataclass
class MemoryStore:
    """The content of a log.

    Attributes:
        epoch: of all streams; "" gives each one its own, of the term in which it was made.
        failures: what happens to the next appends, one each, oldest first; then they work.
    """

    epoch: str = ""
    owner: str = ""
    term: int = 0
    time_ms: int = 0
    next_seq: int = 1
    books: dict[str, Book] = field(default_factory=dict)
    keys: dict[tuple[str, str], MemoryKey] = field(default_factory=dict)
    cursors: dict[str, int] = field(default_factory=dict)
    failures: deque[Failure] = field(default_factory=deque)


def _seen(key: MemoryKey, digest: bytes) -> Appended:
    return Appended("duplicate" if key.digest == digest else "conflict", key.offset)


class MemoryLog(Log):
    """A log over a MemoryStore."""

    def __init__(
        self,
        store: MemoryStore,
        clock: Callable[[], float],
        wall_s: Callable[[], float],
        *,
        key_window_s: float = 86_400.0,
        keep_s: float | None = None,
        keep_bytes: int | None = None,
    ) -> None:
        """
        Args:
            store: what is in it.
            clock: monotonic seconds.
            wall_s: the wall clock, for terms.
            key_window_s: for how long a publisher's key is known.
            keep_s, keep_bytes: what `forget` and `append` leave of all streams together; None for all.
        """
        self._store, self._clock, self._wall_s = store, clock, wall_s
        self._key_window_ms = int(key_window_s * 1000)
        self._keep_s, self._keep_bytes = keep_s, keep_bytes
        self._made = 0
        self._bytes = 0
        self._ages: deque[tuple[float, str, int, int]] = deque()  # of live records: since when, stream, offset, size
        self._idle: dict[str, float] = {}  # live streams without records, and since when; oldest first
        self._unsettled: list[Appended] | None = None
        self._is_unsettled = False

    @property
    @override
    def last_time_ms(self) -> int:
        return self._store.time_ms

    @property
    @override
    def is_full(self) -> bool:
        return False

    # -- the owner

    @override
    def acquire(self, owner: str) -> Lease:
        store = self._store
        store.owner, store.term = owner, max(store.term + 1, int(self._wall_s() * 1000))
        self._is_unsettled = False
        return Lease(owner, store.term)

    @override
    def close(self) -> None:
        """There is nothing to give back."""

    def _check(self, lease: Lease) -> None:
        if (self._store.owner, self._store.term) != (lease.shard, lease.term):
            raise Fenced(f"{lease.shard} of term {lease.term} is not the owner any more")

    # -- writing

    @override
    def append(self, lease: Lease, batch: Sequence[NewRecord]) -> list[Appended]:
        self._check(lease)
        self._refuse_unsettled()
        failure = self._store.failures.popleft() if self._store.failures else ""
        if failure == "unavailable":
            raise unavailable("as the store was told")
        if failure == "unknown, lost":
            self._is_unsettled, self._unsettled = True, None
            raise unknown("as the store was told")
        now, last_push = self._clock(), ""
        answers = []
        for record in batch:
            answers.append(self._append_one(record, now, record.push_id == last_push))
            last_push = record.push_id
        while self._keep_bytes is not None and self._bytes > self._keep_bytes:
            self._drop_oldest(now)
        if failure == "unknown, stored":
            self._is_unsettled, self._unsettled = True, answers
            raise unknown("as the store was told")
        return answers

    def _append_one(self, new: NewRecord, now: float, has_body: bool) -> Appended:
        store = self._store
        if new.digest:
            key = store.keys.get((new.push_id, new.stream))
            if key is not None and key.until_ms > new.time_ms:
                return _seen(key, new.digest)
        book = self._book(new.stream)
        book.head += 1
        book.kept.append(Kept(Record(book.head, new.push_id, new.op, new.body, new.time_ms, new.only), new.expires_ms))
        store.time_ms = max(store.time_ms, new.time_ms)
        if new.digest:
            store.keys[new.push_id, new.stream] = MemoryKey(book.head, new.digest, new.time_ms + self._key_window_ms)
        if self._keep_s is not None or self._keep_bytes is not None:
            size = RECORD_BYTES + (0 if has_body else len(new.body))  # one body, however many streams it is in
            self._ages.append((now, new.stream, book.head, size))
            self._bytes += size
        self._idle.pop(new.stream, None)
        return Appended("stored", book.head)

    def _book(self, stream: str) -> Book:
        store = self._store
        book = store.books.get(stream)
        if book is None:
            self._made += 1
            book = store.books[stream] = Book(store.epoch or f"live-{store.term:x}.{self._made:x}")
            if not store.epoch:
                self._idle[stream] = self._clock()
        return book

    def _look_up(self, stream: str) -> Book:
        """A live stream is made when somebody asks for it, so that its epoch is what they were told."""
        return self._store.books.get(stream) or (Book(self._store.epoch) if self._store.epoch else self._book(stream))

    @override
    def settle(self, lease: Lease, batch: Sequence[NewRecord]) -> list[Appended] | None:
        self._check(lease)
        self._is_unsettled, unsettled, self._unsettled = False, self._unsettled, None
        return unsettled

    def _refuse_unsettled(self) -> None:
        if self._is_unsettled:
            raise unknown("the batch before is not settled")

    @override
    def reserve_seqs(self, lease: Lease, count: int) -> int:
        self._check(lease)
        self._store.next_seq += count
        return self._store.next_seq - count

    @override
    def acknowledge(self, lease: Lease, offsets: Mapping[str, int]) -> Mapping[str, int]:
        self._check(lease)
        cursors = self._store.cursors
        for stream, offset in offsets.items():
            book = self._store.books.get(stream)
            if book is not None:
                cursors[stream] = max(cursors.get(stream, 0), min(offset, book.head))
        return self.acknowledged(list(offsets))

    # -- reading

    @override
    def find(self, push_id: str, digest: bytes, streams: Sequence[str]) -> list[Appended | None]:
        keys = [self._store.keys.get((push_id, stream)) for stream in streams]
        now_ms = self._store.time_ms
        return [_seen(key, digest) if key is not None and key.until_ms > now_ms else None for key in keys]

    @override
    def read(self, stream: str, after: int, upto: int, max_records: int, max_bytes: int, now_ms: int) -> StreamPage:
        book = self._look_up(stream)
        floor, end = book.floor, min(upto, book.head)
        found: list[Record] = []
        size = 0
        last = max(end, min(after, book.head))
        for record, expires_ms in islice(book.kept, max(after - floor, 0), max(end - floor, 0)):
            if expires_ms and expires_ms <= now_ms:
                continue
            size += RECORD_BYTES + len(record.body)
            if found and (size > max_bytes or len(found) >= max_records):
                last = found[-1].offset
                break
            found.append(record)
        return StreamPage(book.epoch, floor, book.head, found, last)

    @override
    def newest(self, since_ms: int, most: int) -> list[tuple[str, int]]:
        kept = (k.record for book in self._store.books.values() for k in book.kept)
        times = {record.push_id: record.time_ms for record in kept if record.time_ms >= since_ms}
        return sorted(times.items(), key=lambda pair: -pair[1])[:most]

    @override
    def heads(self, streams: Sequence[str]) -> Mapping[str, Head]:
        books = {stream: self._look_up(stream) for stream in streams}
        return {stream: Head(book.epoch, book.floor, book.head) for stream, book in books.items()}

    @override
    def acknowledged(self, streams: Sequence[str]) -> Mapping[str, int]:
        return {stream: self._store.cursors.get(stream, 0) for stream in streams}

    # -- letting go

    @override
    def trim(self, lease: Lease, retention: Retention, now_ms: int, before_ms: int, budget: int) -> int:
        """For streams that are kept by rule; looks at all of them."""
        self._check(lease)
        self._refuse_unsettled()
        gone = 0
        for stream, book in self._store.books.items():
            rule = retention.rule(stream)
            kept, old_ms = book.kept, now_ms - int(rule.age_s * 1000)
            while kept and gone < budget and kept[0].record.time_ms < before_ms:
                if len(kept) <= rule.count and kept[0].record.time_ms >= old_ms:
                    break
                kept.popleft()
                gone += 1
        self._forget_keys(now_ms)
        return gone

    def forget(self, now: float, is_served: Callable[[str], bool]) -> None:
        """For live-only streams: lets go of what is older than keep_s, and of streams that nobody uses.

        Args:
            now: monotonic seconds.
            is_served: whether somebody listens to a stream, whose epoch must stay.
        """
        while self._ages and self._keep_s is not None and self._ages[0][0] < now - self._keep_s:
            self._drop_oldest(now)
        for stream in list(islice(self._idle, IDLE_STREAMS)):
            if self._idle[stream] > now - IDLE_S:
                break
            del self._idle[stream]
            if is_served(stream):
                self._idle[stream] = now
            else:
                del self._store.books[stream]
                self._store.cursors.pop(stream, None)
        self._forget_keys(self._store.time_ms)

    def _drop_oldest(self, now: float) -> None:
        _, stream, offset, size = self._ages.popleft()
        self._bytes -= size
        book = self._book(stream)
        while book.kept and book.kept[0].record.offset <= offset:
            book.kept.popleft()
        if not book.kept and not self._store.epoch:
            self._idle[stream] = now

    def _forget_keys(self, now_ms: int) -> None:
        """They are about in the order in which they end: one clock, one window."""
        keys = self._store.keys
        for pair in list(islice(keys, IDLE_STREAMS)):
            if keys[pair].until_ms > now_ms:
                break
            del keys[pair]
