"""Requests that are hostile in their form, over real sockets: each is read in one way, and nobody else notices."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator

import gevent
import psutil
import pytest
from gevent import socket

from tests.harness import Client, Fabric, running, wait_until
from tests.integration.autobahn import encode_frame
from tests.integration.hostile_http import SMUGGLED, UPGRADES, answers
from tests.zim_client import ZimClient
from zim.fabric.limits import NAME_BYTES
from zim.json_text import MAX_DEPTH
from zim.net.http1 import MAX_HEADERS
from zim.protocol import frame
from zim.protocol.frame import Op, Packet


@pytest.fixture(scope="module")
def fabric() -> Iterator[Fabric]:
    with running(has_admin=True, logic={"http_timeout_s": 2.0}, comet={"handshake_timeout_s": 2.0}) as f:
        yield f
        assert "Traceback" not in f.log


@pytest.fixture(scope="module")
def bystander(fabric: Fabric) -> ZimClient:
    return ZimClient(fabric.tcp["comet-1"], "77")


@pytest.fixture(autouse=True)
def _nobody_is_disturbed(fabric: Fabric, bystander: ZimClient) -> Iterator[None]:
    yield
    serves(fabric, bystander)
    assert fabric.get("/api/streams/u%3A666?after=0")["head"] == 0, "a hidden push was taken"


def serves(fabric: Fabric, bystander: ZimClient) -> None:
    before = len(bystander.places("u:77"))
    assert fabric.push({"to": {"users": ["77"]}, "body": before})[0] == 200
    assert bystander.wait_for("u:77", before + 1)[-1][1] == b"%d" % before


@pytest.mark.parametrize("name", SMUGGLED)
def test_no_request_is_smuggled(fabric: Fabric, name: str) -> None:
    data, statuses = SMUGGLED[name]
    assert answers(fabric.http["logic-1"], data) == statuses


@pytest.mark.parametrize("node", ["logic-1", "comet-1", "router-1", "job-1"])
def test_admin_refuses_the_same(fabric: Fabric, node: str) -> None:
    """Its paths are others, and none takes a body: what a logic refuses it refuses, and nothing is answered twice."""
    for name, (data, statuses) in SMUGGLED.items():
        found = answers(fabric.admin[node], data)
        assert len(found) <= max(1, len(statuses)), name
        if not statuses or statuses[0] >= 400:
            assert all(status >= 400 for status in found), name


@pytest.mark.parametrize("name", UPGRADES)
def test_upgrades(fabric: Fabric, name: str) -> None:
    data, statuses = UPGRADES[name]
    assert answers(fabric.ws["comet-1"], data) == statuses


@pytest.mark.parametrize("name", SMUGGLED)
def test_a_comet_upgrades_none_of_these(fabric: Fabric, name: str) -> None:
    assert all(status >= 400 for status in answers(fabric.ws["comet-1"], SMUGGLED[name][0]))


JSON = b"POST /api/push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"


def pushed(document: bytes) -> bytes:
    return JSON % (len(document), document)


def nested(depth: int) -> bytes:
    """A push whose body is nested so deep, in a document that is one deeper."""
    return b'{"to":{"users":["1"]},"body":' + b"[" * depth + b"]" * depth + b"}"


def named(name: str) -> bytes:
    return json.dumps({"to": {"users": [name]}, "body": 1}).encode()


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


OVERSIZED: dict[str, tuple[bytes, list[int]]] = {
    "nested as deep as may be": (pushed(nested(MAX_DEPTH - 1)), [200]),
    "nested deeper": (pushed(nested(MAX_DEPTH)), [400]),
    "nested without end": (pushed(nested(30_000)), [400]),
    "nested and not closed": (pushed(b'{"to":' * 10_000), [400]),
    "the longest name": (pushed(named("n" * NAME_BYTES)), [200]),
    "a longer name": (pushed(named("n" * (NAME_BYTES + 1))), [400]),
    "the longest name in other letters": (pushed(named("é" * (NAME_BYTES // 2))), [200]),
    "a longer one": (pushed(named("é" * (NAME_BYTES // 2 + 1))), [400]),
    "a name of control characters": (pushed(named("a\u0000b")), [400]),
    "half a character": (pushed(named("\ud83d")), [400]),
    "no name": (pushed(named("")), [400]),
    "a number beyond 63 bits": (pushed(b'{"to":{"users":[9223372036854775808]},"body":1}'), [400]),
    "a number of 5,000 digits": (pushed(b'{"to":{"users":[%b]},"body":1}' % (b"9" * 5_000)), [400]),
    "a body that is a number of 5,000 digits": (pushed(b'{"to":{"users":[1]},"body":%b}' % (b"9" * 5_000)), [200]),
    "more recipients than may be": (pushed(b'{"to":{"users":[%b]},"body":1}' % b",".join([b"1"] * 100_001)), [413]),
    "a field 100,000 times": (pushed(b'{"to":{},' + b'"op":5,' * 100_000 + b'"body":1}'), [400]),
    "very many fields": (pushed(b"{" + b",".join(b'"f%d":1' % n for n in range(50_000)) + b"}"), [400]),
    "a key without end": (pushed(b'{"' + b"k" * 200_000 + b'":1}'), [400]),
    "a body that is too large": (pushed(b'{"to":{"users":[1]},"body":"%b"}' % (b"x" * 65_536)), [413]),
    "a long path": (get("/api/users/" + "x" * 30_000), [400]),
    "a longer path": (get("/api/users/" + "x" * 40_000), [414]),
    "a path of slashes": (get("/" * 30_000), [404]),
    "a path that goes up": (get("/api" + "/.." * 5_000), [404]),
    "a long query": (get("/api/rooms?limit=" + "1" * 20_000), [400]),
    "very many parameters": (get("/api/rooms?" + "&".join(f"p{n}=1" for n in range(3_000))), [400]),
    "as many headers as may be": (
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * (MAX_HEADERS - 1) + b"\r\n",
        [200],
    ),
    "a header more": (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * MAX_HEADERS + b"\r\n", [431]),
    "an idempotency key that is too long": (
        pushed(named("1")).replace(b"Host", b"Idempotency-Key: " + b"k" * 256 + b"\r\nHost"),
        [400],
    ),
    "a thousand requests at once": (get("/healthz") * 1_000, [200] * 1_000),
}


@pytest.mark.parametrize("name", OVERSIZED)
def test_what_is_too_large(fabric: Fabric, name: str) -> None:
    data, statuses = OVERSIZED[name]
    assert answers(fabric.http["logic-1"], data) == statuses


def connect(address: str) -> socket.socket:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


CHUNKED = JSON.split(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n"
WS_LOGIN = UPGRADES["as it should be"][0] + encode_frame(1, b'{"ver":1,"op":7,"seq":1,"body":7}', True, 0)
LOGIN = frame.encode(Packet(Op.AUTH, 1, 1, b"7"))
SLOW = {
    "http: a head": ("http", get("/healthz").removesuffix(b"\r\n") + b"X: y\r\n" * 500),
    "http: a body": ("http", pushed(b" " * 2_000)),
    "http: chunks": (
        "http",
        JSON.split(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n1\r\n" * 500,
    ),
    "ws: a head": ("ws", get("/sub").removesuffix(b"\r\n") + b"X: y\r\n" * 500),
    "ws: an auth": ("ws", UPGRADES["as it should be"][0] + encode_frame(1, b" " * 2_000, True, 0)),
    "tcp: an auth": ("tcp", frame.encode(Packet(Op.AUTH, 1, 1, b" " * 2_000))),
    "admin: a head": ("admin", get("/metrics").removesuffix(b"\r\n") + b"X: y\r\n" * 500),
}


@pytest.mark.parametrize("name", SLOW)
def test_a_hundred_who_send_a_byte_at_a_time(fabric: Fabric, bystander: ZimClient, name: str) -> None:
    """All are hung up on in the end, and meanwhile others are served."""
    kind, data = SLOW[name]
    address = {"http": fabric.http["logic-1"], "ws": fabric.ws["comet-1"], "tcp": fabric.tcp["comet-1"]}.get(
        kind, fabric.admin["comet-1"]
    )

    def drip() -> bool:
        with connect(address) as sock:
            try:
                for byte in data:
                    sock.sendall(bytes([byte]))
                    gevent.sleep(0.02)
            except OSError:
                return True
            return False

    dripping = [gevent.spawn(drip) for _ in range(100)]
    if kind == "admin":  # it has 10 s for a request
        serves(fabric, bystander)
        gevent.killall(dripping)
        return
    while any(not one.ready() for one in dripping):
        serves(fabric, bystander)
        gevent.sleep(0.1)
    assert all(one.get() for one in dripping)


def reset(sock: socket.socket) -> None:
    """Ends it with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


STORMS = {
    "http: nothing": ("http", b""),
    "http: half a head": ("http", get("/healthz")[:20]),
    "http: a request": ("http", get("/api/ledger") * 20),
    "http: half a body": ("http", pushed(b" " * 50_000)[:30_000]),
    "ws: nothing": ("ws", b""),
    "ws: an upgrade": ("ws", UPGRADES["as it should be"][0]),
    "ws: an auth": (
        "ws",
        UPGRADES["as it should be"][0] + encode_frame(1, b'{"ver":1,"op":7,"seq":1,"body":7}', True, 0),
    ),
    "tcp: an auth": ("tcp", LOGIN + frame.encode(Packet(Op.UPSTREAM, 1, 1, b"x"))),
    "tcp: half a packet": ("tcp", LOGIN[:10]),
    "admin: a request": ("admin", get("/metrics") * 5),
    "bind: half a greeting": ("bind", b"\xff" + bytes(8) + b"\x7f\3"),
}


@pytest.mark.parametrize("name", STORMS)
def test_a_storm_of_resets(fabric: Fabric, name: str) -> None:
    """Two hundred connections that are reset, most while they are answered: their files are closed, nobody stays."""
    kind, data = STORMS[name]
    node = "logic-1" if kind == "http" else "router-1" if kind == "bind" else "comet-1"
    address = {"http": fabric.http, "ws": fabric.ws, "tcp": fabric.tcp, "admin": fabric.admin, "bind": fabric.binds}[
        kind
    ]
    process = psutil.Process(fabric.pid(node))
    files = process.num_fds()
    for n in range(10):
        socks = [connect(address[node]) for _ in range(20)]
        for sock in socks:
            sock.sendall(data)
        gevent.sleep(0.005 * (n % 3))
        for sock in socks:
            reset(sock)
    wait_until(lambda: process.num_fds() <= files, "all are closed")
    wait_until(lambda: fabric.count("server") == {1: 1}, "only the bystander is there")


def test_who_says_that_nothing_more_comes_gets_an_answer(fabric: Fabric) -> None:
    """Half-closed: over HTTP the answers come; a client of a comet is gone."""
    assert answers(fabric.http["logic-1"], pushed(named("1")) * 3) == [200] * 3
    for is_ws in (False, True):
        client = Client((fabric.ws if is_ws else fabric.tcp)["comet-1"], "9", is_ws)
        client.say(Op.UPSTREAM, b"1", 5)
        client.socket.shutdown(socket.SHUT_WR)
        client.wait_closed()
        assert [packet.body for packet in client.packets] == [b"1"]
    wait_until(lambda: fabric.count("server") == {1: 1}, "only the bystander is there")
