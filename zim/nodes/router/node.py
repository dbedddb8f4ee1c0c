"""The router: the memory. It talks; zim.nodes.router.runner decides."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import gevent
from typing_extensions import override

from zim.errors import Unavailable, ZimError
from zim.fabric.questions import OnlineCounts, UserSessions
from zim.fabric.sharding import Shards
from zim.fabric.streams import user_stream
from zim.metrics import Metric
from zim.net.links import PeerLink
from zim.net.threads import in_thread
from zim.net.transport import Outlet, Server
from zim.nodes.base import NodeProcess, if_none, not_connected
from zim.nodes.effects import Effect, Replies, Send
from zim.nodes.refusals import tell_for_ever
from zim.nodes.router.effects import (
    Append,
    AtShard,
    BeatNow,
    Bury,
    CloseShard,
    DiskEffect,
    Enter,
    ForgetIdle,
    Give,
    LeaveRows,
    LookAround,
    OpenShard,
    OwnerEffect,
    ShardOpened,
    Take,
)
from zim.nodes.router.log import Lease
from zim.nodes.router.log.clock import LogClock
from zim.nodes.router.log.durable import Durable, open_durable, open_shared
from zim.nodes.router.log.shared import SharedLog
from zim.nodes.router.metrics import LogCounts, router_metrics, shared_log_metrics
from zim.nodes.router.opening import Opener, follow
from zim.nodes.router.owning import Owning
from zim.nodes.router.runner import RouterRunner
from zim.nodes.router.storage import Storage
from zim.nodes.router.stream_limit import StreamLimit
from zim.nodes.state import StateDir
from zim.protocol import codec, messages
from zim.protocol.speakers import kind_of
from zim.topology import Listeners, Router, Topology

log = logging.getLogger(__name__)

TICK_S = 0.1
DRAIN_S = 2.5  # for shards to be handed over when it stops
SWITCH_S = 0.0005  # after which the thread of the log gives way to the hub: Python's 5 ms are a tenth of a push's way
ANSWER_BYTES = 1 << 20  # of one frame of answers: a peer that reads none has 16 of them at most
JOB_QUEUE_BYTES = 16 << 20  # for one job; above it entries are dropped, and the comets fetch


class Asker(NamedTuple):
    """Who asked. is_plain: a person at a REPL, who is answered with a map."""

    envelope: tuple[bytes, ...]
    is_plain: bool = False


class RouterNode(NodeProcess):
    """One router process, and the shards that it owns."""

    # It keeps a hundred thousand small things for seconds, and leaves hardly any garbage in cycles: collecting as often
    # as Python does by default took a quarter of its time, and half a second at once.
    gc_threshold = (50_000, 20, 100)

    def __init__(self, topology: Topology, router: Router) -> None:
        super().__init__(topology, router)
        self._router = router

    @override
    def setup(self) -> None:
        t = self.topology
        sys.setswitchinterval(SWITCH_S)
        self._state = StateDir(t.data_dir, self.name)
        now, limit = time.monotonic(), StreamLimit()
        limit.follow(t.limits.pushes_per_stream)
        self._durables: dict[Lease, tuple[Durable, Storage]] = {}  # of shards that are open
        self._shared: SharedLog | None = None
        embedded: Durable | None = None
        if t.log is not None:
            self._shared = open_shared(t.log, t.name, t.idempotency_s, t.receipts_s)
        else:
            embedded = self._open_embedded()
        clock = LogClock(embedded.log.last_time_ms if embedded else 0, time.time(), now)
        self._opener: Opener[Asker] = Opener(t, self._router, limit, set())
        names = [router.name for router in t.routers]
        owning = Owning(self.name, names, self._state.read("run"), now) if self._shared else None
        self._runner = RouterRunner(self.name, self._opener.make, clock, owning)
        if embedded is not None:
            self.perform(self._runner.on_opened(self._keep_open(embedded), now))
        self._server = Server(self._router.bind.address, self.link_keys)
        self._jobs: dict[str, PeerLink[messages.Push]] = {}
        self._counts = LogCounts()

    def _open_embedded(self) -> Durable:
        t, in_thread = self.topology, gevent.get_hub().threadpool.apply
        routers = [router.name for router in t.routers]
        return open_durable(
            self._state.path,
            self.name,
            routers,
            in_thread,
            key_window_s=t.idempotency_s,
            ballast_bytes=self._router.ballast_bytes,
            receipts_s=t.receipts_s,
        )

    def _keep_open(self, durable: Durable) -> ShardOpened:
        """Switches. Raises: ZimError: the log does not say what its owner must know."""
        shard = durable.lease.shard
        storage = self._opener.storage(durable, lambda: self._runner.speaks_for(shard, time.monotonic()))
        opened = self._opener.read(durable, storage)
        self._durables[durable.lease] = durable, storage
        return opened

    @override
    def start(self) -> None:
        self._link(self.topology)
        self._ticking = self.spawn(self._tick)
        self.spawn(tell_for_ever, self._opener.limit.refusals)
        self.spawn(self._server.receive, self._on_frame)

    def _link(self, topology: Topology) -> None:
        """To all jobs that are not linked yet."""
        for job in topology.jobs:
            if job.name not in self._jobs:
                outlet = Outlet(job.endpoint, self.link_keys, job.name)
                link = self._jobs[job.name] = PeerLink(job.name, outlet, JOB_QUEUE_BYTES, on_change=self._on_link)
                link.spawn(self.spawn)

    @override
    def missing(self) -> list[str]:
        troubles = {durable.log.trouble for durable, _ in self._durables.values()}
        return [*not_connected(self._jobs), *(f"pushes are refused: {why}" for why in sorted(troubles) if why)]

    @override
    def blocked(self) -> list[str]:
        return if_none(not_connected(self._jobs), self._jobs)

    @override
    def listens(self) -> dict[str, Listeners]:
        return {"bind": (self._router.bind,)}

    @override
    def follow(self, topology: Topology, prepared: Any) -> None:
        self._link(topology)
        self._opener.topology = topology
        self._opener.limit.follow(topology.limits.pushes_per_stream)
        follow(list(self._runner.shards.values()), topology)
        for _, storage in self._durables.values():
            storage.streams.keep_by(topology.retention)

    @override
    def stop(self) -> None:
        self._hand_over()
        self._server.close()
        self._ticking.kill()
        for effect in self._runner.last_words(time.monotonic()):
            match effect:
                case AtShard(lease=lease, effect=DiskEffect() as last):
                    self._work(lease, last)
                case OwnerEffect():
                    self._say_to_rows(effect)
        for durable, _ in self._durables.values():
            durable.receipts.close()
            durable.log.close()
        if self._shared is not None:
            self._shared.close()
        self._state.close()

    @override
    def standing(self) -> dict[str, Any]:
        waiting = sum(job.waiting_bytes for job in self._jobs.values())
        shared = {} if self._shared is None else {"comets": self._runner.comets(time.monotonic())}
        return {"shards": self._runner.holdings(), "backlog_bytes": waiting, **shared}

    def _hand_over(self) -> None:
        """Its shards go to other routers, if there are any."""
        self.perform(self._runner.drain(time.monotonic()))
        with gevent.Timeout(DRAIN_S, False):  # type: ignore[arg-type]
            while not self._runner.is_drained:
                gevent.sleep(TICK_S / 4)

    @override
    def metrics(self) -> Iterator[Metric]:
        runners, counts = list(self._runner.shards.values()), self._runner.counts()
        yield from router_metrics(runners, counts, self._jobs, self._opener.limit, self._server.dropped)
        logs = [durable.log for durable, _ in self._durables.values()]
        clocks = [runner.clock for runner in runners] or [self._runner.clock]
        ahead_ms = max((clock.ahead_ms for clock in clocks), key=abs)
        yield from self._counts.metrics(logs, counts.trimmed, ahead_ms)
        if self._shared is not None:
            yield from shared_log_metrics(self._shared)

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
            shards = [Shards(self.topology.shards).of(user_stream(uid))]
            question: UserSessions | OnlineCounts = UserSessions(uid)
        elif "counts" in asked:
            shards, question = sorted(self._runner.shards), OnlineCounts()
        else:
            self._send_plain(asker, {"error": 'ask {"locate": "7"} or {"counts": true}'})
            return
        if not set(shards) <= set(self._runner.shards):
            self._send_plain(asker, {"error": f"u:{uid} belongs to {shards[0]}, ask there"})
            return
        if len(shards) != 1:
            self._send_plain(asker, {"error": f"{len(shards)} shards are here: ask a logic over HTTP"})
            return
        self.perform(self._runner.on_messages(asker, [messages.Ask(shards[0], 0, question)], time.monotonic()))

    def _on_link(self, job: str, is_connected: bool) -> None:
        (self._opener.jobs.add if is_connected else self._opener.jobs.discard)(job)
        self._runner.on_link(job, is_connected)

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
            case AtShard(lease=lease, effect=DiskEffect() as at_shard):
                self.spawn(self._work, lease, at_shard)
            case AtShard(lease=lease, effect=ForgetIdle(now=now, now_ms=now_ms, left=left)):
                is_served = self._runner.shards[lease.shard].shard.directory.is_served
                self._durables[lease][1].streams.forget(now, now_ms, is_served, left)
            case CloseShard(lease=lease):
                self.spawn(self._close_shard, lease)
            case OwnerEffect():
                self.spawn(self._say_to_rows, effect)
            case _:
                super().perform_one(effect)

    def _work(self, lease: Lease, effect: DiskEffect) -> None:
        """Switches: until the disk is done with it."""
        began = time.monotonic()
        runner = self._runner.shards.get(lease.shard)
        if lease not in self._durables or runner is None:
            result: Any = Unavailable(lease.shard, "it is another's")
        else:
            result = self._durables[lease][1].perform(effect, runner.clock.at(began))
        now = time.monotonic()
        if isinstance(effect, Append):
            if log.isEnabledFor(logging.DEBUG):
                _say_kept(effect, result)
            self._counts.seconds.observe(now - began)
            self._counts.pushes.observe(len(effect.batch))
        self.perform(self._runner.on_done(lease, effect, result, now))

    def _say_to_rows(self, effect: OwnerEffect) -> None:
        """Switches: until the shared log has answered."""
        try:
            result = self._said_to_rows(effect)
        except ZimError as error:
            result = error
        self.perform(self._runner.on_owner_done(effect, result, time.monotonic()))

    def _said_to_rows(self, effect: OwnerEffect) -> Any:
        shared, name = self._shared, self.name
        assert shared is not None
        match effect:
            case LookAround():
                return shared.look()
            case Enter():
                run = shared.enter(name)
                in_thread(self._state.write, "run", run)
                return run
            case BeatNow(run=run, time_ms=time_ms, comets=comets):
                return shared.beat(name, run, time_ms, comets)
            case Bury(beat=beat):
                return shared.bury(beat)
            case Take(holding=holding, run=run):
                return shared.take(holding, name, run)
            case Give(lease=lease, router=router, run=run):
                return shared.give(lease, router, run)
            case LeaveRows(run=run):
                return shared.leave(name, run)
            case OpenShard(lease=lease):
                return self._keep_open(shared.open(lease))
        raise AssertionError(effect)

    def _close_shard(self, lease: Lease) -> None:
        durable, _ = self._durables.pop(lease, (None, None))
        if durable is not None:
            durable.receipts.close()
            durable.log.close()

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
