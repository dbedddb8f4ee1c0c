"""A router's runner: the shards that it owns, each with a runner of its own, and how shards come and go.

With the embedded log a router owns the shard of its own name, for ever. With a shared log `owning` decides which shards
it takes and gives; here is how: who asks for a shard that is not here is told so, what belongs to one is done by its
runner, and a shard is handed over once nothing of it is under way. Pure: no socket, no clock; the simulator runs it as
it ships.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

from zim.errors import Unavailable, Unknown
from zim.nodes.effects import INFO, WARNING, Effect, End, Note, Replies, topologies_differ
from zim.nodes.router.admission import Peer
from zim.nodes.router.effects import (
    AtShard,
    BeatNow,
    CloseShard,
    DiskEffect,
    ForgetIdle,
    Give,
    HandOver,
    LookUp,
    OpenShard,
    OwnerEffect,
    ShardOpened,
    StoreReceipts,
)
from zim.nodes.router.intake import ADMITTED_BYTES
from zim.nodes.router.log import Lease
from zim.nodes.router.log.clock import LogClock
from zim.nodes.router.log.shared import Beat, Rows
from zim.nodes.router.owning import Owning
from zim.nodes.router.shard_counts import ShardCounts
from zim.nodes.router.shard_runner import ShardRunner
from zim.protocol import messages, placing
from zim.protocol.message import Message

HAND_OVER_S = 1.5  # in which nothing of a shard must be under way any more; else it stays
REPORT_S = 0.3  # for comets to report of what was committed, before it is handed over
ASKERS_S = 3.0  # who has not asked for so long which shards are here is not told
FAR_MS = 60_000  # of log time from the wall clock: worth a line of the log
COMET_S = 2.5  # who has not asked for so long is not heard


@dataclass(slots=True)
class _HandingOver(Generic[Peer]):
    """A shard on its way to another router.

    Attributes:
        until: else it stays; monotonic. reports_until: see REPORT_S; 0 before commits have ended.
        held: pushes that have come meanwhile.
        is_given: the rows were asked to name the next owner; unsure_since: and nobody knows whether they do.
    """

    effect: HandOver
    until: float
    reports_until: float = 0.0
    held: list[tuple[Peer, messages.Publish]] = field(default_factory=list)
    held_bytes: int = 0
    is_storing: bool = False
    is_given: bool = False
    unsure_since: float = 0.0


class RouterRunner(Generic[Peer]):
    """One router process.

    Attributes:
        shards: by name, those that are open here.
        clock: log time, for shards that are opened; each goes on from there with a clock of its own.
        owning: decides about shards; None with the embedded log.
    """

    def __init__(
        self,
        router: str,
        make: Callable[[ShardOpened, LogClock, float], ShardRunner[Peer]],
        clock: LogClock,
        owning: Owning | None = None,
    ) -> None:
        """
        Args:
            make: a runner for a shard that was opened.
        """
        self.router, self.clock, self.owning = router, clock, owning
        self.shards: dict[str, ShardRunner[Peer]] = {}
        self._make = make
        self._leases: dict[str, Lease] = {}  # of those that are open
        self._terms: dict[str, int] = {}  # of those that were
        self._handing: dict[str, _HandingOver[Peer]] = {}
        self._askers: dict[Peer, tuple[str, float]] = {}  # who asks which shards are here, and when last
        self._said = 0  # how often that has changed
        self._told_ms = 0  # the newest log time that any router has told
        self._gone = ShardCounts()  # of shards that are not here any more

    # -- shards

    def on_opened(self, opened: ShardOpened, now: float) -> list[Effect]:
        """A shard is here."""
        lease = opened.lease
        clock = self.clock.of_shard(opened.last_time_ms, self._told_ms, now)
        self._leases[lease.shard] = lease
        self._terms[lease.shard] = lease.term
        runner = self.shards[lease.shard] = self._make(opened, clock, now)
        if self.owning is None:
            return self._warn_of_time()
        first = self._at(lease, runner.on_tick(now, self.clock.wall_at(now) / 1000), now)
        fields = {"shard": lease.shard, "term": lease.term}
        return [Note(INFO, "owns a shard", fields), *self._say_owned(now), *first]

    def _close(self, lease: Lease, now: float, term: int = 0) -> list[Effect]:
        """A shard is not ours any more. term: of its next owner, if that is known."""
        if self._leases.get(lease.shard) != lease:
            return [CloseShard(lease)]
        self._gone.leave(self.shards.pop(lease.shard))
        del self._leases[lease.shard]
        self._terms[lease.shard] = max(term, lease.term)
        out: list[Effect] = [CloseShard(lease)]
        if (handing := self._handing.pop(lease.shard, None)) is not None:  # before they hear that it is elsewhere
            out.append(Replies([(asker, self._moved(m)) for asker, m in handing.held]))
        return out + self._say_owned(now)

    def counts(self) -> ShardCounts:
        """Over all shards that are or were here."""
        return self._gone.plus(self.shards.values())

    def _moved(self, m: messages.ToShard) -> Message:
        req = 0 if isinstance(m, messages.Changes | messages.Renew | messages.Fetch) else m.req
        return placing.Moved(req, self.router, m.shard, self._terms.get(m.shard, 0))

    def _owned(self) -> placing.Owned:
        assert self.owning is not None
        here = [(lease.shard, lease.term) for lease in self._leases.values()]
        return placing.Owned(self.router, self.owning.run, self._said, here)

    def _say_owned(self, now: float) -> list[Effect]:
        """To all who ask."""
        if self.owning is None or not self.owning.run or not self.owning.may_speak(now):
            return []
        self._said += 1
        self._askers = {asker: (node, at) for asker, (node, at) in self._askers.items() if now - at <= ASKERS_S}
        return [Replies([(asker, self._owned()) for asker in self._askers])] if self._askers else []

    def comets(self, now: float) -> int:
        """How many comets it hears."""
        nodes = {node for node, at in self._askers.values() if now - at <= COMET_S}
        return sum(node.startswith("comet") for node in nodes)

    def _may_speak(self, now: float) -> bool:
        return self.owning is None or self.owning.may_speak(now)

    def speaks_for(self, shard: str, now: float) -> bool:
        """It may say how that shard stands: it is before its deadline, and has not asked to give the shard away."""
        handing = self._handing.get(shard)
        return shard in self.shards and self._may_speak(now) and not (handing is not None and handing.is_given)

    # -- messages

    def on_messages(self, asker: Peer, asked: Sequence[messages.ToRouter], now: float) -> list[Effect]:
        """What a comet, a logic or a person at a REPL wants. Past its deadline it hears nothing: it might be wrong."""
        out: list[Effect] = []
        by_shard: dict[str, list[messages.ToShard]] = {}
        for m in asked:
            if isinstance(m, placing.AskOwned):
                out += self._on_ask_owned(asker, m, now)
            else:
                by_shard.setdefault(m.shard, []).append(m)
        if not self._may_speak(now):
            return out
        for shard, mine in by_shard.items():
            runner = self.shards.get(shard)
            if runner is None:
                out += self._not_here(asker, mine)
                continue
            if shard in self._handing:
                mine = [m for m in mine if not self._holds(asker, m)]
                if not self.speaks_for(shard, now):
                    continue  # who asks asks again
            out += self._at(self._leases[shard], runner.on_messages(asker, mine, now), now)
        return out

    def _on_ask_owned(self, asker: Peer, m: placing.AskOwned, now: float) -> list[Effect]:
        self._askers[asker] = m.node, now
        if self.owning is None or not self.owning.run or not self._may_speak(now):
            return []
        return [Replies([(asker, self._owned())])]

    def _not_here(self, asker: Peer, asked: Sequence[messages.ToShard]) -> list[Effect]:
        answers = Replies([(asker, self._moved(m)) for m in asked])
        return [answers] if self.owning is not None else [topologies_differ(shard=asked[0].shard), answers]

    def _holds(self, asker: Peer, m: messages.ToShard) -> bool:
        """A push for a shard that is being handed over waits for its next owner."""
        handing = self._handing[m.shard]
        if not isinstance(m, messages.Publish):
            return False
        handing.held.append((asker, m))
        handing.held_bytes += sum(push.size for push in m.pushes)
        if handing.held_bytes > ADMITTED_BYTES and not handing.is_given:
            handing.until = 0.0  # it stays, for it cannot be done quickly
        return True

    def on_link(self, job: str, is_connected: bool) -> None:
        """A job has come, or gone."""
        for runner in self.shards.values():
            runner.on_link(job, is_connected)

    # -- results

    def on_done(self, lease: Lease, effect: DiskEffect, result: Any, now: float) -> list[Effect]:
        """An effect at a shard has its result; or the error that the log has raised."""
        if self._leases.get(lease.shard) != lease:
            return []
        handing = self._handing.get(lease.shard)
        if handing is not None and handing.is_storing and isinstance(effect, StoreReceipts):
            handing.is_storing = False
        if isinstance(effect, LookUp) and not self.speaks_for(lease.shard, now):
            result = Unknown(lease.shard, "another router may own it")  # and have stored it since
        out = self._at(lease, self.shards[lease.shard].on_done(effect, result, now), now)
        return out + (self._hand_over(lease, now) if lease.shard in self._handing else [])

    def on_owner_done(self, effect: OwnerEffect, result: Any, now: float) -> list[Effect]:
        """A word to the rows has its result; or the error that the log has raised."""
        owning = self.owning
        assert owning is not None
        if isinstance(effect, OpenShard):
            return self._on_opened_or_not(effect.lease, result, now)
        if isinstance(effect, Give):
            return self._on_given(effect, result, now)
        first = self._tell_time(result.beats, now) if isinstance(result, Rows) else []
        out = first + self._own(owning.on_done(effect, result, now), now)
        if isinstance(effect, BeatNow) and isinstance(result, Rows):
            out += self._settle_unsure(effect.asked_at, now)
        return out

    def _tell_time(self, beats: Mapping[str, Beat], now: float) -> list[Effect]:
        """What other routers have told goes for shards that come from there; and for a start with a clock far ahead."""
        assert self.owning is not None
        self._told_ms = max([self._told_ms, *(beat.time_ms for beat in beats.values())])
        if self.owning.standing.holdings:
            return []
        self.clock.start_from(self._told_ms, now)  # these are the first rows that it sees
        return self._warn_of_time()

    def _time_ms(self, now: float) -> int:
        """The newest log time of what is here."""
        return max([self.clock.at(now), *(runner.clock.at(now) for runner in self.shards.values())])

    def _warn_of_time(self) -> list[Effect]:
        ahead_ms = self.clock.ahead_ms
        if abs(ahead_ms) <= FAR_MS:
            return []
        return [Note(WARNING, "log time is not the wall clock's", {"ahead_s": round(ahead_ms / 1000)})]

    def _on_opened_or_not(self, lease: Lease, result: Any, now: float) -> list[Effect]:
        owning = self.owning
        assert owning is not None
        if owning.leases.get(lease.shard) != lease:
            return [CloseShard(lease)]  # it was lost meanwhile
        if isinstance(result, ShardOpened):
            return self.on_opened(result, now)
        owning.lost(lease)
        return [
            Note(WARNING, "a shard cannot be opened", {"shard": lease.shard, "error": str(result)}),
            CloseShard(lease),
        ]

    def _at(self, lease: Lease, effects: Iterable[Effect], now: float) -> list[Effect]:
        """What a shard's runner wants. Who may not speak for it says what became of commits, and nothing else."""
        out: list[Effect] = []
        may_speak = self.speaks_for(lease.shard, now)
        for effect in effects:
            if isinstance(effect, DiskEffect | ForgetIdle):
                out.append(AtShard(lease, effect))
            elif isinstance(effect, Replies) and not may_speak:
                told = [(asker, m) for asker, m in effect.answers if isinstance(m, messages.PublishReply)]
                out.append(Replies(told))
            elif isinstance(effect, End) and self.owning is not None:
                self.owning.lost(lease)
                fields = {"shard": lease.shard, "term": lease.term, "why": effect.why}
                out += [Note(WARNING, "a shard is lost", fields), *self._close(lease, now)]
            else:
                out.append(effect)
        return out

    def _own(self, effects: Iterable[Effect], now: float) -> list[Effect]:
        """What `owning` wants."""
        out: list[Effect] = []
        for effect in effects:
            if isinstance(effect, HandOver):
                out += self._begin_handing(effect, now)
            elif isinstance(effect, CloseShard):
                out += self._close(effect.lease, now)
            else:
                out.append(effect)
        return out

    # -- handing over

    def _begin_handing(self, effect: HandOver, now: float) -> list[Effect]:
        lease = effect.lease
        if self._leases.get(lease.shard) != lease:
            assert self.owning is not None
            self.owning.kept(lease)
            return []
        self._handing[lease.shard] = _HandingOver(effect, now + HAND_OVER_S)
        return self._hand_over(lease, now)

    def _hand_over(self, lease: Lease, now: float) -> list[Effect]:
        """The next step, if it can be taken."""
        handing, runner = self._handing[lease.shard], self.shards[lease.shard]
        if handing.is_given:
            return []
        if now > handing.until:
            return self._keep(lease, now)
        if runner.is_committing or handing.is_storing:
            return []
        if not handing.reports_until:
            handing.reports_until = now + REPORT_S
        if runner.shard.pending() and now < handing.reports_until:
            return []
        if (receipts := runner.last_words(now)) is not None:
            handing.is_storing = True
            return [AtShard(lease, receipts)]
        handing.is_given = True
        return [Give(lease, handing.effect.to, handing.effect.run)]

    def _on_given(self, effect: Give, result: Any, now: float) -> list[Effect]:
        lease, handing = effect.lease, self._handing.get(effect.lease.shard)
        if handing is None or handing.effect.lease != lease:
            return []
        if isinstance(result, Lease):
            assert self.owning is not None
            self.owning.lost(lease)
            fields = {"shard": lease.shard, "to": effect.router, "term": result.term}
            return [Note(INFO, "hands a shard over", fields), *self._close(lease, now, result.term)]
        if isinstance(result, Unavailable):
            return self._keep(lease, now)
        handing.unsure_since = now  # the rows may name another: what they say next decides
        return []

    def _settle_unsure(self, asked_at: float, now: float) -> list[Effect]:
        """The rows were read, and name us still."""
        sure = [h for h in self._handing.values() if h.unsure_since and asked_at >= h.unsure_since]
        return [effect for handing in sure for effect in self._keep(handing.effect.lease, now)]

    def _keep(self, lease: Lease, now: float) -> list[Effect]:
        """It was not reached in time: the shard stays, and its pushes go on."""
        handing = self._handing.pop(lease.shard)
        assert self.owning is not None
        self.owning.kept(lease)
        out: list[Effect] = [Note(WARNING, "a shard could not be handed over, and stays", {"shard": lease.shard})]
        runner = self.shards[lease.shard]
        for asker, m in handing.held:
            out += self._at(lease, runner.on_messages(asker, [m], now), now)
        return out

    # -- time

    def on_tick(self, now: float, wall_s: float) -> list[Effect]:
        """Ten times a second. wall_s: the wall clock."""
        self.clock.see(wall_s, now)
        out: list[Effect] = []
        if self.owning is not None:
            out += self._own(self.owning.on_tick(now, self._time_ms(now), self.comets(now)), now)
        if not self._may_speak(now):
            return out  # for its shards it is a standstill
        for lease in list(self._leases.values()):
            if self.speaks_for(lease.shard, now):
                out += self._at(lease, self.shards[lease.shard].on_tick(now, wall_s), now)
        for handing in list(self._handing.values()):
            out += self._hand_over(handing.effect.lease, now)
        return out

    def holdings(self) -> list[tuple[str, int, str]]:
        """Shards that are here: name, term, and who is being given it; "" for nobody."""
        going = {shard: handing.effect.to for shard, handing in self._handing.items()}
        return [(lease.shard, lease.term, going.get(lease.shard, "")) for lease in self._leases.values()]

    # -- the end

    def drain(self, now: float) -> list[Effect]:
        """It is to end: its shards go to others, if there are any. `is_drained` once that is done."""
        return self._own(self.owning.leave(now), now) if self.owning is not None else []

    @property
    def is_drained(self) -> bool:
        """Nothing more can be given."""
        return self.owning is None or not self.shards or not self.owning.run

    def last_words(self, now: float) -> list[Effect]:
        """What is to be done before the node ends."""
        words = [(lease, self.shards[name].last_words(now)) for name, lease in self._leases.items()]
        out: list[Effect] = [AtShard(lease, receipts) for lease, receipts in words if receipts is not None]
        return out + (self.owning.gone() if self.owning is not None else [])
