"""Disks in virtual time: what a router and a comet keep, with the faults that disks have, and what must hold of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tests.simulation.kernel import Node, Violation
from zim.errors import Unknown
from zim.fabric.retention import Retention, RoomClass, Rule
from zim.nodes.router.effects import (
    Append,
    DiskEffect,
    MoveCursors,
    ReadDisk,
    ReadHeads,
    ReserveSeqs,
    Settle,
    StoreReceipts,
    Trim,
)
from zim.nodes.router.feed import Feed
from zim.nodes.router.intake import Admission
from zim.nodes.router.log import NewPush, unavailable
from zim.nodes.router.log.clock import LogClock
from zim.nodes.router.log.memory import MemoryLog, MemoryStore
from zim.nodes.router.log.memory_receipts import MemoryReceipts, ReceiptBook
from zim.nodes.router.receipts import RouterLedger
from zim.nodes.router.shard import Shard
from zim.nodes.router.storage import Storage
from zim.nodes.router.streams import Streams
from zim.nodes.state import StateDir
from zim.protocol import messages

WALL_S = 1_700_000_000.0  # when a simulation begins
SPARE_S = 4.5  # the real one would spare everything: a simulation is over before
KEEP_S = 20.0  # of live-only streams
LIVE_ONLY = (RoomClass("live", ("live", "lone"), Rule(0, 0)),)
LIVE, LONE = "r:live", "r:lone"  # the latter is a room that people only look into


STREAMS = ["u:1", "u:2", "u:3", "r:a", "r:b", LIVE, LONE, "*"]


def is_live(stream: str) -> bool:
    """Whether it is live only."""
    return stream in (LIVE, LONE)


Backup = tuple[MemoryStore, ReceiptBook]
EVERYTHING = Rule(1_000_000_000, 1e6)


class Disk(StateDir):
    """A comet's numbers."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.path = Path("virtual")

    def read(self, name: str) -> int:
        return self.numbers.get(name, 0)

    def write(self, name: str, number: int) -> None:
        self.numbers[name] = number


class SimRetention(Retention):
    """Keeps everything, but where a schedule says otherwise."""

    keeps = EVERYTHING

    def rule(self, stream: str) -> Rule:
        return self.classes[0].rule if is_live(stream) else self.keeps


class RouterDisk:
    """What a router keeps, and what becomes of it."""

    def __init__(self, node: Node) -> None:
        self.name, self._node, self._rng = node.name, node, node.kernel.rng
        self.store = MemoryStore(epoch=f"epoch of {self.name}")
        self.receipts = ReceiptBook()
        self.is_full = False
        self.restored = 0
        self.key_window_s = 86_400.0
        self.clock_off_s = 0.0  # of the wall clock, at the next start
        self.on_append: Callable[[str, str, int, NewPush], None] = lambda stream, epoch, offset, push: None
        self.working: list[DiskEffect] = []

    @property
    def wall_s(self) -> float:
        """The wall clock of its machine."""
        return WALL_S + self._node.kernel.now + self.clock_off_s

    def open(self) -> Shard[str]:
        """A new run of its router."""
        now, name = self._node.now, self.name

        def clock() -> float:
            return self._node.now

        window_s = self.key_window_s
        log = MemoryLog(self.store, clock, lambda: WALL_S + clock(), key_window_s=window_s)
        lease = log.acquire(name)
        live = MemoryLog(
            MemoryStore(term=lease.term),
            clock,
            lambda: WALL_S,
            key_window_s=min(window_s, 60.0),
            keep_s=KEEP_S,
            keep_bytes=1 << 30,
        )
        live_lease = live.acquire(name)
        self.retention = SimRetention(classes=LIVE_ONLY)
        streams = Streams(log, lease, live, live_lease, self.retention)
        receipts = MemoryReceipts(self.receipts, lease.term)
        self.storage = Storage(streams, receipts)
        self.clock = LogClock(log.last_time_ms, self.wall_s, now)
        self.opened_ms, self.working = self.clock.at(now), []
        self.feeds_since: dict[Feed, float] = {}
        self.served_since: dict[str, dict[Feed, float]] = {}  # by stream for which pushes wait
        layout = self._node.layout
        next_seq, ledger = streams.reserve_seqs(1000), RouterLedger(*receipts.before)
        self.shard: Shard[str] = Shard(
            name,
            lease.term,
            layout.shards,
            layout.comets,
            now,
            self._node.kernel.max_behind_bytes,
            next_seq,
            ledger,
            SPARE_S,
            self._node.kernel.admitted_bytes,
        )
        self.shard.control.load(log.bans())
        return self.shard

    @property
    def is_writing(self) -> bool:
        """A commit is under way, or it is unsure what became of one."""
        return any(isinstance(effect, Append | Settle) for effect in self.working)

    def back_up(self) -> Backup:
        """All of it, as it is now."""
        return copy.deepcopy((self.store, self.receipts))

    def restore(self, backup: Backup) -> str:
        """A backup takes its place, as `zim restored` makes it another history. Returns the epoch of that."""
        self.store, self.receipts = backup
        self.restored += 1
        epoch = self.store.epoch = f"epoch {self.restored} of {self.name}"
        self.store.next_seq += 1 << 33
        for book in self.store.books.values():
            book.epoch = epoch
        return epoch

    def begin(self, effect: DiskEffect) -> float:
        """Something is to be done. Returns how long that takes."""
        self.working.append(effect)
        rng = self._rng
        match effect:
            case Append():
                return rng.choice([0, 0.001, 0.004, 0.03, 0.2])
            case ReadDisk():
                return rng.choice([0, 0, 0.002, 0.02, 0.3])
            case ReadHeads():  # now and then a Renew comes in the middle of a registration
                return rng.choice([0, 0, 0.002, 0.02] * 5 + [1.2])
        return rng.choice([0, 0.002])

    def crash(self) -> None:
        """A commit under way may have come to its end; nobody was told."""
        for effect in list(self.working):
            came_to_its_end = isinstance(effect, Append) and not self.is_full and self._rng.random() < 0.5
            if came_to_its_end or isinstance(effect, Settle):  # what was unsure is stored, or not: see what it is
                result = self.end(effect)
                if isinstance(effect, Append) and isinstance(result, Unknown):  # stored, or not: see what it is
                    self.working.append(settle := Settle(effect.batch, effect.pushes))
                    self.end(settle)

    def end(self, effect: DiskEffect) -> Any:
        """It is done; or what the disk has against it."""
        self.working.remove(effect)
        if isinstance(effect, ReadDisk) and isinstance(effect.question, messages.Read):
            limit = self._rng.choice([3, effect.question.limit])
            effect = ReadDisk(msgspec.structs.replace(effect.question, limit=limit), effect.askers)
        if isinstance(effect, Append) and self.is_full:
            self.store.failures.append("unavailable")
        streams, now_ms = self.storage.streams, self.clock.at(self._node.now)
        pushes = effect.pushes if isinstance(effect, Append | Settle) else []
        heads = streams.heads([stream for push in pushes for stream in push.streams])
        before = self._kept() if isinstance(effect, Trim) and self.retention.keeps is not EVERYTHING else {}
        is_refused = self.is_full and isinstance(effect, Trim | MoveCursors | StoreReceipts | ReserveSeqs)
        result = unavailable("the disk is full") if is_refused else self.storage.perform(effect, now_ms)
        if isinstance(effect, Append):
            self.store.failures.clear()
        if isinstance(effect, Trim) and not is_refused and result:
            after = self._kept()
            self._check_trimmed({place: ms for place, ms in before.items() if place not in after}, now_ms)
        for push, a in zip(pushes, result if isinstance(result, list) else (), strict=False):
            if a.outcome == "stored":
                for stream, offset in zip(push.streams, a.offsets, strict=True):
                    self.on_append(stream, heads[stream].epoch, offset, push)
        return result

    # -- what must hold

    def _kept(self) -> dict[tuple[str, int], int]:
        books = self.store.books.items()
        return {(stream, k.record.offset): k.time_ms for stream, book in books for k in book.kept}

    def _check_trimmed(self, gone: dict[tuple[str, int], int], now_ms: int) -> None:
        """Nothing goes soon after a start, nothing young, nothing that a comet has not handled."""
        if not gone:
            return
        name, spare_ms = self.name, SPARE_S * 1000
        if now_ms - self.opened_ms < spare_ms:
            raise Violation(f"{name} trims, and started only {now_ms - self.opened_ms} ms ago")
        if max(gone.values()) > now_ms - spare_ms:
            raise Violation(f"{name} trims what is {now_ms - max(gone.values())} ms old")
        feeds = self.shard.directory.feeds.values()
        owed = {item for feed in feeds if feed.is_alive for _, items, _ in feed._unhandled for item in items}
        if owed & gone.keys():
            raise Violation(f"{name} trims {owed & gone.keys()}, which a comet has not handled")

    def check_message(self, m: Any) -> None:
        """A comet confirms what was made."""
        if isinstance(m, messages.Renew):
            feed = self.shard.directory.feeds.get(m.comet)
            if feed is not None and (m.inc, m.term) == (feed.inc, self.shard.term) and m.handled > feed.made:
                raise Violation(f"{m.comet} confirms entry {m.handled}, {self.name} has made {feed.made}")

    def _was_served(self, admission: Admission[Any], feed: Feed) -> bool:
        """The feed served a stream of a push when that was admitted, and does so since."""
        times = [self.served_since[s].get(feed) for s in admission.push.streams]
        return any(since is not None and admission.time_ms > self.clock.at(since) for since in times)

    def check_behind(self, m: Any) -> None:
        """What one comet has not handled, counted anew: of pushes that were admitted since it serves their stream."""
        serving, now, kernel = self.shard.directory.serving, self._node.now, self._node.kernel
        under_way = [a for e in self.working if isinstance(e, Append | Settle) for a in e.batch]
        waiting = [*under_way, *(a for a, _ in self.shard.intake.commits._items)]
        before, streams = self.served_since, {s for a in waiting for s in a.push.streams}
        self.served_since = {s: {feed: before.get(s, {}).get(feed, now) for feed in serving(s)} for s in streams}
        if not isinstance(m, messages.Publish):
            return
        most_bytes = kernel.max_behind_bytes + kernel.admitted_bytes
        for feed in {feed for push in m.pushes for stream in push.streams for feed in serving(stream)}:
            since = self.feeds_since.setdefault(feed, now)
            mine = [a.size for a in waiting if self._was_served(a, feed)]
            if now - since > 0.5 and feed.behind_bytes + sum(mine) > most_bytes:
                raise Violation(
                    f"{self.name} admits more, and keeps {feed.behind_bytes} + {sum(mine)} for {feed.comet}"
                )
