"""The comet: the edge, where clients are connected. It talks; zim.nodes.comet.runner decides."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import gevent
from gevent.event import AsyncResult, Event
from typing_extensions import override

from zim.metrics import Metric
from zim.net.accept import PatientServer
from zim.net.fairness import give_way
from zim.net.links import PeerLink
from zim.net.transport import Dealer, Inbox
from zim.net.visitors import let_in, visitors
from zim.nodes.base import EXIT_CRASH, NodeProcess, if_none, not_connected
from zim.nodes.comet.connection import ClientLimits
from zim.nodes.comet.draining import DrainPlan
from zim.nodes.comet.edge import Edge
from zim.nodes.comet.effects import Barred, Pass, Replaced, SessionEffect, Told
from zim.nodes.comet.memory import MemoryWatch
from zim.nodes.comet.metrics import comet_metrics, limit_metrics, upgrade_metric
from zim.nodes.comet.runner import ANSWER_S, CometRunner
from zim.nodes.comet.tcp import TcpListener
from zim.nodes.comet.websocket import WebSocketListener
from zim.nodes.effects import Effect, Send
from zim.nodes.placement import Placement
from zim.nodes.queues import queues
from zim.nodes.refusals import tell_for_ever
from zim.nodes.state import StateDir
from zim.protocol import logins, messages
from zim.protocol.framings.text import TEXT, TEXT_OBJECTS
from zim.protocol.message import Message
from zim.topology import Comet, Listeners, Logic, Topology

log = logging.getLogger(__name__)

TICK_S = 0.025
UP_BYTES = 64 << 20  # of messages to one router or logic; all of them are repeated if lost
BATCH = 64  # sends between two looks at the clock


def _answer_s(topology: Topology) -> float:
    """For one logic to answer: it may have to ask the application, for the login and for its rooms."""
    callout = topology.identity.callout
    return ANSWER_S if callout is None else 2 * callout.timeout_s + ANSWER_S


def _renew_bytes(topology: Topology) -> int:
    """After so much has been handled a shard's owner hears of it at once: long before it waits for that."""
    behind = min(router.max_behind_bytes for router in topology.routers)
    return topology.part_of(behind) // 4


def _limits(comet: Comet) -> ClientLimits:
    return ClientLimits(
        comet.max_packet_bytes,
        comet.handshake_timeout_s,
        comet.heartbeat_s,
        comet.outbox_bytes,
        comet.slow_consumer == "drop",
    )


class CometNode(NodeProcess):
    """One comet process."""

    def __init__(self, topology: Topology, comet: Comet) -> None:
        super().__init__(topology, comet)
        self._comet = comet

    @override
    def setup(self) -> None:
        t, comet = self.topology, self._comet
        self._state = StateDir(t.data_dir, self.name)
        inc = self._state.next_run("incarnation", int(time.time() * 1000))
        self._inbox = Inbox(comet.bind.address, self.link_keys)
        self._runner = CometRunner(
            self.name,
            inc,
            Placement(self.name, [router.name for router in t.routers], t.shards),
            [logic.name for logic in t.logics],
            _renew_bytes(t),
            comet.handshake_timeout_s,
            comet.id,
            answer_s=_answer_s(t),
        )
        self._routers: dict[str, PeerLink[Message]] = {}
        self._logics: dict[str, PeerLink[Message]] = {}
        self._links: dict[str, PeerLink[Message]] = {}  # all of them
        self._work = Event()
        self._todo: Pass | None = None
        self._delivered = 0
        self._edge = Edge(self._runner, self.perform, _limits(comet), comet.max_connections)
        self._memory = MemoryWatch(self._edge.doorkeeper)
        self._follow_limits(t, comet)
        self._tcp: list[TcpListener] = []
        self._ws: list[WebSocketListener] = []
        for at, handshakes in zip(comet.tcp, self.entrances.handshakes.get("tcp", ()), strict=True):
            self._tcp.append(TcpListener(at.host_port, self._edge, comet.keepalive_s, handshakes, at.anonymous))
        for at, handshakes in zip(comet.ws, self.entrances.handshakes.get("ws", ()), strict=True):
            framing = TEXT_OBJECTS if at.ws_frames == "object" else TEXT
            rest = handshakes, visitors(at), framing, at.anonymous, at.cookie
            self._ws.append(WebSocketListener(at.host_port, self._edge, comet.keepalive_s, *rest))
        self._listeners: list[PatientServer] = [*self._tcp, *self._ws]

    def _follow_limits(self, topology: Topology, comet: Comet) -> None:
        limits, edge = topology.limits, self._edge
        edge.doorkeeper.follow(limits, comet.max_memory_bytes)
        edge.inflow.follow(limits)
        edge.gate.most_rooms = limits.rooms_per_session
        edge.elsewhere.follow(one for one in topology.comets if one.name != self.name)

    @override
    def start(self) -> None:
        self._link(self.topology)
        self.spawn(self._inbox.receive, self._on_entries)
        self.spawn(self._fan_out)
        self.spawn(self._tick)
        self.spawn(self._edge.sweep)
        self.spawn(self._edge.gate.ask_again)
        self.spawn(self._memory.run)
        self.spawn(tell_for_ever, *self._edge.refusals)
        for listener in self._listeners:
            listener.start()

    def _link(self, topology: Topology) -> None:
        """To all routers and logics that are not linked yet."""
        for node in (*topology.routers, *topology.logics):
            if node.name in self._links:
                continue
            dealer = Dealer(node.endpoint, self.link_keys, node.name)
            if isinstance(node, Logic):
                link = PeerLink[Message](node.name, dealer, UP_BYTES, self._on_not_asked, self._on_logic)
                self._logics[node.name] = link
                self.spawn(link.receive, partial(self._on_authed, node.name))
            else:
                link = PeerLink[Message](node.name, dealer, UP_BYTES, on_change=self._runner.on_link)
                self._routers[node.name] = link
                self.spawn(link.receive, partial(self._on_router, node.name))
            self._links[node.name] = link
            link.spawn(self.spawn)

    @override
    def missing(self) -> list[str]:
        return [*self._not_registered(), *if_none(not_connected(self._logics), self._logics)]

    @override
    def blocked(self) -> list[str]:
        shards = if_none(self._not_registered(), self._runner.hub.links)
        return [*shards, *if_none(not_connected(self._logics), self._logics)]

    def _not_registered(self) -> list[str]:
        found = []
        for link in self._runner.hub.links.values():
            why = self._routers[link.router].trouble if link.router else "no router owns it"
            if link.hearing.is_silent:
                why = why or "it does not answer"
            if not link.term or link.is_registering or why:
                found.append(f"not registered with {link.shard}" + (f": {why}" if why else ""))
        return found

    @override
    def listens(self) -> dict[str, Listeners]:
        return {"tcp": self._comet.tcp, "ws": self._comet.ws, "bind": (self._comet.bind,)}

    @override
    def follow(self, topology: Topology, prepared: Any) -> None:
        self._comet = comet = next(one for one in topology.comets if one.name == self.name)
        self._runner.answer_s, self._runner.handshake_timeout_s = _answer_s(topology), comet.handshake_timeout_s
        self._edge.limits, self._edge.max_connections = _limits(comet), comet.max_connections
        self._follow_limits(topology, comet)
        for tcp, at in zip(self._tcp, comet.tcp, strict=True):
            tcp.is_anonymous = at.anonymous
        let_in(self._ws, comet.ws)
        for ws, at in zip(self._ws, comet.ws, strict=True):
            ws.is_anonymous, ws.cookie = at.anonymous, at.cookie
        self._link(topology)  # may fail, for too few open files: the rest is done, and nobody is asked who has no link
        routers, logics = [router.name for router in topology.routers], [logic.name for logic in topology.logics]
        self._runner.know(routers, logics, _renew_bytes(topology))

    @override
    def stop(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._edge.close()
        self._state.close()

    @override
    def drain(self, asked: Mapping[str, Any]) -> None:
        """Nobody new comes in; clients go at a pace, see zim.nodes.comet.draining."""
        self._edge.is_open = False
        for listener in self._listeners:
            if listener.started:
                listener.stop_accepting_any()
        others = [one.name for one in self.topology.comets if one.name != self.name]
        shares = asked.get("shares") or dict.fromkeys(others, 1)
        plan = DrainPlan(float(asked.get("per_s") or self._comet.drain_per_s), shares)
        self.perform(self._runner.drain(plan, time.monotonic()))

    @override
    def standing(self) -> dict[str, Any]:
        waiting = sum(link.waiting_bytes for link in self._links.values()) + self._edge.waiting_bytes()
        return {"connections": self._edge.places, "backlog_bytes": waiting}

    @override
    def metrics(self) -> Iterator[Metric]:
        yield from comet_metrics(self._runner.hub, self._edge, self._delivered)
        yield upgrade_metric(self._ws)
        yield from limit_metrics(self._edge, self._memory)
        yield from queues("comet", self._links)

    # -- what comes

    def _on_entries(self, frame: bytes, job: str) -> None:
        """From the jobs."""
        entries = self.decode(frame, messages.Entry, job)
        if log.isEnabledFor(logging.DEBUG):
            for entry in entries:
                log.debug("push here", extra={"push_id": entry.push_id, "shard": entry.shard, "n": entry.n})
        self._on_messages(entries)

    def _on_router(self, router: str, frame: bytes) -> None:
        self._on_messages(self.decode(frame, messages.ToComet, router))

    def _on_messages(self, came: Sequence[messages.ToComet | messages.Entry]) -> None:
        self.perform(self._runner.on_messages(came, time.monotonic()))
        self._work.set()

    def _on_authed(self, logic: str, frame: bytes) -> None:
        answers = self.decode(frame, messages.FromLogic, logic)
        self.perform(self._runner.on_told(answers, time.monotonic()))

    def _on_not_asked(self, logic: str, lost: Sequence[Message]) -> None:
        reqs = [m.req for m in lost if isinstance(m, logins.Auth | logins.AskJoin)]
        self.perform(self._runner.on_not_sent(reqs, time.monotonic()))

    def _on_logic(self, logic: str, is_connected: bool) -> None:
        if not is_connected:
            self.perform(self._runner.on_logic_gone(logic, time.monotonic()))

    def _tick(self) -> None:
        while True:
            gevent.sleep(TICK_S)
            self.perform(self._runner.on_tick(time.monotonic()))
            self._work.set()

    # -- what is to be done

    @override
    def perform_one(self, effect: Effect) -> None:
        match effect:
            case Send(peer=peer, message=message, size=size):
                self._links[peer].put(message, size)
            case Barred():
                self.spawn(self._edge.close_barred)
            case SessionEffect():
                self._edge.perform(effect)
            case Pass():
                self._todo = effect
            case Told(ticket=AsyncResult() as ticket, answer=answer):
                ticket.set(answer)
            case Replaced(known_inc=known_inc):
                log.critical("fenced: a router knows a later run of this comet", extra={"known": known_inc})
                self._state.write("incarnation", known_inc)
                self.end(EXIT_CRASH)
            case _:
                super().perform_one(effect)

    # -- the fan-out

    def _fan_out(self) -> None:
        """One pass at a time. While one runs, what arrives gathers, and goes out as one."""
        hub = self._runner.hub
        while True:
            self._work.wait()
            self._work.clear()
            self.perform(hub.begin_pass(time.monotonic()))
            while (todo := self._todo) is not None:
                self._todo = None
                self._write(todo)
                self.perform(hub.end_pass(todo, time.monotonic()))
                self.perform(hub.begin_pass(time.monotonic()))

    def _write(self, todo: Pass) -> None:
        """A pass to its connections, in order. Switches: to give way."""
        for write in todo.writes:
            chunk, rows, sessions, until = write.chunk, write.rows, write.sessions, write.until
            for start in range(0, len(sessions), BATCH):
                if until and write.is_late(time.monotonic()):
                    for row in rows:
                        row.expire(len(sessions) - start)
                    break
                delivered = sum([session.write(chunk, rows, until) for session in sessions[start : start + BATCH]])
                self._delivered += delivered * len(rows)
                for row in rows:
                    row.delivered += delivered
                    row.changed()
                give_way()
