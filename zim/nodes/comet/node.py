"""The comet: the edge, where clients are connected. It talks; zim.nodes.comet.hub decides."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator

import gevent
from gevent.event import Event

from zim.errors import Unavailable
from zim.metrics import Metric
from zim.net.accept import PatientServer
from zim.net.links import Asker, Sender
from zim.net.transport import Dealer, Inbox
from zim.nodes.base import EXIT_CRASH, NodeProcess
from zim.nodes.comet.connection import ClientLimits
from zim.nodes.comet.edge import Edge
from zim.nodes.comet.hub import Hub
from zim.nodes.comet.metrics import comet_metrics
from zim.nodes.comet.passes import Pass
from zim.nodes.comet.tcp import TcpListener
from zim.nodes.comet.websocket import WebSocketListener
from zim.nodes.queues import Queue, queues
from zim.nodes.state import StateDir
from zim.protocol import codec, messages
from zim.protocol.errors import CodecError
from zim.topology import Comet, Topology

log = logging.getLogger(__name__)

TICK_S = 0.025
UP_BYTES = 64 << 20  # of messages to one router; all of them are repeated if lost
BATCH = 256  # sends between two chances for others to run
AUTH_S = 1.0  # for one logic to answer, before the next one is asked

LogicAsker = Asker[messages.FromLogic]


class CometNode(NodeProcess):
    """One comet process."""

    def __init__(self, topology: Topology, comet: Comet) -> None:
        super().__init__(topology, comet)
        self._comet = comet

    def setup(self) -> None:
        """See NodeProcess."""
        t, comet = self.topology, self._comet
        self._state = StateDir(t.data_dir, self.name)
        inc = self._state.next_run("incarnation", int(time.time() * 1000))
        self._inbox = Inbox(comet.bind.address)
        self._routers: dict[str, tuple[Dealer, Sender[messages.Message]]] = {}
        for router in t.routers:
            dealer = Dealer(router.endpoint)
            self._routers[router.name] = dealer, Sender(router.name, dealer, UP_BYTES)
        self._logics: list[LogicAsker] = [Asker(node.name, node.endpoint, messages.FromLogic) for node in t.logics]
        self._next_logic = itertools.count(comet.id)
        self._renew_bytes = min(r.max_behind_bytes for r in t.routers) // 4
        self._work = Event()
        self._sends = 0
        self._delivered = 0
        self._hub = Hub(self.name, inc, list(self._routers), self._send)
        limits = ClientLimits(
            comet.max_packet_bytes,
            comet.handshake_timeout_s,
            comet.heartbeat_s,
            comet.outbox_bytes,
            comet.slow_consumer == "drop",
        )
        self._edge = Edge(self._hub, self._identify, limits, comet.max_connections)
        self._listeners: list[PatientServer] = []
        if comet.tcp:
            self._listeners.append(TcpListener(comet.tcp.host_port, self._edge, comet.keepalive_s))
        if comet.ws:
            self._listeners.append(WebSocketListener(comet.ws.host_port, self._edge, comet.keepalive_s))

    def start(self) -> None:
        """See NodeProcess."""
        for logic in self._logics:
            logic.spawn(self.spawn)
        for dealer, sender in self._routers.values():
            self.spawn(sender.run)
            self.spawn(sender.watch)
            self.spawn(self._listen_to_router, dealer)
        self.spawn(self._receive)
        self.spawn(self._fan_out)
        self.spawn(self._tick)
        self.spawn(self._edge.sweep)
        for listener in self._listeners:
            listener.start()

    def is_connected(self) -> bool:
        """See NodeProcess."""
        return self._hub.is_registered() and any(logic.is_connected for logic in self._logics)

    def listens(self) -> dict[str, str]:
        """See NodeProcess."""
        named = {"tcp": self._comet.tcp, "ws": self._comet.ws, "bind": self._comet.bind}
        return {name: listener.address for name, listener in named.items() if listener}

    def stop(self) -> None:
        """See NodeProcess."""
        for listener in self._listeners:
            listener.close()
        self._edge.close()
        self._state.close()

    def metrics(self) -> Iterator[Metric]:
        """See NodeProcess."""
        up: dict[str, Queue] = {router: sender for router, (_, sender) in self._routers.items()}
        yield from comet_metrics(self._hub, self._edge, self._delivered)
        yield from queues("comet", {**up, **{logic.peer: logic for logic in self._logics}})

    # -- links

    def _send(self, router: str, message: messages.Message, size: int) -> bool:
        dealer, sender = self._routers[router]
        return dealer.is_connected and sender.put(message, size)

    def _receive(self) -> None:
        """Entries, from the jobs."""
        for frame in self._inbox.received():
            try:
                entries = codec.decode(frame, messages.Entry)
            except CodecError as e:
                log.warning("entry not understood", extra={"error": str(e)})
                continue
            now = time.monotonic()
            for entry in entries:
                self._hub.entry(entry, now)
            self._work.set()

    def _listen_to_router(self, dealer: Dealer) -> None:
        for frame in dealer.received():
            try:
                answers: list[messages.ToComet] = codec.decode(frame, messages.ToComet)
            except CodecError as e:
                log.warning("answer not understood", extra={"error": str(e)})
                continue
            now = time.monotonic()
            for m in answers:
                self._on_answer(m, now)
            self._work.set()

    def _on_answer(self, m: messages.ToComet, now: float) -> None:
        match m:
            case messages.Answers():
                self._hub.answers(m, now)
            case messages.Fetched():
                self._hub.fetched(m, now)
            case messages.Records():
                self._hub.records(m, now)
            case messages.Acknowledged():
                self._hub.acknowledged(m)
            case messages.Renewed():
                known_inc = self._hub.renewed(m, now)
                if known_inc:
                    log.critical("fenced: a router knows a later run of this comet", extra={"known": known_inc})
                    self._state.write("incarnation", known_inc)
                    self.end(EXIT_CRASH)

    def _identify(self, token: bytes) -> messages.Authed:
        """Asks a logic who a client is; the next one if it does not answer."""
        first = next(self._next_logic)
        until = time.monotonic() + self._comet.handshake_timeout_s
        for i in itertools.count(first):
            logic = self._logics[i % len(self._logics)]
            try:
                return logic.ask(lambda req: messages.Auth(req, token), AUTH_S, len(token) + 64)
            except Unavailable:
                if time.monotonic() > until:
                    raise
                if i - first >= len(self._logics):
                    gevent.sleep(0.05)
        raise AssertionError("count never ends")

    # -- the fan-out

    def _fan_out(self) -> None:
        """One pass at a time. While one runs, what arrives gathers, and goes out as one."""
        while True:
            self._work.wait()
            self._work.clear()
            while (todo := self._hub.next_pass(time.monotonic())) is not None:
                self._perform(todo)
                self._hub.end_pass(todo, time.monotonic())

    def _perform(self, todo: Pass) -> None:
        for write in todo.writes:
            chunk, rows, sessions = write.chunk, write.rows, write.sessions
            for start in range(0, len(sessions), BATCH):
                part = sessions[start : start + BATCH]
                delivered = sum([session.write(chunk, rows) for session in part])
                self._delivered += delivered * len(rows)
                for row in rows:
                    row.delivered += delivered
                    row.changed()
                self._sends += len(part)  # over many small passes, too
                if self._sends >= BATCH:
                    self._sends = 0
                    gevent.sleep(0)

    def _tick(self) -> None:
        while True:
            gevent.sleep(TICK_S)
            self._hub.tick(time.monotonic(), self._renew_bytes)
            self._work.set()
