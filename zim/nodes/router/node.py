"""The router: the memory. It talks; zim.nodes.router.runner decides."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import gevent
from typing_extensions import override

from zim.fabric.questions import OnlineCounts, UserSessions
from zim.fabric.sharding import Shards
from zim.fabric.streams import user_stream
from zim.metrics import Metric
from zim.net.links import PeerLink
from zim.net.transport import Outlet, Server
from zim.nodes.base import NodeProcess, not_connected
from zim.nodes.effects import Effect, Replies, Send
from zim.nodes.queues import Queue
from zim.nodes.refusals import tell_for_ever
from zim.nodes.router.effects import Append, DiskEffect, ForgetIdle
from zim.nodes.router.log.clock import LogClock
from zim.nodes.router.log.durable import open_durable
from zim.nodes.router.log.memory import MemoryLog, MemoryStore
from zim.nodes.router.metrics import LogCounts, router_metrics
from zim.nodes.router.receipts import RouterLedger
from zim.nodes.router.runner import RouterRunner
from zim.nodes.router.shard import Shard
from zim.nodes.router.storage import Storage
from zim.nodes.router.streams import Streams
from zim.nodes.router.upkeep import SEQS
from zim.nodes.state import StateDir
from zim.protocol import codec, messages
from zim.protocol.speakers import kind_of
from zim.topology import Listeners, Router, Topology

log = logging.getLogger(__name__)

TICK_S = 0.1
FORGOTTEN_MS, FORGOTTEN = 5_000, 50_000  # how long before the newest receipt one may be missing, and how many
LIVE_KEYS_S = 60.0  # how long a key is known that went to a live-only stream: in memory, as the stream is
FAR_S = 60.0  # of log time from the wall clock: worth a line of the log
LIVE_KEYS_BYTES = 64 << 20  # of them; above it pushes with another key to live-only streams are refused
ANSWER_BYTES = 1 << 20  # of one frame of answers: a peer that reads none has 16 of them at most
JOB_QUEUE_BYTES = 16 << 20  # for one job; above it entries are dropped, and the comets fetch


class Asker(NamedTuple):
    """Who asked. is_plain: a person at a REPL, who is answered with a map."""

    envelope: tuple[bytes, ...]
    is_plain: bool = False


class RouterNode(NodeProcess):
    """One router process, the owner of one shard."""

    # It keeps a hundred thousand small things for seconds, and leaves hardly any garbage in cycles: collecting as often
    # as Python does by default took a quarter of its time, and half a second at once.
    gc_threshold = (50_000, 20, 100)

    def __init__(self, topology: Topology, router: Router) -> None:
        super().__init__(topology, router)
        self._router = router

    @override
    def setup(self) -> None:
        t, in_thread = self.topology, gevent.get_hub().threadpool.apply
        self._state = StateDir(t.data_dir, self.name)
        routers, comets, jobs = ([node.name for node in nodes] for nodes in (t.routers, t.comets, t.jobs))
        durable, lease, receipts = open_durable(
            self._state.path,
            self.name,
            routers,
            in_thread,
            key_window_s=t.idempotency_s,
            ballast_bytes=self._router.ballast_bytes,
            receipts_s=t.receipts_s,
        )
        live = MemoryLog(
            MemoryStore(term=lease.term),  # so that no epoch of a live-only stream is given twice
            time.monotonic,
            time.time,
            key_window_s=min(t.idempotency_s, LIVE_KEYS_S),
            keep_s=self._router.keep_s,
            keep_bytes=self._router.keep_bytes,
            keys_bytes=LIVE_KEYS_BYTES,
        )
        streams = Streams(durable, lease, live, live.acquire(self.name), t.retention)
        self._durable, self._storage = durable, Storage(streams, receipts)
        self._server = Server(self._router.bind.address, self.link_keys)
        next_seq, now = streams.reserve_seqs(SEQS), time.monotonic()
        shard: Shard[Asker] = Shard(
            self.name,
            lease.term,
            Shards(routers),
            comets,
            now,
            self._router.max_behind_bytes,
            next_seq,
            RouterLedger(*receipts.before),
        )
        shard.control.policy = t.identity.sessions
        shard.intake.limit.follow(t.limits.pushes_per_stream)
        shard.control.load(durable.bans())
        clock = LogClock(durable.last_time_ms, time.time(), now)
        if abs(ahead_s := clock.ahead_ms / 1000) > FAR_S:
            log.warning("log time is not the wall clock's", extra={"ahead_s": round(ahead_s)})
        forgotten = dict(durable.newest(receipts.newest_ms - FORGOTTEN_MS, FORGOTTEN))
        self._runner = RouterRunner(shard, clock, next_seq + SEQS, forgotten, comets, jobs, now)
        self._jobs: dict[str, PeerLink[messages.Push]] = {
            job.name: PeerLink(
                job.name,
                Outlet(job.endpoint, self.link_keys, job.name),
                JOB_QUEUE_BYTES,
                on_change=self._runner.on_link,
            )
            for job in t.jobs
        }
        self._counts = LogCounts()

    @override
    def start(self) -> None:
        for job in self._jobs.values():
            job.spawn(self.spawn)
        self._ticking = self.spawn(self._tick)
        self.spawn(tell_for_ever, self._runner.shard.intake.limit.refusals)
        self.spawn(self._server.receive, self._on_frame)

    @override
    def missing(self) -> list[str]:
        return not_connected(self._jobs)

    @override
    def listens(self) -> dict[str, Listeners]:
        return {"bind": (self._router.bind,)}

    @override
    def follow(self, topology: Topology, prepared: Any) -> None:
        self._runner.shard.control.policy = topology.identity.sessions
        self._runner.shard.intake.limit.follow(topology.limits.pushes_per_stream)
        self._storage.streams.keep_by(topology.retention)

    @override
    def stop(self) -> None:
        self._server.close()
        self._ticking.kill()
        last_words = self._runner.last_words(time.monotonic())
        if last_words is not None:
            self._work(last_words)
        self._storage.receipts.close()
        self._durable.close()
        self._state.close()

    @override
    def metrics(self) -> Iterator[Metric]:
        intake, questions = self._runner.shard.intake, self._runner.questions
        waiting: dict[str, Queue] = {
            "commit": intake.commits,
            "lookup": intake.lookups,
            "change": questions.changes,
            "read": questions.reads,
            "acknowledge": questions.acks,
            **self._jobs,
        }
        yield from router_metrics(self._runner.shard, waiting, self._server.dropped)
        durable, runner = self._durable, self._runner
        trimmed, ahead_ms = runner.upkeep.trimmed, runner.clock.ahead_ms
        yield from self._counts.metrics(durable.is_full, trimmed, durable.backlog, ahead_ms)

    # -- what comes

    def _on_frame(self, envelope: tuple[bytes, ...], frame: bytes, speaker: str) -> None:
        plain = codec.decode_plain(frame)
        if plain is not None:
            if self._may_ask(speaker, plain):
                self._on_plain(Asker(envelope, is_plain=True), plain)
            return
        asked: list[messages.ToRouter] = self.decode(frame, messages.ToRouter, speaker)
        if (
            not asked and not envelope[-1] and self._may_ask(speaker, {})
        ):  # a REQ socket: a person at a REPL, who waits for an answer
            self._on_plain(Asker(envelope, is_plain=True), {})
        self.perform(self._runner.on_messages(Asker(envelope), asked, time.monotonic()))

    def _may_ask(self, speaker: str, asked: object) -> bool:
        """A person at a REPL asks as a logic does: with link keys, by the key of one."""
        if self.link_keys is None or kind_of(speaker) == "logic":
            return True
        self.guard.pass_over(speaker, asked)
        return False

    def _on_plain(self, asker: Asker, asked: dict[str, Any]) -> None:
        """`{"locate": uid}` or `{"counts": true}`, from any zmq.REQ socket."""
        uid = asked.get("locate")
        if isinstance(uid, str):
            owner = self._runner.shard.owner(user_stream(uid))
            if owner != self.name:
                self._send_plain(asker, {"error": f"u:{uid} belongs to {owner}, ask there"})
                return
            question: UserSessions | OnlineCounts = UserSessions(uid)
        elif "counts" in asked:
            question = OnlineCounts()
        else:
            self._send_plain(asker, {"error": 'ask {"locate": "7"} or {"counts": true}'})
            return
        self.perform(self._runner.on_messages(asker, [messages.Ask(0, question)], time.monotonic()))

    def _tick(self) -> None:
        while True:
            gevent.sleep(TICK_S)
            self.perform(self._runner.on_tick(time.monotonic(), time.time()))

    # -- what is to be done

    @override
    def perform_one(self, effect: Effect) -> None:
        match effect:
            case Replies(answers=answers):
                self._reply(answers)
            case Send(peer=job, message=messages.Push() as push, size=size):
                if log.isEnabledFor(logging.DEBUG):
                    comets = ",".join(target.comet for target in push.targets)
                    log.debug("push handed down", extra={"push_id": push.push_id, "job": job, "comets": comets})
                self._jobs[job].put(push, size)
            case DiskEffect():
                self.spawn(self._work, effect)
            case ForgetIdle(now=now, now_ms=now_ms, left=left):
                self._storage.streams.forget(now, now_ms, self._runner.shard.directory.is_served, left)
            case _:
                super().perform_one(effect)

    def _work(self, effect: DiskEffect) -> None:
        """Switches: until the disk is done with it."""
        began = time.monotonic()
        result = self._storage.perform(effect, self._runner.clock.at(began))
        now = time.monotonic()
        if isinstance(effect, Append):
            if log.isEnabledFor(logging.DEBUG):
                _say_kept(effect, result)
            self._counts.seconds.observe(now - began)
            self._counts.pushes.observe(len(effect.batch))
        self.perform(self._runner.on_done(effect, result, now))

    def _reply(self, answers: Sequence[tuple[Asker, Any]]) -> None:
        """All that one asker is answered goes in one frame, or in some if that were too large."""
        by_asker: dict[Asker, list[Any]] = {}
        for asker, m in answers:
            by_asker.setdefault(asker, []).append(m)
        for asker, mine in by_asker.items():
            if asker.is_plain:
                self._send_plain(asker, mine[0].answer)
            else:
                for frame in codec.encode_cut(mine, ANSWER_BYTES):
                    if not self._server.send(asker.envelope, frame):
                        break  # it does not read: the rest would find no room either

    def _send_plain(self, asker: Asker, value: Any) -> None:
        self._server.send(asker.envelope, codec.encode_plain(value))


def _say_kept(effect: Append, result: Any) -> None:
    """What the log says of pushes, with `-v`."""
    for push, found in zip(effect.pushes, result if isinstance(result, list) else (), strict=False):
        offsets = dict(zip(push.streams, found.offsets, strict=False))
        log.debug("push in the log", extra={"push_id": push.push_id, "outcome": found.outcome, "offsets": offsets})
