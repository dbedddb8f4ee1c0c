"""A log in memory. For live-only streams it keeps the last seconds, and forgets all when the router ends; over a store
that outlives it, it is a durable engine for simulations.

Pure: no I/O, no switch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice, takewhile

from typing_extensions import override

from zim.fabric.bans import Ban, Banned
from zim.fabric.retention import Retention
from zim.nodes.router.log import (
    RECORD_BYTES,
    Appended,
    Backlog,
    Fenced,
    Head,
    Lease,
    Log,
    NewPush,
    StreamPage,
    Trimmed,
    repeated,
    unavailable,
    unknown,
)
from zim.nodes.router.log.keys import StoredKey, by_name, kept_ms
from zim.nodes.router.log.memory_store import Book, Kept, MemoryStore
from zim.nodes.router.log.window import Window
from zim.protocol.messages import Record

IDLE_S = 60.0  # how long a live stream without records and subscribers is remembered: many leases
IDLE_STREAMS = 5_000  # of them looked at in one call, ten times a second: more than can come
IDLE_LOOKS = 10  # for one to drop when memory is over its limit
BOOK_BYTES = 1_000  # what a stream counts for, beside its records
KEYS_AT_ONCE = 5_000  # that one call forgets, ten times a second: more than can come


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
        keys_bytes: int | None = None,
    ) -> None:
        """
        Args:
            store: what is in it.
            clock: monotonic seconds.
            wall_s: the wall clock, for terms.
            key_window_s: for how long a publisher's key is known.
            keep_s, keep_bytes: what `forget` and `append` leave of all streams together, and of what they are; None
                for all. Streams that somebody listens to stay.
            keys_bytes: of keys that are kept at once; None for any number.
        """
        self._store, self._clock, self._wall_s = store, clock, wall_s
        self._key_window_ms = int(key_window_s * 1000)
        self._key_kept_ms = kept_ms(self._key_window_ms)
        self._keep_s, self._keep_bytes, self._keys_bytes = keep_s, keep_bytes, keys_bytes
        self._made = 0
        self._left = 0  # records that the last trimming had no budget for
        self._used_bytes = 0  # by keys
        self._bytes = 0
        self._ages: deque[tuple[float, str, int, int]] = deque()  # of live records: since when, stream, offset, size
        self._idle: dict[str, float] = {}  # live streams without records, and since when; oldest first
        self._is_served: Callable[[str], bool] = lambda _: True  # until somebody says who is
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

    @property
    @override
    def backlog(self) -> Backlog:
        return Backlog(self._left, 0)

    # -- the owner

    @override
    def acquire(self, owner: str) -> Lease:
        self._is_unsettled = False
        return self._store.take(owner, int(self._wall_s() * 1000))

    @override
    def close(self) -> None:
        """There is nothing to give back."""

    def _check(self, lease: Lease) -> None:
        if (self._store.owner, self._store.term) != (lease.shard, lease.term):
            raise Fenced(f"{lease.shard} of term {lease.term} is not the owner any more")

    # -- writing

    @override
    def append(self, lease: Lease, batch: Sequence[NewPush]) -> list[Appended]:
        self._check(lease)
        self._refuse_unsettled()
        failure = self._store.failures.popleft() if self._store.failures else ""
        if failure == "unavailable":
            raise unavailable("as the store was told")
        if failure == "unknown, lost":
            self._is_unsettled, self._unsettled = True, None
            raise unknown("as the store was told")
        now = self._clock()
        answers = [self._append_one(push, now) for push in batch]
        self._make_room(now)
        if failure == "unknown, stored":
            self._is_unsettled, self._unsettled = True, answers
            raise unknown("as the store was told")
        return answers

    def _append_one(self, push: NewPush, now: float) -> Appended:
        if (answer := self._seen(push)) is not None:
            return answer
        store, key = self._store, push.key
        push_id, streams, op, body, time_ms, expires_ms, only, _, wall_ms = push
        if key is not None and self._keys_bytes is not None and self._used_bytes >= self._keys_bytes:
            return Appended("no room")
        store.time_ms = max(store.time_ms, time_ms)
        offsets = []
        body_bytes = len(body)  # it counts once, however many streams it is in
        for stream in streams:
            book = self._book(stream)
            book.head += 1
            offsets.append(book.head)
            record = Record(book.head, push_id, op, body, wall_ms or time_ms, only.get(stream, ()), expires_ms)
            book.kept.append(Kept(record, time_ms, expires_ms))
            if self._keep_s is not None or self._keep_bytes is not None:
                size, body_bytes = RECORD_BYTES + body_bytes, 0
                self._ages.append((now, stream, book.head, size))
                self._bytes += size
            self._idle.pop(stream, None)
        if key is None:
            return Appended("stored", tuple(offsets))
        stored = StoredKey(key.digest, time_ms, key.home_ms or time_ms, by_name(streams, offsets))
        self._forget_key(push.key_id)
        store.keys[push.key_id] = stored
        self._used_bytes += stored.size
        return Appended("stored", tuple(offsets), stored.home_ms)

    def _book(self, stream: str) -> Book:
        store = self._store
        book = store.books.get(stream)
        if book is None:
            self._made += 1
            book = store.books[stream] = Book(store.epoch or f"live-{store.term:x}.{self._made:x}")
            self._bytes += BOOK_BYTES
            if not store.epoch:
                self._idle[stream] = self._clock()
        return book

    def _look_up(self, stream: str) -> Book:
        """A live stream is made when somebody asks for it, so that its epoch is what they were told."""
        return self._store.books.get(stream) or (Book(self._store.epoch) if self._store.epoch else self._book(stream))

    @override
    def settle(self, lease: Lease, batch: Sequence[NewPush]) -> list[Appended] | None:
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
    def ban(self, lease: Lease, bans: Sequence[Ban], lifted: Sequence[Banned] = ()) -> None:
        self._check(lease)
        kept = self._store.bans
        for banned in [*(ban.banned for ban in bans), *lifted]:
            kept.pop(banned, None)
        kept.update((ban.banned, ban) for ban in bans)

    @override
    def bans(self) -> list[Ban]:
        return list(self._store.bans.values())

    @override
    def find(self, pushes: Sequence[NewPush]) -> list[Appended | None]:
        return [self._seen(push) for push in pushes]

    def _seen(self, push: NewPush) -> Appended | None:
        return repeated(push, self._store.keys.get(push.key_id), self._key_window_ms, bool(self._store.epoch))

    @override
    def read(self, stream: str, after: int, upto: int, max_records: int, max_bytes: int, now_ms: int) -> StreamPage:
        book = self._look_up(stream)
        self._make_room(self._clock())
        floor, end = book.floor, min(upto, book.head)
        found: list[Record] = []
        size = 0
        last = max(end, min(after, book.head))
        for record, _, expires_ms in islice(book.kept, max(after - floor, 0), max(end - floor, 0)):
            if expires_ms and expires_ms <= now_ms:
                continue
            size += RECORD_BYTES + len(record.body)
            if found and (size > max_bytes or len(found) >= max_records):
                last = found[-1].offset
                break
            found.append(record)
        return StreamPage(book.epoch, floor, book.head, found, last)

    @override
    def newest(self, upto_ms: int, for_ms: int, most: int) -> list[tuple[str, int]]:
        window = Window(upto_ms, for_ms, self._store.takes)
        times = {k.record.push_id: k.time_ms for book in self._store.books.values() for k in book.kept}
        found = sorted(times.items(), key=lambda pair: -pair[1])
        return list(takewhile(lambda pair: window.has(pair[1]), found))[:most]

    @override
    def heads(self, streams: Sequence[str]) -> Mapping[str, Head]:
        books = {stream: self._look_up(stream) for stream in streams}
        self._make_room(self._clock())
        return {stream: Head(book.epoch, book.floor, book.head) for stream, book in books.items()}

    @override
    def acknowledged(self, streams: Sequence[str]) -> Mapping[str, int]:
        return {stream: self._store.cursors.get(stream, 0) for stream in streams}

    # -- letting go

    @override
    def trim(self, lease: Lease, retention: Retention, now_ms: int, before_ms: int, budget: int) -> Trimmed:
        """For streams that are kept by rule; looks at all of them."""
        self._check(lease)
        self._refuse_unsettled()
        self._store.time_ms = max(self._store.time_ms, now_ms)
        found = 0
        for stream, book in self._store.books.items():
            rule = retention.rule(stream)
            kept, old_ms = book.kept, now_ms - int(rule.age_s * 1000)
            over, due = len(kept) - rule.count, 0
            for k in kept:
                if k.time_ms >= before_ms or (due >= over and k.time_ms >= old_ms):
                    break
                due += 1
            for _ in range(min(due, max(0, budget - found))):
                kept.popleft()
            found += due
        self._left = max(0, found - budget)
        n_keys = len(self._store.keys)
        self._forget_keys(now_ms)
        n_keys -= len(self._store.keys)
        return Trimmed(found - self._left, n_keys, bool(self._left) or n_keys == KEYS_AT_ONCE)

    def forget(self, now: float, now_ms: int, is_served: Callable[[str], bool], left: Iterable[str] = ()) -> None:
        """For live-only streams: lets go of what is older than keep_s, of old keys, and of streams that nobody uses.

        Args:
            now: monotonic seconds; now_ms: log time.
            is_served: whether somebody listens to a stream, whose epoch must stay.
            left: streams that the last one who listened has left since.
        """
        self._is_served = is_served
        for stream in left:
            if self._idle.pop(stream, None) is not None:
                self._idle[stream] = now
        while self._ages and self._keep_s is not None and self._ages[0][0] < now - self._keep_s:
            self._drop_oldest(now)
        for stream in list(islice(self._idle, IDLE_STREAMS)):
            if self._idle[stream] > now - IDLE_S:
                break
            del self._idle[stream]
            if is_served(stream):
                self._idle[stream] = now
            else:
                self._drop_book(stream)
        self._forget_keys(now_ms)

    def _make_room(self, now: float) -> None:
        """Streams that nobody uses go before messages."""
        while self._is_over():
            if not self._drop_idle():
                if not self._ages:
                    break
                self._drop_oldest(now)

    def _is_over(self) -> bool:
        return self._keep_bytes is not None and self._bytes > self._keep_bytes

    def _drop_idle(self) -> bool:
        """The stream that was used least lately, of some; whether there was one."""
        for stream in list(islice(self._idle, IDLE_LOOKS)):
            since = self._idle.pop(stream)
            if not self._is_served(stream):
                self._drop_book(stream)
                return True
            self._idle[stream] = since
        return False

    def _drop_book(self, stream: str) -> None:
        del self._store.books[stream]
        self._store.cursors.pop(stream, None)
        self._bytes -= BOOK_BYTES

    def _drop_oldest(self, now: float) -> None:
        _, stream, offset, size = self._ages.popleft()
        self._bytes -= size
        book = self._book(stream)
        while book.kept and book.kept[0].record.offset <= offset:
            book.kept.popleft()
        if not book.kept and not self._store.epoch:
            self._idle[stream] = now

    def _forget_keys(self, now_ms: int) -> None:
        """They are about in the order in which they were made; a few more than can come in between."""
        keys = self._store.keys
        for push_id in list(islice(keys, KEYS_AT_ONCE)):
            if keys[push_id].time_ms + self._key_kept_ms > now_ms:
                break
            self._forget_key(push_id)

    def _forget_key(self, push_id: str) -> None:
        stored = self._store.keys.pop(push_id, None)
        self._used_bytes -= stored.size if stored is not None else 0
