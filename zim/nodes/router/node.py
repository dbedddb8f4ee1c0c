"""The router: the memory. Third stop of a push: Publish comes in, Push goes to the jobs, the answer back to logic.

It talks; zim.nodes.router.shard decides.
"""

from __future__ import annotations

import logging
import time
from typing import Any, NamedTuple

import gevent

from zim import config
from zim.gather import Gatherer
from zim.nodes.base import Node
from zim.nodes.links import MESSAGE_BYTES, Sender
from zim.nodes.router.log.memory import MemoryLog
from zim.nodes.router.shard import ADMITTED_BYTES, Admission, Shard
from zim.nodes.state import StateDir
from zim.protocol import codec, messages
from zim.protocol.errors import CodecError
from zim.protocol.messages import entry_bytes
from zim.protocol.streams import user_stream
from zim.sharding import Shards, rank
from zim.transport import Outlet, Server

log = logging.getLogger(__name__)

TICK_S = 0.1
JOB_QUEUE_BYTES = 16 << 20  # for one job; above it entries are dropped, and the comets fetch
SEQS = 1 << 20  # session numbers reserved at a time


class Peer(NamedTuple):
    """Who asked. is_plain: a person at a REPL, who is answered with a map."""

    envelope: tuple[bytes, ...]
    is_plain: bool = False


class RouterNode(Node):
    """One router process."""

    def __init__(self, topology: config.Topology, router: config.Router) -> None:
        super().__init__(topology, router)
        self._router = router

    def setup(self) -> None:
        """See Node."""
        t = self.topology
        self._state = StateDir(t.data_dir, self.name)
        term = self._state.next_run("term", int(time.time() * 1000))
        streams = MemoryLog(term, self._state, time.monotonic, self._router.keep_s, self._router.keep_bytes)
        self._streams = streams
        self._server = Server(self._router.bind.address)
        self._commits: Gatherer[Admission[Peer]] = Gatherer(self._commit, ADMITTED_BYTES)
        self._shard: Shard[Peer] = Shard(
            self.name,
            term,
            Shards([r.name for r in t.routers]),
            [c.name for c in t.comets],
            streams,
            self._commits.put,
            time.monotonic(),
            self._router.max_behind_bytes,
            streams.reserve_seqs(SEQS),
        )
        self._seqs_end = self._shard.directory.next_seq + SEQS
        self._jobs: dict[str, Sender[messages.Push]] = {
            job.name: Sender(job.name, Outlet(job.endpoint), JOB_QUEUE_BYTES) for job in t.jobs
        }
        self._ranks = {c.name: rank(c.name, list(self._jobs)) for c in t.comets}

    def start(self) -> None:
        """See Node."""
        for job in self._jobs.values():
            self.spawn(job.run)
            self.spawn(job.watch)
        self.spawn(self._commits.run)
        self.spawn(self._tick)
        self.spawn(self._serve)

    def is_connected(self) -> bool:
        """See Node."""
        return all(job.is_connected for job in self._jobs.values())

    def listens(self) -> dict[str, str]:
        """See Node."""
        return {"bind": self._router.bind.address}

    def stop(self) -> None:
        """See Node."""
        self._state.close()

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
            now = time.monotonic()
            peer = Peer(envelope)
            answers = [answer for m in requests if (answer := self._handle(peer, m, now)) is not None]
            if answers:
                self._server.send(envelope, codec.encode(answers))

    def _handle(self, peer: Peer, m: messages.ToRouter, now: float) -> Any:
        shard = self._shard
        match m:
            case messages.Publish():
                return shard.publish(peer, m, now)
            case messages.Changes():
                return shard.changes(m, now)
            case messages.Renew():
                return shard.renew(m, now)
            case messages.Fetch():
                return shard.fetch(m)
            case messages.Read():
                return shard.read(m)
            case messages.Locate() | messages.Count():
                return shard.ask(peer, m)
            case messages.Forget():
                return shard.forget(m)

    def _on_plain(self, peer: Peer, asked: dict[str, Any]) -> None:
        """`{"locate": uid}` or `{"counts": true}`, from any zmq.REQ socket."""
        uid = asked.get("locate")
        if isinstance(uid, str):
            m: messages.Locate | messages.Count = messages.Locate(0, uid)
            owner = self._shard.owner(user_stream(uid))
            if owner != self.name:
                self._server.send(
                    peer.envelope, codec.encode_plain({"error": f"u:{uid} belongs to {owner}, ask there"})
                )
                return
        elif "counts" in asked:
            m = messages.Count(0)
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
                self._server.send(peer.envelope, codec.encode_plain(_for_people(m)))
            else:
                by_peer.setdefault(peer.envelope, []).append(m)
        for envelope, mine in by_peer.items():
            self._server.send(envelope, codec.encode(mine))

    # -- pushes

    def _commit(self, batch: list[Admission[Peer]]) -> None:
        """One commit for all that gathered while the last one ran. Switches: in the log."""
        offsets = self._streams.append(self._shard.records(batch))
        pushes, answers = self._shard.committed(batch, offsets)
        for push in pushes:
            self._hand_down(push)
        self._answer(answers)

    def _hand_down(self, push: messages.Push) -> None:
        """To the job that serves each comet, or the next one if that is away: one pipe leads to a comet, in order."""
        by_job: dict[str, list[messages.Target]] = {}
        for target in push.targets:
            ranked = self._ranks[target.comet]
            job = next((name for name in ranked if self._jobs[name].is_connected), ranked[0])
            by_job.setdefault(job, []).append(target)
        for job, targets in by_job.items():
            part = messages.Push(push.router, push.term, push.push_id, push.op, push.body, targets)
            items = [item for target in targets for item in target.items]
            self._jobs[job].put(part, MESSAGE_BYTES * len(targets) + entry_bytes(push.body, items))

    # -- time

    def _tick(self) -> None:
        while True:
            gevent.sleep(TICK_S)
            self._answer(self._shard.tick(time.monotonic()))
            if self._shard.directory.next_seq > self._seqs_end - SEQS // 2:
                # Blocks nobody: in gevent's thread pool, long before the numbers are used up.
                gevent.get_hub().threadpool.apply(self._streams.reserve_seqs, (SEQS,))
                self._seqs_end += SEQS


def _for_people(m: messages.Located | messages.Counted) -> dict[str, Any]:
    if isinstance(m, messages.Located):
        return {"sessions": [{"comet": p.comet, "key": p.key, "rooms": list(p.rooms)} for p in m.places]}
    return {"rooms": m.rooms, "comets": m.comets, "roomless": m.roomless}
