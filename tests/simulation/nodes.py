"""The four kinds of node, without sockets: zim's own deciding code, and what zim.nodes.*.node does around it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from tests.simulation.kernel import Kernel, Node, Violation
from zim.fabric.push import Published, Push
from zim.fabric.retention import Retention, RoomClass, Rule
from zim.fabric.sharding import Shards, rank
from zim.fabric.tally import Tally
from zim.nodes.comet.hub import Hub
from zim.nodes.comet.passes import Pass, Write
from zim.nodes.comet.views import Session
from zim.nodes.logic.publishing import ANSWER_S, GIVE_UP_S
from zim.nodes.logic.shares import Share, published, split
from zim.nodes.router.feed import Feed
from zim.nodes.router.intake import Admission
from zim.nodes.router.log import Appended, LogError, Unavailable
from zim.nodes.router.log.clock import LogClock
from zim.nodes.router.log.memory import MemoryLog, MemoryStore
from zim.nodes.router.receipts import RouterLedger
from zim.nodes.router.shard import PAGE_BYTES, Applied, Shard
from zim.nodes.router.streams import Streams
from zim.nodes.state import StateDir
from zim.protocol import messages

ROUTERS, JOBS, COMETS = ["router-1", "router-2"], ["job-1", "job-2"], ["comet-1", "comet-2"]
LOGICS = ["logic-1", "logic-2"]
SHARDS = Shards(ROUTERS)
WALL_S = 1_700_000_000.0  # when a simulation begins
MAX_BEHIND_BYTES = 4_000
ADMIT_BYTES = 3_000
SPARE_S = 4.5  # the real one would spare everything: a simulation is over before
RETENTION = Retention(classes=(RoomClass("live", ("live",), Rule(0, 0)),))
KEEP_S = 20.0  # of live-only streams


class Disk(StateDir):
    """A node's numbers, without a disk."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.path = Path("virtual")

    def read(self, name: str) -> int:
        return self.numbers.get(name, 0)

    def write(self, name: str, number: int) -> None:
        self.numbers[name] = number


class RouterNode(Node):
    """What zim.nodes.router.node does. Only a commit, and reading, take time."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        super().__init__(kernel, name)
        self.store = MemoryStore(epoch=f"epoch of {name}")
        self.receipts = (Tally(), 0, 0, 0)  # what was stored of them last
        self.is_disk_full = False
        self.on_append: Callable[[str, str, int, str], None] = lambda stream, epoch, offset, push_id: None
        self.on_answer: Callable[[str, messages.PublishReply], None] = lambda peer, m: None
        self.batch: list[Admission[str]] = []

    def boot(self) -> None:
        kernel = self.kernel
        self.booted_at = self.now

        def clock() -> float:
            return kernel.now

        log = MemoryLog(self.store, clock, lambda: WALL_S + kernel.now)
        lease = log.acquire(self.name, 1e9)
        assert lease
        live = MemoryLog(MemoryStore(term=lease.term), clock, lambda: WALL_S, keep_s=KEEP_S, keep_bytes=1 << 30)
        live_lease = live.acquire(self.name, 1e9)
        assert live_lease
        self.log, self.lease = log, lease
        self.streams = Streams(log, lease, live, live_lease, RETENTION)
        self.clock = LogClock(log.last_time_ms, WALL_S + kernel.now, clock)
        self.waiting: list[Admission[str]] = []
        self.feeds_since: dict[Feed, float] = {}
        self.waiting_bytes = 0
        self.batch = []
        tally, offline, pushes, serial = self.receipts
        tally = replace(tally, unknown=tally.unknown + tally.pending)
        self.shard: Shard[str] = Shard(
            self.name,
            lease.term,
            SHARDS,
            COMETS,
            self._admit,
            self._look_up,
            self.now,
            MAX_BEHIND_BYTES,
            self.streams.reserve_seqs(1000),
            RouterLedger(tally, offline, pushes, serial),
            SPARE_S,
        )
        self.every(0.1, self._tick)
        self.every(1.0, self._keep_receipts)

    def crash(self) -> None:
        """A commit under way may have come to its end; nobody was told."""
        if self.batch and not self.is_disk_full and self.kernel.rng.random() < 0.5:
            self._append()

    def _tick(self) -> None:
        self._answer(self.shard.tick(self.now))
        self.streams.forget(self.now, self.shard.directory.is_served)

    def _keep_receipts(self) -> None:
        ledger = self.shard.ledger
        ledger.stored(ledger.take_changed())
        self.receipts = (replace(ledger.tally), ledger.offline, ledger.pushes, 0)

    # -- commits

    def _admit(self, admission: Admission[str], size: int) -> bool:
        if self.waiting_bytes + size > ADMIT_BYTES:
            return False
        self._check_behind(admission)
        self.waiting.append(admission)
        self.waiting_bytes += size
        if not self.batch:
            self._begin_commit()
        return True

    def _check_behind(self, admission: Admission[str]) -> None:
        """What one comet has not handled, counted anew: of pushes that were admitted since it is there."""
        serving = self.shard.directory.serving
        for feed in {feed for stream in admission.push.streams for feed in serving(stream)}:
            since = self.feeds_since.setdefault(feed, self.now)
            waiting = [
                a for a in (*self.waiting, *self.batch) if a.time_ms > self.clock.now_ms() - (self.now - since) * 1000
            ]
            mine = [a.size for a in waiting if any(feed in serving(stream) for stream in a.push.streams)]
            if self.now - since > 0.5 and feed.behind_bytes + sum(mine) > 1.5 * MAX_BEHIND_BYTES:
                raise Violation(
                    f"{self.name} admits more, and keeps {feed.behind_bytes} + {sum(mine)} for {feed.comet}"
                )

    def _begin_commit(self) -> None:
        self.batch, self.waiting, self.waiting_bytes = self.waiting, [], 0
        self.later(self.kernel.rng.choice([0, 0.001, 0.004, 0.03, 0.2]), self._end_commit)

    def _append(self) -> Any:
        records = self.shard.intake.records(self.batch)
        epochs = self.streams.heads([r.stream for r in records])
        appended: list[Appended] | None
        try:
            appended = self.streams.append(records)
        except Unavailable:
            return None
        except LogError:
            appended = self.streams.settle(records)
        if appended is not None:
            for record, a in zip(records, appended, strict=True):
                if a.outcome == "stored":
                    self.on_append(record.stream, epochs[record.stream].epoch, a.offset, record.push_id)
        return appended

    def _end_commit(self) -> None:
        if self.is_disk_full:
            self.store.failures.append("unavailable")
        appended = self._append()
        self.store.failures.clear()
        batch, self.batch = self.batch, []
        if appended is None:
            self._answer(self.shard.intake.not_stored(batch))
        else:
            pushes, answers = self.shard.committed(batch, appended, self.now, self.clock.now_ms())
            for push in pushes:
                self._hand_down(push)
            self._answer(answers)
        if self.waiting:
            self._begin_commit()

    def _hand_down(self, push: messages.Push) -> None:
        for target in push.targets:
            ranked = rank(target.comet, JOBS)
            job = next((j for j in ranked if self.kernel.is_connected(self.name, j)), ranked[0])
            self.send(job, msgspec.structs.replace(push, targets=[target]))

    def _look_up(self, admission: Admission[str], size: int) -> bool:
        m = admission.push

        def look() -> None:
            found = self.streams.find(m.push_id, m.digest, m.streams)
            self._answer(self.shard.intake.looked_up(admission, found))

        self.later(self.kernel.rng.choice([0, 0.002]), look)
        return True

    # -- messages

    def _answer(self, answers: Any) -> None:
        for peer, m in answers:
            if isinstance(m, messages.PublishReply):
                self.on_answer(peer, m)
            self.send(peer, m)

    def receive(self, src: str, m: Any) -> None:
        shard, now, now_ms = self.shard, self.now, self.clock.now_ms()
        answer: Any = None
        match m:
            case messages.Publish():
                answer = shard.intake.publish(src, m, now, now_ms)
            case messages.Changes():
                if applied := shard.changes(m, now):
                    self.later(self.kernel.rng.choice([0, 0, 0.002, 0.02]), lambda: self._tell_heads(src, m, applied))
            case messages.Renew():
                feed = shard.directory.feeds.get(m.comet)
                if feed is not None and (m.inc, m.term) == (feed.inc, shard.term) and m.handled > feed.made:
                    raise Violation(f"{m.comet} confirms entry {m.handled}, {self.name} has made {feed.made}")
                answer = shard.renew(m, now, now_ms)
            case messages.Fetch():
                answer = shard.fetch(m, now_ms)
            case messages.Read():
                self.later(self.kernel.rng.choice([0, 0, 0.002, 0.02, 0.3]), lambda: self._read(src, m))
            case messages.Acknowledge():
                offset = self.streams.acknowledge({m.stream: m.offset})[m.stream]
                answer = messages.Acknowledged(m.req, self.name, offset)
        if answer is not None:
            self._answer([(src, answer)])

    def _tell_heads(self, src: str, m: messages.Changes, applied: list[Applied]) -> None:
        heads = self.streams.heads([a.stream for a in applied if a.stream])
        cursors = self.streams.acknowledged([a.stream for a in applied if a.is_put])
        self.send(src, self.shard.answers(m.inc, applied, heads, cursors))

    def _read(self, src: str, m: messages.Read) -> None:
        limit = self.kernel.rng.choice([3, m.limit])
        p = self.streams.read(m.stream, m.after, m.upto, limit, PAGE_BYTES, self.clock.now_ms())
        self.send(src, messages.Records(m.req, self.name, m.stream, p.epoch, p.floor, p.head, p.records, p.last))

    def trim(self, keep: int) -> None:
        """Lets go of what is not among the newest of each stream, as far as it may."""
        rule = Rule(keep, 1e6) if keep else Rule(1, 1e-3)
        now_ms = self.clock.now_ms()
        before_ms = self.shard.trim_before(self.now, now_ms)
        kept = {(s, k.record.offset): k.record.time_ms for s, book in self.store.books.items() for k in book.kept}
        if before_ms:
            self.log.trim(self.lease, Retention(rule, rule, rule), now_ms, before_ms, 1000)
        gone = {place: ms for place, ms in kept.items() if place[1] <= self.store.books[place[0]].floor}
        if not gone:
            return
        if self.now - self.booted_at < SPARE_S:
            raise Violation(f"{self.name} trims, and started only {self.now - self.booted_at:.3f} s ago")
        if max(gone.values()) > now_ms - SPARE_S * 1000:
            raise Violation(f"{self.name} trims what is {now_ms - max(gone.values())} ms old")
        owed = {
            i for f in self.shard.directory.feeds.values() if f.is_alive for _, items, _ in f._unhandled for i in items
        }
        if owed & gone.keys():
            raise Violation(f"{self.name} trims {owed & gone.keys()}, which a comet has not handled")


class JobNode(Node):
    """What zim.nodes.job.node does."""

    def receive(self, src: str, m: Any) -> None:
        for t in m.targets:
            entry = messages.Entry(
                m.router, m.term, t.comet, t.inc, t.n, m.push_id, m.op, m.body, t.items, m.left_ms, m.only
            )
            self.send(t.comet, entry)


class CometNode(Node):
    """What zim.nodes.comet.node does. A pass takes its time, and anything may happen between two of its writes."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        super().__init__(kernel, name)
        self.disk = Disk()

    def boot(self) -> None:
        self.hub = Hub(self.name, self.disk.next_run("incarnation", 1), ROUTERS, self._send)
        self.every(0.025, self._tick)

    def _tick(self) -> None:
        self.hub.tick(self.now, MAX_BEHIND_BYTES // 4)
        self.pump()

    def _send(self, router: str, m: Any, size: int) -> bool:
        return self.send(router, m)

    def pump(self) -> None:
        """Begins a pass, if there is work and none is under way."""
        todo = self.hub.next_pass(self.now)
        if todo is not None:
            work = deque((write, session) for write in todo.writes for session in write.sessions)
            self.later(0, lambda: self._go_on(todo, work))

    def _go_on(self, todo: Pass, work: deque[tuple[Write, Session]]) -> None:
        for _ in range(min(2, len(work))):
            write, session = work.popleft()
            if session.write(write.chunk, write.rows):
                for row in write.rows:
                    row.settle("delivered")
        if work:
            self.later(self.kernel.rng.choice([0, 0.001, 0.05]), lambda: self._go_on(todo, work))
        else:
            self.hub.end_pass(todo, self.now)
            self.pump()

    def receive(self, src: str, m: Any) -> None:
        now, hub = self.now, self.hub
        match m:
            case messages.Entry():
                hub.entry(m, now)
            case messages.Answers():
                hub.answers(m, now)
            case messages.Fetched():
                hub.fetched(m, now)
            case messages.Records():
                hub.records(m, now)
            case messages.Acknowledged():
                hub.acknowledged(m)
            case messages.Renewed():
                if hub.renewed(m, now):
                    raise Violation(f"{self.name} is fenced, yet it is the only one of its name")
        self.pump()


class LogicNode(Node):
    """What zim.nodes.logic.publishing does."""

    def boot(self) -> None:
        self.terms = dict.fromkeys(ROUTERS, 0)
        self.asked: dict[int, tuple[Share, Callable[[], None]]] = {}

    def publish(self, push: Push, push_id: str, answered: Callable[[Published], None]) -> None:
        """Publishes, and tells the publisher, if this run lasts."""
        shares = split(push, SHARDS)
        for share in shares:
            share.push_id = push_id
            share.term = self.terms[share.router]
        until = self.now + GIVE_UP_S
        for share in shares:
            self._ask(share, until, lambda: self._end(shares, answered))

    def _end(self, shares: list[Share], answered: Callable[[Published], None]) -> None:
        if all(share.is_over for share in shares):
            answered(published(shares))

    def _ask(self, share: Share, until: float, done: Callable[[], None]) -> None:
        if self.now > until:
            share.give_up("away")
            return done()
        req = self.kernel.number()
        if not self.send(share.router, share.message(req)):
            return self.later(0.02, lambda: self._ask(share, until, done))
        self.asked[req] = share, done

        def overdue() -> None:
            if self.asked.pop(req, None):
                share.not_answered("no answer")
                if share.is_over:
                    done()
                else:
                    self._ask(share, until, done)

        return self.later(ANSWER_S, overdue)

    def receive(self, src: str, m: Any) -> None:
        asked = self.asked.pop(m.req, None)
        if asked is not None:
            share, done = asked
            self.terms[src] = m.term
            share.answered(m)
            done()
