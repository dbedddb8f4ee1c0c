"""The calls of Log for one shard: who has the turn, what the caches may show, what becomes of a failure."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from typing_extensions import override

from zim.errors import Unavailable, Unknown
from zim.fabric.bans import Ban, Banned
from zim.fabric.retention import Retention
from zim.nodes.router.log import (
    Appended,
    Backlog,
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
from zim.nodes.router.log.keys import StoredKey, kept_ms
from zim.nodes.router.log.postgresql import reading, rows, small_writes, trimming, writing
from zim.nodes.router.log.postgresql.connecting import Connection
from zim.nodes.router.log.postgresql.planning import BatchPlan, NextIds, plan
from zim.nodes.router.log.postgresql.process import Process
from zim.nodes.router.log.postgresql.reading import Seen
from zim.nodes.router.log.postgresql.schema import APPEND, MARK
from zim.nodes.router.log.postgresql.small_writes import fenced
from zim.nodes.router.log.postgresql.trimmer import ShardTrimmer
from zim.nodes.router.log.postgresql.writing import BehindError, ShardClaim
from zim.nodes.router.log.standings import MOST, Standings, StreamStanding
from zim.nodes.router.log.turn import Turn

log = logging.getLogger(__name__)

T = TypeVar("T")

TIME_MS = 600_000  # of log time without an append, after which it is stored: the next owner goes on from there
LOST_S = 3.0  # commits that we know, and no server that answers does for so long, are lost


@dataclass(slots=True)
class _UnsettledBatch:
    """A batch of which it cannot be told whether it is in the log."""

    number: int
    plan: BatchPlan


class ShardLog(Log):
    """The log of one shard, as its owner has it."""

    def __init__(self, process: Process, shard: int, name: str, key_window_s: float, known: int = MOST) -> None:
        """
        Args:
            process: what the shards of one process share.
            shard, name: which; see `load`.
            key_window_s: for how long a publisher's key is known.
            known: of how many streams it remembers where they stand.
        """
        self._known_most = known
        self._process, self._shard, self._name = process, shard, name
        self._key_window_ms = int(key_window_s * 1000)
        self._standings = Standings(known)
        self._epoch, self._history, self._free = "", 0, NextIds(1, 1, 1)
        self._number, self._time_ms = 0, 0
        self._turn = Turn()  # of whoever takes a number
        self._unsettled: _UnsettledBatch | None = None
        self._is_unsure = False  # a number may have been taken by us
        self._trimmer = ShardTrimmer(process, shard, self._standings, self._turn, kept_ms(self._key_window_ms))
        self._dropped = 0
        self._is_closed = False

    def load(self, lease: Lease | None) -> None:
        """What there is. Switches. Raises: Fenced: the lease is not the newest."""

        def job(c: Connection) -> tuple[reading.ShardRow, writing.Position]:
            return reading.shard_row(c, self._shard), writing.last_position(c, self._shard)

        row, last = self._process.pool.read(job)
        if lease is not None and row.term != lease.term:
            raise fenced(lease)
        if lease is not None and last.number < self._process.newest.get(self._shard, 0):
            self._refuse_behind(lease)
        self._process.newest[self._shard] = last.number
        self._epoch, self._history, self._free = row.epoch, row.history, row.free
        self._number, self._time_ms = last.number, last.time_ms
        self._standings = self._trimmer.standings = Standings(self._known_most)
        self._unsettled, self._is_unsure = None, False

    @property
    @override
    def last_time_ms(self) -> int:
        return self._time_ms

    @property
    @override
    def is_full(self) -> bool:
        return self._process.is_full

    @property
    @override
    def backlog(self) -> Backlog:
        return self._trimmer.backlog

    @override
    def close(self) -> None:
        """The connections are the process's."""
        self._is_closed = True

    @override
    def acquire(self, owner: str) -> Lease:
        """Takes the shard from whoever has it, whatever the rows of routers say: for one who is alone."""
        with self._turn:
            lease = self._process.pool.write(lambda c: rows.seize(c, self._shard, self._name))
            self.load(lease)
        return lease

    # -- writing

    @override
    def append(self, lease: Lease, batch: Sequence[NewPush]) -> list[Appended]:
        """Switches: until the batch is on the standby."""
        if not batch:
            return []
        with self._turn:
            self._refuse_unsettled()
            known = self._known([stream for push in batch for stream in push.streams])
            keys: dict[str, StoredKey] | None = None
            while True:
                if self._is_unsure:
                    self._look_again(lease)
                done = plan(batch, self._shard, known, keys, self._free, self._key_window_ms)
                if not done.size and keys is not None:  # repeats alone
                    self._refuse_closed()
                    return done.answers
                outcome = self._claim(lease, done)
                if outcome == "stored":
                    return self._committed(done, self._number + 1)
                if outcome == "keys" and keys is None:
                    keys = self._keys(batch)
                elif outcome == "fenced":
                    self._look_again(lease)
                else:
                    self._refuse(outcome, lease)

    def _claim(self, lease: Lease, done: BatchPlan) -> writing.Outcome:
        self._refuse_closed()
        done.time_ms = max(done.time_ms, self._time_ms)
        self._unsettled = _UnsettledBatch(self._number + 1, done)
        alone = self._process.may_be_alone
        try:
            outcome = self._process.append(ShardClaim(self._shard, lease.term, self._number + 1, done, alone))
        except Unknown:
            raise
        except Exception:  # it surely was not written; who is killed meanwhile leaves it unsettled
            self._unsettled = None
            raise
        self._unsettled = None
        return outcome

    def _look_again(self, lease: Lease) -> None:
        """A number that should be free is not, or may not be: it is our own, of a call that was not answered.

        Raises:
            Fenced: it is another owner's; or of a batch that was taken for lost: what is known here is not the truth.
        """

        def job(c: Connection) -> tuple[int, writing.Position]:
            return writing.term_of(c, self._shard), writing.last_position(c, self._shard)

        term, last = self._process.pool.read(job)
        is_there = last.number > self._number and last.kind != APPEND
        if term != lease.term or not (is_there or (self._is_unsure and last.number == self._number)):
            raise fenced(lease)
        self._number, self._is_unsure = last.number, False

    def _refuse(self, outcome: writing.Outcome, lease: Lease) -> None:
        """Raises: Fenced, Unavailable: nothing was written."""
        if outcome == "behind":
            self._refuse_behind(lease)
        raise writing.refusal(outcome, lease)

    def _refuse_behind(self, lease: Lease) -> None:
        """The server does not know what we know. For a while it is taken for one that was deposed.

        Raises:
            Unavailable: it still is. Fenced: commits were lost, and what comes now is another history, of a new term.
        """
        process, shard = self._process, self._shard
        process.distrust()
        now = process.monotonic()
        if shard not in process.behind_since:
            process.behind_since[shard] = now
            log.error("commits that we know are not there; the server may be one that was deposed", extra=self._who)
        elif now - process.behind_since[shard] > LOST_S:
            log.critical("commits were lost: what comes from now on is another history", extra=self._who)
            process.pool.write(lambda c: rows.renew_history(c, shard, lease))
            process.newest.pop(shard, None)
            process.behind_since.pop(shard, None)
            raise fenced(lease)
        raise writing.refusal("behind", lease)

    @property
    def _who(self) -> dict[str, object]:
        return {"shard": self._name, "commits": self._number}

    def _committed(self, done: BatchPlan, number: int) -> list[Appended]:
        self._unsettled = None
        self._number, self._free = number, done.free
        self._process.newest[self._shard] = number
        self._process.behind_since.pop(self._shard, None)
        self._time_ms = max(self._time_ms, done.time_ms)
        for stream, moved in done.standings.items():
            known = self._standings.get(stream)
            if known is not None and known.floor > moved.floor:  # trimming has raised it meanwhile
                done.standings[stream] = StreamStanding(moved.id, known.floor, moved.head, moved.epoch)
        self._standings.moved(done.standings, done.time_ms)
        self._trimmer.pace.wrote(done.size)
        return done.answers

    @override
    def settle(self, lease: Lease, batch: Sequence[NewPush]) -> list[Appended] | None:
        """May be asked again, for as long as it raises."""
        with self._turn:
            unsettled = self._unsettled
            if unsettled is None:
                return None
            number, time_ms = unsettled.number, self._time_ms

            def job(c: Connection) -> tuple[bool, int]:
                return writing.settle(c, lease, self._shard, number, time_ms)

            try:
                is_stored, last = self._process.pool.write(job)
            except BehindError:
                self._refuse_behind(lease)
                raise
            if is_stored:
                return self._committed(unsettled.plan, last)
            self._unsettled, self._number = None, last
            return None

    @override
    def reserve_seqs(self, lease: Lease, count: int) -> int:
        return self._write(lambda c: small_writes.reserve_seqs(c, lease, self._shard, count))

    @override
    def ban(self, lease: Lease, bans: Sequence[Ban], lifted: Sequence[Banned] = ()) -> None:
        self._write(lambda c: small_writes.ban(c, lease, self._shard, bans, lifted))

    @override
    def bans(self) -> list[Ban]:
        return self._read(reading.bans)

    @override
    def acknowledge(self, lease: Lease, offsets: Mapping[str, int]) -> Mapping[str, int]:
        known = self._known(list(offsets))
        moves = {s: (known[s].id, max(0, min(at, known[s].head))) for s, at in offsets.items() if known[s].id}
        ids, ats = [move[0] for move in moves.values()], [move[1] for move in moves.values()]
        moved = self._write(lambda c: small_writes.move_cursors(c, lease, self._shard, ids, ats))
        return {stream: moved.get(known[stream].id, 0) for stream in offsets}

    def _write(self, job: Callable[[Connection], T]) -> T:
        self._refuse_closed()
        return self._process.pool.write(job)

    def _refuse_unsettled(self) -> None:
        if self._unsettled is not None:
            raise unknown("the batch before is not settled")

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise unavailable("it is closed")

    # -- reading

    @override
    def read(self, stream: str, after: int, upto: int, max_records: int, max_bytes: int, now_ms: int) -> StreamPage:
        standing = self._known([stream])[stream]
        if not standing.id:
            return StreamPage(self._shown(""), 0, 0, [], 0)
        row = (standing.id, stream)
        page, epoch = self._read(lambda c, s: reading.read(c, s, row, after, upto, max_records, max_bytes, now_ms))
        return StreamPage(self._shown(epoch), page.floor, page.head, page.records, page.last)

    def _shown(self, epoch: str) -> str:
        """A stream's epoch: its own, or the shard's; and after commits were lost it is another one."""
        return (epoch or self._epoch) + (f"-{self._history}" if self._history else "")

    @override
    def heads(self, streams: Sequence[str]) -> Mapping[str, Head]:
        """Switches: only if one of them was not used lately."""
        return {name: Head(self._shown(s.epoch), s.floor, s.head) for name, s in self._known(streams).items()}

    @override
    def newest(self, upto_ms: int, for_ms: int, most: int) -> list[tuple[str, int]]:
        return self._read(lambda c, seen: reading.newest(c, seen, upto_ms, for_ms, most))

    @override
    def find(self, pushes: Sequence[NewPush]) -> list[Appended | None]:
        """Switches: unless there are none."""
        stored = self._keys(pushes) if pushes else {}
        return [repeated(push, stored.get(push.key_id), self._key_window_ms) for push in pushes]

    def _keys(self, pushes: Sequence[NewPush]) -> dict[str, StoredKey]:
        ids = list({push.key_id: None for push in pushes if push.key is not None})
        return self._read(lambda c, seen: reading.keys(c, seen, ids))

    @override
    def acknowledged(self, streams: Sequence[str]) -> Mapping[str, int]:
        return self._read(lambda c, seen: reading.cursors(c, seen, streams))

    def _known(self, streams: Sequence[str]) -> dict[str, StreamStanding]:
        return self._standings.known(
            streams, lambda missing: self._read(lambda c, seen: reading.standings(c, seen, missing))
        )

    def _read(self, job: Callable[[Connection, Seen], T]) -> T:
        """Once again, if the server was not up to date: there may be another one."""
        self._refuse_closed()
        for is_last in (False, True):
            seen = Seen(self._shard, self._number)
            try:
                return self._process.pool.read(lambda c, seen=seen: job(c, seen))  # type: ignore[misc]
            except Unavailable:
                if is_last:
                    raise
        raise AssertionError

    # -- trimming

    @override
    def trim(self, lease: Lease, retention: Retention, now_ms: int, before_ms: int, budget: int) -> Trimmed:
        """Switches: often; appends come between its steps."""
        with self._turn:
            self._refuse_unsettled()
        if now_ms - self._time_ms > TIME_MS:
            self._store_time(lease, now_ms)
        trimmed = self._trimmer.trim(lease, retention, now_ms, before_ms, budget, self._free.stream)
        if self._number - self._dropped > 2 * trimming.POSITIONS_KEPT:
            newest = self._number
            self._write(lambda c: trimming.drop_positions(c, self._shard, newest))
            self._dropped = newest
        self._process.vacuum.tend(records=trimmed.records, keys=trimmed.keys)
        return trimmed

    def _store_time(self, lease: Lease, now_ms: int) -> None:
        with self._turn:
            self._refuse_unsettled()
            if self._is_unsure:
                self._look_again(lease)
            number = self._number + 1
            self._is_unsure = True
            if not self._write(lambda c: writing.take_number(c, self._shard, lease.term, number, now_ms, MARK)):
                self._look_again(lease)
                return
            self._is_unsure, self._number, self._time_ms = False, number, now_ms
