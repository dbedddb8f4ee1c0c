"""What one client, publisher or peer can do to a fabric's limits, for benchmarks.memory. Each runs in a process of its
own until that is killed, and goes on for so long."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import gevent
import zmq.green as zmq
from gevent import socket

from zim.client.address import split_address
from zim.fabric.limits import OFFSET
from zim.net.http1 import MAX_BODIES_BYTES, MAX_HEAD_BYTES
from zim.net.transport import MAX_MESSAGE_BYTES
from zim.nodes.comet.feed import HELD_BYTES
from zim.nodes.logic.fabric import HISTORIES, HISTORY_BYTES
from zim.nodes.logic.node import ROUTER_QUEUE_BYTES
from zim.nodes.router.intake import ADMITTED_BYTES
from zim.nodes.router.node import ANSWER_BYTES, JOB_QUEUE_BYTES
from zim.nodes.router.opening import LIVE_KEYS_BYTES
from zim.nodes.router.questions import QUEUE_BYTES
from zim.protocol import codec, frame, messages
from zim.protocol.frame import Op, Packet
from zim.topology import Topology
from zim.web.batch import MAX_BATCH_BYTES
from zim.web.server import MAX_ANSWERS_BYTES

MIB = 1 << 20
REQUEST_BYTES = 16 << 10  # of a greenlet with a request that has not come yet
JSON, NDJSON = "application/json", "application/x-ndjson"
PACKET_BYTES = 65_536  # the topology's max_packet_bytes
HISTORY = "/api/streams/u%3A900?limit=1000"  # 4 MB, which a publisher has put there
_RECEIVED_BYTES = 4_096  # of a socket that does not read: what the kernel takes for it is no part of the fabric


@dataclass(frozen=True)
class Place:
    """Where the fabric is."""

    http: str
    tcp: str
    ws: str
    endpoints: dict[str, str]

    @classmethod
    def of(cls, topology: Topology) -> Place:
        """Of a fabric that has one node of each kind."""
        comet = topology.comets[0]
        http = topology.logics[0].http[0].address
        return cls(
            http, comet.tcp[0].address, comet.ws[0].address, {node.kind: node.endpoint for node in topology.nodes}
        )


def _connect(address: str, reads: bool = True) -> socket.socket:
    sock = socket.socket()
    if not reads:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVED_BYTES)
    sock.connect(split_address(address))
    return sock


def _head(path: str, length: int, media_type: str = JSON, method: str = "POST") -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def _post(at: Place, path: str, body: bytes, media_type: str = JSON) -> bytes:
    """One request on a connection of its own; returns the answer's first line."""
    with contextlib.closing(_connect(at.http)) as sock, contextlib.suppress(OSError):
        sock.sendall(_head(path, len(body), media_type) + body)
        sock.settimeout(60.0)
        found: bytes = sock.recv(65_536)
        return found.partition(b"\r\n")[0]
    return b""


def _login(at: Place, uid: int, rooms: Iterable[str] = (), reads: bool = True) -> socket.socket:
    """A client of zim's own protocol, which has its reply."""
    sock = _connect(at.tcp, reads)
    auth = json.dumps({"token": str(uid), "rooms": list(rooms)}).encode()
    sock.sendall(frame.encode(Packet(Op.AUTH, 1, frame.VERSION, auth)))
    sock.recv(4_096)
    return sock


def _drain(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while sock.recv(MIB):
            pass


def ready() -> None:
    """Tells who measures that it begins now."""
    print("ready", flush=True)


def _again(run: Callable[[], object]) -> None:
    """Does it again and again, whatever comes of it."""
    while True:
        with contextlib.suppress(OSError):
            run()
        gevent.sleep(0.001)


def _all(runs: Iterable[Callable[[], object]]) -> None:
    ready()
    gevent.joinall([gevent.spawn(_again, run) for run in runs])


def _hold(count: int, open_one: Callable[[int], socket.socket]) -> None:
    """So many connections, for as long as it takes."""
    ready()
    held = []
    for n in range(count):
        with contextlib.suppress(OSError):
            held.append(open_one(n))
        if n % 50 == 49:
            gevent.sleep(0.01)
    while True:
        gevent.sleep(1.0)


# ---------------------------------------------------------------- what waits for whom


def nothing(at: Place) -> None:
    """Nothing at all."""
    ready()
    gevent.sleep(3600)


def keys_unread(at: Place) -> None:
    """Pushes to 8,000 session keys each, for 20 clients that do not read."""
    held = [_login(at, uid, reads=False) for uid in range(1, 21)]
    keys = [f"{uid}_{n}" for uid in range(1, 21) for n in range(1_000_000, 1_000_400)]
    body = json.dumps({"to": {"keys": keys}, "body": "x" * 100}).encode()
    _all([lambda: _post(at, "/api/push", body)] * 4)
    del held


def rooms_unread(at: Place) -> None:
    """Pushes to 1,500 rooms with long names, each of which somebody is in."""
    held = [_login(at, uid, [f"{'r' * 200}-{uid}"]) for uid in range(1, 1_501)]
    for sock in held:
        gevent.spawn(_drain, sock)
    rooms = [f"{'r' * 200}-{uid}" for uid in range(1, 1_501)]
    body = json.dumps({"to": {"rooms": rooms}, "body": 1}).encode()
    _all([lambda: _post(at, "/api/push", body)] * 4)


def pongs(at: Place, clients: int = 5) -> None:
    """Clients that ping and never read: an outbox of small answers."""

    def one() -> None:
        with contextlib.closing(_login(at, secrets.randbelow(1 << 30), reads=False)) as sock:
            beats = frame.encode(Packet(Op.HEARTBEAT, 1, frame.VERSION)) * 4_096
            while True:
                sock.sendall(beats)
                gevent.sleep(0.001)

    _all([one] * clients)


def pongs_200(at: Place) -> None:
    """200 of them."""
    pongs(at, 200)


# ---------------------------------------------------------------- what is asked for


def _fill(at: Place) -> None:
    """4 MB of history."""
    line = json.dumps({"to": {"users": [900]}, "body": "x" * 60_000}).encode() + b"\n"
    _post(at, "/api/push/batch", line * 70, NDJSON)


def histories(at: Place) -> None:
    """300 reads of 4 MB at once over HTTP, again and again."""
    _fill(at)

    def one() -> None:
        with contextlib.closing(_connect(at.http)) as sock:
            sock.sendall(_head(HISTORY, 0, method="GET"))
            sock.settimeout(5.0)
            while sock.recv(MIB):
                pass

    _all([one] * 300)


def histories_unread(at: Place) -> None:
    """200 connections that ask for 4 MB and do not read them."""
    _fill(at)

    def one() -> None:
        with contextlib.closing(_connect(at.http, reads=False)) as sock:
            sock.sendall(_head(HISTORY, 0, method="GET"))
            gevent.sleep(20.0)

    _all([one] * 200)


def pages(at: Place) -> None:
    """A peer that asks a router for 300 pages in one frame, and reads no answer."""
    _fill(at)
    read = messages.Read("router-1", 1, "u:900", 0, OFFSET, 1_000)
    same = [codec.encode([read] * 300)]
    different = [codec.encode([messages.Read("router-1", n, "u:900", n % 60, OFFSET, 1_000) for n in range(300)])]
    _dealers(at.endpoints["router"], 20, [same, different], rounds=1_000_000)


def receipts(at: Place) -> None:
    """A thousand askers who want to wait 30 s for a receipt, and hang up at once."""
    held = _login(at, 7, reads=False)
    body = json.dumps({"to": {"users": [7]}, "body": "x" * 60_000}).encode()
    for _ in range(12):  # more than the kernel takes for a client that does not read, less than its outbox
        _post(at, "/api/push", body)
    asked = json.dumps({"to": {"users": [7]}, "body": 1, "wait_s": 30}).encode()

    ready()
    for _ in range(1_000):
        _said(at.http, _head("/api/push", len(asked)) + asked).close()
    gevent.sleep(3600)
    del held


# ---------------------------------------------------------------- HTTP


def _announced(at: Place, count: int) -> None:
    _hold(count, lambda n: _said(at.http, _head("/api/push/batch", MAX_BATCH_BYTES, NDJSON)))


def _said(address: str, data: bytes) -> socket.socket:
    sock = _connect(address)
    sock.sendall(data)
    return sock


def announced_16(at: Place) -> None:
    """16 heads that announce 16 MiB, and nothing behind them."""
    _announced(at, 16)


def announced_200(at: Place) -> None:
    """200 of them."""
    _announced(at, 200)


def slow_bodies(at: Place) -> None:
    """200 bodies of 16 MiB that come slowly, and never to their end."""

    def one() -> None:
        with contextlib.closing(_said(at.http, _head("/api/push/batch", MAX_BATCH_BYTES, NDJSON))) as sock:
            for _ in range(255):
                sock.sendall(b" " * 65_536)
                gevent.sleep(0.01)
            gevent.sleep(5.0)

    _all([one] * 200)


def heads(at: Place) -> None:
    """3,000 heads of 31 kB without an end, at the HTTP API and at the comet."""
    header = b"".join(b"X-%02d: %s\r\n" % (n, b"v" * 300) for n in range(98))
    begun = b"GET /sub HTTP/1.1\r\nHost: localhost\r\n" + header
    _hold(6_000, lambda n: _said(at.http if n % 2 else at.ws, begun))


def nested(at: Place) -> None:
    """16 MB, or as many as are allowed, of empty arrays and of nested ones to each endpoint."""
    arrays, deep = b"[]," * 5_500_000, b"[" * 8_000_000 + b"]" * 8_000_000
    lines = b"\n".join([b'{"to":{"users":[' + b"[]," * 500 + b"]}}"] * 9_900)
    keys = b'{"to":{"users":[' + b"0," * 8_000_000
    sizes = {"/api/push/batch": MAX_BATCH_BYTES, "/api/push": 2_000_000, "/1/pushs": 1_000_000, "/1/push?uid=1": 65_536}
    _all(
        partial(_post, at, path, body[:size], NDJSON if path.endswith("batch") else JSON)
        for path, size in sizes.items()
        for body in (b"[" + arrays, deep, lines, keys)
    )


# ---------------------------------------------------------------- live-only streams, keys, names


def live_rooms(at: Place) -> None:
    """600,000 live-only rooms, each pushed to once."""
    ready()
    for n in range(6):
        rooms = [f"live-{n}-{m}" for m in range(100_000)]
        _post(at, "/api/push", json.dumps({"to": {"rooms": rooms}, "body": 1}).encode())
    gevent.sleep(3600)


def stored_rooms(at: Place) -> None:
    """Pushes to 100,000 rooms that are kept, again and again."""
    rooms = [f"kept-{m}" for m in range(100_000)]
    body = json.dumps({"to": {"rooms": rooms}, "body": 1}).encode()
    _all([lambda: _post(at, "/api/push", body)] * 4)


def live_keys(at: Place) -> None:
    """Keys of pushes to a live-only room, as fast as they are taken."""

    def one() -> None:
        lines = b"".join(
            b'{"to":{"rooms":["live-1"]},"body":1,"id":"%s"}\n' % secrets.token_hex(8).encode() for _ in range(5_000)
        )
        _post(at, "/api/push/batch", lines, NDJSON)

    _all([one] * 4)


def many_pushes(at: Place) -> None:
    """Small pushes as fast as they are taken."""
    lines = b"".join(b'{"to":{"users":[%d]},"body":1}\n' % (1_000 + n % 500) for n in range(10_000))
    _all([lambda: _post(at, "/api/push/batch", lines, NDJSON)] * 4)


def logins(at: Place) -> None:
    """Clients that come with 1,000 new rooms in one packet, live-only ones, and leave."""

    def one() -> None:
        prefix = secrets.token_hex(8)
        _login(at, 5, [f"live-{prefix}-{'n' * 30}{n}" for n in range(990)]).close()

    _all([one] * 8)


def new_rooms(at: Place) -> None:
    """A client that joins and leaves 400 ever new live-only rooms."""
    sock = _login(at, 5)
    gevent.spawn(_drain, sock)
    ready()
    for seq in range(2, 1 << 30):
        rooms = json.dumps({"rooms": [f"live-{'n' * 100}{seq // 2}-{n}" for n in range(400)]}).encode()
        sock.sendall(frame.encode(Packet(Op.LEAVE if seq % 2 else Op.JOIN, seq, frame.VERSION, rooms)))
        gevent.sleep(0.005)


# ---------------------------------------------------------------- connections


def silent(at: Place) -> None:
    """6,000 connections that say nothing."""
    _hold(6_000, lambda n: _connect((at.tcp, at.ws, at.http)[n % 3]))


def half_heads(at: Place) -> None:
    """6,000 connections with half a head."""
    _hold(6_000, lambda n: _said(at.http if n % 2 else at.ws, b"GET /sub HTTP/1.1\r\nHost: local"))


def half_packets(at: Place) -> None:
    """2,000 connections with all of the largest packet but its last byte."""
    packet = frame.encode(Packet(Op.AUTH, 1, 1, b"x" * (PACKET_BYTES - frame.HEADER_BYTES)))[:-1]
    _hold(2_000, lambda n: _said(at.tcp, packet))


def log_unread(at: Place) -> None:
    """Logins and more logins under `zim up -v`, whose output nobody reads."""
    _all([lambda: _login(at, secrets.randbelow(1 << 40)).close()] * 20)


# ---------------------------------------------------------------- peers


def _dealers(endpoint: str, count: int, batches: list[list[bytes]], kind: int = zmq.DEALER, rounds: int = 50) -> None:
    """Peers that send these, as fast as they are taken, and read nothing; after some rounds they come anew."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    ready()

    def one(number: int) -> None:
        while True:
            sock = context.socket(kind)
            sock.setsockopt(zmq.LINGER, 0)
            sock.setsockopt(zmq.SNDHWM, 2)
            sock.setsockopt(zmq.RCVHWM, 2)
            sock.connect(endpoint)
            for n in range(rounds):
                for message in batches[(number + n) % len(batches)]:
                    with gevent.Timeout(2.0, False):  # type: ignore[arg-type]
                        sock.send(message)
            sock.close()

    gevent.joinall([gevent.spawn(one, number) for number in range(count)])


def _junk() -> list[bytes]:
    """Frames of the largest size that are no message, and those that nearly are one."""
    size = MAX_MESSAGE_BYTES - 1_000
    strings = b"\xdd" + (size // 2).to_bytes(4, "big")
    return [
        b"\x91" * size,
        b"\xdd" + size.to_bytes(4, "big") + b"\x90" * size,
        b"\xdf" + (size // 2).to_bytes(4, "big") + b"\x01\x01" * (size // 2),
        b"\x91\x94\xa7publish\x01\x01\x01" + b"\x91\x94\xa41234" + strings + b"\xa1a" * (size // 2),
        b"\x91\x95\xa7changes\xa7comet-1\x01\x01" + strings + b"\x92\x01" * (size // 2),
        b"\x91\x93\xa8answered\x01\xa8router-1" + strings + b"\x90\x90" * (size // 2),
        b"\x91\x96\xa6submit\x01\xa0" + strings + b"\xa1a" * (size // 2),
    ]


def junk_router(at: Place) -> None:
    """Four peers with junk of 64 MiB a frame for a router."""
    _dealers(at.endpoints["router"], 4, [[junk] for junk in _junk()])


def junk_logic(at: Place) -> None:
    """The same for a logic."""
    _dealers(at.endpoints["logic"], 4, [[junk] for junk in _junk()])


def junk_pipes(at: Place) -> None:
    """The same for a job and a comet."""
    found = [[junk] for junk in _junk()]
    for kind in ("job", "comet"):
        gevent.spawn(_dealers, at.endpoints[kind], 2, found, zmq.PUSH)
    gevent.sleep(3600)


def identities(at: Place) -> None:
    """Peers that come with ever new names, ask one thing, and read nothing."""
    small = [[codec.encode([messages.AskTime("router-1", 1)])], [b"\xc1"]]
    _dealers(at.endpoints["router"], 200, small)


# ---------------------------------------------------------------- all


@dataclass(frozen=True)
class Attack:
    """One of them.

    Attributes:
        run: what does it.
        limits: what the limits let each kind of node hold, in bytes; none where nothing is to be held.
        settings: lines of the topology by kind of node.
        stops: the kind of node that is stopped for 2 s, again and again.
        is_unread: `zim up -v` writes into a pipe that nobody reads.
        holds_s: for how long its limit lets a node hold it after the end; the minute begins then.
    """

    run: Callable[[Place], None]
    limits: dict[str, int] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    stops: str = ""
    is_unread: bool = False
    holds_s: float = 0.0


# What a router keeps on purpose: the pages of its log that SQLite was at last, and where 100,000 streams stand.
CACHES = {"router": 70 * MIB}

_BEHIND = {
    "router": 64 * MIB + ADMITTED_BYTES + JOB_QUEUE_BYTES,
    "job": 16 * MIB,
    "comet": HELD_BYTES + 20 * MIB,
    "logic": ROUTER_QUEUE_BYTES,
}
_IN_ROOMS = {**_BEHIND, "comet": _BEHIND["comet"] + 1_500 * REQUEST_BYTES}  # each with a client in it
_READS = {
    "logic": MAX_ANSWERS_BYTES + 2 * HISTORIES * HISTORY_BYTES,  # messages, and their JSON
    "router": QUEUE_BYTES,
}

ATTACKS = {
    a.run.__name__ + (f"_stopped_{a.stops}" if a.stops else ""): a
    for a in (
        Attack(nothing),
        Attack(keys_unread, _BEHIND),
        Attack(keys_unread, _BEHIND, stops="comet"),
        Attack(rooms_unread, _IN_ROOMS, stops="comet"),
        Attack(rooms_unread, _IN_ROOMS, stops="job"),
        Attack(pongs, {"comet": 5 * MIB}),
        Attack(pongs_200, {"comet": 200 * MIB}),
        Attack(histories, _READS),
        Attack(pages, {"router": 20 * 16 * ANSWER_BYTES}),
        Attack(histories_unread, _READS),
        Attack(receipts, {"logic": 1_000 * REQUEST_BYTES}),
        Attack(announced_16, {}),
        Attack(announced_200, {}),
        Attack(slow_bodies, {"logic": MAX_BODIES_BYTES}),
        Attack(heads, {"logic": 3_000 * MAX_HEAD_BYTES, "comet": 3_000 * MAX_HEAD_BYTES}),
        Attack(nested, {"logic": 16 * MAX_BATCH_BYTES}),
        Attack(live_rooms, {"router": 16 * MIB + ADMITTED_BYTES}, {"router": "keep_bytes = 16777216"}),
        Attack(stored_rooms, {"router": ADMITTED_BYTES, "logic": ROUTER_QUEUE_BYTES}),
        Attack(live_keys, {"router": LIVE_KEYS_BYTES + ADMITTED_BYTES, "logic": 4 * MAX_BATCH_BYTES}, holds_s=120.0),
        Attack(many_pushes, {"router": ADMITTED_BYTES, "logic": ROUTER_QUEUE_BYTES}),
        Attack(logins, {"router": 16 * MIB}, {"router": "keep_bytes = 16777216"}),
        Attack(new_rooms, {"router": 16 * MIB}, {"router": "keep_bytes = 16777216"}),
        Attack(silent, {"logic": 2_000 * REQUEST_BYTES, "comet": 4_000 * REQUEST_BYTES}),
        Attack(half_heads, {"logic": 3_000 * REQUEST_BYTES, "comet": 3_000 * REQUEST_BYTES}),
        Attack(half_packets, {"comet": 2_000 * PACKET_BYTES}),
        Attack(log_unread, {}, is_unread=True),
        Attack(junk_router, {"router": 5 * MAX_MESSAGE_BYTES}),
        Attack(junk_logic, {"logic": 5 * MAX_MESSAGE_BYTES}),
        Attack(junk_pipes, {"job": 3 * MAX_MESSAGE_BYTES, "comet": 3 * MAX_MESSAGE_BYTES}),
        Attack(identities, {}),
    )
}
