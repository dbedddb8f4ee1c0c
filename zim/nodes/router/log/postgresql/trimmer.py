"""The trimming of one shard: what is over its count is known from the appends, what is too old finds a slow sweep."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

from zim.fabric.retention import Retention
from zim.nodes.router.log import Backlog, Lease, Trimmed
from zim.nodes.router.log.pace import Pace
from zim.nodes.router.log.postgresql import trimming
from zim.nodes.router.log.postgresql.process import Process
from zim.nodes.router.log.standings import Standings, StreamStanding
from zim.nodes.router.log.turn import Turn

REST_MS = 1_000  # of log time, between two looks for old keys alone: a router calls ten times a second for each shard


class ShardTrimmer:
    """Lets go of what a shard need not keep.

    Attributes:
        pace: is told what appends write.
        standings: of the streams; the shard puts others in its place when it is loaded.
    """

    def __init__(self, process: Process, shard: int, standings: Standings, turn: Turn, keys_kept_ms: int) -> None:
        """
        Args:
            shard: its number.
            turn: of whoever appends.
            keys_kept_ms: how long keys are kept.
        """
        self.pace, self.standings = Pace(), standings
        self._process, self._shard, self._appending, self._keys_kept_ms = process, shard, turn, keys_kept_ms
        self._turn = Turn()
        self._sweep = trimming.ShardSweep(shard)
        self._old_keys, self._swept_id = 0, 0
        self._rests_until_ms = 0

    @property
    def backlog(self) -> Backlog:
        """See Log."""
        overfull = self.standings.overfull
        swept = sum(records for name, records in self._sweep.due.items() if name not in overfull)
        return Backlog(overfull.records + swept, self._old_keys)

    def trim(
        self, lease: Lease, retention: Retention, now_ms: int, before_ms: int, budget: int, next_stream: int
    ) -> Trimmed:
        """See Log. next_stream: the first free id of streams. Switches: often; appends come between its steps."""
        self.standings.use(retention)
        with self._turn:
            self._sweep_on(retention, now_ms, before_ms, next_stream)
            records = keys = spent = number = 0
            has_more = True
            keys_ms = now_ms - self._keys_kept_ms
            while has_more and spent < budget:
                most = min(self.pace.step(), budget - spent)
                names = self._take(2 * most, before_ms, sweep_first=number % 2 == 0)  # some are too young yet
                if not names and now_ms < self._rests_until_ms:
                    has_more = False
                    break
                limits = trimming.Limits(retention, now_ms, before_ms, keys_ms, most)
                found = self._trim_some(lease, names, limits)
                if found.keys < most:
                    self._rests_until_ms = now_ms + REST_MS
                records, keys, number = records + found.records, keys + found.keys, number + 1
                spent += max(found.records, found.keys, len(names))
                is_due = bool(self._sweep.due) or self.standings.overfull.has_due(before_ms)
                has_more = found.keys == most or is_due
            pool, shard = self._process.pool, self._shard
            self._old_keys = pool.read(lambda c: trimming.count_old_keys(c, shard, keys_ms)) if has_more else 0
        return Trimmed(records, keys, has_more)

    def _sweep_on(self, retention: Retention, now_ms: int, before_ms: int, next_stream: int) -> None:
        """Some steps of the sweep: over more streams than were made since the last ones, so that it has an end."""
        if self._sweep.is_resting(now_ms):
            return
        made, self._swept_id = next_stream - (self._swept_id or next_stream), next_stream
        for _ in range(1 + 2 * max(0, made) // trimming.SWEPT_AT_ONCE):
            self._process.pool.read(lambda c: self._sweep.step(c, retention, now_ms, before_ms))
            if not self._sweep.at:
                break
        for stream in self._sweep.due:
            self.standings.overfull.drop(stream)

    def _take(self, most: int, before_ms: int, *, sweep_first: bool) -> dict[str, int]:
        """Some streams to look at, which have about so many records too many: more would be looked at in vain."""
        due = self._sweep.due
        taken = {} if sweep_first and due else self.standings.overfull.take(most, before_ms)
        if not taken:
            for name, records in due.items():
                if most <= 0:
                    break
                taken[name] = records
                most -= records
            for name in taken:
                del due[name]
        return taken

    def _trim_some(self, lease: Lease, names: dict[str, int], limits: trimming.Limits) -> trimming.Gone:
        pool, shard = self._process.pool, self._shard
        found = pool.read(lambda c: trimming.look(c, shard, names, limits))
        if found.records or found.keys:
            # Appends need not wait: what they move is known here. But of a stream that is not, the head is read.
            are_known = all(self.standings.get(name) is not None for name in names)
            with nullcontext() if are_known else self._appending:
                gone = pool.write(lambda c: trimming.let_go(c, lease, shard, found))
                self.standings.moved(self._moved(gone, are_known=are_known), limits.now_ms)
        for name, count in found.rest.items():
            self._sweep.due[name] = max(1, names[name] - count)
            self.standings.overfull.drop(name)
        return found

    def _moved(self, gone: Iterable[Any], *, are_known: bool) -> dict[str, StreamStanding]:
        moved: dict[str, StreamStanding] = {}
        for name, stream, floor, head, epoch in gone:
            known = self.standings.get(name)
            if known is not None:
                moved[name] = StreamStanding(stream, floor, max(head, known.head), epoch)
            elif not are_known:
                moved[name] = StreamStanding(stream, floor, head, epoch)
        return moved
