"""The calls of Log for one shard: who has the turn, what the caches may show, what becomes of a failure."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from typing_extensions import override

from zim.errors import Unavailable, Unknown
from zim.fabric.bans import Ban, Banned
from zim.fabric.retention import Retention
from zim.nodes.router.log import (
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
from zim.nodes.router.log.keys import StoredKey, kept_ms
from zim.nodes.router.log.pace import Pace
from zim.nodes.router.log.postgresql import reading, rows, trimming, writing
from zim.nodes.router.log.postgresql.connecting import Connection
from zim.nodes.router.log.postgresql.planning import BatchPlan, NextIds, plan
from zim.nodes.router.log.postgresql.process import Process
from zim.nodes.router.log.postgresql.reading import Seen
from zim.nodes.router.log.postgresql.schema import ID_BITS, MARK
from zim.nodes.router.log.postgresql.writing import Claim
from zim.nodes.router.log.standings import Standings, StreamStanding
from zim.nodes.router.log.turn import Turn

log = logging.getLogger(__name__)

T = TypeVar("T")

TIME_MS = 600_000  # of log time without an append, after which it is stored: the next owner goes on from there
LOST_S = 10.0  # commits that we know, and no server that answers does for so long, are lost


@dataclass(slots=True)
class _Unsettled:
    """A batch of which it cannot be told whether it is in the log."""

    number: int
    plan: BatchPlan


class ShardLog(Log):
    """The log of one shard, as its owner has it."""

    def __init__(self, process: Process, shard: int, name: str, key_window_s: float) -> None:
        """
        Args:
            process: what the shards of one process share.
            shard, name: which; see `load`.
            key_window_s: for how long a publisher's key is known.
        """
        self._process, self._shard, self._name = process, shard, name
        self._key_window_ms = int(key_window_s * 1000)
        self._key_kept_ms = kept_ms(self._key_window_ms)
        self._standings = Standings()
        self._epoch, self._history, self._free = "", 0, NextIds(1, 1, 1)
        self._number, self._time_ms = 0, 0
        self._turn = Turn()  # of whoever takes a number
        self._unsettled: _Unsettled | None = None
        self._is_unsure = False  # a number may have been taken by us
        self._behind_since: float | None = None
        self._trimming = Turn()
        self._sweep, self._pace = trimming.ShardSweep(shard), Pace()
        self._old_keys, self._swept_id, self._dropped = 0, 1, 0
        self._is_closed = False

    def load(self, lease: Lease | None) -> None:
        """What there is. Switches. Raises: Fenced: the lease is not the newest."""

        def job(c: Connection) -> tuple[reading.ShardRow, writing.Position]:
            return reading.shard_row(c, self._shard), writing.last_position(c, self._shard)

        row, last = self._process.pool.read(job)
        if lease is not None and row.term != lease.term:
            raise self._fenced(lease)
        self._epoch, self._history, self._free = row.epoch, row.history, row.free
        self._number, self._time_ms = last.number, last.time_ms
        self._swept_id = self._free.stream
        self._standings, self._unsettled, self._is_unsure = Standings(), None, False

    def _fenced(self, lease: Lease) -> Fenced:
        return Fenced(f"{lease.shard} of term {lease.term} is another's")

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
        overfull = self._standings.overfull
        swept = sum(records for name, records in self._sweep.due.items() if name not in overfull)
        return Backlog(overfull.records + swept, self._old_keys)

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
        self._unsettled = _Unsettled(self._number + 1, done)
        alone = self._process.may_be_alone
        try:
            outcome = self._process.append(Claim(self._shard, lease.term, self._number + 1, done, alone))
        except Unknown:
            raise
        except Exception:  # it surely was not written; who is killed meanwhile leaves it unsettled
            self._unsettled = None
            raise
        self._unsettled = None
        return outcome

    def _look_again(self, lease: Lease) -> None:
        """A number that should be free is not: it is our own, of a call that was not answered, or another's.

        Raises:
            Fenced: it is.
        """

        def job(c: Connection) -> tuple[int, writing.Position]:
            return writing.term_of(c, self._shard), writing.last_position(c, self._shard)

        term, last = self._process.pool.read(job)
        if (
            term != lease.term
            or last.number <= self._number - 1
            or (last.number == self._number and not self._is_unsure)
        ):
            raise self._fenced(lease)
        self._number, self._is_unsure = last.number, False

    def _refuse(self, outcome: writing.Outcome, lease: Lease) -> None:
        """Raises: Fenced, Unavailable: nothing was written."""
        if outcome != "behind":
            raise writing.refusal(outcome, lease)
        self._process.distrust()
        now = self._process.monotonic()
        if self._behind_since is None:
            self._behind_since = now
            log.error("commits that we know are not there; the server may be one that was deposed", extra=self._who)
        elif now - self._behind_since > LOST_S:
            log.critical("commits were lost: what comes from now on is another history", extra=self._who)
            self._process.pool.write(lambda c: rows.renew_history(c, self._shard, lease))
            raise self._fenced(lease)
        raise writing.refusal(outcome, lease)

    @property
    def _who(self) -> dict[str, object]:
        return {"shard": self._name, "commits": self._number}

    def _committed(self, done: BatchPlan, number: int) -> list[Appended]:
        self._unsettled, self._behind_since = None, None
        self._number, self._free = number, done.free
        self._time_ms = max(self._time_ms, done.time_ms)
        self._standings.moved(done.standings, done.time_ms)
        self._pace.wrote(done.size)
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

            is_stored, last = self._process.pool.write(job)
            if is_stored:
                return self._committed(unsettled.plan, last)
            self._unsettled, self._number = None, last
            return None

    @override
    def reserve_seqs(self, lease: Lease, count: int) -> int:
        values = {"shard": self._shard, "term": lease.term, "count": count}

        def job(c: Connection) -> int:
            row = c.execute(_SEQS, values, prepare=True).fetchone()
            if row is None:
                raise self._fenced(lease)
            return int(row[0])

        return self._write(job)

    @override
    def ban(self, lease: Lease, bans: Sequence[Ban], lifted: Sequence[Banned] = ()) -> None:
        gone = [msgspec.structs.astuple(banned) for banned in [*(ban.banned for ban in bans), *lifted]]

        def job(c: Connection) -> None:
            with c.transaction():
                trimming.hold(c, lease, self._shard)
                for one in gone:
                    c.execute(_LIFT, (self._shard, *one))
                for ban in bans:
                    named = msgspec.structs.astuple(ban.banned)
                    c.execute(_BAN, (self._shard, *named, ban.reason, ban.by, ban.made_ms, ban.ends_ms))

        self._write(job)

    @override
    def bans(self) -> list[Ban]:
        return self._read(reading.bans)

    @override
    def acknowledge(self, lease: Lease, offsets: Mapping[str, int]) -> Mapping[str, int]:
        known = self._known(list(offsets))
        moves = {s: (known[s].id, max(0, min(at, known[s].head))) for s, at in offsets.items() if known[s].id}
        ids, ats = [move[0] for move in moves.values()], [move[1] for move in moves.values()]
        values = {
            "shard": self._shard,
            "term": lease.term,
            "ids": trimming.wholes(ids),
            "offsets": trimming.wholes(ats),
        }

        def job(c: Connection) -> dict[int, int]:
            found = c.execute(_MOVE, values, prepare=True, binary=True).fetchall()
            if not found:
                raise self._fenced(lease)
            return {stream: at for _, stream, at in found if stream is not None}

        moved = self._write(job)
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
    def newest(self, since_ms: int, most: int) -> list[tuple[str, int]]:
        return self._read(lambda c, seen: reading.newest(c, seen, since_ms, most))

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
        found: dict[str, StreamStanding] = {}
        missing: dict[str, None] = {}
        for stream in streams:
            standing = self._standings.get(stream)
            if standing is None:
                missing[stream] = None
            else:
                found[stream] = standing
        if not missing:
            return found
        standings = self._standings
        standings.loading()
        read: dict[str, StreamStanding] = {}
        try:
            read = self._read(lambda c, seen: reading.standings(c, seen, list(missing)))
        finally:
            standings.loaded(read)
        return standings.view(streams)

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
        standings, sweep = self._standings, self._sweep
        standings.use(retention)
        with self._trimming:
            self._refuse_unsettled()
            if now_ms - self._time_ms > TIME_MS:
                self._store_time(lease, now_ms)
            self._sweep_on(retention, now_ms, before_ms)
            records = keys = spent = number = 0
            has_more = True
            while has_more and spent < budget:
                most = min(self._pace.step(), budget - spent)
                names = self._take(2 * most, before_ms, sweep_first=number % 2 == 0)  # some are too young yet
                found = self._trim_some(lease, names, retention, now_ms, before_ms, most)
                records, keys, number = records + found.records, keys + found.keys, number + 1
                spent += max(found.records, found.keys, len(names))
                has_more = found.keys == most or bool(sweep.due) or standings.overfull.has_due(before_ms)
            self._old_keys = self._count_keys(now_ms - self._key_kept_ms) if has_more else 0
            if self._number - self._dropped > 2 * trimming.POSITIONS_KEPT:
                newest = self._number
                self._write(lambda c: trimming.drop_positions(c, self._shard, newest))
                self._dropped = newest
            self._process.vacuum.tend()
        return Trimmed(records, keys, has_more)

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

    def _count_keys(self, keys_ms: int) -> int:
        values = {"least": self._shard << ID_BITS, "below": (self._shard + 1) << ID_BITS, "keys_ms": keys_ms}

        def job(c: Connection) -> int:
            row = c.execute(_KEYS_LEFT, values, prepare=True).fetchone()
            return 0 if row is None else int(row[0])

        return self._process.pool.read(job)

    def _sweep_on(self, retention: Retention, now_ms: int, before_ms: int) -> None:
        """Some steps of the sweep: over more streams than were made since the last ones, so that it has an end."""
        if self._sweep.is_resting(now_ms):
            return
        made, self._swept_id = self._free.stream - self._swept_id, self._free.stream
        for _ in range(1 + 2 * max(0, made) // trimming.SWEPT_AT_ONCE):
            self._process.pool.read(lambda c: self._sweep.step(c, retention, now_ms, before_ms))
            if not self._sweep.at:
                break
        for stream in self._sweep.due:
            self._standings.overfull.drop(stream)

    def _take(self, most: int, before_ms: int, *, sweep_first: bool) -> dict[str, int]:
        """Some streams to look at, which have about so many records too many: more would be looked at in vain."""
        due = self._sweep.due
        taken = {} if sweep_first and due else self._standings.overfull.take(most, before_ms)
        if not taken:
            for name, records in due.items():
                if most <= 0:
                    break
                taken[name] = records
                most -= records
            for name in taken:
                del due[name]
        return taken

    def _trim_some(
        self, lease: Lease, names: dict[str, int], retention: Retention, now_ms: int, before_ms: int, most: int
    ) -> trimming.Gone:
        keys_ms = now_ms - self._key_kept_ms
        pool, shard = self._process.pool, self._shard
        found = pool.read(lambda c: trimming.look(c, shard, names, retention, now_ms, before_ms, keys_ms, most))
        if found.records or found.keys:
            with self._turn:  # a commit that comes in between would move a head that is read here
                gone = self._write(lambda c: trimming.let_go(c, lease, shard, found))
                self._standings.moved({name: StreamStanding(*standing) for name, *standing in gone}, now_ms)
        for name, count in found.rest.items():
            self._sweep.due[name] = max(1, names[name] - count)
            self._standings.overfull.drop(name)
        return found


_SEQS = """
    UPDATE shards SET next_seq = next_seq + %(count)s WHERE shard = %(shard)s AND term = %(term)s
    RETURNING next_seq - %(count)s"""
_LIFT = 'DELETE FROM bans WHERE shard = %s AND "user" = %s AND device = %s AND network = %s'
_BAN = """
    INSERT INTO bans (shard, "user", device, network, reason, by, made_ms, ends_ms)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"""
_MOVE = """
    WITH mine AS (
        SELECT 1 FROM shards WHERE shard = %(shard)s AND term = %(term)s
    ), moved AS (
        INSERT INTO cursors (stream, "offset")
        SELECT n.stream, n.at FROM mine, unnest(%(ids)s, %(offsets)s) AS n(stream, at)
        ON CONFLICT (stream) DO UPDATE SET "offset" = greatest(cursors."offset", excluded."offset")
        RETURNING stream, "offset"
    )
    SELECT true, moved.* FROM mine LEFT JOIN moved ON true"""
_KEYS_LEFT = """
    SELECT count(*) FROM (
        SELECT 1 FROM keys WHERE number >= %(least)s AND number < %(below)s AND time_ms <= %(keys_ms)s LIMIT 100000
    ) AS old"""
