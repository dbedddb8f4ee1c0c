"""Which shards of a shared log a router owns: beats, deaths, takeovers, who gives what to whom. Pure.

The engine's rows say who owns what. A router that lives beats: one commit, which also reads all rows. Its *deadline* is
some time after it asked for the last beat that was answered, on its own clock. Who sees a beat stand still for longer
than that, on its own clock, declares that run dead; then the living share its shards. So nobody's wall clock matters,
and two owners never speak at once: the one before is past its deadline when the next one begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zim.fabric.sharding import rank
from zim.nodes.effects import INFO, WARNING, Effect, Note
from zim.nodes.router.effects import (
    BeatNow,
    Bury,
    CloseShard,
    Enter,
    HandOver,
    LeaveRows,
    LookAround,
    OpenShard,
    OwnerEffect,
    Take,
)
from zim.nodes.router.log import Fenced, Lease
from zim.nodes.router.log.shared import Beat, Holding, Rows

BEAT_S = 0.5  # between two beats
DEADLINE_S = 2.0  # after the last answered beat was asked for: from then on an owner is silent
DEAD_S = 2.2  # a beat that stands still for so long is that of a dead run
AGAIN_S = 0.2  # after a beat that failed
GATHER_S = 1.0  # after it has entered, a router waits for others that are not there yet: they may just be starting
LEFT_S = 1.5  # a shard that nobody takes for so long is for anybody
SETTLED_S = 15.0  # who has lived so long is given shards


@dataclass(slots=True)
class _Seen:
    """A router's row, since it is as it is; lives_since: and since when that run is known."""

    beat: Beat
    since: float
    lives_since: float


class Owning:
    """One router process.

    Attributes:
        run: its number in the log; 0 while it has none.
        deadline: until when it may speak for its shards; monotonic.
        leases: of its shards.
        standing: the newest rows that it has seen.
    """

    def __init__(self, router: str, routers: Sequence[str], last_run: int, now: float) -> None:
        """
        Args:
            routers: names of all of them.
            last_run: the last run of this router's folder, whose process is surely gone.
            now: monotonic seconds, as everywhere below.
        """
        self.router, self.run = router, 0
        self.deadline = now
        self.leases: dict[str, Lease] = {}
        self.standing = Rows({}, {})
        self.is_leaving = False
        self._routers, self._last_run = set(routers), last_run
        self._entered_at = now
        self._seen: dict[str, _Seen] = {}
        self._ended: dict[str, int] = {}  # terms of shards that were ours
        self._free_since: dict[str, float] = {}
        self._taking: set[str] = set()
        self._burying: set[tuple[str, int]] = set()
        self._is_asking = False  # a beat, or another word to the rows, is under way
        self._next_at = now
        self._waits_since = now
        self.giving: dict[str, str] = {}  # shards that are being handed over, and to whom

    # -- time

    def on_tick(self, now: float, time_ms: int, comets: int) -> list[Effect]:
        """What is due.

        Args:
            time_ms: log time.
            comets: how many comets it hears.
        """
        if self._is_asking or now < self._next_at:
            return []
        self._is_asking = True
        if not self.run:
            return [LookAround()]
        self._next_at = now + BEAT_S
        return [BeatNow(self.run, time_ms, 0 if self.is_leaving else comets, now)]  # who leaves is given nothing

    def may_speak(self, now: float) -> bool:
        """It may speak for its shards."""
        return now <= self.deadline

    # -- results

    def on_done(self, effect: OwnerEffect, result: Any, now: float) -> list[Effect]:
        """An effect has its result; or the error that the log has raised."""
        match effect:
            case LookAround():
                return self._on_looked(result, now)
            case Enter():
                return self._on_entered(result, now)
            case BeatNow():
                return self._on_beat(effect, result, now)
            case Bury(beat=beat):
                self._burying.discard((beat.router, beat.run))
                return (
                    [Note(WARNING, "declared dead", {"router": beat.router, "run": beat.run})] if result is True else []
                )
            case Take(holding=holding):
                return self._on_taken(effect.run, holding, result)
        return []

    def _on_looked(self, result: Any, now: float) -> list[Effect]:
        """Before it has a run. Another process of its name may live still, on another machine."""
        self._is_asking = False
        if isinstance(result, Exception):
            self._next_at = now + AGAIN_S
            return [Note(WARNING, "the shared log does not answer", {"error": str(result)})]
        self._see(result, now)
        row = result.beats.get(self.router)
        is_gone = row is None or row.is_dead or row.run == self._last_run
        if is_gone or now - self._seen[self.router].since >= DEAD_S:
            self._is_asking = True
            return [Enter()]
        self._next_at = now + BEAT_S
        if now - self._waits_since > 2 * DEAD_S:
            self._waits_since = now
            return [Note(WARNING, "another process has this name, and lives", {"router": self.router})]
        return []

    def _on_entered(self, result: Any, now: float) -> list[Effect]:
        self._is_asking = False
        if isinstance(result, Exception):
            self._next_at = now + AGAIN_S
            return [Note(WARNING, "the shared log does not let us in", {"error": str(result)})]
        self.run = self._last_run = result
        self._entered_at = now
        return [Note(INFO, "entered", {"run": self.run})]

    def _on_beat(self, effect: BeatNow, result: Any, now: float) -> list[Effect]:
        self._is_asking = False
        if effect.run != self.run:
            return []
        if isinstance(result, Fenced):
            lost = [CloseShard(lease) for lease in self.leases.values()]
            self.run, self.leases, self.giving = 0, {}, {}
            self.deadline = self._next_at = now
            return [Note(WARNING, "we were declared dead", {"run": effect.run}), *lost]
        if isinstance(result, Exception):
            self._next_at = now + AGAIN_S
            return [Note(WARNING, "a beat was not answered", {"error": str(result)})]
        self.deadline = effect.asked_at + DEADLINE_S
        self._see(result, now)
        return self._decide(now)

    def _on_taken(self, run: int, holding: Holding, result: Any) -> list[Effect]:
        self._taking.discard(holding.shard)
        if not isinstance(result, Lease) or run != self.run:
            return []
        return self._open(result)

    def _open(self, lease: Lease) -> list[Effect]:
        """Once: the rows may have said so before the answer to Take has come."""
        known = self.leases.get(lease.shard)
        if lease.term <= max(known.term if known is not None else 0, self._ended.get(lease.shard, 0)):
            return []
        self.leases[lease.shard] = lease
        return [OpenShard(lease)]

    def lost(self, lease: Lease) -> None:
        """A shard is not ours any more, or could not be opened."""
        if self.leases.get(lease.shard) == lease:
            del self.leases[lease.shard]
        self.giving.pop(lease.shard, None)
        self._ended[lease.shard] = max(lease.term, self._ended.get(lease.shard, 0))

    def kept(self, lease: Lease) -> None:
        """A shard that was to be handed over is still ours."""
        self.giving.pop(lease.shard, None)

    # -- what is decided

    def _see(self, standing: Rows, now: float) -> None:
        self.standing = standing
        for router, beat in standing.beats.items():
            seen = self._seen.get(router)
            if seen is None or seen.beat.run != beat.run:
                self._seen[router] = _Seen(beat, now, now)
            elif seen.beat.number != beat.number or seen.beat.is_dead != beat.is_dead:
                seen.beat, seen.since = beat, now

    def _decide(self, now: float) -> list[Effect]:
        out: list[Effect] = []
        for holding in self.standing.holdings.values():
            out += self._look_at(holding)
        for router, seen in self._seen.items():
            dead = router, seen.beat.run
            is_silent = router != self.router and not seen.beat.is_dead and now - seen.since >= DEAD_S
            if is_silent and dead not in self._burying:
                self._burying.add(dead)
                out.append(Bury(seen.beat))
        if self.is_leaving:
            return out + self._give_all()
        able = self._able(now)
        return out + (self._share(able, now) if self.router in able else self._give_all())

    def _look_at(self, holding: Holding) -> list[Effect]:
        """Whether a shard is ours still, or has become ours. What is read may be older than what is known."""
        lease = self.leases.get(holding.shard)
        is_ours = (holding.router, holding.run) == (self.router, self.run)
        if lease is not None and holding.term > lease.term:
            self.lost(lease)
            return [CloseShard(lease), *self._look_at(holding)]
        if lease is None and is_ours and holding.term > self._ended.get(holding.shard, 0):
            return self._open(Lease(holding.shard, holding.term))
        return []

    def _living(self, now: float) -> dict[str, Beat]:
        return {
            router: seen.beat
            for router, seen in self._seen.items()
            if not seen.beat.is_dead and (router == self.router or now - seen.since < DEAD_S)
        }

    def _able(self, now: float) -> list[str]:
        """Routers that may own shards: those that live and hear comets, if anybody hears one."""
        living = self._living(now)
        hear = [router for router, beat in living.items() if beat.comets]
        return sorted(hear or living)

    def _counts(self, able: Sequence[str]) -> dict[str, int]:
        counts = dict.fromkeys(able, 0)
        for holding in self.standing.holdings.values():
            if holding.router in counts and self._has_owner(holding):
                counts[holding.router] += 1
        return counts

    def _has_owner(self, holding: Holding) -> bool:
        beat = self.standing.beats.get(holding.router)
        return beat is not None and beat.run == holding.run and not beat.is_dead

    def _has_dropped(self, holding: Holding) -> bool:
        """The rows say that it is ours, and it could not be opened, or had to be closed."""
        is_ours = (holding.router, holding.run) == (self.router, self.run)
        return is_ours and holding.shard not in self.leases and holding.shard not in self._taking

    def _share(self, able: Sequence[str], now: float) -> list[Effect]:
        """Takes its part of what nobody owns; if everything has an owner, gives what it has too much."""
        free = [h for h in self.standing.holdings.values() if not self._has_owner(h) or self._has_dropped(h)]
        free.sort(key=lambda holding: holding.shard)
        self._free_since = {h.shard: self._free_since.get(h.shard, now) for h in free}
        if now - self._entered_at < GATHER_S and not self._routers <= self._living(now).keys():
            return []
        counts = self._counts(able)
        out: list[Effect] = []
        for holding in free:
            ranked = rank(holding.shard, able)
            taker = min(able, key=lambda router: (counts[router], ranked.index(router)))
            counts[taker] += 1
            is_left = now - self._free_since[holding.shard] > LEFT_S
            if (taker == self.router or is_left) and holding.shard not in self._taking:
                self._taking.add(holding.shard)
                out.append(Take(holding, self.run))
        return out if free or self._taking else self._balance(counts, now)

    def _balance(self, counts: Mapping[str, int], now: float) -> list[Effect]:
        # Nothing is given to a router that hears fewer comets: they may not know it yet, or not reach it.
        beats = self.standing.beats
        heard = beats[self.router].comets if self.router in beats else 0
        able = [router for router in counts if router in beats and beats[router].comets >= heard]
        old = [router for router in able if now - self._seen[router].lives_since >= SETTLED_S]
        to = min((router for router in old if router != self.router), key=lambda r: (counts[r], r), default="")
        if not to or self.giving or counts[self.router] < counts[to] + 2:
            return []
        return self._give(max(self.leases, default=""), to)

    def _give(self, shard: str, to: str) -> list[Effect]:
        if shard not in self.leases or shard in self.giving:
            return []
        self.giving[shard] = to
        return [HandOver(self.leases[shard], to, self.standing.beats[to].run)]

    def _give_all(self) -> list[Effect]:
        """To those who hear comets; those who have the fewest first. Nobody may be there: then nothing is given."""
        others = (beat for router, beat in self.standing.beats.items() if router != self.router)
        counts = self._counts([beat.router for beat in others if beat.comets and not beat.is_dead])
        out: list[Effect] = []
        for shard in sorted(self.leases):
            if not counts or shard in self.giving:
                continue
            to = min(counts, key=lambda router: (counts[router], router))
            counts[to] += 1
            out += self._give(shard, to)
        return out

    def leave(self, now: float) -> list[Effect]:
        """It wants to end: its shards go to others."""
        self.is_leaving = True
        return self._give_all() if self.run and self.may_speak(now) else []

    def gone(self) -> list[Effect]:
        """It ends now: what it has not given is free at once."""
        run, self.run = self.run, 0
        return [LeaveRows(run)] if run else []
