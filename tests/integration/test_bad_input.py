"""What strangers send: each closes at most its own connection, disturbs nobody, leaks nothing, prints no traceback."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import gevent
import psutil
import pytest
from gevent import socket
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.harness import Client, Fabric, running, wait_until
from zim.protocol import frame
from zim.protocol.frame import Op, Packet

MAX_PACKET = 4_096


@pytest.fixture(scope="module")
def fabric() -> Iterator[Fabric]:
    keys = {"handshake_timeout_s": 1.0, "heartbeat_s": 3.0, "max_packet_bytes": MAX_PACKET}
    with running(comet=keys, logic={"http_timeout_s": 1.0}, fabric={"max_body_bytes": 10_000}) as f:
        yield f
        assert "Traceback" not in f.log


@pytest.fixture(scope="module")
def bystander(fabric: Fabric) -> Iterator[Client]:
    client = Client(fabric.tcp["comet-1"], "77")

    def beat() -> None:
        while True:
            client.say(Op.HEARTBEAT)
            gevent.sleep(1)

    greenlet = gevent.spawn(beat)
    yield client
    greenlet.kill()


@pytest.fixture(autouse=True)
def _nobody_is_disturbed(fabric: Fabric, bystander: Client) -> Iterator[None]:
    yield
    before = len(bystander.bodies)
    fabric.post("/1/push?uid=77", b"still there?")
    wait_until(lambda: len(bystander.bodies) == before + 1, "the bystander is served")
    assert bystander.bodies[-1] == b"still there?"


def send_frames(client: Client, *frames: tuple[bytes, int, bool]) -> None:
    """Frames in a row, each body, opcode and FIN."""
    for body, opcode, fin in frames:
        client.frame(body, opcode, fin=fin)


def tcp_header(length: int, header: int = 16, op: int = Op.AUTH) -> bytes:
    return struct.pack(">ihhii", length, header, 1, op, 1)


BAD_TCP = {
    "garbage": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "zeros": bytes(64),
    "negative length": tcp_header(-1),
    "smallest length": tcp_header(-(1 << 31)),
    "length below the header": tcp_header(8),
    "too large": tcp_header(MAX_PACKET + 1),
    "huge": tcp_header((1 << 31) - 1),
    "wrong header length": tcp_header(17, 15) + b"1",
    "negative header length": tcp_header(17, -16) + b"1",
    "unknown op before auth": tcp_header(16, op=77),
    "heartbeat before auth": tcp_header(16, op=Op.HEARTBEAT),
    "unknown op": frame.encode(Packet(Op.AUTH, 1, 1, b"5")) + frame.encode(Packet(77)),
    "negative op": frame.encode(Packet(Op.AUTH, 1, 1, b"5")) + frame.encode(Packet(-1)),
    "a second auth": frame.encode(Packet(Op.AUTH, 1, 1, b"5")) + frame.encode(Packet(Op.AUTH, 1, 1, b"6")),
    "a push from a client": frame.encode(Packet(Op.AUTH, 1, 1, b"5")) + frame.encode(Packet(Op.PUSH)),
}


@pytest.mark.parametrize("data", BAD_TCP.values(), ids=BAD_TCP.keys())
def test_tcp_that_breaks_the_wire_is_closed(fabric: Fabric, data: bytes) -> None:
    client = Client(fabric.tcp["comet-1"], None)
    client.send(data)
    client.wait_closed(5.0)


def test_the_largest_packet_is_fine(fabric: Fabric) -> None:
    client = Client(fabric.tcp["comet-1"], "5")
    body = bytes(MAX_PACKET - 16)
    client.say(Op.UPSTREAM, body, seq=9)
    assert client.wait(1)[0] == Packet(Op.PUSH, 9, 1, body)
    client.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=300), max_size=4))
def test_any_bytes_over_tcp(fabric: Fabric, pieces: list[bytes]) -> None:
    client = Client(fabric.tcp["comet-1"], None)
    for piece in pieces:
        client.send(piece)
    client.close()


BAD_WS: dict[str, tuple[int, Callable[[Client], object]]] = {
    # name: (close code, 0 where goim v1 closes without a close frame; what the client does after auth)
    "not JSON": (0, lambda c: c.frame(b"{oops")),
    "an array": (0, lambda c: c.frame(b"[]")),
    "op is text": (0, lambda c: c.frame(b'{"op":"2"}')),
    "op is a fraction": (0, lambda c: c.frame(b'{"op":2.5}')),
    "op beyond int32": (0, lambda c: c.frame(b'{"op":4294967298}')),
    "deep nesting": (0, lambda c: c.frame(b'{"op":2,"body":' + b"[" * 3000)),
    "unknown op": (0, lambda c: c.say(77)),
    "a second auth": (0, lambda c: c.say(Op.AUTH, b"6")),
    "binary frame": (1003, lambda c: c.frame(frame.encode(Packet(Op.HEARTBEAT)), opcode=2)),
    "invalid UTF-8": (1007, lambda c: c.frame(b'{"op":4,"body":"\xff\xfe"}')),
    "a packet in a text frame": (1007, lambda c: c.frame(frame.encode(Packet(Op.HEARTBEAT, 0, 0, b"\xff")))),
    "unmasked": (1002, lambda c: c.frame(b'{"op":2}', is_masked=False)),
    "reserved bits": (1002, lambda c: c.frame(b"", opcode=0x41)),
    "unknown opcode": (1002, lambda c: c.frame(b"", opcode=3)),
    "unknown control opcode": (1002, lambda c: c.frame(b"", opcode=11)),
    "fragmented ping": (1002, lambda c: c.frame(b"x", opcode=9, fin=False)),
    "large ping": (1002, lambda c: c.frame(b"x" * 126, opcode=9)),
    "continuation of nothing": (1002, lambda c: c.frame(b"x", opcode=0)),
    "text within text": (1002, lambda c: send_frames(c, (b"{", 1, False), (b"}", 1, True))),
    "too large": (1009, lambda c: c.frame(b"x" * (MAX_PACKET + 1))),
    "huge length": (1009, lambda c: c.send(bytes([0x81, 0xFF]) + (1 << 62).to_bytes(8, "big") + b"mask")),
    "too large in fragments": (
        1009,
        lambda c: send_frames(c, (b"x", 1, False), *[(b"x" * 1000, 0, False)] * 5),
    ),
    "close code 999": (1002, lambda c: c.frame((999).to_bytes(2, "big"), opcode=8)),
    "close reason not UTF-8": (1007, lambda c: c.frame((1000).to_bytes(2, "big") + b"\xff", opcode=8)),
    "close with one byte": (1002, lambda c: c.frame(b"x", opcode=8)),
}


@pytest.mark.parametrize(("code", "do"), BAD_WS.values(), ids=BAD_WS.keys())
def test_websocket_that_breaks_the_wire_is_closed(fabric: Fabric, code: int, do: Callable[[Client], object]) -> None:
    client = Client(fabric.ws["comet-1"], "5", is_ws=True)
    do(client)
    assert client.wait_closed(5.0) == code


def test_fragments_and_control_frames_between_them_are_fine(fabric: Fabric) -> None:
    client = Client(fabric.ws["comet-1"], "5", is_ws=True)
    client.frame(b'{"ver":1,"op":4,', fin=False)
    client.frame(b"ping", opcode=9)
    client.frame(b'"seq":3,"body":', opcode=0, fin=False)
    client.frame(b"", opcode=10)
    client.frame(b'"\xc3', opcode=0, fin=False)  # é, cut in two
    client.frame(b'\xa9"}', opcode=0)
    assert client.wait(2) == [Packet(-10, 0, 0, b"ping"), Packet(Op.PUSH, 3, 1, '"é"'.encode())]
    client.frame((1000).to_bytes(2, "big") + b"bye", opcode=8)
    assert client.wait_closed(5.0) == 1000


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 15), st.binary(max_size=200)), max_size=4))
def test_any_frames_over_websocket(fabric: Fabric, frames: list[tuple[bool, int, bytes]]) -> None:
    client = Client(fabric.ws["comet-1"], None, is_ws=True)
    for fin, opcode, body in frames:
        client.frame(body, opcode, fin=fin)
    client.close()


BAD_UPGRADES = {
    "another path": (b"GET /other HTTP/1.1\r\n", b"404"),
    "another method": (b"POST /sub HTTP/1.1\r\n", b"405"),
    "HTTP/1.0": (b"GET /sub HTTP/1.0\r\n", b"400"),
    "garbage": (b"\xff\xfe\x00\r\n", b"400"),
    "another version": (b"GET /sub HTTP/1.1\r\nSec-WebSocket-Version: 8\r\n", b"426"),
    "negative Content-Length": (b"GET /sub HTTP/1.1\r\nContent-Length: -1\r\n", b"400"),
    "endless head": (b"GET /sub HTTP/1.1\r\n" + b"X-A: b\r\n" * 4000, b"431"),
    "endless line": (b"GET /" + b"x" * 80_000, b"414"),
    "large header": (b"GET /sub HTTP/1.1\r\nX-A: " + b"b" * 40_000 + b"\r\n", b"431"),
    "two hosts": (b"GET /sub HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"400"),
    "a body": (b"GET /sub HTTP/1.1\r\nContent-Length: 5\r\n", b"413"),
    "a push": (b"POST /1/push/all HTTP/1.1\r\nContent-Length: 5\r\n", b"404"),
    "a body and another method": (b"POST /sub HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", b"405"),
}


@pytest.mark.parametrize(("head", "status"), BAD_UPGRADES.values(), ids=BAD_UPGRADES.keys())
def test_broken_upgrades_get_an_answer(fabric: Fabric, head: bytes, status: bytes) -> None:
    with _connect(fabric.ws["comet-1"]) as s:
        s.sendall(
            head + b"Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert s.recv(4096).split(b" ")[1] == status


def test_no_byte_of_a_head_becomes_a_frame(fabric: Fabric) -> None:
    """Wherever a head that is too long is cut: behind 16 KiB a packet stood, which was read."""
    packet = b"\x81\xa0" + bytes(4) + b'{"ver":1,"op":7,"seq":1,"body":7}'[:32]
    for size in (15_000, 16_300, 16_384, 20_000, 32_700, 33_000):
        head = b"GET /sub HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        head += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-A: "
        head += b"b" * (size - len(head)) + packet.replace(b"\r", b"").replace(b"\n", b"") + b"\r\n\r\n"
        with _connect(fabric.ws["comet-1"]) as s:
            s.sendall(head)
            s.settimeout(1.0)
            answer = s.recv(4096)
            with suppress(TimeoutError):
                assert s.recv(4096) == b"", "a header was read as a frame"
        assert answer.split(b" ")[1] in (b"400", b"431", b"101")


def test_an_upgrade_without_a_host_is_refused_and_one_of_several_protocols_is_not(fabric: Fabric) -> None:
    rest = b"Connection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    rest += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    for head, status in (
        (b"Upgrade: websocket\r\n", b"400"),
        (b"Host: localhost\r\nUpgrade: h2c, WebSocket\r\n", b"101"),
    ):
        with _connect(fabric.ws["comet-1"]) as s:
            s.sendall(b"GET /sub HTTP/1.1\r\n" + head + rest)
            assert s.recv(4096).split(b" ")[1] == status


@pytest.mark.parametrize("key", [b"", b"short", b"&&&&", b"dGhlIHNhbXBsZSBub25jZQ"])
def test_upgrades_without_a_good_key_get_400(fabric: Fabric, key: bytes) -> None:
    with _connect(fabric.ws["comet-1"]) as s:
        s.sendall(
            b"GET /sub HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
        )
        assert s.recv(4096).split(b" ")[1] == b"400"


@pytest.mark.parametrize("start", [b"", b"\0", tcp_header(17)], ids=["nothing", "a byte", "half an auth packet"])
def test_slow_loris_on_tcp(fabric: Fabric, start: bytes) -> None:
    client = Client(fabric.tcp["comet-1"], None)
    client.send(start)
    client.wait_closed(5.0)


@pytest.mark.parametrize("start", [b"", b"GET /sub HT", b"GET /sub HTTP/1.1\r\nX-A: "])
def test_slow_loris_on_the_upgrade(fabric: Fabric, start: bytes) -> None:
    with _connect(fabric.ws["comet-1"]) as s:
        s.sendall(start)
        assert s.recv(4096) == b""


@pytest.mark.parametrize("start", [b"", b"\x81", b"\x81\x85mask{"], ids=["nothing", "a byte", "half a frame"])
def test_slow_loris_on_websocket(fabric: Fabric, start: bytes) -> None:
    client = Client(fabric.ws["comet-1"], None, is_ws=True)
    client.send(start)
    client.wait_closed(5.0)


@pytest.mark.parametrize(
    "start", [b"", b"POST /1/pu", b"POST /1/push?uid=1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"]
)
def test_slow_loris_on_http(fabric: Fabric, start: bytes) -> None:
    with _connect(fabric.http["logic-1"]) as s:
        s.sendall(start)
        while s.recv(4096):
            pass


def masked(text: bytes) -> bytes:
    """A text frame whose mask changes nothing."""
    assert len(text) < 126
    return bytes([0x81, 0x80 | len(text)]) + bytes(4) + text


UPGRADE = (
    b"GET /sub HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
BEAT = masked(b'{"ver":1,"op":2,"seq":1,"body":null}'.ljust(122))  # 128 bytes: a full read ends with a frame
FLOODS = {
    "tcp": ([frame.encode(Packet(Op.AUTH, 1, 1, b"5"))], frame.encode(Packet(Op.HEARTBEAT))),
    "ws": ([UPGRADE, masked(b'{"op":7,"body":5}')], BEAT),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_of_one_client_keeps_nobody_from_being_served(fabric: Fabric, bystander: Client, kind: str) -> None:
    greeting, piece = FLOODS[kind]
    address = (fabric.ws if kind == "ws" else fabric.tcp)["comet-1"].split(":")
    program = [sys.executable, str(Path(__file__).with_name("flooder.py")), *address]
    flooder = subprocess.Popen(
        [*program, ",".join(part.hex() for part in greeting), piece.hex(), "512"], stdout=subprocess.PIPE
    )
    assert flooder.stdout
    assert flooder.stdout.readline() == b"floods\n"
    try:
        for n in range(5):
            before = len(bystander.bodies)
            fabric.post("/1/push?uid=77", b"%d" % n)
            wait_until(lambda count=before + 1: len(bystander.bodies) == count, "it is served", 5.0)  # type: ignore[misc]
        assert flooder.poll() is None, "the flood goes on"
    finally:
        flooder.kill()
        flooder.wait()
        flooder.stdout.close()


def test_pings_are_no_auth(fabric: Fabric) -> None:
    client = Client(fabric.ws["comet-1"], None, is_ws=True)

    def ping() -> None:
        while not client.is_closed:
            client.frame(b"", opcode=9)
            gevent.sleep(0.05)

    greenlet = gevent.spawn(ping)
    client.wait_closed(5.0)
    greenlet.kill()


def test_who_is_silent_longer_than_the_heartbeat_is_closed(fabric: Fabric) -> None:
    tcp, ws = Client(fabric.tcp["comet-1"], "5"), Client(fabric.ws["comet-1"], "5", is_ws=True)
    half = Client(fabric.tcp["comet-1"], "5")
    for byte in tcp_header(16, op=Op.HEARTBEAT)[:15]:  # bytes are no sign of life, packets are
        half.send(bytes([byte]))
        gevent.sleep(0)
    tcp.wait_closed(8.0)
    assert ws.wait_closed(8.0) == 1001
    half.wait_closed(8.0)
    wait_until(lambda: fabric.count("server") == {1: 1}, "only the bystander is left")


BAD_HTTP = {
    "/1/push": 65535,
    "/1/push?uid=": 65535,
    "/1/push?uid=-5": 65535,
    "/1/push?uid=abc": 65535,
    "/1/push?uid=1.5": 65535,
    "/1/push?uid=9223372036854775808": 65535,
    "/1/push/room": 65535,
    "/1/push/room?rid=x": 65535,
    "/1/push/room?rid=4294967297": 65535,
    "/1/server/del": 65535,
    "/1/server/del?server=x": 65535,
    "/1/server/del?server=-1": 1,
}


@pytest.mark.parametrize(("path", "ret"), BAD_HTTP.items(), ids=BAD_HTTP.keys())
def test_parameters_that_cannot_be(fabric: Fabric, path: str, ret: int) -> None:
    assert fabric.request("POST", path, b"{}") == (200, {"ret": ret})


def test_bodies_over_the_limit(fabric: Fabric) -> None:
    assert fabric.request("POST", "/1/push?uid=77", b"x" * 10_001) == (413, {"ret": 65535})
    assert fabric.request("POST", "/1/push?uid=78", b"x" * 10_000) == (200, {"ret": 1})


def test_wrong_methods(fabric: Fabric) -> None:
    assert fabric.request("GET", "/1/push?uid=77")[0] == 405
    assert fabric.request("POST", "/1/count?type=room")[0] == 405


def test_a_client_that_never_reads_is_cut_off(fabric: Fabric) -> None:
    client = Client(fabric.tcp["comet-1"], "88")
    client.pause()
    body = b"x" * 10_000
    for _ in range(300):  # 30 MB: kernels take up to 10
        client.say(Op.HEARTBEAT)
        for _ in range(10):
            fabric.post("/1/push?uid=88", body)
        if "slow consumer uid=88" in fabric.log:
            break
    wait_until(lambda: "slow consumer uid=88" in fabric.log, "it is cut off")
    wait_until(lambda: fabric.count("server") == {1: 1}, "it is gone")


def test_nothing_leaks(fabric: Fabric) -> None:
    comet = psutil.Process(fabric.pid("comet-1"))

    def round_of_garbage() -> None:
        clients = [Client(fabric.tcp["comet-1"], None) for _ in range(50)]
        clients += [Client(fabric.ws["comet-1"], None, is_ws=True) for _ in range(50)]
        for client in clients:
            client.send(tcp_header(1 << 30) + b"x" * 2000)
            client.wait_closed()
            client.close()

    for _ in range(3):
        round_of_garbage()
    before, files = comet.memory_info().rss, comet.num_fds()
    for _ in range(10):
        round_of_garbage()
    assert comet.memory_info().rss - before < 2 << 20
    wait_until(lambda: comet.num_fds() <= files, "all sockets are closed")


def _connect(address: str) -> socket.socket:
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=10)
