"""The HTTP server against clients of every kind, over real sockets. What a client does wrong stays silent."""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
from collections.abc import Iterator
from io import BytesIO
from types import FrameType
from typing import Any

import gevent
import pytest
from gevent.event import Event
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.garbage import circles
from tests.unit.web.support import MAX_BODY_BYTES, Client, Recorder, ask, serving, wait_until
from zim.errors import NodeError
from zim.fabric.answers import Counts
from zim.net import http1
from zim.net.http1 import MAX_HEAD_BYTES, SMALL_BODY_BYTES, BodyLimits
from zim.web import server as server_module
from zim.web import server as web_server
from zim.web.app import create_app
from zim.web.server import READ_BYTES, HttpServer
from zim.web.v1 import max_request_bytes
from zim.web.wsgi import IS_GONE

LIMIT = max_request_bytes(MAX_BODY_BYTES)
TOO_LONG = MAX_HEAD_BYTES + READ_BYTES
PUSH = b"POST /1/push?uid=7 HTTP/1.1\r\nHost: zim\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: zim\r\n\r\n"
REFUSED = {"ret": 65535}
PIECES = [
    *(PUSH, HEALTH, b"Content-Length: 3\r\n\r\nabc", b"Connection: close\r\n", b"Expect: 100-continue\r\n"),
    *(b"Transfer-Encoding: chunked\r\n\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b"\r\n"),
    b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
]

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture
def client(server: HttpServer) -> Iterator[Client]:
    with Client(server) as client:
        yield client


@pytest.fixture
def hurried(hasty: HttpServer) -> Iterator[Client]:
    with Client(hasty) as client:
        yield client


def n_connections(server: HttpServer) -> int:
    assert server.pool is not None
    return len(server.pool)


def test_keep_alive_and_pipelining(client: Client, fabric: Recorder) -> None:
    bodies = [b"%d" % n for n in range(30)]

    client.send(b"".join(PUSH + b"Content-Length: %d\r\n\r\n%s" % (len(body), body) for body in bodies))

    # one reader for all: it may read ahead into the next answer
    stream = client.socket.makefile("rb")
    for _ in bodies:
        assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
        headers = http.client.parse_headers(stream)
        assert stream.read(int(headers["Content-Length"])) == b'{"ret":1}'
        assert "Connection" not in headers
    stream.close()
    assert [body for _, body in fabric.published] == bodies


def test_a_request_in_pieces(client: Client, fabric: Recorder) -> None:
    for byte in PUSH + b"Content-Length: 3\r\n\r\nabc":
        client.send(bytes([byte]))
        gevent.sleep(0)

    assert client.receive().status == 200
    assert fabric.published == [(["u:7"], b"abc")]


def test_http_10(client: Client) -> None:
    client.send(b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert client.receive().headers["connection"] == "keep-alive"

    client.send(b"GET /healthz HTTP/1.0\r\n\r\n")
    answer = client.rest()

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in answer


def test_connection_close(client: Client) -> None:
    client.send(HEALTH[:-2] + b"Connection: close\r\n\r\n")
    assert client.receive().headers["connection"] == "close"
    assert client.rest() == b""


def test_head_has_no_body(client: Client) -> None:
    client.send(HEALTH.replace(b"GET", b"HEAD") + HEALTH[:-2] + b"Connection: close\r\n\r\n")

    answers = client.rest()

    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert answers.count(b"Content-Length: 15\r\n") == 2
    assert answers.count(b'{"status":"ok"}') == 1


def test_continue(client: Client, fabric: Recorder) -> None:
    client.send(PUSH + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert client.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"

    client.send(b"abc")

    assert client.receive().status == 200
    assert fabric.published == [(["u:7"], b"abc")]


def test_no_continue_for_what_is_too_large(client: Client) -> None:
    client.send(PUSH + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % (LIMIT + 1))
    assert client.receive().status == 413


@pytest.mark.parametrize(
    "chunks",
    [
        b"3\r\nabc\r\n0\r\n\r\n",
        b"1\r\na\r\n02;x=y\r\nbc\r\n000\r\n\r\n",
        b"3\r\nabc\r\n0\r\nTrailer: dropped\r\nAnother: too\r\n\r\n",
    ],
)
def test_chunked(chunks: bytes, client: Client, fabric: Recorder) -> None:
    for _ in range(2):
        client.send(PUSH + b"Transfer-Encoding: Chunked\r\n\r\n" + chunks)
        assert client.receive().status == 200
    assert fabric.published == [(["u:7"], b"abc")] * 2


def test_many_chunks(client: Client, fabric: Recorder) -> None:
    client.send(PUSH + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * MAX_BODY_BYTES + b"0\r\n\r\n")
    assert client.receive().status == 200
    assert fabric.published == [(["u:7"], b"x" * MAX_BODY_BYTES)]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) + b"\n\r\n", 400),  # TLS
        (b"\x00" * 100 + b"\r\n\r\n", 400),
        (b"\xff\xfe\r\n\r\n", 400),
        (b"GET /healthz\r\n\r\n", 505),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (HEALTH[:-2] + b"\xc3\xa9: x\r\n\r\n", 400),
        (b"GET /" + b"x" * TOO_LONG + b" HTTP/1.1\r\n\r\n", 414),
        (HEALTH[:-2] + b"X: " + b"x" * TOO_LONG + b"\r\n\r\n", 431),
        (HEALTH[:-2] + b"X: y\r\n" * 101 + b"\r\n", 431),
        (HEALTH[:-2] + b"X: y\r\n" * MAX_HEAD_BYTES, 431),
        (b"\r\n" * MAX_HEAD_BYTES, 414),
        *(
            (PUSH + b"Content-Length: %s\r\n\r\n" % length, 400)
            for length in (b"-1", b"x", b"1, 2", b"", b"0x1", b"9" * 20)
        ),
        (PUSH + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (PUSH + b"Content-Length: %d\r\n\r\n" % (LIMIT + 1), 413),
        (PUSH + b"Content-Length: %d\r\n\r\n" % (1 << 50) + b"x" * 3_000_000, 413),
        *(
            (PUSH + b"Transfer-Encoding: chunked\r\n\r\n" + chunks, status)
            for chunks, status in [
                (b"xyz\r\n", 400),
                (b"-1\r\n", 400),
                (b"\r\n", 400),
                (b"1\r\nab\r\n", 400),
                (b"1" * 5_000, 400),
                (b"1;" + b"x" * TOO_LONG, 400),
                (b"f" * 15 + b"\r\n" + b"x" * (LIMIT + 1), 413),
                (b"0\r\n" + b"Trailer: x\r\n" * 101, 431),
                (b"0\r\nTrailer: " + b"x" * TOO_LONG, 400),
            ]
        ),
    ],
)
def test_bad_requests(request_bytes: bytes, status: int, server: HttpServer, fabric: Recorder) -> None:
    with Client(server) as other, Client(server) as client:
        other.send(PUSH)

        client.send(request_bytes)
        answer = client.receive()

        assert (answer.status, answer.json) == (status, REFUSED)
        assert answer.headers["connection"] == "close"
        assert client.rest() == b""
        assert fabric.published == []
        other.send(b"Content-Length: 1\r\n\r\nx")
        assert other.receive().status == 200


def test_a_body_over_the_limit_is_not_read(client: Client) -> None:
    client.send(PUSH + b"Content-Length: %d\r\n\r\n" % (1 << 40))
    assert client.receive().status == 413

    def send_without_end() -> None:
        while True:
            client.send(b"x" * 65_536)

    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        send_without_end()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=40)).map(b"".join), st.integers(1, 200))
def test_anything(server: HttpServer, sent: bytes, size: int) -> None:
    with Client(server) as client, contextlib.suppress(ConnectionError):  # it may hang up before the end
        for begin in range(0, len(sent), size):
            client.send(sent[begin : begin + size])
            gevent.sleep(0)
        client.socket.shutdown(socket.SHUT_WR)
        answers = client.rest()
        assert answers == b"" or answers.startswith(b"HTTP/1.1 ")
    wait_until(lambda: n_connections(server) == 0)
    assert server.bodies.n_bytes == 0


LARGE = PUSH + b"Content-Length: %d\r\n\r\n" % (SMALL_BODY_BYTES + 1)


@pytest.mark.parametrize("ends", ["whole", "leaves"])
def test_bodies_at_once_are_bounded(ends: str, server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "MAX_BODIES_BYTES", SMALL_BODY_BYTES + 1)
    with Client(server) as first:
        first.send(LARGE)
        for large in (LARGE, LARGE):  # what is announced takes nothing
            with Client(server) as other:
                other.send(large)
        assert ask(server, "POST", "/1/pushs", b" " * (SMALL_BODY_BYTES + 1)).status == 200
        first.send(b"x" * SMALL_BODY_BYTES)
        wait_until(lambda: server.bodies.n_bytes == SMALL_BODY_BYTES)

        chunk = b"%x\r\n%s\r\n" % (SMALL_BODY_BYTES + 1, b"x" * (SMALL_BODY_BYTES + 1))
        whole = LARGE + b"x" * (SMALL_BODY_BYTES + 1)
        for large in (whole, PUSH + b"Transfer-Encoding: chunked\r\n\r\n" + chunk):
            with Client(server) as second:
                second.send(large)
                answer = second.receive()
                assert (answer.status, answer.json, answer.headers["retry-after"]) == (503, REFUSED, "1")
                assert second.rest() == b""
        assert ask(server, "POST", "/1/push?uid=7", b"x" * MAX_BODY_BYTES).status == 200
        assert ask(server, "POST", "/1/pushs", b" " * SMALL_BODY_BYTES).status == 200
        if ends == "whole":
            first.send(b"x")
            assert first.receive().status == 413  # of the push, by the app

    wait_until(lambda: server.bodies.n_bytes == 0)
    assert ask(server, "POST", "/1/pushs", b" " * (SMALL_BODY_BYTES + 1)).status == 200


def test_answers_that_nobody_reads_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer to each is 4 MB: the kernels' buffers do not hold it."""
    size = 8 << 20
    monkeypatch.setattr(web_server, "MAX_ANSWERS_BYTES", size)
    gone: list[bool] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/gone":
            wait_until(environ[IS_GONE])
            gone.append(True)
        start_response("200 OK", [])
        return [b"x" * size if environ["PATH_INFO"] == "/large" else b"small"]

    server = HttpServer(app, ("127.0.0.1", 0), 5.0, BodyLimits(0))
    server.start()
    try:
        readers = [Client(server) for _ in range(8)]
        for reader in readers:
            reader.send(b"GET /large HTTP/1.1\r\nHost: zim\r\n\r\n")
        wait_until(lambda: server.bodies.answers_bytes > size)
        most = server.bodies.answers_bytes
        assert most <= 2 * size
        assert ask(server, "GET", "/small").status == 503
        assert ask(server, "POST", "/small", b"").status == 200
        for reader in readers:
            reader.socket.close()
        wait_until(lambda: server.bodies.answers_bytes == 0)
        assert ask(server, "GET", "/small").status == 200
        with Client(server) as client:
            client.send(b"GET /gone HTTP/1.1\r\nHost: zim\r\n\r\n")
            gevent.sleep(0.05)
            assert gone == []
        wait_until(lambda: gone == [True])
    finally:
        server.stop(1)


def test_a_body_is_held_until_it_is_answered(server: HttpServer, fabric: Recorder) -> None:
    fabric.may_publish.clear()
    with Client(server) as client:
        client.send((PUSH + b"Content-Length: 3\r\n\r\nabc") * 2)
        fabric.entered.wait()
        assert server.bodies.n_bytes == 6
        fabric.may_publish.set()

        assert client.receive().status == 200
        wait_until(lambda: server.bodies.n_bytes == 0)


def test_clients_wait_for_the_start(fabric: Recorder) -> None:
    server = HttpServer(create_app(fabric, 1), ("127.0.0.1", 0), 10, BodyLimits(1))
    with Client(server) as client:
        client.send(HEALTH)
        gevent.sleep(0.05)
        assert n_connections(server) == 0

        server.start()

        assert client.receive().status == 200
    server.stop()


@pytest.mark.parametrize(
    "begun",
    [b"G", b"GET /healthz HTTP/1.1\r\n", HEALTH[:-2], PUSH + b"Content-Length: 9\r\n\r\nhalf", b"\r\n"],
    ids=["line", "headers", "end", "body", "blank"],
)
def test_slow_requests(begun: bytes, hurried: Client, fabric: Recorder) -> None:
    hurried.send(begun)

    assert hurried.receive().status == 408
    assert hurried.rest() == b""
    assert fabric.published == []


@pytest.mark.parametrize("begun", [HEALTH[:-2], PUSH + b"Content-Length: 900\r\n\r\n"], ids=["head", "body"])
def test_a_trickle_does_not_extend_the_time(begun: bytes, hurried: Client) -> None:
    hurried.send(begun)

    def trickle() -> None:
        while True:
            hurried.send(b"x")
            gevent.sleep(0.02)

    trickling = gevent.spawn(trickle)
    assert hurried.receive().status == 408
    trickling.kill()


def test_idle_connections_end(hasty: HttpServer) -> None:
    with Client(hasty) as silent, Client(hasty) as idle:
        idle.send(HEALTH)
        assert idle.receive().status == 200

        assert silent.rest() == b""
        idle.send(HEALTH)  # who has asked something has more time for the next request
        assert idle.receive().status == 200
        assert idle.rest() == b""


def test_the_time_limit_ends_with_the_reading(hurried: Client, fabric: Recorder) -> None:
    fabric.may_publish.clear()
    hurried.send(PUSH + b"Content-Length: 1\r\n\r\nx")
    fabric.entered.wait()
    gevent.sleep(0.5)  # longer than the server waits for a client
    fabric.may_publish.set()

    assert hurried.receive().status == 200


def test_a_client_that_takes_no_answers(hasty: HttpServer, fabric: Recorder) -> None:
    fabric.known = Counts({str(n): 1 for n in range(20_000)}, {}, 0)
    with Client(hasty) as client:
        client.send(b"GET /1/count?type=room HTTP/1.1\r\nHost: zim\r\n\r\n" * 50)
        wait_until(lambda: n_connections(hasty) == 1)

        wait_until(lambda: n_connections(hasty) == 0)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET",
        HEALTH[:-2],
        PUSH + b"Content-Length: 9\r\n\r\nhalf",
        PUSH + b"Transfer-Encoding: chunked\r\n\r\n5\r\nx",
    ],
)
@pytest.mark.parametrize("is_reset", [False, True])
def test_a_client_that_leaves(sent: bytes, is_reset: bool, server: HttpServer, fabric: Recorder) -> None:
    with Client(server) as client:
        wait_until(lambda: n_connections(server) == 1)
        if is_reset:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.send(sent)

    wait_until(lambda: n_connections(server) == 0)
    assert fabric.published == []


def test_a_client_that_leaves_before_its_answer(server: HttpServer, fabric: Recorder) -> None:
    fabric.may_publish.clear()
    with Client(server) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.send(PUSH + b"Content-Length: 1\r\n\r\nx")
        fabric.entered.wait()
    fabric.may_publish.set()

    wait_until(lambda: n_connections(server) == 0)
    assert ask(server, "GET", "/healthz").status == 200


def test_accepted_sockets_have_nodelay(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Looking(server_module.HttpConnection):
        def _handle_request(self) -> bool:
            assert isinstance(self._socket, gevent.socket.socket)
            seen.append(self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            return super()._handle_request()

    monkeypatch.setattr(server_module, "HttpConnection", Looking)
    assert ask(server, "GET", "/healthz").status == 200
    assert all(seen)
    assert seen


def test_connections_are_bounded(fabric: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 2)
    with serving(fabric) as server, Client(server) as first, Client(server) as second, Client(server) as third:
        for client in (first, second):
            client.send(HEALTH)
            assert client.receive().status == 200
        third.send(HEALTH)
        assert n_connections(server) == 2

        first.socket.close()

        assert third.receive().status == 200


def test_servers_beside_each_other_share_their_limits(fabric: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 2)
    with serving(fabric) as one:
        other = HttpServer(create_app(fabric, 1), ("127.0.0.1", 0), 10, BodyLimits(1), beside=one)
        other.start()
        assert other.bodies is one.bodies
        with Client(one) as first, Client(other) as second, Client(other) as third, Client(one) as fourth:
            for client in (first, second):
                client.send(HEALTH)
                assert client.receive().status == 200
            third.send(HEALTH)
            fourth.send(HEALTH)
            assert n_connections(one) == n_connections(other) == 2
            first.socket.close()  # of one server: there is room in both
            second.socket.close()
            assert third.receive().status == 200
            assert fourth.receive().status == 200
        for server in (one, other):
            server.leave()
        for server in (one, other):
            server.stop(60)


def test_stop_hangs_up_on_idle_clients(fabric: Recorder) -> None:
    fabric.may_publish.clear()
    with serving(fabric) as server, Client(server) as idle, Client(server) as silent, Client(server) as busy:
        idle.send(HEALTH)
        assert idle.receive().status == 200
        busy.send(PUSH + b"Content-Length: 1\r\n\r\nx")
        fabric.entered.wait()
        wait_until(lambda: len(server.idle) == 2)

        stopping = gevent.spawn(server.stop, 60)

        assert idle.rest() == b""
        assert silent.rest() == b""
        assert not stopping.ready()
        fabric.may_publish.set()
        answer = busy.receive()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        stopping.get(timeout=20)
        with pytest.raises(ConnectionRefusedError):
            Client(server)


def test_a_port_in_use(server: HttpServer) -> None:
    assert isinstance(server.address, tuple)
    with pytest.raises(NodeError, match=rf"^http 127\.0\.0\.1:{server.address[1]} is in use already"):
        HttpServer(server.application, ("127.0.0.1", server.address[1]), 1, BodyLimits(1))


def test_answers_that_were_asked_for_together_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """All were taken while nothing waited yet. What was done is answered; what was only asked for is asked again."""
    size, go = 8 << 20, Event()
    monkeypatch.setattr(web_server, "MAX_ANSWERS_BYTES", size)
    entered: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        entered.append(environ["REQUEST_METHOD"])
        go.wait()
        start_response("200 OK", [])
        return [b"x" * size if environ["REQUEST_METHOD"] == "GET" else b"done"]

    server = HttpServer(app, ("127.0.0.1", 0), 5.0, BodyLimits(0))
    server.start()
    try:
        readers = [Client(server) for _ in range(8)]
        for reader in readers:
            reader.send(b"GET / HTTP/1.1\r\nHost: zim\r\n\r\n")
        pusher = Client(server)
        wait_until(lambda: len(entered) == 8)
        pusher.send(b"POST / HTTP/1.1\r\nHost: zim\r\nContent-Length: 0\r\n\r\n")
        wait_until(lambda: len(entered) == 9)
        go.set()
        assert pusher.receive().status == 200
        assert size < server.bodies.answers_bytes <= 2 * size + 10_000
        assert [reader.receive().status for reader in readers].count(503) >= 6
        for client in (pusher, *readers):
            client.socket.close()
    finally:
        server.stop(1)


def test_a_body_that_was_refused_is_not_kept(server: HttpServer) -> None:
    """It is found too large after some of it has come."""

    def once() -> None:
        with Client(server) as client:
            client.send(b"POST /1/push HTTP/1.1\r\nHost: zim\r\nTransfer-Encoding: chunked\r\n\r\n")
            client.send(b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n")
            with contextlib.suppress(OSError):
                client.send(b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n")
            assert client.receive().status == 413
        wait_until(lambda: n_connections(server) == 0)

    once()
    with circles() as left:
        once()
    assert [found for found in left if isinstance(found, FrameType | BytesIO)] == []


@pytest.mark.parametrize("what", ["GET /api/nothing", "PUT /1/push", "GET /nothing"])
def test_a_refusal_keeps_no_frames(server: HttpServer, what: str) -> None:
    """werkzeug leaves some small things of each request. Frames would keep all of it, its body too."""

    def once() -> None:
        method, path = what.split()
        ask(server, method, path)

    once()
    with circles() as left:
        once()
    assert [found for found in left if isinstance(found, FrameType)] == []
