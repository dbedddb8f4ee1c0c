"""The router: the memory. Third stop of a push: Publish comes in, Push goes to the jobs, the answer back to logic.

It talks; zim.nodes.router.shard decides.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import gevent
import msgspec

from zim.fabric.questions import OnlineCounts, UserSessions
from zim.fabric.sharding import Shards, rank
from zim.fabric.streams import user_stream
from zim.metrics import Metric
from zim.net.gather import Gatherer
from zim.net.links import MESSAGE_BYTES, Sender
from zim.net.transport import Outlet, Server
from zim.nodes.base import EXIT_CRASH, NodeProcess
from zim.nodes.queues import Queue
from zim.nodes.router.answering import STORED
from zim.nodes.router.intake import ADMITTED_BYTES, Admission
from zim.nodes.router.log import Appended, LogError, NewRecord, Unavailable, Unknown
from zim.nodes.router.log.clock import LogClock
from zim.nodes.router.log.memory import MemoryLog, MemoryStore
from zim.nodes.router.log.sqlite import SqliteLog
from zim.nodes.router.metrics import LogCounts, router_metrics
from zim.nodes.router.questions import Questions
from zim.nodes.router.receipt_store import ReceiptStore
from zim.nodes.router.receipts import RouterLedger
from zim.nodes.router.shard import Shard
from zim.nodes.router.streams import Streams
from zim.nodes.state import StateDir
from zim.protocol import codec, messages
from zim.protocol.errors import CodecError
from zim.protocol.messages import entry_bytes
from zim.topology import Router, Topology

log = logging.getLogger(__name__)

TICK_S = 0.1
RECEIPTS_S = 1.0  # between two times that receipts are stored
FORGOTTEN_MS, FORGOTTEN = 5_000, 50_000  # how long before the newest receipt one may be missing, and how many
TRIM_S = 0.1  # between two small steps of trimming
TRIM_RECORDS = 500  # of one step
LIVE_KEYS_S = 60.0  # how long a key is known that went to a live-only stream: in memory, as the stream is
SHARD_LEASE_S = 3600.0  # is never looked at: SQLite's owner has the lock on the data directory while it lives
JOB_QUEUE_BYTES = 16 << 20  # for one job; above it entries are dropped, and the comets fetch
SEQS = 1 << 20  # session numbers reserved at a time


class Peer(NamedTuple):
    """Who asked. is_plain: a person at a REPL, who is answered with a map."""

    envelope: tuple[bytes, ...]
    is_plain: bool = False


class RouterNode(NodeProcess):
    """One router process."""

    # It keeps a hundred thousand small things for seconds, and leaves hardly any garbage in cycles: collecting as often
    # as Python does by default took a quarter of its time, and half a second at once.
    gc_threshold = (50_000, 20, 100)

    def __init__(self, topology: Topology, router: Router) -> None:
        super().__init__(topology, router)
        self._router = router

    def setup(self) -> None:
        """See NodeProcess."""
        t = self.topology
        self._state = StateDir(t.data_dir, self.name)
        routers = [r.name for r in t.routers]
        durable = SqliteLog.open(
            self._state.path,
            routers,
            gevent.get_hub().threadpool.apply,
            key_window_s=t.idempotency_s,
            ballast_bytes=self._router.ballast_bytes,
        )
        lease = durable.acquire(self.name, SHARD_LEASE_S)
        self._durable = durable
        self._clock = LogClock(durable.last_time_ms, time.time(), time.monotonic)
        live = MemoryLog(
            MemoryStore(term=lease.term if lease else 0),  # so that no epoch of a live-only stream is given twice
            time.monotonic,
            time.time,
            key_window_s=min(t.idempotency_s, LIVE_KEYS_S),
            keep_s=self._router.keep_s,
            keep_bytes=self._router.keep_bytes,
        )
        live_lease = live.acquire(self.name, SHARD_LEASE_S)
        assert lease is not None  # the lock on the folder is ours
        assert live_lease is not None
        self._streams = Streams(durable, lease, live, live_lease, t.retention)
        self._receipts = ReceiptStore(self._state.path, lease.term, t.receipts_s, gevent.get_hub().threadpool.apply)
        self._server = Server(self._router.bind.address)
        self._commits: Gatherer[Admission[Peer]] = Gatherer(self._commit, ADMITTED_BYTES)
        self._lookups: Gatherer[Admission[Peer]] = Gatherer(self._look_up, ADMITTED_BYTES)
        self._shard: Shard[Peer] = Shard(
            self.name,
            lease.term,
            Shards(routers),
            [c.name for c in t.comets],
            self._commits.put,
            self._lookups.put,
            time.monotonic(),
            self._router.max_behind_bytes,
            self._streams.reserve_seqs(SEQS),
            RouterLedger(*self._receipts.totals, self._receipts.left),
        )
        forgotten = dict(durable.newest(self._receipts.newest_ms - FORGOTTEN_MS, FORGOTTEN))
        self._questions = Questions(
            self._shard, self._streams, self._receipts, forgotten, self._clock.now_ms, self._answer
        )
        self._seqs_end = self._shard.directory.next_seq + SEQS
        self._jobs: dict[str, Sender[messages.Push]] = {
            job.name: Sender(job.name, Outlet(job.endpoint), JOB_QUEUE_BYTES) for job in t.jobs
        }
        self._counts = LogCounts()
        self._ranks = {c.name: rank(c.name, list(self._jobs)) for c in t.comets}

    def start(self) -> None:
        """See NodeProcess."""
        for job in self._jobs.values():
            self.spawn(job.run)
            self.spawn(job.watch)
        self.spawn(self._commits.run)
        self.spawn(self._lookups.run)
        self._questions.spawn(self.spawn)
        self.spawn(self._tick)
        self.spawn(self._trim)
        self.spawn(self._keep_receipts)
        self.spawn(self._serve)

    def is_connected(self) -> bool:
        """See NodeProcess."""
        return all(job.is_connected for job in self._jobs.values())

    def listens(self) -> dict[str, str]:
        """See NodeProcess."""
        return {"bind": self._router.bind.address}

    def stop(self) -> None:
        """See NodeProcess."""
        self._server.close()
        self._receipts.keep(self._shard.ledger, self._clock.now_ms())
        self._receipts.close()
        self._durable.close()
        self._state.close()

    def metrics(self) -> Iterator[Metric]:
        """See NodeProcess."""
        waiting: dict[str, Queue] = {
            "commit": self._commits,
            "lookup": self._lookups,
            **self._questions.queues,
            **self._jobs,
        }
        yield from router_metrics(self._shard, waiting, self._server.dropped)
        yield from self._counts.metrics(self._durable.is_full)

    # -- requests

    def _serve(self) -> None:
        for envelope, frame in self._server.received():
            plain = codec.decode_plain(frame)
            if plain is not None:
                self._on_plain(Peer(envelope, is_plain=True), plain)
                continue
            try:
                requests: list[messages.ToRouter] = codec.decode(frame, messages.ToRouter)
            except CodecError as e:
                if not envelope[-1]:  # a REQ socket: a person at a REPL, who waits for an answer
                    self._on_plain(Peer(envelope, is_plain=True), {})
                else:
                    log.warning("request not understood", extra={"error": str(e)})
                continue
            now, now_ms = time.monotonic(), self._clock.now_ms()
            peer = Peer(envelope)
            answers = [answer for m in requests if (answer := self._handle(peer, m, now, now_ms)) is not None]
            if answers:
                self._server.send(envelope, codec.encode(answers))

    def _handle(self, peer: Peer, m: messages.ToRouter, now: float, now_ms: int) -> Any:
        """The answer, if it is known at once."""
        shard = self._shard
        match m:
            case messages.Publish():
                return shard.intake.publish(peer, m, now, now_ms)
            case messages.Changes():
                applied = shard.changes(m, now)
                if applied:
                    self._questions.changes(peer, m, applied)
            case messages.Renew():
                return shard.renew(m, now, now_ms)
            case messages.Fetch():
                return shard.fetch(m, now_ms)
            case messages.Read():
                self._questions.ask(peer, m)
            case messages.Acknowledge():
                self._questions.acknowledge(peer, m)
            case messages.Ask(_, question):
                if not isinstance(question, STORED):
                    return shard.ask(peer, m)
                self._questions.ask(peer, m)
        return None

    def _on_plain(self, peer: Peer, asked: dict[str, Any]) -> None:
        """`{"locate": uid}` or `{"counts": true}`, from any zmq.REQ socket."""
        uid = asked.get("locate")
        if isinstance(uid, str):
            m = messages.Ask(0, UserSessions(uid))
            owner = self._shard.owner(user_stream(uid))
            if owner != self.name:
                self._server.send(
                    peer.envelope, codec.encode_plain({"error": f"u:{uid} belongs to {owner}, ask there"})
                )
                return
        elif "counts" in asked:
            m = messages.Ask(0, OnlineCounts())
        else:
            self._server.send(peer.envelope, codec.encode_plain({"error": 'ask {"locate": "7"} or {"counts": true}'}))
            return
        answer = self._shard.ask(peer, m)
        if answer is not None:
            self._answer([(peer, answer)])

    def _answer(self, answers: list[tuple[Peer, Any]]) -> None:
        by_peer: dict[tuple[bytes, ...], list[Any]] = {}
        for peer, m in answers:
            if peer.is_plain:
                self._server.send(peer.envelope, codec.encode_plain(m.answer))
            else:
                by_peer.setdefault(peer.envelope, []).append(m)
        for envelope, mine in by_peer.items():
            self._server.send(envelope, codec.encode(mine))

    # -- the log

    def _commit(self, batch: list[Admission[Peer]]) -> None:
        """One commit for all that gathered while the last one ran. Switches: in the log."""
        intake = self._shard.intake
        records, began = intake.records(batch), time.monotonic()
        try:
            appended = self._streams.append(records)
        except Unavailable as e:
            log.error("pushes refused", extra={"pushes": len(batch), "error": str(e)})
            self._answer(intake.not_stored(batch))
            return
        except Unknown as e:
            log.error("the end of a commit is not known", extra={"pushes": len(batch), "error": str(e)})
            settled = self._settle(batch, records)
            if settled is None:
                return
            appended = settled
        self._counts.seconds.observe(time.monotonic() - began)
        self._counts.pushes.observe(len(batch))
        pushes, answers = self._shard.committed(batch, appended, time.monotonic(), self._clock.now_ms())
        for push in pushes:
            self._hand_down(push)
        self._answer(answers)

    def _settle(self, batch: list[Admission[Peer]], records: list[NewRecord]) -> list[Appended] | None:
        """What became of a batch; nothing if it is not stored, or if not even that can be told: then the node ends, and
        its next run reads the truth."""
        intake = self._shard.intake
        try:
            appended = self._streams.settle(records)
        except LogError as e:
            self._answer(intake.not_told(batch))
            log.critical(str(e))
            self.end(EXIT_CRASH)
            return None
        if appended is None:
            self._answer(intake.not_stored(batch))
        return appended

    def _look_up(self, batch: list[Admission[Peer]]) -> None:
        """Pushes with a key that would be refused: were they stored before?"""
        for admission in batch:
            m = admission.push
            try:
                found = self._streams.find(m.push_id, m.digest, m.streams)
            except LogError as e:
                log.error("a key cannot be looked up", extra={"push_id": m.push_id, "error": str(e)})
                self._answer(self._shard.intake.not_told([admission]))
            else:
                self._answer(self._shard.intake.looked_up(admission, found))

    def _keep_receipts(self) -> None:
        """Every second, what has changed: a crash loses no more of them."""
        while True:
            gevent.sleep(RECEIPTS_S)
            self._receipts.keep(self._shard.ledger, self._clock.now_ms())

    def _trim(self) -> None:
        """Lets go of what no rule keeps, a little at a time: commits come between any two steps."""
        gone = 0
        while True:
            gevent.sleep(TRIM_S if gone < TRIM_RECORDS else 0)
            gone = 0
            before_ms = self._shard.trim_before(time.monotonic(), self._clock.now_ms())
            if not before_ms:
                continue
            try:
                gone = self._streams.trim(self._clock.now_ms(), before_ms, TRIM_RECORDS)
                self._counts.trimmed += gone
            except LogError as e:
                log.warning("the log cannot be trimmed", extra={"error": str(e)})
                gevent.sleep(1)

    def _hand_down(self, push: messages.Push) -> None:
        """To the job that serves each comet, or the next one if that is away: one pipe leads to a comet, in order."""
        by_job: dict[str, list[messages.Target]] = {}
        for target in push.targets:
            ranked = self._ranks[target.comet]
            job = next((name for name in ranked if self._jobs[name].is_connected), ranked[0])
            by_job.setdefault(job, []).append(target)
        for job, targets in by_job.items():
            part = msgspec.structs.replace(push, targets=targets)
            items = [item for target in targets for item in target.items]
            self._jobs[job].put(part, MESSAGE_BYTES * len(targets) + entry_bytes(push.body, items))

    # -- time

    def _tick(self) -> None:
        while True:
            gevent.sleep(TICK_S)
            now = time.monotonic()
            self._answer(self._shard.tick(now))
            self._streams.forget(now, self._shard.directory.is_served)
            if self._shard.directory.next_seq > self._seqs_end - SEQS // 2:  # long before they are used up
                self._reserve_seqs()

    def _reserve_seqs(self) -> None:
        more = max(SEQS, self._shard.directory.next_seq - self._seqs_end + SEQS)
        try:
            self._streams.reserve_seqs(more)
        except LogError as e:  # tried again with the next tick
            log.error("session numbers cannot be reserved", extra={"error": str(e)})
        else:
            self._seqs_end += more
