"""Logic: the front desk. It answers HTTP, and comets that ask who a client is. It talks; its runner decides."""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import gevent
from gevent.event import AsyncResult
from typing_extensions import override

from zim.asking import NotAnswered
from zim.errors import NodeError, ZimError
from zim.fabric.principals import LOCAL, Principal, Unauthorized
from zim.fabric.questions import WholeLedger
from zim.identity.loading import Loaded, load_identity
from zim.metrics import Metric, counter
from zim.net.fairness import give_way
from zim.net.link_keys import PUBLISHERS
from zim.net.links import PeerLink
from zim.net.transport import Dealer, Server
from zim.net.visitors import let_in, visitors
from zim.nodes.base import NodeProcess, if_none, not_connected
from zim.nodes.calls import RETRY_S
from zim.nodes.effects import Drained, Effect, Replies, Send
from zim.nodes.logic.callouts import CallOut, Reply
from zim.nodes.logic.desk import Desk, FetchKeys
from zim.nodes.logic.fabric import RouterFabric
from zim.nodes.logic.metrics import fabric_metrics, http_metrics, limit_metric, login_metrics
from zim.nodes.logic.runner import LogicRunner, Settled
from zim.nodes.placement import Placement, numbers_of
from zim.nodes.queues import queues
from zim.nodes.refusals import tell_for_ever
from zim.protocol import codec, messages
from zim.protocol.message import Message
from zim.protocol.speakers import PUBLISHER
from zim.topology import Listeners, Logic, Topology
from zim.web.app import create_app, request_limits
from zim.web.keys import Keys
from zim.web.server import HttpServer

log = logging.getLogger(__name__)
audit = logging.getLogger("zim.audit")

FETCH_S = 3.0  # for an issuer's keys: shorter than a handshake, so that who waits for them is told
IDLE_S = 5.0  # before drained logics hang up on those who keep a connection and say nothing on it
UNDER_WAY_S = 20.0  # for requests that are being answered then
LOOK_S = 0.05
ROUTER_QUEUE_BYTES = 64 << 20  # for one router; above it requests are not sent


class FromPublisher(NamedTuple):
    """Who has sent something to `publish`: its routing id."""

    publisher: bytes


class LogicNode(NodeProcess):
    """One logic process."""

    def __init__(self, topology: Topology, logic: Logic) -> None:
        super().__init__(topology, logic)
        self._logic = logic
        self._draining: gevent.Greenlet[..., Any] | None = None
        self._hears_publishers = True

    @override
    def setup(self) -> None:
        max_body_bytes = self.topology.max_body_bytes
        self._server = Server(self._logic.bind.address, self.link_keys)
        publish = self._logic.publish
        self._publish = Server(publish.address, self.link_keys, PUBLISHERS) if publish else None
        routers = [router.name for router in self.topology.routers]
        self._runner = LogicRunner(
            Placement(self.name, routers, self.topology.shards),
            lambda stream: self.topology.retention.rule(stream).is_live_only,
            self._make_desk(),
            max_body_bytes,
            lambda: secrets.token_hex(16),
        )
        self._follow_limits(self.topology)
        self._routers: dict[str, PeerLink[Message]] = {}
        self._fabric = RouterFabric(self.topology.shards, self._runner, self.perform)
        self._keys = Keys(self.principals, self._logic.goim_key_header)
        self._app = create_app(self._fabric, max_body_bytes, self._keys, self.health)
        logic, limits = self._logic, request_limits(max_body_bytes)
        self._http: list[HttpServer] = []
        for at, handshakes in zip(logic.http, self.entrances.handshakes["http"], strict=True):
            self._http.append(
                HttpServer(
                    self._app,
                    at.host_port,
                    logic.http_timeout_s,
                    limits,
                    idle_s=logic.http_idle_s,
                    visitors=visitors(at),
                    beside=self._http[0] if self._http else None,
                    handshakes=handshakes,
                )
            )

    def _follow_limits(self, topology: Topology) -> None:
        self._runner.quotas.follow(topology.limits, topology.identity.api_keys, len(topology.logics))
        self._runner.desk.often.follow(topology.limits.logins_per_user)

    def _make_desk(self) -> Desk:
        """Raises: NodeError: a key that the topology names cannot be had."""
        try:
            loaded = load_identity(self.topology.identity)
        except ZimError as e:
            raise NodeError(str(e)) from None
        self._askers = dict(loaded.askers)
        return Desk(self.topology.identity, loaded.keys, lambda: secrets.token_hex(8))

    @override
    def prepare(self, topology: Topology) -> Loaded:
        return load_identity(topology.identity)

    @override
    def follow(self, topology: Topology, prepared: Loaded) -> None:
        self._runner.desk.follow(topology.identity, prepared.keys)
        self._follow_limits(topology)
        self._askers |= prepared.askers  # who is asked at a former URL answers yet
        self._logic = next(logic for logic in topology.logics if logic.name == self.name)
        self._keys.show_goim_in(self._logic.goim_key_header)
        let_in(self._http, self._logic.http)
        for server in self._http:
            server.timeout_s, server.idle_s = self._logic.http_timeout_s, self._logic.http_idle_s
        self._link(topology)  # may fail, for too few open files: the rest is done, and nobody is asked who has no link
        self._runner.know([router.name for router in topology.routers])

    @override
    def start(self) -> None:
        self._link(self.topology)
        self.spawn(self._server.receive, self._on_asked)
        if self._publish is not None:
            self.spawn(self._publish.receive, self._on_submitted)
        self.spawn(self._tick)
        self.spawn(tell_for_ever, self._runner.quotas.refusals, self._runner.desk.often.refusals)
        for server in self._http:
            server.start()

    def _link(self, topology: Topology) -> None:
        """To all routers that are not linked yet."""
        for router in topology.routers:
            if router.name not in self._routers:
                dealer = Dealer(router.endpoint, self.link_keys, router.name)
                link: PeerLink[Message] = PeerLink(
                    router.name, dealer, ROUTER_QUEUE_BYTES, self._on_lost, self._on_change
                )
                self._routers[router.name] = link
                link.spawn(self.spawn)
                self.spawn(link.receive, partial(self._on_answers, router.name))

    @override
    def missing(self) -> list[str]:
        return [*not_connected(self._routers), *self._keyless()]

    @override
    def blocked(self) -> list[str]:
        return [*if_none(not_connected(self._routers), self._routers), *self._keyless()]

    def _keyless(self) -> list[str]:
        keyless = [known for known in self._runner.desk.issuers.values() if not known.keys]
        return [f"the keys of {known.issuer.issuer} are not there: {known.why or 'asked for'}" for known in keyless]

    @override
    def listens(self) -> dict[str, Listeners]:
        publish = (self._logic.publish,) if self._logic.publish else ()
        return {"http": self._logic.http, "publish": publish, "bind": (self._logic.bind,)}

    @override
    def stop(self) -> None:
        """Requests under way get their answers."""
        for server in self._http:
            server.leave()
        for server in self._http:
            server.stop(timeout=2)  # they share their connections, so only the first one waits

    @override
    def drain(self, asked: Mapping[str, Any]) -> None:
        if self._draining is None:
            self._draining = self.spawn(self._leave)

    def _leave(self) -> None:
        """Nobody new is let in. Who is here is answered, and told to connect elsewhere: over HTTP by `Connection:
        close`; who says nothing for a while is hung up on. What publishers send over ZeroMQ at the end is not read:
        they send it again, to another logic, under the same id."""
        clients = self._http[0].pool  # the connections of all
        assert clients is not None
        for server in self._http:
            server.stop_accepting_any()
        for bound in filter(None, (self._server, self._publish)):
            bound.let_nobody_in()
        until = time.monotonic() + IDLE_S
        while len(clients) and time.monotonic() < until:
            gevent.sleep(LOOK_S)
        for server in self._http:
            server.leave()
        self._hears_publishers = False
        until = time.monotonic() + UNDER_WAY_S
        while (len(clients) or self._runner.waiting_bytes) and time.monotonic() < until:
            gevent.sleep(LOOK_S)
        if len(clients):
            log.warning("drained, and requests are under way", extra={"connections": len(clients)})
        self.perform([Drained()])

    @override
    def standing(self) -> dict[str, Any]:
        answered = self._runner.answered
        waiting = self._runner.waiting_bytes + sum(router.waiting_bytes for router in self._routers.values())
        failed = sum(answered[status] for status in ("unavailable", "unknown"))
        return {"pushes": sum(answered.values()), "failed": failed, "backlog_bytes": waiting}

    @override
    def metrics(self) -> Iterator[Metric]:
        """Switches: the routers are asked for the ledger."""
        runner = self._runner
        refused = sum((server.refused for server in self._http), Counter[int]())
        yield from http_metrics(self._app.answered, refused)
        yield counter("zim_logic_pushes_total", "Pushes that were answered", runner.answered, "status")
        yield from login_metrics(runner.desk)
        yield limit_metric(runner.quotas, runner.desk)
        dropped = self._server.dropped + (self._publish.dropped if self._publish else 0)
        yield from queues("logic", {"submitted": runner, **self._routers})
        yield counter("zim_logic_dropped_answers_total", "Answers whose asker was gone or did not read", dropped)
        yield from fabric_metrics(self._fabric.ask(WholeLedger(), LOCAL))

    # -- what comes

    def _on_asked(self, envelope: tuple[bytes, ...], frame: bytes, comet: str) -> None:
        """Comets ask who their clients are."""
        asked = self.decode(frame, messages.ToLogic, comet)
        self.perform(self._runner.on_messages(envelope, asked, time.monotonic(), time.time(), give_way))

    def _on_submitted(self, envelope: tuple[bytes, ...], frame: bytes, _: str) -> None:
        """Publishers push over ZeroMQ: their API key, empty for none, and a frame of Submits."""
        if not self._hears_publishers:
            return
        submits = self.decode(frame, messages.FromPublisher, PUBLISHER)
        publisher, key = envelope[0], envelope[1] if len(envelope) > 1 else b""
        try:
            who: Principal | str = self.principals.find(key.decode("ascii", "replace"))
        except Unauthorized as e:
            who = str(e)
            audit.warning("pushes refused", extra={"reason": who, "pushes": len(submits)})
        asker = FromPublisher(publisher)
        self.perform(self._runner.on_submits(asker, submits, who, time.monotonic(), give_way))

    def _on_answers(self, router: str, frame: bytes) -> None:
        answers = self.decode(frame, messages.ToAsker, router)
        self.perform(self._runner.on_answers(router, answers, time.monotonic()))

    def _on_lost(self, router: str, lost: Sequence[Message]) -> None:
        self.perform(self._runner.on_not_sent(numbers_of(lost), time.monotonic()))

    def _on_change(self, router: str, is_connected: bool) -> None:
        self.perform(self._runner.on_link(router, is_connected, time.monotonic()))

    def _tick(self) -> None:
        while True:
            gevent.sleep(RETRY_S)
            self.perform(self._runner.on_tick(time.monotonic()))

    def _fetch_keys(self, effect: FetchKeys) -> None:
        document, why = None, ""
        try:
            issuer = effect.keys.issuer
            status, document = self._askers[issuer.jwks, issuer.ca].get(FETCH_S)
            if status != 200:
                document, why = None, f"it answers with status {status}"
        except NotAnswered as e:
            why = str(e)
        self.perform(self._runner.on_keys(effect, document, why, time.monotonic(), time.time(), give_way))

    def _call_out(self, effect: CallOut) -> None:
        try:
            asker = self._askers[effect.url, effect.ca]
            reply: Reply | str = Reply(*asker.post(effect.body, effect.timeout_s))
        except NotAnswered as e:
            reply = str(e)
        self.perform(self._runner.on_reply(effect, reply, time.monotonic()))

    # -- what is to be done

    @override
    def perform_one(self, effect: Effect) -> None:
        match effect:
            case Send(peer=router, message=message, size=size):
                if isinstance(message, messages.Publish) and log.isEnabledFor(logging.DEBUG):
                    for p in message.pushes:
                        log.debug("push asked for", extra={"push_id": p.push_id, "router": router, "part": p.part})
                self._routers[router].put(message, size)
            case FetchKeys():
                self.spawn(self._fetch_keys, effect)
            case CallOut():
                self.spawn(self._call_out, effect)
            case Settled(ticket=AsyncResult() as ticket, outcome=outcome):
                ticket.set(outcome)
            case Replies(answers=answers):
                by_asker: dict[tuple[bytes, ...], list[Message]] = {}
                for asker, m in answers:
                    by_asker.setdefault(asker, []).append(m)
                for asker, mine in by_asker.items():
                    if isinstance(asker, FromPublisher):
                        assert self._publish is not None
                        self._publish.send(asker, codec.encode(mine))
                    else:
                        self._server.send(asker, codec.encode(mine))
            case _:
                super().perform_one(effect)
