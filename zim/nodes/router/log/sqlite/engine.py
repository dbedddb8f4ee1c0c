"""The calls of Log, on the hub: who has the turn, what the caches may show, what becomes of a failure."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from typing_extensions import override

from zim.errors import Unknown
from zim.fabric.bans import Ban, Banned
from zim.fabric.retention import Retention
from zim.nodes.router.log import (
    Appended,
    Backlog,
    Damaged,
    Head,
    Lease,
    Log,
    NewPush,
    StreamPage,
    Trimmed,
    repeated,
    unknown,
)
from zim.nodes.router.log.keys import kept_ms
from zim.nodes.router.log.pace import Pace
from zim.nodes.router.log.sqlite import failures, tables, trimming
from zim.nodes.router.log.sqlite.ballast import Ballast
from zim.nodes.router.log.sqlite.opening import FILE, open_database, wal_pages
from zim.nodes.router.log.sqlite.planning import Ids, Plan, plan
from zim.nodes.router.log.sqlite.worker import InThread, Worker
from zim.nodes.router.log.sqlite.writer import GONE, Writer
from zim.nodes.router.log.standings import Standings, StreamStanding
from zim.nodes.router.log.turn import Turn
from zim.nodes.router.log.window import Window

T = TypeVar("T")

log = logging.getLogger(__name__)

TIME_MS = 600_000  # of log time without an append, after which it is stored: the next start goes on from there


@dataclass(slots=True)
class _Unsettled:
    """A batch of which it cannot be told whether it is in the log.

    said: by batch number, what an earlier `settle` has read, if the commit of that came to its end."""

    number: int
    plan: Plan | None = None
    said: dict[int, bool] = field(default_factory=dict)


class SqliteLog(Log):
    """The log of one folder.

    Attributes:
        epoch: of all streams.
    """

    def __init__(
        self,
        folder: Path,
        routers: Sequence[str],
        in_thread: InThread,
        *,
        key_window_s: float,
        ballast_bytes: int,
        monotonic: Callable[[], float] = time.monotonic,
        factory: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        """Makes the log in a router's folder, or opens the one that is there. Blocks.

        Args:
            folder: of the router; whoever calls holds its lock.
            routers: names of all routers of the topology: they divide the streams among them.
            in_thread: runs a job in a thread: `gevent.get_hub().threadpool.apply`.
            key_window_s: for how long a publisher's key is known.
            ballast_bytes: of the file that is given up when the disk is full; half as much is kept for the next start.
            monotonic, factory: the clock, and of connections, for tests.

        Raises:
            NodeError: the log is damaged, of another program, a newer zim or other routers; says what to do.
        """
        ballast = Ballast(folder / "ballast", ballast_bytes)
        for_start = Ballast(folder / "ballast.start", ballast_bytes // 2)  # more than the WAL has as a rule
        if ballast.is_there and ballast.free_bytes() < ballast_bytes:
            ballast.give_up()  # a full disk: opening takes some room, too
        is_full = folder.is_dir() and for_start.free_bytes() < for_start.size
        if is_full:
            for_start.give_up()  # it is for opening and trimming; pushes are refused
        opened = open_database(folder, routers, factory, wal_pages(ballast_bytes))
        if ballast.make():
            for_start.make()
        if is_full:
            log.warning("the disk is full, and pushes are refused until there is room", extra={"folder": str(folder)})
        elif ballast_bytes and not (ballast.is_there and for_start.is_there):
            wanted = {"folder": str(folder), "free_bytes": ballast.free_bytes(), "ballast_bytes": ballast_bytes}
            log.warning("the disk has no room for the ballast", extra=wanted)
        self._time_ms, self.epoch = opened.time_ms, opened.epoch
        self._path = folder / FILE
        self._writer = Writer(Worker(opened.writer, in_thread), self._path, ballast, for_start, is_full, monotonic)
        self._reader = Worker(opened.reader, in_thread)
        self._key_window_ms = int(key_window_s * 1000)
        self._key_kept_ms = kept_ms(self._key_window_ms) if len(routers) > 1 else self._key_window_ms
        self._standings = Standings()
        self._batch, self._ids = 0, Ids(1, 1, 1)
        self._unsettled: _Unsettled | None = None
        self._trimming = Turn()
        self._sweep, self._pace = trimming.LogSweep(), Pace()
        self._old_keys, self._swept_id = 0, 1  # the streams before it were there when a sweep last went on

    @property
    @override
    def last_time_ms(self) -> int:
        return self._time_ms

    @property
    @override
    def is_full(self) -> bool:
        return self._writer.is_full

    @property
    @override
    def trouble(self) -> str:
        return f"{self._path} {GONE}" if self._writer.is_gone else super().trouble

    @property
    @override
    def backlog(self) -> Backlog:
        return Backlog(self._sweep.backlog(self._standings.overfull), self._old_keys)

    @override
    def close(self) -> None:
        self._writer.close()
        self._reader.close()

    # -- the owner

    @override
    def acquire(self, owner: str) -> Lease:
        """The folder's lock keeps other processes out. Whoever comes past it fences the one before."""

        def job(c: sqlite3.Connection) -> tuple[int, int, Ids]:
            term = tables.acquire(c, owner, int(time.time() * 1000))
            return term, tables.last_batch(c), tables.next_ids(c)

        with self._writer.turn:
            term, self._batch, self._ids = self._writer.commit(job)
            self._standings, self._unsettled = Standings(), None
        return Lease(owner, term)

    # -- writing

    @override
    def append(self, lease: Lease, batch: Sequence[NewPush]) -> list[Appended]:
        """Switches: until the batch is on the disk."""
        if not batch:
            return []
        with self._writer.turn:
            self._refuse_unsettled()
            self._writer.refuse_full()
            self._batch += 1
            unsettled = self._unsettled = _Unsettled(self._batch)
            try:
                self._writer.commit(self._append_job(lease, batch, unsettled))
            except Unknown:
                raise
            except Exception:  # of the job, and rolled back; who is killed while it runs leaves it unsettled
                self._unsettled = None
                raise
            return self._committed(unsettled)

    def _append_job(
        self, lease: Lease, batch: Sequence[NewPush], unsettled: _Unsettled
    ) -> Callable[[sqlite3.Connection], None]:
        known, missing = self._standings.split(stream for push in batch for stream in push.streams)
        keyed = list({push.key_id: None for push in batch if push.key is not None})
        ids = self._ids
        if not missing and not keyed:
            unsettled.plan = plan(batch, known, {}, ids, self._key_window_ms)
        time_ms = max(push.time_ms for push in batch)

        def job(c: sqlite3.Connection) -> None:
            tables.claim(c, lease.shard, lease.term, unsettled.number, time_ms)
            if unsettled.plan is None:
                known.update(tables.standings(c, missing) if missing else {})
                keys = tables.keys(c, keyed) if keyed else {}
                unsettled.plan = plan(batch, known, keys, ids, self._key_window_ms)
            tables.write(c, unsettled.plan)

        return job

    def _committed(self, unsettled: _Unsettled) -> list[Appended]:
        done = unsettled.plan
        assert done is not None
        self._unsettled = None
        self._ids = done.ids
        self._time_ms = max(self._time_ms, done.time_ms)
        self._standings.moved(done.standings, done.time_ms)
        self._pace.wrote(done.size)
        return done.answers

    @override
    def settle(self, lease: Lease, batch: Sequence[NewPush]) -> list[Appended] | None:
        """Commits, so that nothing of a batch that is not in the log can be found by the next start."""
        with self._writer.turn:
            unsettled = self._unsettled
            if unsettled is None:
                return None
            self._batch += 1

            def job(c: sqlite3.Connection) -> bool:
                last = tables.last_batch(c)
                is_stored = unsettled.said[self._batch] = unsettled.said.get(last, last == unsettled.number)
                tables.claim(c, lease.shard, lease.term, self._batch)
                return is_stored

            if self._writer.commit(job):
                return self._committed(unsettled)
            self._unsettled = None
            return None

    @override
    def reserve_seqs(self, lease: Lease, count: int) -> int:
        """Also on a full disk: without numbers nobody can come in."""
        with self._writer.turn:
            return self._commit_claimed(lease, lambda c: tables.reserve_seqs(c, count))

    @override
    def ban(self, lease: Lease, bans: Sequence[Ban], lifted: Sequence[Banned] = ()) -> None:
        with self._writer.turn:
            self._commit_claimed(lease, lambda c: tables.ban(c, bans, lifted))

    @override
    def bans(self) -> list[Ban]:
        return self._read(tables.bans)

    @override
    def acknowledge(self, lease: Lease, offsets: Mapping[str, int]) -> Mapping[str, int]:
        known = self._known(list(offsets))
        moves = {s: (known[s].id, max(0, min(at, known[s].head))) for s, at in offsets.items() if known[s].id}
        moved = self._write(lease, lambda c: {s: tables.move_cursor(c, *move) for s, move in moves.items()})
        return {**dict.fromkeys(offsets, 0), **moved}

    def _write(self, lease: Lease, job: Callable[[sqlite3.Connection], T]) -> T:
        with self._writer.turn:
            self._writer.refuse_full()
            return self._commit_claimed(lease, job)

    def _commit_claimed(self, lease: Lease, job: Callable[[sqlite3.Connection], T], time_ms: int = 0) -> T:
        self._refuse_unsettled()
        self._batch += 1
        number = self._batch

        def claimed(c: sqlite3.Connection) -> T:
            tables.claim(c, lease.shard, lease.term, number, time_ms)
            return job(c)

        return self._writer.commit(claimed)

    def _refuse_unsettled(self) -> None:
        if self._unsettled is not None:
            raise unknown("the batch before is not settled")

    # -- reading

    @override
    def read(self, stream: str, after: int, upto: int, max_records: int, max_bytes: int, now_ms: int) -> StreamPage:
        standing = self._known([stream])[stream]
        if not standing.id:
            return StreamPage(self.epoch, 0, 0, [], 0)
        row = (standing.id, stream)
        return self._read(lambda c: tables.read(c, self.epoch, row, after, upto, max_records, max_bytes, now_ms))

    @override
    def heads(self, streams: Sequence[str]) -> Mapping[str, Head]:
        """Switches: only if one of them was not used lately."""
        return {name: Head(self.epoch, s.floor, s.head) for name, s in self._known(streams).items()}

    @override
    def newest(self, upto_ms: int, for_ms: int, most: int) -> list[tuple[str, int]]:
        return self._read(lambda c: tables.newest(c, Window(upto_ms, for_ms), most))

    @override
    def find(self, pushes: Sequence[NewPush]) -> list[Appended | None]:
        """Switches: unless there are none."""
        ids = list({push.key_id: None for push in pushes})
        stored = self._read(lambda c: tables.keys(c, ids)) if ids else {}
        return [repeated(push, stored.get(push.key_id), self._key_window_ms) for push in pushes]

    @override
    def acknowledged(self, streams: Sequence[str]) -> Mapping[str, int]:
        return self._read(lambda c: tables.cursors(c, streams))

    def _known(self, streams: Sequence[str]) -> dict[str, StreamStanding]:
        return self._standings.known(streams, lambda missing: self._read(lambda c: tables.standings(c, missing)))

    def _read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        def guarded(c: sqlite3.Connection) -> T:
            try:
                return job(c)
            except sqlite3.Error as e:
                raise failures.before_commit(e, str(self._path)) from None
            except UnicodeDecodeError as e:
                raise Damaged(str(self._path), f"a row is not readable ({e})") from None

        with self._reader.turn:
            return self._reader.run(guarded)

    # -- trimming

    @override
    def trim(self, lease: Lease, retention: Retention, now_ms: int, before_ms: int, budget: int) -> Trimmed:
        """Switches: often; appends come between its steps."""
        standings, sweep = self._standings, self._sweep
        standings.use(retention)
        with self._trimming:
            with self._writer.turn:
                self._refuse_unsettled()
                self._writer.tend(self._reader)
                if now_ms - self._time_ms > TIME_MS and not self._writer.is_full:  # then room is for trimming
                    self._commit_claimed(lease, lambda c: None, now_ms)
                    self._time_ms = now_ms
            self._sweep_on(retention, now_ms, before_ms)
            records = keys = spent = number = 0
            has_more = True
            while has_more and spent < budget:
                most = min(self._pace.step(), budget - spent)
                is_even = number % 2 == 0
                names = sweep.take(standings.overfull, 2 * most, before_ms, sweep_first=is_even)  # some are too young
                found = self._trim_some(lease, names, retention, now_ms, before_ms, most)
                records, keys, number = records + found.records, keys + found.keys, number + 1
                spent += max(found.records, found.keys, len(names))
                has_more = found.keys == most or bool(sweep.due) or standings.overfull.has_due(before_ms)
            keys_ms = now_ms - self._key_kept_ms
            self._old_keys = self._read(lambda c: trimming.old_keys(c, keys_ms)) if has_more else 0
        return Trimmed(records, keys, has_more)

    def _sweep_on(self, retention: Retention, now_ms: int, before_ms: int) -> None:
        sweep = self._sweep
        if sweep.is_resting(now_ms):
            return

        def step() -> None:
            self._read(lambda c: sweep.step(c, retention, now_ms, before_ms))

        made, self._swept_id = self._ids.stream - self._swept_id, self._ids.stream
        sweep.go_on(made, self._standings.overfull, step)

    def _trim_some(
        self, lease: Lease, names: dict[str, int], retention: Retention, now_ms: int, before_ms: int, most: int
    ) -> trimming.Look:
        keys_ms = now_ms - self._key_kept_ms
        found = self._read(lambda c: trimming.look(c, names, retention, now_ms, before_ms, keys_ms, most))
        if found.records or found.keys:
            with self._writer.turn:
                rows = self._commit_claimed(lease, lambda c: trimming.let_go(c, found))
                moved = {name: StreamStanding(row, floor, head) for name, row, floor, head in rows}
                self._standings.moved(moved, now_ms)
        for name, gone in found.rest.items():
            self._sweep.due[name] = max(1, names[name] - gone)
            self._standings.overfull.drop(name)
        return found
