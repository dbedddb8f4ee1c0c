"""Disks in virtual time: what a shard and a comet keep, with the faults that disks have, and what must hold of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tests.simulation.kernel import Kernel, Node, Violation
from zim.errors import Unknown
from zim.fabric.retention import Retention, RoomClass, Rule
from zim.fabric.sharding import Shards
from zim.nodes.router.admission import Admission
from zim.nodes.router.effects import (
    Append,
    DiskEffect,
    MoveCursors,
    ReadDisk,
    ReadHeads,
    ReserveSeqs,
    Settle,
    ShardOpened,
    StoreReceipts,
    Trim,
)
from zim.nodes.router.feed import Feed
from zim.nodes.router.intake import REMEMBER_S
from zim.nodes.router.log import Appended, Head, Lease, NewPush, StreamPage, unavailable, unknown
from zim.nodes.router.log.clock import LogClock
from zim.nodes.router.log.memory import MemoryLog
from zim.nodes.router.log.memory_receipts import MemoryReceipts, ReceiptBook
from zim.nodes.router.log.memory_store import MemoryStore
from zim.nodes.router.receipts import RouterLedger
from zim.nodes.router.shard import Shard
from zim.nodes.router.shard_runner import ShardRunner
from zim.nodes.router.storage import Storage
from zim.nodes.router.streams import Streams
from zim.nodes.state import StateDir
from zim.protocol import messages

if TYPE_CHECKING:
    from tests.simulation.engine import Engine

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
SEQS = 1 << 40


class Disk(StateDir):
    """The numbers of a node."""

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


class Vault:
    """What is kept of one shard, whoever owns it.

    Attributes:
        store, receipts: the content.
        is_full: the disk.
        restored: how often a backup came back.
        engine: of a shared log.
        on_append: is told of all that is kept: shard, stream, epoch, offset, push.
    """

    def __init__(self, shard: str, kernel: Kernel) -> None:
        self.shard, self.kernel = shard, kernel
        self.store = MemoryStore(epoch=f"epoch of {shard}")
        self.receipts = ReceiptBook()
        self.retention = SimRetention(classes=LIVE_ONLY)
        self.is_full = False
        self.restored = 0
        self.key_window_s = 86_400.0
        self.engine: Engine | None = None
        self.on_append: Callable[[str, str, str, int, NewPush], None] = lambda *_: None

    def back_up(self) -> Backup:
        """All of it, as it is now."""
        return copy.deepcopy((self.store, self.receipts))

    def restore(self, backup: Backup) -> str:
        """A backup takes its place, as `zim restored` makes it another history. Returns the epoch of that."""
        self.store, self.receipts = backup
        self.restored += 1
        epoch = self.store.epoch = f"epoch {self.restored} of {self.shard}"
        self.store.next_seq += 1 << 33
        for book in self.store.books.values():
            book.epoch = epoch
        return epoch


class WatchedLog(MemoryLog):
    """Tells of all that it keeps, when it does."""

    def __init__(
        self, router: str, vault: Vault, store: MemoryStore, clock: Callable[[], float], **limits: Any
    ) -> None:
        super().__init__(store, clock, lambda: WALL_S + clock(), **limits)
        self._router, self._vault = router, vault

    def _append_one(self, push: NewPush, now: float) -> Appended:
        answer = super()._append_one(push, now)
        if answer.outcome == "stored":
            for stream, offset in zip(push.streams, answer.offsets, strict=True):
                self._vault.on_append(self._vault.shard, stream, self._store.books[stream].epoch, offset, push)
        return answer


class RemoteLog(WatchedLog):
    """A shard of a shared log. A commit of which nobody was told may come to its end later, unless it is fenced."""

    _late: tuple[Lease, Sequence[NewPush]] | None = None

    @property
    def _engine(self) -> Engine:
        assert self._vault.engine is not None
        return self._vault.engine

    def append(self, lease: Lease, batch: Sequence[NewPush]) -> list[Appended]:
        fate = self._engine.fate(self._router)
        if fate == "unknown, late":
            self._check(lease)
            self._refuse_unsettled()
            self._is_unsettled, self._late = True, (lease, batch)
            self._commit_later()
            raise unknown("nobody was told")
        if fate:
            self._store.failures.append(fate)  # type: ignore[arg-type]
        try:
            return super().append(lease, batch)
        finally:
            self._store.failures.clear()

    def _commit_later(self) -> None:
        late, kernel = self._late, self._vault.kernel

        def commit() -> None:
            if late is None or late is not self._late:
                return  # it was settled: nothing late commits after that
            self._late, (lease, batch) = None, late
            if (self._store.owner, self._store.term) == (lease.shard, lease.term):
                self._unsettled = [self._append_one(push, self._clock()) for push in batch]

        kernel.after(kernel.rng.choice([0.01, 0.5, 2.0, 4.0]), commit)

    def settle(self, lease: Lease, batch: Sequence[NewPush]) -> list[Appended] | None:
        self._engine.check(self._router)
        self._check(lease)
        self._late = None
        return super().settle(lease, batch)

    def find(self, pushes: Sequence[NewPush]) -> list[Appended | None]:
        self._engine.check(self._router)
        return super().find(pushes)

    def read(self, stream: str, after: int, upto: int, max_records: int, max_bytes: int, now_ms: int) -> StreamPage:
        self._engine.check(self._router)
        return super().read(stream, after, upto, max_records, max_bytes, now_ms)

    def heads(self, streams: Sequence[str]) -> Mapping[str, Head]:
        self._engine.check(self._router)
        return super().heads(streams)

    def acknowledge(self, lease: Lease, offsets: Mapping[str, int]) -> Mapping[str, int]:
        self._engine.check(self._router)
        return super().acknowledge(lease, offsets)


class ShardDisk:
    """A shard that is open at a router, and what becomes of what is asked of it."""

    def __init__(self, node: Node, vault: Vault, is_owner: Callable[[], bool], lease: Lease | None = None) -> None:
        """
        Args:
            is_owner: see Streams.
            lease: of a shared log; None for the router's own.
        """
        self.name, self.vault, self._node, self._rng = vault.shard, vault, node, node.kernel.rng
        self.working: list[DiskEffect] = []

        def clock() -> float:
            return node.now

        window_s = vault.key_window_s
        kind = RemoteLog if lease is not None else WatchedLog
        self.log = kind(node.name, vault, vault.store, clock, key_window_s=window_s)
        self.lease = lease or self.log.acquire(vault.shard)
        rest: dict[str, Any] = {"keep_s": KEEP_S, "keep_bytes": 1 << 30}
        live_store = MemoryStore(term=self.lease.term)
        live = WatchedLog(node.name, vault, live_store, clock, key_window_s=min(window_s, 60.0), **rest)
        self.streams = Streams(self.log, self.lease, live, live.acquire(vault.shard), vault.retention, is_owner)
        self.receipts = MemoryReceipts(vault.receipts, self.lease.term)
        self.storage = Storage(self.streams, self.receipts)
        self.feeds_since: dict[Feed, float] = {}
        self.served_since: dict[str, dict[Feed, float]] = {}  # by stream for which pushes wait

    def opened(self) -> ShardOpened:
        """What its new owner must know."""
        recalled = None
        if self.vault.engine is not None:
            newest = self.log.newest(self.log.last_time_ms, int(REMEMBER_S * 1000), 1 << 20)
            recalled = frozenset(push_id for push_id, _ in newest)
        last = self.log.last_time_ms, self.streams.reserve_seqs(1000), SEQS
        return ShardOpened(self.lease, *last, self.receipts.before, {}, recalled, self.log.bans())

    def make(self, opened: ShardOpened, clock: LogClock, now: float) -> ShardRunner[Any]:
        """The runner that goes on from there."""
        layout, kernel = self._node.layout, self._node.kernel
        self.clock, self.opened_ms = clock, clock.at(now)
        self.shard: Shard[Any] = Shard(
            self.name,
            self.lease.term,
            Shards(layout.shards.names),
            layout.comets,
            now,
            kernel.max_behind_bytes,
            opened.next_seq,
            RouterLedger(*opened.before),
            SPARE_S,
            kernel.admitted_bytes,
        )
        self.shard.control.load(opened.bans)
        self.shard.intake.limit.follow(kernel.limits.pushes_per_stream)
        if opened.recalled is not None:
            self.shard.intake.recall(opened.recalled, is_live, now)
        return ShardRunner(self.shard, clock, opened.seqs_end, opened.forgotten, layout.comets, layout.jobs, now)

    @property
    def is_writing(self) -> bool:
        """A commit is under way, or it is unsure what became of one."""
        return any(isinstance(effect, Append | Settle) for effect in self.working)

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
            came_to_its_end = isinstance(effect, Append) and not self.vault.is_full and self._rng.random() < 0.5
            if came_to_its_end or isinstance(effect, Settle):  # what was unsure is stored, or not: see what it is
                result = self.end(effect)
                if isinstance(effect, Append) and isinstance(result, Unknown) and self.vault.engine is None:
                    self.working.append(settle := Settle(effect.batch, effect.pushes))
                    self.end(settle)

    def end(self, effect: DiskEffect) -> Any:
        """It is done; or what the disk has against it."""
        self.working.remove(effect)
        vault, store = self.vault, self.vault.store
        if isinstance(effect, ReadDisk) and isinstance(effect.question, messages.Read):
            limit = self._rng.choice([3, effect.question.limit])
            effect = ReadDisk(msgspec.structs.replace(effect.question, limit=limit), effect.askers)
        if isinstance(effect, Append) and vault.is_full:
            store.failures.append("unavailable")
        now_ms = self.clock.at(self._node.now)
        before = self._kept() if isinstance(effect, Trim) and vault.retention.keeps is not EVERYTHING else {}
        is_refused = vault.is_full and isinstance(effect, Trim | MoveCursors | StoreReceipts | ReserveSeqs)
        result = unavailable("the disk is full") if is_refused else self.storage.perform(effect, now_ms)
        if isinstance(effect, Append):
            store.failures.clear()
        if isinstance(effect, Trim) and not is_refused and result:
            after = self._kept()
            self._check_trimmed({place: ms for place, ms in before.items() if place not in after}, now_ms)
        return result

    # -- what must hold

    def _kept(self) -> dict[tuple[str, int], int]:
        books = self.vault.store.books.items()
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
