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
        self._sweep = trimming.ShardSweep(shard=shard)
        self._old_keys, self._swept_id = 0, 0
        self._rests_until_ms = 0

    @property
    def backlog(self) -> Backlog:
        """See Log."""
        return Backlog(self._sweep.backlog(self.standings.overfull), self._old_keys)

    def trim(
        self, lease: Lease, retention: Retention, now_ms: int, before_ms: int, budget: int, next_stream: int
    ) -> Trimmed:
        """See Log. next_stream: the first free id of streams. Switches: often; appends come between its steps."""
        self.standings.use(retention)
        overfull = self.standings.overfull
        with self._turn:
            self._sweep_on(retention, now_ms, before_ms, next_stream)
            records = keys = spent = number = 0
            has_more = True
            keys_ms = now_ms - self._keys_kept_ms
            while has_more and spent < budget:
                most = min(self.pace.step(), budget - spent)
                is_even = number % 2 == 0
                names = self._sweep.take(overfull, 2 * most, before_ms, sweep_first=is_even)  # some are too young yet
                if not names and now_ms < self._rests_until_ms:
                    has_more = False
                    break
                limits = trimming.Limits(retention, now_ms, before_ms, keys_ms, most)
                found = self._trim_some(lease, names, limits)
                if found.keys < most:
                    self._rests_until_ms = now_ms + REST_MS
                records, keys, number = records + found.records, keys + found.keys, number + 1
                spent += max(found.records, found.keys, len(names))
                is_due = bool(self._sweep.due) or overfull.has_due(before_ms)
                has_more = found.keys == most or is_due
            pool, shard = self._process.pool, self._shard
            self._old_keys = pool.read(lambda c: trimming.count_old_keys(c, shard, keys_ms)) if has_more else 0
        return Trimmed(records, keys, has_more)

    def _sweep_on(self, retention: Retention, now_ms: int, before_ms: int, next_stream: int) -> None:
        pool, sweep = self._process.pool, self._sweep
        if sweep.is_resting(now_ms):
            return

        def step() -> None:
            pool.read(lambda c: sweep.step(c, retention, now_ms, before_ms))

        made, self._swept_id = next_stream - (self._swept_id or next_stream), next_stream
        sweep.go_on(made, self.standings.overfull, step)

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
