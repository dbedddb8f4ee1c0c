"""A shard is opened: what its log and its receipts have to say, and the runner that goes on from there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

from zim.fabric.sharding import Shards
from zim.nodes.router.admission import Peer
from zim.nodes.router.effects import ShardOpened
from zim.nodes.router.intake import ADMITTED_BYTES, REMEMBER_S
from zim.nodes.router.log.clock import LogClock
from zim.nodes.router.log.durable import Durable
from zim.nodes.router.log.memory import MemoryLog
from zim.nodes.router.log.memory_store import MemoryStore
from zim.nodes.router.receipts import RouterLedger
from zim.nodes.router.shard import Shard
from zim.nodes.router.shard_runner import ShardRunner
from zim.nodes.router.storage import Storage
from zim.nodes.router.stream_limit import StreamLimit
from zim.nodes.router.streams import Streams
from zim.nodes.router.upkeep import SEQS
from zim.topology import Router, Topology

FORGOTTEN_MS, FORGOTTEN = 5_000, 50_000  # how long before the newest receipt one may be missing, and how many
RECALLED = 500_000  # pushes of the last REMEMBER_S that are read at most
LIVE_KEYS_S = 60.0  # how long a key is known that went to a live-only stream: in memory, as the stream is
LIVE_KEYS_BYTES = 64 << 20  # of them; above it pushes with another key to live-only streams are refused


@dataclass
class Opener(Generic[Peer]):
    """Opens the shards of one router.

    Attributes:
        topology, router: what they say holds for all shards that are opened from now on.
        limit: of pushes into each stream, over all shards.
        jobs: that are connected.
    """

    topology: Topology
    router: Router
    limit: StreamLimit
    jobs: set[str]

    def storage(self, durable: Durable, is_owner: Callable[[], bool]) -> Storage:
        """All that a shard has on disk, or in memory instead of it. is_owner: see Streams."""
        t = self.topology
        live = MemoryLog(
            MemoryStore(term=durable.lease.term),  # so that no epoch of a live-only stream is given twice
            time.monotonic,
            time.time,
            key_window_s=min(t.idempotency_s, LIVE_KEYS_S),
            keep_s=self.router.keep_s,
            keep_bytes=self.topology.part_of(self.router.keep_bytes),
            keys_bytes=self.topology.part_of(LIVE_KEYS_BYTES),
        )
        streams = Streams(durable.log, durable.lease, live, live.acquire(durable.lease.shard), t.retention, is_owner)
        return Storage(streams, durable.receipts)

    def read(self, durable: Durable, storage: Storage) -> ShardOpened:
        """What its new owner must know. Switches.

        Raises:
            LogError, Unavailable, Unknown: the log does not say it.
        """
        log, receipts = durable.log, durable.receipts
        next_seq = storage.streams.reserve_seqs(SEQS)
        forgotten = dict(log.newest(receipts.newest_ms, FORGOTTEN_MS, FORGOTTEN))
        recalled = None
        if self.topology.log is not None:
            newest = log.newest(log.last_time_ms, int(REMEMBER_S * 1000), RECALLED)
            recalled = frozenset(push_id for push_id, _ in newest)
        last = log.last_time_ms, next_seq, next_seq + SEQS
        return ShardOpened(durable.lease, *last, receipts.before, forgotten, recalled, log.bans())

    def make(self, opened: ShardOpened, clock: LogClock, now: float) -> ShardRunner[Peer]:
        """The runner that goes on from there. clock: the shard's log time; now: monotonic seconds."""
        t, lease = self.topology, opened.lease
        comets, jobs = [comet.name for comet in t.comets], [job.name for job in t.jobs]
        shard: Shard[Peer] = Shard(
            lease.shard,
            lease.term,
            Shards(t.shards),
            comets,
            now,
            self.topology.part_of(self.router.max_behind_bytes),
            opened.next_seq,
            RouterLedger(*opened.before),
            admitted_bytes=self.topology.part_of(ADMITTED_BYTES),
        )
        shard.control.policy = t.identity.sessions
        shard.intake.limit = self.limit
        shard.control.load(opened.bans)
        if opened.recalled is not None:
            shard.intake.recall(opened.recalled, lambda stream: t.retention.rule(stream).is_live_only, now)
        runner = ShardRunner(shard, clock, opened.seqs_end, opened.forgotten, comets, jobs, now)
        for job in self.jobs:
            runner.on_link(job, True)
        return runner


def follow(runners: Sequence[ShardRunner[Peer]], topology: Topology) -> None:
    """What has changed in the topology holds for shards that are open."""
    comets, jobs = [comet.name for comet in topology.comets], [job.name for job in topology.jobs]
    for runner in runners:
        runner.know(comets, jobs)
        runner.shard.control.policy = topology.identity.sessions
