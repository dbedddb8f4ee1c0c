"""Logic: the front desk. It answers HTTP, and comets that ask who a client is."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import gevent

from zim.fabric.questions import WholeLedger
from zim.metrics import Metric, counter
from zim.net.links import Asker
from zim.net.transport import Server
from zim.nodes.base import NodeProcess
from zim.nodes.logic.auth import GoimTokens, TokenHandler
from zim.nodes.logic.fabric import RouterFabric
from zim.nodes.logic.metrics import fabric_metrics, http_metrics
from zim.nodes.logic.publishing import RouterAsker
from zim.nodes.logic.submitting import publish_submitted
from zim.nodes.queues import Fill, queues
from zim.protocol import codec, messages
from zim.protocol.errors import CodecError
from zim.protocol.messages import ENTRY_BYTES, ITEM_BYTES
from zim.topology import Logic, Topology
from zim.web.app import create_app, request_limits
from zim.web.server import HttpServer

log = logging.getLogger(__name__)

SUBMITTED_BYTES = 64 << 20  # of pushes over ZeroMQ that are under way


class LogicNode(NodeProcess):
    """One logic process."""

    def __init__(self, topology: Topology, logic: Logic, tokens: TokenHandler | None = None) -> None:
        super().__init__(topology, logic)
        self._logic = logic
        self._tokens: TokenHandler = tokens or GoimTokens()
        self._submitted_bytes = self._not_submitted = 0
        self._auths = {"ok": 0, "failed": 0}

    def setup(self) -> None:
        """See NodeProcess."""
        self._server = Server(self._logic.bind.address)
        self._routers: dict[str, RouterAsker] = {
            r.name: Asker(r.name, r.endpoint, messages.ToAsker) for r in self.topology.routers
        }
        self._fabric = RouterFabric(self._routers)
        max_body_bytes = self.topology.max_body_bytes
        self._app = create_app(self._fabric, max_body_bytes)
        http, timeout_s = self._logic.http, self._logic.http_timeout_s
        self._http = HttpServer(self._app, http.host_port, timeout_s, request_limits(max_body_bytes))

    def start(self) -> None:
        """See NodeProcess."""
        for router in self._routers.values():
            router.spawn(self.spawn)
        self.spawn(self._serve)
        self._http.start()

    def is_connected(self) -> bool:
        """See NodeProcess."""
        return all(router.is_connected for router in self._routers.values())

    def listens(self) -> dict[str, str]:
        """See NodeProcess."""
        return {"http": self._logic.http.address, "bind": self._logic.bind.address}

    def stop(self) -> None:
        """See NodeProcess. Requests under way get their answers."""
        self._http.stop(timeout=2)

    def metrics(self) -> Iterator[Metric]:
        """See NodeProcess. Switches: the routers are asked for the ledger."""
        submitted = Fill(self._submitted_bytes, self._not_submitted)
        yield from http_metrics(self._app.answered, self._http.refused)
        yield counter("zim_logic_pushes_total", "Pushes that were answered", self._fabric.answered, "status")
        yield counter("zim_logic_auths_total", "Tokens that comets asked about", self._auths, "result")
        yield from queues("logic", {"submitted": submitted, **self._routers})
        yield counter(
            "zim_logic_dropped_answers_total", "Answers whose asker was gone or did not read", self._server.dropped
        )
        yield from fabric_metrics(self._fabric.ask(WholeLedger()))

    def _serve(self) -> None:
        """Comets ask who their clients are; publishers push over ZeroMQ."""
        for envelope, frame in self._server.received():
            try:
                asked = codec.decode(frame, messages.ToLogic)
            except CodecError as e:
                log.warning("request not understood", extra={"error": str(e)})
                continue
            identified = [answer for m in asked if isinstance(m, messages.Auth) and (answer := self._identify(m))]
            if identified:
                self._server.send(envelope, codec.encode(identified))
            submitted = [m for m in asked if isinstance(m, messages.Submit)]
            if submitted:
                self._submit(envelope, submitted)

    def _identify(self, m: messages.Auth) -> messages.Authed | None:
        try:
            identity = self._tokens.identify(m.token)
        except Exception:
            log.exception("the token handler failed; the client will be sent away")
            self._auths["failed"] += 1
            return None
        self._auths["ok"] += 1
        return messages.Authed(m.req, identity.uid, identity.rooms, identity.may_join)

    def _submit(self, envelope: tuple[bytes, ...], submitted: list[messages.Submit]) -> None:
        """Publishes in a greenlet of its own, for comets must not wait for publishers; or refuses, if too much is under
        way."""
        size = sum(ENTRY_BYTES + len(m.body) + ITEM_BYTES * (len(m.streams) + len(m.only)) for m in submitted)
        if self._submitted_bytes + size > SUBMITTED_BYTES:
            why = "too many pushes are under way"
            self._not_submitted += len(submitted)
            self._server.send(
                envelope, codec.encode([messages.Submitted(m.req, "", "unavailable", why) for m in submitted])
            )
            return
        self._submitted_bytes += size
        gevent.spawn(self._publish, envelope, submitted, size).link_exception(self._on_failure)

    def _publish(self, envelope: tuple[bytes, ...], submitted: list[messages.Submit], size: int) -> None:
        try:
            answers = publish_submitted(self._fabric, submitted, self.topology.max_body_bytes)
            self._server.send(envelope, codec.encode(answers))
        finally:
            self._submitted_bytes -= size
