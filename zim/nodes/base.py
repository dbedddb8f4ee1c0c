"""The life of a node: set up, start, say ready, run, stop; and what becomes of its greenlets.

A node is one process. It says `ready comet-1 {…}` on stdout once it listens and its peers are there; it logs to
stderr. It ends on SIGTERM or SIGINT, or when its lifeline does: a pipe whose other end only its supervisor holds.
It is drained by an order on stdin, by SIGUSR1, or at its `admin` address; then it hands on what it has, and ends.
"""

from __future__ import annotations

import gc
import json
import logging
import signal
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import gevent
from gevent.event import Event
from typing_extensions import override

from zim import __version__, logs
from zim.errors import ZimError
from zim.fabric.health import Health
from zim.fabric.principals import Principals
from zim.metrics import Metric, counter, gauge
from zim.net.entrances import Entrances, read_certificates
from zim.net.link_keys import LinkKeys
from zim.net.threads import in_thread
from zim.net.visitors import let_in, visitors
from zim.net.zap import ZapServer
from zim.nodes.effects import Audit, Drained, Effect, End, Note
from zim.nodes.guard import Guard
from zim.nodes.heap import give_back
from zim.nodes.lag import LoopLag
from zim.nodes.orders import read_orders
from zim.nodes.performer import Performer
from zim.protocol import codec
from zim.protocol.errors import CodecError
from zim.topology import ListenAddress, Listeners, Node, Topology, believed_from_now_on, compare, load

if TYPE_CHECKING:
    from zim.web.server import HttpServer

log = logging.getLogger(__name__)
audit = logging.getLogger("zim.audit")

READY_WAIT_S = 3.0  # for peers; after it a node says ready without them, for they may come any time
GC_THRESHOLD = (2_000, 20, 100)  # old objects are looked at less often than Python does by default
HANDSHAKE_S = 10.0  # for what stands before a connection, where the topology says nothing
MOST_MISSING = 100  # that zim up is told of: its answer is one line
STOP_S = 4.0  # the supervisor waits 5

EXIT_OK, EXIT_CRASH, EXIT_FATAL, EXIT_NOT_NOW = 0, 1, 2, 3  # after FATAL a restart would not help


def not_connected(links: Mapping[str, HasPeer]) -> list[str]:
    """The peers that are not there, in words. links: by their names."""
    away = [(peer, link.where, link.trouble) for peer, link in links.items() if not link.is_connected]
    return [f"{peer} is not connected at {where}" + (f": {why}" if why else "") for peer, where, why in away]


def if_none(away: list[str], links: Mapping[str, object]) -> list[str]:
    """Those that are away, if that is all there are: one will do."""
    return away if len(away) == len(links) else []


def _shown(listener: ListenAddress) -> str:
    return f"{listener.address} with TLS" if listener.tls else listener.address


class HasPeer(Protocol):
    """A link to another node."""

    @property
    def is_connected(self) -> bool:
        """It is there."""

    @property
    def where(self) -> str:
        """Where it is looked for, for people."""

    @property
    def trouble(self) -> str:
        """Why it is not, in words; "" where that is not known."""


class NodeProcess(Performer):
    """One process of the fabric. Subclasses bind in `setup`, spawn in `start`, and let go in `stop`.

    It drives its runner: what comes from sockets and clocks goes to the runner, what the runner returns is done.

    Attributes:
        gc_threshold: see gc.set_threshold.
        principals: backends that are known.
        entrances: what stands before its listeners; once it runs.
        guard: who may connect, and say what. It has its keys before `setup`.
        is_draining: it hands on what it has, and ends then.
    """

    gc_threshold = GC_THRESHOLD
    entrances: Entrances

    def __init__(self, topology: Topology, node: Node) -> None:
        super().__init__()
        self.topology, self.name = topology, node.name
        self._kind = node.kind
        self.principals = Principals(topology.identity.api_keys)
        self._admins: list[HttpServer] = []
        self._over, self._reload_wanted = Event(), Event()
        self.is_draining = False
        self._exit_code = EXIT_OK
        self._greenlets: set[gevent.Greenlet[..., Any]] = set()
        self._not_understood = 0
        self.guard = Guard(node.name)
        self._lag = LoopLag()

    @abstractmethod
    def setup(self) -> None:
        """Takes what only one process can have: locks, addresses.

        Raises:
            NodeError: another has it.
        """

    @abstractmethod
    def start(self) -> None:
        """Spawns the greenlets."""

    @abstractmethod
    def missing(self) -> list[str]:
        """What it waits for before it can do its work, each in words; nothing if it is ready."""

    def blocked(self) -> list[str]:
        """What of it keeps the node from doing any part of its work; all, if it cannot tell."""
        return self.missing()

    def health(self) -> Health:
        """What /readyz answers."""
        if self.is_draining:
            return Health(False, ("it is being drained", *self.missing()))
        return Health(not self.blocked(), tuple(self.missing()))

    @abstractmethod
    def listens(self) -> dict[str, Listeners]:
        """Where it listens, for people, beside `admin`: by the keys of the topology."""

    @abstractmethod
    def stop(self) -> None:
        """Ends in the order of the data: entrances first. Switches."""

    def drain(self, asked: Mapping[str, Any]) -> None:
        """Begins to hand on what it has; Drained, or `end`, comes when that is done. Does not switch. asked: how; may
        come more than once."""
        self.end()

    def standing(self) -> dict[str, Any]:
        """What `zim status` is told beside what every node tells. Does not switch."""
        return {}

    def prepare(self, topology: Topology) -> Any:
        """Reads what a changed topology names, for `follow`. Runs in a thread: it may block, and touches nothing.

        Raises:
            ZimError: it cannot be had; then nothing of that topology is taken over.
        """

    def follow(self, topology: Topology, prepared: Any) -> None:
        """Takes over what has changed in the topology, which is nothing that needs a restart. Does not switch."""

    @abstractmethod
    def metrics(self) -> Iterable[Metric]:
        """What it tells of itself, read now out of what it keeps anyway. May switch."""

    def spawn(self, run: Callable[..., Any], *args: Any) -> gevent.Greenlet[..., Any]:
        """Spawns a greenlet without which the node cannot go on: if it fails, the node says so and ends."""
        greenlet = gevent.spawn(run, *args)
        greenlet.link_exception(self.on_failure)
        greenlet.rawlink(self._greenlets.discard)
        self._greenlets.add(greenlet)
        return greenlet

    def decode(self, frame: bytes, expected: Any, peer: str = "") -> list[Any]:
        """The messages in a frame; those that are not understood are left out, and counted. With link keys those are,
        too, that their sender may not say, or says in another's name.

        Args:
            expected: the message or union of messages that may come.
            peer: from whom it is, if that is known.
        """
        try:
            return self.guard.honest(codec.decode(frame, expected), peer)
        except CodecError as e:
            found, errors = codec.decode_each(frame, expected) or ([], [e])
            errors = errors or [e]
        self._not_understood += len(errors)
        # One line for all of them: a line costs more than they do.
        fields: dict[str, object] = {"peer": peer or "unknown", "error": str(errors[0])}
        log.warning("message not understood", extra=fields | ({"more": len(errors) - 1} if len(errors) > 1 else {}))
        return self.guard.honest(found, peer)

    # -- effects

    @override
    def perform_one(self, effect: Effect) -> None:
        """Subclasses add what their runners want beside these."""
        match effect:
            case Note(level=level, event=event, fields=fields):
                (audit if isinstance(effect, Audit) else log).log(level, event, extra=dict(fields))
            case End(why=why):
                log.critical(why)
                self.end(EXIT_CRASH)
            case Drained():
                log.info("drained")
                self.end()
            case _:
                raise AssertionError(effect)

    def on_failure(self, greenlet: gevent.Greenlet[..., Any]) -> None:
        """A greenlet has failed without which the node cannot go on."""
        error = greenlet.exception
        if isinstance(error, ZimError):
            log.critical(str(error))
        else:
            log.critical(
                "a greenlet failed, the node ends", exc_info=greenlet.exc_info, extra={"greenlet": greenlet.name}
            )
        self.end(EXIT_CRASH)

    def end(self, exit_code: int = EXIT_OK) -> None:
        """Asks the node to stop. May be called from anywhere, more than once; the first reason stands."""
        if not self._over.is_set():
            self._exit_code = exit_code
            self._over.set()

    def begin_drain(self, asked: Mapping[str, Any] = MappingProxyType({})) -> None:
        """It is to be drained. Does not switch. asked: how; for what is not there the topology counts."""
        if self._over.is_set():
            return
        if not self.is_draining:
            self.is_draining = True
            logs.writer(logs.STDOUT).put(f"draining {self.name} {{}}\n".encode())
        self.drain(asked)

    def run(self, lifeline_fd: int | None = None, orders_fd: int | None = None) -> int:
        """The whole life, from setup to stop. Returns the exit code. Switches.

        Args:
            orders_fd: where orders come, see zim.nodes.orders.
        """
        gevent.signal_handler(signal.SIGTERM, self.end)
        gevent.signal_handler(signal.SIGINT, self.end)
        gevent.signal_handler(signal.SIGHUP, self._reload_wanted.set)
        if lifeline_fd is not None:
            self.spawn(self._watch_lifeline, lifeline_fd)
        self.entrances = self._make_entrances()
        self.guard.take_keys(self.topology)
        if self.link_keys is not None:
            self.spawn(ZapServer(self.guard.let_in).serve)
        self.setup()
        self._open_admin()
        self.start()
        gc.collect()
        gc.freeze()
        gc.set_threshold(*self.gc_threshold)
        self.spawn(self._announce)
        self.spawn(self._lag.watch)
        self.spawn(give_back)
        self.spawn(self.entrances.watch)
        self.spawn(self._reload)
        gevent.signal_handler(signal.SIGUSR1, self.begin_drain)
        if orders_fd is not None:
            self.spawn(self._obey, orders_fd)
        self._over.wait()
        for greenlet in list(self._greenlets):
            greenlet.unlink(self.on_failure)  # what it works on goes away now
        with gevent.Timeout(STOP_S, False):  # type: ignore[arg-type]
            self.stop()
        for admin in self._admins:
            admin.close()
        gevent.killall(list(self._greenlets), block=True, timeout=1.0)
        return self._exit_code

    def _make_entrances(self) -> Entrances:
        """Raises: BadCertificate."""
        return Entrances(self.topology.path.parent, self._node.listeners, self._handshake_s)

    @property
    def _handshake_s(self) -> float:
        """For what stands before one connection."""
        return float(getattr(self._node, "handshake_timeout_s", HANDSHAKE_S))

    def _open_admin(self) -> None:
        if self._node.admin:
            from zim.web.admin import Drain, admin_server  # not everybody wants it, and it brings an HTTP server
            from zim.web.keys import Keys

            keys = Keys(self.principals)
            drain = Drain(keys, self._drain_asked)
            for at, handshakes in zip(self._node.admin, self.entrances.handshakes["admin"], strict=True):
                rest = at.host_port, visitors(at), keys if at.is_reachable else None, "admin", handshakes, drain
                self._admins.append(admin_server(self._metrics, self.health, *rest))
                self._admins[-1].start()

    def _metrics(self) -> Iterator[Metric]:
        who: dict[tuple[str, ...], float] = {(self.name, self._kind, __version__): 1}
        yield gauge("zim_node_info", "The node that this is", who, "node", "kind", "version")
        yield gauge("zim_node_draining", "1 while it is being drained, else 0", self.is_draining)
        what = "Messages of other nodes, or of publishers over ZeroMQ, that were not understood and passed over"
        yield counter("zim_node_bad_messages_total", what, self._not_understood)
        yield from self.guard.metrics()
        yield from self._lag.metrics()
        yield from self.entrances.metrics()
        yield from self.metrics()

    def _announce(self) -> None:
        with gevent.Timeout(READY_WAIT_S, False):  # type: ignore[arg-type]
            while self.missing():
                gevent.sleep(0.01)
        at = {**self.listens(), "admin": self._node.admin}
        listens = {what: [_shown(one) for one in listeners] for what, listeners in at.items() if listeners}
        logs.writer(logs.STDOUT).put(f"ready {self.name} {json.dumps(listens)}\n".encode())

    def _drain_asked(self) -> str:
        """Somebody asks for it at `admin`."""
        self.begin_drain()
        return f"{self.name} is being drained"

    def _obey(self, fd: int) -> None:
        for order in read_orders(fd):
            match order["do"]:
                case "drain":
                    self.begin_drain(order)
                case "status":
                    said = {"n": order.get("n", 0), "version": __version__, "lag_ms": self._lag.worst_ms()}
                    said |= {
                        "missing": self.missing()[:MOST_MISSING],
                        "is_draining": self.is_draining,
                        **self.standing(),
                    }
                    logs.writer(logs.STDOUT).put(f"status {self.name} {json.dumps(said)}\n".encode())

    def _reload(self) -> None:
        """At SIGHUP: the topology is read anew. What came of it is told to the log, and to the supervisor."""
        while True:
            self._reload_wanted.wait()
            self._reload_wanted.clear()
            said: dict[str, object]
            try:
                said = self._take_over()
            except (ZimError, OSError) as e:  # too few open files for one more link, say: another reload makes it
                log.error("not reloaded", extra={"problem": str(e)})
                said = {"problems": str(e).splitlines()}
            logs.writer(logs.STDOUT).put(f"reloaded {self.name} {json.dumps(said)}\n".encode())

    def _take_over(self) -> dict[str, object]:
        found = in_thread(load, self.topology.path)
        changes = compare(self.topology, found)
        prepared = in_thread(self.prepare, changes.topology)
        listeners = changes.topology.node(self.name).listeners
        certificates = in_thread(read_certificates, changes.topology.path.parent, listeners)
        believed = believed_from_now_on(self.topology.identity, changes.topology.identity)
        secret = in_thread(self.guard.prepare, changes.topology)
        self.topology = changes.topology
        self.principals.know(self.topology.identity.api_keys)
        let_in(self._admins, self._node.admin)
        self.entrances.follow(listeners, certificates, self._handshake_s)
        logs.set_level(self.topology.log_level)
        for rest in self.guard.follow(self.topology, secret):
            self.spawn(rest)
        self.follow(self.topology, prepared)  # it may link to nodes that are new, by their keys
        log.info("reloaded", extra={"taken": ", ".join(changes.taken), "waiting": ", ".join(changes.waiting)})
        for who in believed:
            log.warning("believed without proof from now on", extra={"reason": who})
        return {"digest": self.topology.digest, "waiting": changes.waiting}

    @property
    def link_keys(self) -> LinkKeys | None:
        """By which nodes know each other; None if links are not encrypted."""
        return self.guard.keys

    @property
    def _node(self) -> Node:
        return self.topology.node(self.name)

    def _watch_lifeline(self, fd: int) -> None:
        gevent.socket.wait_read(fd)  # nobody ever writes: readable means that the other end is closed
        log.info("the supervisor is gone")
        self.end()
