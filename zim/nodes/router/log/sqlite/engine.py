"""The calls of Log, on the hub: who has the turn, what the caches may show, what becomes of a failure."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from gevent.lock import BoundedSemaphore

from zim.nodes.router.log import Appended, Damaged, Fenced, Head, Lease, NewRecord, Page, Unavailable, Unknown
from zim.nodes.router.log.sqlite import failures, tables, trimming
from zim.nodes.router.log.sqlite.ballast import Ballast
from zim.nodes.router.log.sqlite.opening import FILE, WAL_KEPT_BYTES, Opened, open_database
from zim.nodes.router.log.sqlite.planning import Plan, Standing, plan
from zim.nodes.router.log.sqlite.standings import Standings
from zim.nodes.router.log.sqlite.worker import InThread, Worker
from zim.retention import Retention

T = TypeVar("T")

KEY_WINDOW_S = 86_400.0
BALLAST_BYTES = 8 << 20
_LOOK_S = 1.0  # how often a log without room looks whether there is some
_LOOKS = 8  # of one call of trim, beyond those that its budget makes


@dataclass(slots=True)
class _Unsettled:
    """A batch of which it cannot be told whether it is in the log."""

    number: int
    plan: Plan | None = None


class SqliteLog:
    """See zim.nodes.router.log.Log. Made by `open`.

    Attributes:
        last_time_ms: see Log.
        epoch: of all streams.
        is_full: the disk was; nothing is appended until there is room.
    """

    def __init__(
        self,
        opened: Opened,
        path: Path,
        in_thread: InThread,
        key_window_s: float,
        ballast: Ballast,
        wall_s: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        """See `open`."""
        self.last_time_ms, self.epoch = opened.time_ms, opened.epoch
        self.is_full = False
        self._path, self._wal = path, path.with_name(path.name + "-wal")
        self._writer, self._reader = Worker(opened.writer, in_thread), Worker(opened.reader, in_thread)
        self._key_window_ms, self._ballast = int(key_window_s * 1000), ballast
        self._wall_s, self._monotonic = wall_s, monotonic
        self._standings = Standings()
        self._batch = self._next_stream = self._next_push = 0
        self._unsettled: _Unsettled | None = None
        self._trimming = BoundedSemaphore(1)
        self._sweep = trimming.Sweep()
        self._look_at = self._ttl_s = 0.0

    @classmethod
    def open(
        cls,
        folder: Path,
        routers: Sequence[str],
        in_thread: InThread,
        *,
        key_window_s: float = KEY_WINDOW_S,
        ballast_bytes: int = BALLAST_BYTES,
        wall_s: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        factory: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> SqliteLog:
        """Makes the log in a router's folder, or opens the one that is there. Blocks.

        Args:
            folder: of the router; whoever calls holds its lock.
            routers: names of all routers of the topology: they divide the streams among them.
            in_thread: runs a job in a thread: `gevent.get_hub().threadpool.apply`.
            key_window_s: for how long a publisher's key is known.
            ballast_bytes: of the file that is given up when the disk is full.
            factory: of connections, for tests.

        Raises:
            NodeError: the log is damaged, of another program, a newer zim or other routers; says what to do.
        """
        opened = open_database(folder, routers, factory)
        ballast = Ballast(folder / "ballast", ballast_bytes)
        ballast.make()
        return cls(opened, folder / FILE, in_thread, key_window_s, ballast, wall_s, monotonic)

    def close(self) -> None:
        """See Log."""
        self._writer.close()
        self._reader.close()

    # -- the owner

    def acquire(self, owner: str, ttl_s: float) -> Lease | None:
        """See Log. The folder's lock keeps others out; whoever comes past it fences the one before."""
        started = self._monotonic()

        def job(c: sqlite3.Connection) -> tuple[int, int, int, int]:
            term = tables.acquire(c, owner, int(self._wall_s() * 1000))
            return term, tables.last_batch(c), *tables.next_ids(c)

        with self._writer.turn:
            term, self._batch, self._next_stream, self._next_push = self._commit(job)
            self._standings, self._unsettled, self._ttl_s = Standings(), None, ttl_s
        return Lease(owner, term, started + ttl_s)

    def renew(self, lease: Lease) -> Lease:
        """See Log. As long as it was acquired for."""
        started = self._monotonic()
        if self._read(tables.owner) != (lease.shard, lease.term):
            raise Fenced(f"{lease.shard} of term {lease.term} is not the owner any more")
        return Lease(lease.shard, lease.term, started + self._ttl_s)

    def release(self, lease: Lease) -> None:
        """See Log."""
        with self._writer.turn:
            self._commit(lambda c: tables.release(c, lease.shard, lease.term))

    # -- writing

    def append(self, lease: Lease, batch: Sequence[NewRecord]) -> list[Appended]:
        """See Log. Switches: until the batch is on the disk."""
        if not batch:
            return []
        with self._writer.turn:
            self._refuse_unsettled()
            self._refuse_full()
            self._batch += 1
            unsettled = self._unsettled = _Unsettled(self._batch)
            try:
                self._commit(self._append_job(lease, batch, unsettled))
            except (Unavailable, Fenced, Damaged):
                self._unsettled = None
                raise
            return self._committed(unsettled)

    def _append_job(
        self, lease: Lease, batch: Sequence[NewRecord], unsettled: _Unsettled
    ) -> Callable[[sqlite3.Connection], None]:
        known: dict[str, Standing] = {}
        missing: dict[str, None] = {}
        for record in batch:
            stream = record.stream
            if stream not in known:
                standing = self._standings.get(stream)
                if standing is None:
                    missing[stream] = None
                else:
                    known[stream] = standing
        keyed = dict.fromkeys((record.push_id, record.stream) for record in batch if record.digest)
        ids = self._next_stream, self._next_push
        if not missing and not keyed:
            unsettled.plan = plan(batch, known, {}, *ids, self._key_window_ms)
        time_ms = max(record.time_ms for record in batch)

        def job(c: sqlite3.Connection) -> None:
            tables.claim(c, lease.shard, lease.term, unsettled.number, time_ms)
            if unsettled.plan is None:
                known.update(tables.standings(c, list(missing)) if missing else {})
                keys = tables.keys(c, keyed, known) if keyed else {}
                unsettled.plan = plan(batch, known, keys, *ids, self._key_window_ms)
            tables.write(c, unsettled.plan)

        return job

    def _committed(self, unsettled: _Unsettled) -> list[Appended]:
        done = unsettled.plan
        assert done is not None
        self._unsettled = None
        self._next_stream, self._next_push = done.next_stream, done.next_push
        self.last_time_ms = max(self.last_time_ms, done.time_ms)
        self._standings.moved(done.standings)
        return done.answers

    def settle(self, lease: Lease, batch: Sequence[NewRecord]) -> list[Appended] | None:
        """See Log. Commits, so that nothing of a batch that is not in the log can be found by the next start."""
        with self._writer.turn:
            unsettled = self._unsettled
            if unsettled is None:
                return None
            self._batch += 1

            def job(c: sqlite3.Connection) -> bool:
                is_stored = tables.last_batch(c) == unsettled.number
                tables.claim(c, lease.shard, lease.term, self._batch)
                return is_stored

            if self._commit(job):
                return self._committed(unsettled)
            self._unsettled = None
            return None

    def reserve_seqs(self, lease: Lease, count: int) -> int:
        """See Log."""
        return self._write(lease, lambda c: tables.reserve_seqs(c, count))

    def acknowledge(self, lease: Lease, offsets: Mapping[str, int]) -> Mapping[str, int]:
        """See Log."""
        known = self._known(list(offsets))
        moves = {s: (known[s].id, max(0, min(at, known[s].head))) for s, at in offsets.items() if known[s].id}
        moved = self._write(lease, lambda c: {s: tables.move_cursor(c, *move) for s, move in moves.items()})
        return {**dict.fromkeys(offsets, 0), **moved}

    def _write(self, lease: Lease, job: Callable[[sqlite3.Connection], T]) -> T:
        with self._writer.turn:
            self._refuse_full()
            return self._commit_claimed(lease, job)

    def _commit_claimed(self, lease: Lease, job: Callable[[sqlite3.Connection], T]) -> T:
        self._refuse_unsettled()
        self._batch += 1
        number = self._batch

        def claimed(c: sqlite3.Connection) -> T:
            tables.claim(c, lease.shard, lease.term, number)
            return job(c)

        return self._commit(claimed)

    def _commit(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """One transaction. The caller has the turn."""

        def transaction(c: sqlite3.Connection) -> T:
            try:
                c.execute("BEGIN IMMEDIATE")
                result = job(c)
            except BaseException as e:
                _roll_back(c)
                if not isinstance(e, sqlite3.Error):
                    raise
                self._note_full(e)
                raise failures.before_commit(e, str(self._path)) from None
            try:
                c.execute("COMMIT")
            except sqlite3.Error as e:
                _roll_back(c)
                self._note_full(e)
                raise failures.of_commit(e, str(self._path)) from None
            return result

        return self._writer.run(transaction)

    def _refuse_unsettled(self) -> None:
        if self._unsettled is not None:
            raise Unknown("the batch before is not settled")

    # -- a full disk

    def _note_full(self, error: sqlite3.Error) -> None:
        """In a thread."""
        if failures.is_full(error):
            self.is_full = True
            self._ballast.give_up()

    def _refuse_full(self) -> None:
        """The caller has the writer's turn."""
        if self.is_full and self._monotonic() >= self._look_at:
            self._look_at = self._monotonic() + _LOOK_S
            self._writer.run(self._look_for_room)
        if self.is_full:
            raise Unavailable("the disk is full")

    def _look_for_room(self, c: sqlite3.Connection) -> None:
        """In a thread. Pages that trimming has freed are room, too."""
        self._ballast.make()
        if self.is_full:
            spare: int = tables.spare_bytes(c)
            self.is_full = not self._ballast.is_there and spare < 2 * self._ballast.size

    def _look_after_files(self, c: sqlite3.Connection) -> None:
        """In a thread."""
        if self.is_full or self._wal.stat().st_size > WAL_KEPT_BYTES:
            tables.empty_wal(c)
        self._look_for_room(c)

    # -- reading

    def read(self, stream: str, after: int, upto: int, max_records: int, max_bytes: int, now_ms: int) -> Page:
        """See Log."""
        standing = self._known([stream])[stream]
        if not standing.id:
            return Page(self.epoch, 0, 0, [], 0)
        row = (standing.id, stream)
        return self._read(lambda c: tables.read(c, self.epoch, row, after, upto, max_records, max_bytes, now_ms))

    def heads(self, streams: Sequence[str]) -> Mapping[str, Head]:
        """See Log. Switches: only if one of them was not used lately."""
        return {name: Head(self.epoch, s.floor, s.head) for name, s in self._known(streams).items()}

    def find(self, push_id: str, digest: bytes, streams: Sequence[str]) -> list[Appended | None]:
        """See Log."""
        found: list[Appended | None] = [None] * len(streams)
        for at, offset, seen in self._read(lambda c: tables.find(c, push_id, streams, self.last_time_ms)):
            found[at] = Appended("duplicate" if bytes.fromhex(seen) == digest else "conflict", offset)
        return found

    def acknowledged(self, streams: Sequence[str]) -> Mapping[str, int]:
        """See Log."""
        return self._read(lambda c: tables.cursors(c, streams))

    def _known(self, streams: Sequence[str]) -> dict[str, Standing]:
        found: dict[str, Standing] = {}
        missing: list[str] = []
        for stream in streams:
            standing = self._standings.get(stream)
            if standing is None:
                missing.append(stream)
            else:
                found[stream] = standing
        if not missing:
            return found
        standings = self._standings
        standings.loading()
        read: dict[str, Standing] = {}
        try:
            read = self._read(lambda c: tables.standings(c, missing))
        finally:
            standings.loaded(read)
        return standings.view(streams)

    def _read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        def guarded(c: sqlite3.Connection) -> T:
            try:
                return job(c)
            except sqlite3.Error as e:
                raise failures.of_read(e, str(self._path)) from None
            except (ValueError, TypeError) as e:
                raise Damaged(str(self._path), f"a row is not readable ({e})") from None

        with self._reader.turn:
            return self._reader.run(guarded)

    # -- trimming

    def trim(self, lease: Lease, retention: Retention, now_ms: int, before_ms: int, budget: int) -> int:
        """See Log. Switches: often; appends come between its steps."""
        standings, sweep = self._standings, self._sweep
        standings.use(retention)
        with self._trimming:
            with self._writer.turn:
                self._refuse_unsettled()
            self._tend()
            if not sweep.is_resting(now_ms):
                self._read(lambda c: sweep.step(c, retention, now_ms, before_ms))
            gone = 0
            for _ in range(budget // trimming.AT_ONCE + _LOOKS):
                if gone >= budget:
                    break
                names = _take(standings.overfull, trimming.STREAMS_AT_ONCE) or _take(
                    sweep.due, trimming.STREAMS_AT_ONCE
                )
                most = min(trimming.AT_ONCE, budget - gone)
                gone_now = self._trim_some(lease, names, retention, now_ms, before_ms, most)
                gone += gone_now
                if gone_now >= most:
                    sweep.due.update(dict.fromkeys(names))  # there may be more
                elif not standings.overfull and not sweep.due:
                    break
        return gone

    def _trim_some(
        self, lease: Lease, names: list[str], retention: Retention, now_ms: int, before_ms: int, most: int
    ) -> int:
        found = self._read(lambda c: trimming.look(c, names, retention, now_ms, before_ms, most))
        if not found.records and not found.keys:
            return 0
        with self._writer.turn:
            rows = self._commit_claimed(lease, lambda c: trimming.let_go(c, found, now_ms, most))
            self._standings.moved({name: Standing(*standing) for name, *standing in rows})
        return found.records

    def _tend(self) -> None:
        """Looks after the files: a WAL that grew, a disk that was full, the ballast."""
        with self._writer.turn, self._reader.turn:
            try:
                self._writer.run(self._look_after_files)
            except sqlite3.Error as e:
                raise failures.before_commit(e, str(self._path)) from None
            except OSError as e:
                raise Unavailable(str(e)) from None


def _take(names: dict[str, None], most: int) -> list[str]:
    taken = list(islice(names, most))
    for name in taken:
        del names[name]
    return taken


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")
