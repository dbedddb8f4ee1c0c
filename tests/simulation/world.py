"""A whole fabric in one process, in virtual time, and an observer who knows all. See tests.simulation.kernel.

`run(seed, plan)` plays one schedule: faults for some seconds, then calm; at its end everything must have arrived and
every view must agree.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

from tests.simulation.authority import Authority
from tests.simulation.disk import STREAMS, Backup, Vault, is_live
from tests.simulation.ending import check_all
from tests.simulation.engine import Engine
from tests.simulation.kernel import Kernel, Violation
from tests.simulation.layout import Layout
from tests.simulation.limits import are_small
from tests.simulation.nodes import CometNode, JobNode, LogicNode
from tests.simulation.people import Person, Wire
from tests.simulation.publishers import Backend, Publisher
from tests.simulation.quotas import Observer, WatchedLogic
from tests.simulation.router import RouterNode
from tests.simulation.work import Meter
from zim.fabric.ceilings import NO_CEILINGS, Ceilings
from zim.fabric.limits import CHANGES
from zim.fabric.push import Published
from zim.nodes.comet.passes import is_live_only
from zim.nodes.logic.shares import PART_STREAMS
from zim.nodes.logic.trains import Train
from zim.nodes.router.intake import ADMITTED_BYTES
from zim.nodes.router.log import NewPush
from zim.nodes.router.shard import Shard
from zim.nodes.router.shard_runner import ShardRunner
from zim.protocol.messages import PublishReply
from zim.protocol.vocabularies.base import Missed, Start

AWAY_S = 3.5  # a lease is 2.5 s, and what is under way may be late
CHAOS_S, SETTLE_S = 10.0, 14.0
HANDED_S = 4.0  # after a shard was handed over, until everybody knows what there is
NODES = {"router": RouterNode, "job": JobNode, "comet": CometNode, "logic": WatchedLogic}
KNOWN_S = 2.0  # after a start and without losses, logics know all log times


class World:
    """See the module."""

    def __init__(
        self, seed: int, layout: Layout, charges: bool, trace: bool = False, limits: Ceilings = NO_CEILINGS
    ) -> None:
        rng = random.Random(seed * 7919 + 1)
        self.kernel = kernel = Kernel(rng, layout, crosses_codec=seed % 16 == 0, trace=trace)
        kernel.part_streams, kernel.limits = rng.choice([1, 2, 500]), limits
        self.observer = Observer(self)
        if charges:  # for sizes as they are
            kernel.meter, kernel.part_streams, kernel.most_changes = Meter(), PART_STREAMS, CHANGES
            kernel.max_behind_bytes = kernel.admitted_bytes = ADMITTED_BYTES
            kernel.renew_bytes = ADMITTED_BYTES // 4
        self.history: dict[tuple[str, str], list[str]] = {}  # stream and epoch → push ids, in order
        self.places: dict[tuple[str, str], tuple[str, int]] = {}  # stream and push id → epoch and offset
        self.first: dict[tuple[str, str], int] = {}  # stream and push id → when it came there first, counted
        self.receipt_of: dict[str, str] = {}  # by push, the name that logic gave it
        self.under_key: dict[str, str] = {}  # the push that was kept under a key first
        self._appends = itertools.count()
        self.appended_at: dict[tuple[str, str], float] = {}
        self.acks: dict[str, int] = {}  # how far devices have asked to move their user's cursor
        self.died_at = dict.fromkeys(layout.shards.names, -1.0)  # shards whose owner did, or was thought dead
        self.began_at = dict.fromkeys(layout.shards.names, -1.0)  # since when the owner is their owner
        self.changes: list[tuple[float, str]] = []  # when a shard got another owner
        self.has_small_limits = are_small(seed)
        self.drops_oldest = seed % 4 == 1  # what a comet does with goim clients that are too slow
        self.lost: dict[tuple[str, str], list[tuple[str, int]]] = {}  # as places: by routers whose backup came back
        self.is_trimmed = self.is_restored = self.is_clock_wrong = False
        self.settled_at = 0.0
        self.vaults = kernel.vaults = {name: Vault(name, kernel) for name in layout.shards.names}
        if layout.n_shards:
            kernel.engine = Engine(kernel, layout.shards.names)
            self.vaults = kernel.engine.vaults
            kernel.engine.on_term = self.saw_term
        for name in layout:
            self._make(name)
        self.key_window_s = 5.0 if seed % 3 == 0 else 86_400.0
        for vault in self.vaults.values():
            vault.key_window_s = self.key_window_s
            vault.on_append = self.saw_append
        for name in list(kernel.nodes):
            kernel.start(name)
        self.backend = Backend(self)
        self.authority = Authority(self)
        self.publisher = Publisher(kernel, self)
        kernel.nodes[self.publisher.name] = self.publisher
        kernel.start(self.publisher.name)
        self.people = [
            Person(self, "zim-a", "1", ["a", "live"], True),
            Person(self, "zim-b", "2", ["a", "b"], True),
            Person(self, "zim-c", "1", ["b"], True),
            Person(self, "goim-a", "1", ["a"], False),
            Person(self, "goim-b", "3", ["b", "live"], False),
        ]
        for i, person in enumerate(self.people):
            kernel.after(0.3 + 0.1 * i, person.connect)
        self._look()

    def _make(self, name: str) -> None:
        node = self.kernel.nodes[name] = NODES[name.partition("-")[0]](self.kernel, name)
        match node:
            case RouterNode():
                node.on_answer = self.saw_answer
            case CometNode():
                node.on_end, node.on_drained = self.saw_end, self.saw_drained
            case WatchedLogic():
                node.on_let_through = self.observer.saw_push

    def grow(self, kind: str) -> None:
        """There is one more node of a kind. It starts, and the others hear of it, in any order."""
        kernel = self.kernel
        before, kernel.layout = set(kernel.layout), kernel.layout.one_more(kind)
        for node in kernel.nodes.values():
            node.file = kernel.layout
            kernel.after(kernel.rng.choice([0.001, 0.1, 2.0]), node.reload, node)
        (name,) = set(kernel.layout) - before
        self._make(name)
        kernel.after(kernel.rng.choice([0.0, 0.05, 1.0]), lambda: kernel.start(name))

    def routers(self) -> list[RouterNode]:
        """All routers."""
        return [node for node in self.kernel.nodes.values() if isinstance(node, RouterNode)]

    def owners(self) -> list[tuple[RouterNode, ShardRunner[Any]]]:
        """Routers that are up, and the shards for which each speaks."""
        return [(router, shard) for router in self.routers() for shard in router.shards]

    def owner_of(self, shard: str) -> str:
        """The router that owns it, as the rows say; "" for none."""
        engine = self.kernel.engine
        return shard if engine is None else engine.holdings[shard].router

    def runner_of(self, shard: str) -> ShardRunner[Any] | None:
        """Its runner, at the router that speaks for it; None while none does."""
        return next((found for _, found in self.owners() if found.shard.name == shard), None)

    def comets_up(self) -> list[CometNode]:
        """Comets that take a client."""
        comets = [node for node in self.kernel.nodes.values() if isinstance(node, CometNode)]
        return [n for n in comets if n.is_up and not n.is_stopped and not n.is_leaving]

    # -- the observer

    def fail(self, claim: str) -> None:
        """A promise is broken."""
        raise Violation(f"{self.kernel.now:.3f} {claim}")

    def saw_term(self, shard: str, was_given: bool) -> None:
        """A shard has another owner."""
        self.began_at[shard] = self.kernel.now
        self.changes.append((self.kernel.now, shard))
        if not was_given:
            self.died_at[shard] = self.kernel.now

    def saw_append(self, shard: str, stream: str, epoch: str, offset: int, push: NewPush) -> None:
        """A shard has kept a message."""
        self.observer.saw_append(shard, stream, push)
        push_id = push.body.decode()
        self.receipt_of[push_id] = push.push_id
        history = self.history.setdefault((stream, epoch), [])
        if offset != len(history) + 1:
            self.fail(f"{stream} gets offset {offset} after {len(history)}")
        history.append(push_id)
        self._check_once(stream, epoch, push_id)
        self.places[stream, push_id] = epoch, offset
        self.first.setdefault((stream, push_id), next(self._appends))
        self.appended_at[stream, push_id] = self.kernel.now

    def _check_once(self, stream: str, epoch: str, push_id: str) -> None:
        """A key is one push; and no push is in a stream twice, unless a router lost its memory of it."""
        push, _ = self.backend.pushes[push_id]
        is_kept = not all(map(is_live, push.streams))
        if push.key and is_kept:
            other = self.under_key.setdefault(push.key, push_id)
            if (
                other != push_id and not self.is_restored and self.key_window_s > CHAOS_S + SETTLE_S
            ):  # else it may be a later use
                self.fail(f"{push_id} is in {stream}, and {other} was sent under its key before")
        before = self.places.get((stream, push_id))
        is_remembered = before is not None and before[0] == epoch
        is_forgotten = self.is_restored and bool(push.key)  # by the home of the key
        if before is not None and push.key:  # a logic may hold it back until its key is not known any more
            is_forgotten |= self.kernel.now - self.appended_at[stream, push_id] > self.key_window_s - 0.1
        if before is not None and not is_forgotten and (is_remembered or not is_live(stream) or (push.key and is_kept)):
            self.fail(f"{push_id} is in {stream} twice")

    def restore(self, router: RouterNode, backup: Backup) -> None:
        """Its backup comes back, and begins another history."""
        heads = {stream: book.head for stream, book in backup[0].books.items()}
        vault = self.vaults[router.name]
        old, epoch = vault.store.epoch, vault.restore(backup)
        self.is_restored = True
        for stream in [stream for stream, of in self.history if of == old]:
            kept = self.history[stream, old]
            head = heads.get(stream, 0)
            self.history[stream, epoch] = kept[:head]
            for offset, push_id in enumerate(kept, 1):
                place = stream, push_id
                if offset > head:
                    self.lost.setdefault(place, []).append(self.places.pop(place))
                    del self.first[place], self.appended_at[place]
                else:
                    self.places[place] = epoch, offset
        for person in self.people:
            person.acknowledged = 0

    def streams_of(self, push_id: str) -> list[str]:
        """Where a push goes."""
        return list(self.backend.pushes[push_id][0].streams)

    def times_kept(self, push_id: str, streams: list[str]) -> int:
        """In how many histories of these streams it is: a live-only one begins anew with its router."""
        return sum(kept.count(push_id) for (stream, _), kept in self.history.items() if stream in streams)

    def place_of(self, stream: str, push_id: str) -> tuple[str, int]:
        """Where it is."""
        place = stream, push_id
        if place not in self.places and place not in self.lost:
            self.fail(f"{push_id} was handed out and is not in {stream}")
        return self.places[place] if place in self.places else self.lost[place][-1]

    def check_content(self, who: str, stream: str, epoch: str, offset: int, push_id: str) -> None:
        """What a client got is what was kept."""
        history = self.history.get((stream, epoch), [])
        if offset > len(history) or history[offset - 1] != push_id:
            self.fail(f"{who} got {push_id} as {offset} of {stream}, {epoch}, which it is not")

    def check_in_time(self, who: str, streams: list[str], push_id: str) -> None:
        """Past its ttl nobody gets a push. That began when it was asked for; or when it was kept, if its logic did not
        know its router's log time: one of them was fresh, the shard had another owner meanwhile, or the link between
        them was cut. A router with a wrong wall clock does not know for how long it was away."""
        ttl_s = self.backend.pushes[push_id][0].ttl_s
        kept = [at for s in streams if (at := self.appended_at.get((s, push_id))) is not None]
        if not ttl_s or not kept:
            return
        asked_at, knew = max((a for a in self.backend.asked_at[push_id] if a[0] <= max(kept)), default=(0.0, False))
        starts = [at for at, name in self.kernel.starts if name.startswith(("logic", "router"))]
        if self.is_clock_wrong and any(at > min(kept) for at in starts):
            return
        shards = {self.shard_of(s) for s in streams}
        anew = starts + [at for at, shard in self.changes if shard in shards]
        is_known = knew and not any(asked_at - KNOWN_S < at <= max(kept) for at in anew)
        late_s = self.kernel.now - (asked_at if is_known else max(kept)) - ttl_s
        if late_s > 0.001:
            self.fail(f"{who} got {push_id}, which was worth something for {ttl_s} s, {late_s} s late")

    def knows_time(self, logic: LogicNode, streams: Sequence[str]) -> bool:
        """A logic knows the log time of all routers of these streams."""
        names = self.kernel.layout.shards.names
        shards = set(names) if len(streams) > 100 else {self.shard_of(s) for s in streams}  # not on the node's account
        terms = {name: logic.runner._clocks.of(name).term for name in logic.layout.shards.names}
        runners = {name: self.runner_of(name) for name in shards}
        return all(r is not None and terms.get(name) == r.shard.term for name, r in runners.items())

    def may_pass(self, person: Person, place: tuple[str, str], after: int, before: int) -> bool:
        """Whether all messages in between are for other sessions, or worth something only for a while."""
        missed = self.history.get(place, [])[max(after, 0) : before - 1]
        pushes = [self.backend.pushes[push_id][0] for push_id in missed]
        return before > after and all(p.ttl_s or not person.is_meant(p, place[0]) for p in pushes)

    def check_answer(self, push_id: str, p: Published) -> None:
        """An answer must be true when it is given, and stay so."""
        kept = [s for s in self.streams_of(push_id) if (s, push_id) in self.places or (s, push_id) in self.lost]
        lacking = [s for s in self.streams_of(push_id) if s not in kept and not self._may_lack(push_id, s)]
        if p.status == "ok" and lacking:
            self.fail(f"{push_id} got success and is only in {kept}")
        if p.status == "limited" and self.kernel.limits is NO_CEILINGS:
            self.fail(f"{push_id} got 429, and there is no limit")
        if p.status == "conflict" and not self.backend.is_shared(push_id):
            self.fail(f"{push_id} got 422, and nobody used its key for anything else")
        for part in p.parts:
            for stream, offset in part.streams.items():
                if offset is None or is_live(stream):
                    continue
                found = [self.place_of(stream, push_id), *self.lost.get((stream, push_id), ())]
                if offset not in [known for _, known in found]:  # what was told may be lost since, and stored again
                    self.fail(f"{push_id} is said to be {offset} of {stream}, is {found[0]}")

    def _may_lack(self, push_id: str, stream: str) -> bool:
        """What is live only of a push with a key is gone if its owner was lost between its commit and that."""
        push, asked_at = self.backend.pushes[push_id]
        return is_live(stream) and bool(push.key) and self.began_at[self.shard_of(stream)] > asked_at

    def saw_answer(self, peer: str, m: Any) -> None:
        """503 means surely not stored, when a router says it."""
        if not isinstance(m, PublishReply):
            return
        logic = self.kernel.nodes[peer]
        assert isinstance(logic, LogicNode)
        train, *_ = logic.runner._calls._waiting.get(m.req, (None,))
        for outcome in m.outcomes if isinstance(train, Train) else ():
            share = train._asked[outcome.at]
            if share.is_over:
                continue
            name = share.publication(0.0).body.decode()
            kept = [s for s in share.streams if (s, name) in self.places and not is_live(s)]
            # Where the home of its key came out of a backup it is another push.
            if kept and outcome.status == "unavailable" and not self.is_restored:
                self.fail(f"{name} gets 503 and is in {kept}")

    def check_start(self, person: Person, start: Start) -> None:
        """Nobody starts where no message is yet: the next ones would be taken for repeats."""
        head = len(self.history.get((start.stream, start.epoch), ()))
        if start.offset > head:
            self.fail(f"{person.name} starts {start.stream} at {start.offset}, its head is {head}")

    def check_not_recovered(self, person: Person, start: Start, had: tuple[str, int]) -> None:
        """There must be a reason."""
        is_old = had[0] != start.epoch
        if is_old and not is_live_only(start.epoch) and not self.is_restored:
            self.fail(f"{person.name} {start.stream}: another epoch, and nobody restored a backup")
        if not is_old and not (self.is_trimmed or is_live(start.stream)):
            self.fail(f"{person.name} {start.stream}: recovered: false without a reason")

    def saw_gap(self, wire: Wire, gap: Missed) -> None:
        """Somebody misses something."""
        if not (self.is_trimmed or self.is_restored or is_live_only(gap.epoch)):
            self.fail(f"{wire.person.name} gets {gap}, and nothing was trimmed")

    def _look(self) -> None:
        """Now and then: what must hold at any time."""
        owners: dict[str, str] = {}
        for router, runner in self.owners():
            shard = runner.shard
            if (other := owners.setdefault(shard.name, router.name)) != router.name:
                self.fail(f"{router.name} and {other} both speak for {shard.name}")
            if router.is_stopped:
                continue
            self._check_lease(router, shard)
            self._check_ledger(shard)
            most_bytes = self.kernel.max_behind_bytes + 3 * self.kernel.admitted_bytes
            for feed in shard.directory.feeds.values():
                if feed.behind_bytes > most_bytes:  # what it did not serve when admitted counts, too
                    self.fail(f"{shard.name} keeps {feed.behind_bytes} bytes for {feed.comet}")
        self.kernel.after(0.25, self._look)

    def _check_lease(self, router: RouterNode, shard: Shard[Any]) -> None:
        """A comet that is away loses its lease in time."""
        since = max(router.since, router.silent_at, self.began_at[shard.name])
        for comet in (self.kernel.nodes[c] for c in self.kernel.layout.comets):
            is_away = (comet.is_stopped or not comet.is_up) and self.kernel.now - comet.since > AWAY_S
            feed = shard.directory.feeds.get(comet.name)
            if is_away and self.kernel.now - since > AWAY_S and feed is not None and feed.is_alive:
                self.fail(f"{router.name} still believes in {comet.name}")

    def _check_ledger(self, shard: Shard[Any]) -> None:
        tally = shard.ledger.tally
        pending = sum(row.pending for feed in shard.directory.feeds.values() for row in feed.rows.values())
        if tally.pending != pending or min(tally.delivered, tally.gone, tally.shed, pending) < 0:
            self.fail(f"{shard.name}: the ledger is out of balance: {tally}, {pending} pending")

    def stop(self, name: str, for_s: float) -> None:
        """SIGSTOP. A router that comes back from it must not take its own silence for that of others."""
        node, run = self.kernel.nodes[name], self.kernel.nodes[name].run
        stands_still = node.is_stopped  # already, and goes on when that is over
        self.kernel.stop(name, for_s)
        if not isinstance(node, RouterNode) or for_s < 1.5 or stands_still:
            return
        alive = [(s, f) for s in node.shards for f in s.shard.directory.feeds.values() if f.is_alive]
        lives = {feed.comet: self.kernel.nodes[feed.comet].run for _, feed in alive}
        began = self.kernel.now

        def look() -> None:
            if node.run != run or node.is_stopped or not node.is_up:
                return
            for runner, feed in alive:
                comet = self.kernel.nodes[feed.comet]
                is_same = comet.run == lives[comet.name] and comet.is_up and comet.since < began
                is_same &= runner in node.shards
                if is_same and not feed.is_alive and runner.shard.directory.feeds[comet.name] is feed:
                    self.fail(f"{name} stood still, and gave {comet.name} up for it")

        self.kernel.after(for_s + 0.15, look)

    def saw_end(self, name: str) -> None:
        """A process has ended."""
        for shard in self.died_at:
            if self.owner_of(shard) == name:
                self.died_at[shard] = self.began_at[shard] = self.kernel.now
        for person in self.people:
            if person.wire is not None and person.wire.comet.name == name:
                person.closed(person.wire, "its comet died")

    def saw_drained(self, comet: CometNode, is_late: bool) -> None:
        """A comet says that it has nothing left to do: then its routers know of nobody there, and what became of all
        pushes. It ends."""
        for router, runner in self.owners():
            feed, link = runner.shard.directory.feeds.get(comet.name), comet.hub.links[runner.shard.name]
            is_this = feed is not None and (feed.inc, feed.begin) == (comet.disk.numbers["incarnation"], link.begin)
            if is_late or router.is_stopped or not is_this or runner.shard.term != link.term:
                continue
            assert feed is not None
            if feed.sessions or sum(row.pending for row in feed.rows.values()):
                self.fail(f"{comet.name} is drained, and {runner.shard.name} is not told all: {feed.sessions}")
        comet.end(comet.away_s)

    # -- the end

    def settle(self) -> None:
        """Faults stop; then everything must have arrived, and every view must agree."""
        kernel = self.kernel
        kernel.loss = 0.0
        for vault in self.vaults.values():
            vault.store.failures.clear()
            vault.is_full = False
        if kernel.engine is not None:
            kernel.engine.calm()
        for pipe in kernel.pipes.values():
            pipe.cut_until = 0.0
        for node in list(kernel.nodes.values()):
            kernel.cont(node.name, node.run)
        for person in self.people:
            if person.wire is not None:
                person.wire.drain()
        kernel.go(kernel.now + SETTLE_S)
        self.settled_at = kernel.now
        for i, stream in enumerate(STREAMS):
            self.backend.push(f"last{stream}", [stream], True, i, False)
        kernel.go(kernel.now + 10.0)  # in which publishers ask again once
        while kernel.engine is not None and kernel.now - kernel.engine.termed_at < HANDED_S:
            kernel.go(kernel.now + 1.0)
        check_all(self)

    def shard_of(self, stream: str) -> str:
        """Where it is."""
        return self.kernel.layout.shards.of(stream)
