"""A fabric as its topology describes it: frozen values, already checked, so that nodes never look at raw TOML. Pure.

What a key of the file takes stands beside its field; addresses alone are read elsewhere, as they depend on each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from zim.fabric.ceilings import NO_CEILINGS, Ceilings
from zim.fabric.retention import Retention
from zim.topology.endpoints import Endpoint, parse_link, parse_listener
from zim.topology.identity import Identity
from zim.topology.links import Links
from zim.topology.log import LogPlace
from zim.topology.tables import choice, header_name, seconds, text, whole

MOST_BYTES = 1 << 40  # more than a machine has; a typing error, not a limit
MOST_S = 30 * 86_400.0
Bytes = Annotated[int, whole(1, MOST_BYTES)]
Seconds = Annotated[float, seconds(0.001, MOST_S)]


@dataclass(frozen=True)
class CertificatePair:
    """A certificate with those who signed it, and its key: files in PEM, relative to the topology's."""

    certificate: str
    key: str


@dataclass(frozen=True)
class ListenAddress:
    """Where a node listens, and whether that is allowed beyond loopback.

    Attributes:
        address: `tcp://host:port` or `ipc://path` for a link between nodes, `host:port` for TCP, WebSocket and HTTP.
        insecure: the topology takes the responsibility for an address that strangers can reach.
        origins, hosts: of HTTP and WebSocket, what browsers may say in these headers beside names of loopback.
        ws_frames: of WebSocket, what a frame to a client has: an array of packets, or one.
        anonymous: of TCP and WebSocket, people may come without a token.
        cookie: of WebSocket, the cookie that has the token where the auth packet has none; "" for none.
        tls: the certificates that it shows, of which a client gets the one for the name that it asks for; none for no
            TLS. Of TCP, WebSocket and HTTP, as are the others below.
        proxies: networks of those who are believed about whom they speak for.
        proxy_protocol: they say it in the first bytes of each connection, and nobody else may connect.
        client_header: where they say it over HTTP and WebSocket otherwise.
        public: of TCP and WebSocket, where clients reach it: what they are told who are sent here; "" for nothing.
    """

    address: str
    insecure: bool = False
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    ws_frames: str = "array"
    anonymous: bool = False
    cookie: str = ""
    tls: tuple[CertificatePair, ...] = ()
    proxies: tuple[str, ...] = ()
    proxy_protocol: bool = False
    client_header: str = "X-Forwarded-For"
    public: str = ""

    @property
    def parsed(self) -> Endpoint:
        """The address, taken apart."""
        return parse_link(self.address) if "://" in self.address else parse_listener(self.address)

    @property
    def is_reachable(self) -> bool:
        """Strangers can reach it: from other machines, or through a proxy."""
        return not self.parsed.is_local or self.proxy_protocol or bool(self.proxies)

    @property
    def host_port(self) -> tuple[str, int]:
        """Host and port of a `host:port` address; `[::1]:80` is `("::1", 80)`."""
        host, _, port = self.address.removeprefix("tcp://").rpartition(":")
        return host.strip("[]"), int(port)


Listeners = tuple[ListenAddress, ...]
"""What one key of the file says: all the addresses where the same thing is served, in its order."""


@dataclass(frozen=True)
class Node:
    """What every node has.

    Attributes:
        id: a positive number, unique among the nodes of a kind.
        bind: where it binds its ZeroMQ socket.
        host: the machine it runs on, for `zim up --host`; "" for the only one.
        advertise: what other nodes connect to, where that is not what it binds.
        admin: where it answers `/metrics` and `/healthz`; empty for nowhere.
    """

    kind = ""
    id: Annotated[int, whole(1, (1 << 31) - 1)]
    bind: ListenAddress
    host: Annotated[str, text('the name of a machine, such as "a"')] = ""
    advertise: str = ""
    admin: Listeners = field(default=(), kw_only=True)

    @property
    def name(self) -> str:
        """The node name, `comet-1`."""
        return f"{self.kind}-{self.id}"

    @property
    def listeners(self) -> dict[str, Listeners]:
        """Where clients, backends and operators come in, by the key of the topology; not its links."""
        found = {key: getattr(self, key, ()) for key in ("http", "tcp", "ws", "admin")}
        return {key: several for key, several in found.items() if several}

    @property
    def endpoint(self) -> str:
        """The ZeroMQ endpoint that other nodes connect to."""
        return self.advertise or self.bind.address


@dataclass(frozen=True)
class Router(Node):
    """The memory. Limits in bytes, times in seconds."""

    kind = "router"
    max_behind_bytes: Bytes = 64 << 20  # of what one comet has not handled; above it its streams' publishers get 503
    keep_s: Seconds = 10.0  # how long a message of a live-only stream stays in memory, for repair
    keep_bytes: Bytes = 256 << 20  # how much of it, over all these streams
    # A file to give up when the disk is full, so that old messages can be deleted.
    ballast_bytes: Annotated[int, whole(0, MOST_BYTES)] = 32 << 20


@dataclass(frozen=True)
class Job(Node):
    """The fan-out between router and comets."""

    kind = "job"
    queue_bytes: Bytes = 16 << 20  # of the queue for one comet; above it the job drops, and the comet fetches


@dataclass(frozen=True)
class Logic(Node):
    """The front desk: the HTTP API and authentication."""

    kind = "logic"
    http: Listeners = field(kw_only=True)  # at least one
    http_timeout_s: Seconds = 10.0  # for reading one request, head and body
    http_idle_s: Seconds = 75.0  # between two requests on one connection
    publish: ListenAddress | None = None  # where publishers push over ZeroMQ
    # A header in which goim's backends may show their API key, beside Authorization; "" for none.
    goim_key_header: Annotated[str, header_name()] = ""


@dataclass(frozen=True)
class Comet(Node):
    """The edge. At least one of tcp and ws is there."""

    kind = "comet"
    tcp: Listeners = ()
    ws: Listeners = ()
    max_connections: Annotated[int, whole(1, 10_000_000)] = 100_000
    # Of one packet or WebSocket message from a client; a packet's header alone has 16.
    max_packet_bytes: Annotated[int, whole(16, 16 << 20)] = 65_536
    handshake_timeout_s: Seconds = 5.0  # from accept to the auth reply
    heartbeat_s: Seconds = 300.0  # a client that says nothing for longer is closed
    # Idle seconds before TCP keep-alive probes; 0 turns them off. Linux takes no more for TCP_KEEPIDLE.
    keepalive_s: Annotated[int, whole(0, 32_767)] = 60
    outbox_bytes: Bytes = 1 << 20  # backlog of one connection whose socket is full
    slow_consumer: Annotated[str, choice("close", "drop")] = "close"  # or "drop": its oldest messages go first
    drain_per_s: Annotated[int, whole(1, 1_000_000)] = 200  # clients sent to other comets, while it is drained
    max_memory_bytes: Annotated[int, whole(0, MOST_BYTES)] = 0  # of its process; above it nobody new comes in; 0: any


@dataclass(frozen=True)
class Topology:
    """The whole fabric.

    Attributes:
        name: of the fabric, for people.
        data_dir: absolute; each node has a folder of its name in it.
        max_body_bytes: of one push.
        idempotency_s: how long a publisher's key is known.
        receipts_s: how long it can be asked what became of a push.
        retention: how long streams are kept.
        admin: where `zim up` answers `/metrics` and `/healthz`; empty for nowhere.
        log_level: from which on lines are written, "debug", "info" or "warning".
        identity: who may come in.
        limits: how much somebody may do.
        links: how nodes know each other.
        log: the log that all routers share; None if each has its own.
        path: the file it came from; digest: SHA-256 of what was in it.
    """

    name: str
    data_dir: Path
    routers: tuple[Router, ...]
    logics: tuple[Logic, ...]
    jobs: tuple[Job, ...]
    comets: tuple[Comet, ...]
    max_body_bytes: int = 65_536
    idempotency_s: float = 86_400.0
    receipts_s: float = 3_600.0
    retention: Retention = field(default_factory=Retention)
    admin: Listeners = ()
    log_level: str = "info"
    identity: Identity = field(default_factory=Identity)
    limits: Ceilings = NO_CEILINGS
    links: Links = field(default_factory=Links)
    log: LogPlace | None = None
    path: Path = Path("topology.toml")
    digest: str = field(default="", compare=False)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, in the order in which they start."""
        return (*self.routers, *self.jobs, *self.logics, *self.comets)

    @property
    def shards(self) -> tuple[str, ...]:
        """Names of the parts that the streams are in: those of a shared log, or the routers, who have one each."""
        return tuple(router.name for router in self.routers) if self.log is None else self.log.names

    def part_of(self, limit_bytes: int) -> int:
        """Of a limit of a router's process: a shard's, if the router has its share of them all."""
        return limit_bytes // max(1, -(-len(self.shards) // len(self.routers)))

    def node(self, name: str) -> Node:
        """The node of that name.

        Raises:
            KeyError: there is none.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)
