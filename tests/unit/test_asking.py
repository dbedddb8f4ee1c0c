"""HTTP requests to others, against real servers: right ones, rude ones and slow ones."""

from __future__ import annotations

import gc
import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
import pytest
from gevent import socket
from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer
from gevent.server import StreamServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.harness import wait_until
from tests.tls_proxy import Signer
from tests.unit.client.peers import WAIT_S
from zim.asking import MAX_ANSWER_BYTES, HttpAsker, NotAnswered
from zim.errors import ZimError
from zim.topology.identity import Callout

SOON_S = 0.05  # for what never comes
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Application:
    """Answers what the test says.

    Attributes:
        status, headers, body: of the next answers.
        asked: method, path and body of each request; heads: its headers.
        clients: addresses that connections came from.
    """

    def __init__(self) -> None:
        self.status, self.body = "200 OK", b'{"user":"7"}'
        self.headers = [("Content-Type", "application/json")]
        self.asked: list[tuple[str, str, bytes]] = []
        self.heads: list[dict[str, str]] = []
        self.clients: set[tuple[str, str]] = set()
        self.may_go = Event()
        self.may_go.set()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        path = environ["PATH_INFO"] + (f"?{environ['QUERY_STRING']}" if environ["QUERY_STRING"] else "")
        self.asked.append((environ["REQUEST_METHOD"], path, environ["wsgi.input"].read()))
        self.heads.append({name: value for name, value in environ.items() if name.startswith(("HTTP_", "CONTENT_"))})
        self.clients.add((environ["REMOTE_ADDR"], environ["REMOTE_PORT"]))
        self.may_go.wait()
        start_response(self.status, [*self.headers, ("Content-Length", str(len(self.body)))])
        return [self.body]


@contextmanager
def serving(app: Application, context: Any = None, port: int = 0) -> Iterator[str]:
    """Where it listens, on this machine. At its end all connections end."""
    more = {"ssl_context": context} if context else {}
    server = WSGIServer(("127.0.0.1", port), app, log=None, error_log=None, spawn=Pool(), **more)
    server.start()
    try:
        yield f"{'https' if context else 'http'}://localhost:{server.server_port}/zim/connect"
    finally:
        app.may_go.set()
        server.stop(timeout=0)


@contextmanager
def saying(*parts: bytes, then_waits: bool = False, heard: list[str] | None = None) -> Iterator[str]:
    """A server that says these bytes to each connection, whatever it is asked, and hangs up or falls silent.

    Args:
        heard: takes "came" and "gone" for each connection.
    """
    heard = [] if heard is None else heard

    def serve(client: socket.socket, _: object) -> None:
        heard.append("came")
        with client:
            client.recv(1 << 16)
            for part in parts:
                client.sendall(part)
            if then_waits:
                while client.recv(1 << 16):
                    pass
                heard.append("gone")

    server = StreamServer(("127.0.0.1", 0), _quietly(serve))
    server.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.stop(timeout=0)


def _quietly(serve: Callable[[socket.socket, object], None]) -> Callable[[socket.socket, object], None]:
    """Who asked may be gone."""

    def run(client: socket.socket, address: object) -> None:
        try:
            serve(client, address)
        except OSError:
            client.close()

    return run


@pytest.fixture
def app() -> Application:
    return Application()


@pytest.fixture
def url(app: Application) -> Iterator[str]:
    with serving(app) as found:
        yield found


def why(url: str, timeout_s: float = WAIT_S, ca: Path | None = None) -> str:
    """What is asked and not answered."""
    with pytest.raises(NotAnswered) as caught:
        HttpAsker(url, ca).get(timeout_s)
    text = str(caught.value)
    assert text
    assert "object at 0x" not in text
    return text


# ---------------------------------------------------------------- right ones


def test_a_question_and_its_answer(app: Application, url: str) -> None:
    asker = HttpAsker(url)
    assert asker.post(b'{"token":"x"}', WAIT_S) == (200, b'{"user":"7"}')
    assert asker.get(WAIT_S) == (200, b'{"user":"7"}')
    assert app.asked == [("POST", "/zim/connect", b'{"token":"x"}'), ("GET", "/zim/connect", b"")]
    assert app.heads[0]["CONTENT_TYPE"] == app.heads[0]["HTTP_ACCEPT"] == "application/json"
    assert app.heads[0]["HTTP_USER_AGENT"] == "zim"


def test_a_url_is_asked_as_it_stands_with_its_query(app: Application, url: str) -> None:
    HttpAsker(url + "?a=b%20c&d").get(WAIT_S)
    assert app.asked == [("GET", "/zim/connect?a=b%20c&d", b"")]


@pytest.mark.parametrize("status", ["201 Created", "401 Unauthorized", "403 Forbidden", "404 Not Found", "500 Oh"])
def test_each_status_is_an_answer(app: Application, url: str, status: str) -> None:
    app.status, app.body = status, b"words"
    assert HttpAsker(url).get(WAIT_S) == (int(status[:3]), b"words")


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 Other", "307 Again", "308 For ever"])
def test_no_redirect_is_followed(app: Application, url: str, status: str) -> None:
    app.status, app.body, app.headers = status, b"", [("Location", url + "/elsewhere")]
    for found in (HttpAsker(url).get(WAIT_S), HttpAsker(url).post(b"{}", WAIT_S)):
        assert found == (int(status[:3]), b"")
    assert len(app.asked) == 2


def test_a_proxy_of_the_environment_is_not_used(app: Application, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert HttpAsker(url).get(WAIT_S)[0] == 200


def test_one_connection_serves_many_questions(app: Application, url: str) -> None:
    asker = HttpAsker(url)
    for body in (b"", b"x" * MAX_ANSWER_BYTES, b'{"user":"7"}'):
        app.body = body
        assert [asker.post(b"{}", WAIT_S) for _ in range(3)] == [(200, body)] * 3
    assert len(app.clients) == 1


def test_many_are_asked_at_once(app: Application, url: str, caplog: pytest.LogCaptureFixture) -> None:
    """As many as a topology without max_requests allows. That is nothing to be said in the log."""
    asker, count = HttpAsker(url), Callout().max_requests
    app.may_go.clear()
    asking = [gevent.spawn(asker.get, WAIT_S) for _ in range(count)]
    wait_until(lambda: len(app.asked) == count, "all are asked")
    app.may_go.set()
    assert [greenlet.get(timeout=WAIT_S) for greenlet in asking] == [(200, b'{"user":"7"}')] * count
    assert caplog.messages == []


def test_a_server_that_hangs_up_after_each_answer_is_asked_again() -> None:
    heard: list[str] = []
    with saying(OK, heard=heard) as url:
        asker = HttpAsker(url)
        for number in range(1, 4):
            assert asker.get(WAIT_S) == (200, b"ok")
            assert heard == ["came"] * number


def test_a_server_that_was_started_anew_is_asked_again(app: Application) -> None:
    with serving(app) as url:
        asker = HttpAsker(url)
        assert asker.get(WAIT_S)[0] == 200
    with pytest.raises(NotAnswered):
        asker.get(WAIT_S)
    with serving(app, port=urlsplit(url).port or 0):
        assert asker.get(WAIT_S)[0] == 200


def test_an_answer_in_pieces_is_put_together() -> None:
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\no\r\n", b"1\r\nk\r\n", b"0\r\n\r\n"
    with saying(*chunks, then_waits=True) as url:
        assert HttpAsker(url).get(WAIT_S) == (200, b"ok")
    with saying(b"HTTP/1.0 200 OK\r\n\r\no", b"k") as url:  # it ends with the connection
        assert HttpAsker(url).get(WAIT_S) == (200, b"ok")
    with saying(b"HTTP/1.1 100 Continue\r\n\r\n" + OK, then_waits=True) as url:
        assert HttpAsker(url).get(WAIT_S) == (200, b"ok")


# ---------------------------------------------------------------- large ones


def test_an_answer_has_a_limit(app: Application, url: str) -> None:
    asker = HttpAsker(url)
    app.body = b"x" * MAX_ANSWER_BYTES
    assert asker.get(WAIT_S) == (200, app.body)
    app.body += b"x"
    with pytest.raises(NotAnswered, match=f"an answer of more than {MAX_ANSWER_BYTES} bytes"):
        asker.get(WAIT_S)
    app.body = b"ok"
    assert asker.get(WAIT_S) == (200, b"ok")  # not what was left of the one before


@pytest.mark.parametrize(
    "head", [b"", b"Transfer-Encoding: chunked\r\n\r\n-1"], ids=["until it hangs up", "a chunk of -1"]
)
def test_an_answer_without_an_end_is_not_read_to_it(head: bytes) -> None:
    sent: list[int] = []

    def serve(client: socket.socket, _: object) -> None:
        with client:
            client.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
            while len(sent) < 2_000:
                client.sendall(b"x" * 65_536)
                sent.append(65_536)

    server = StreamServer(("127.0.0.1", 0), _quietly(serve))
    server.start()
    try:
        assert why(f"http://127.0.0.1:{server.server_port}/")
    finally:
        server.stop(timeout=0)
    assert sum(sent) < 64 << 20


def test_a_packed_answer_has_the_same_limit(app: Application, url: str) -> None:
    app.headers = [("Content-Encoding", "gzip")]
    app.body = gzip.compress(b"ok")
    assert HttpAsker(url).get(WAIT_S) == (200, b"ok")
    app.body = gzip.compress(bytes(200 << 20), 9)
    assert len(app.body) < MAX_ANSWER_BYTES
    assert "more than" in why(url)


# ---------------------------------------------------------------- rude ones


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\r\n\r\n",
        b"hello\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n",
        b"HTTP/1.1 200 " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nshort\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 100_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nshort\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nshort",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
    ids=lambda said: repr(said[:60]),
)
def test_what_is_no_answer_is_called_so(said: bytes) -> None:
    with saying(said) as url:
        assert why(url)


@pytest.mark.parametrize(
    "said",
    [
        b'{"token":"planted"}\r\n\r\n',
        b"HTTP/1.1 planted\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nplanted\r\n" + b"X: y\r\n" * 1_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nplanted\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 7, planted\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nplanted\r\nshort\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 7\r\n\r\nplanted",
    ],
    ids=lambda said: repr(said[:40]),
)
def test_what_came_is_not_quoted(said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """It may be what was asked, and a token in it."""
    text = ""
    with caplog.at_level("DEBUG"), saying(said) as url:
        try:
            HttpAsker(url).get(WAIT_S)
        except NotAnswered as e:
            text = str(e)
    assert "planted" not in text + caplog.text


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.binary(max_size=200)
    | st.tuples(
        st.sampled_from([b"HTTP/1.1 ", b"HTTP/1.0 ", b"HTTP/2 ", b""]),
        st.integers(0, 999).map(lambda status: b"%03d" % status),
        st.lists(
            st.sampled_from(
                [
                    b"Content-Length: 3",
                    b"Content-Length: -3",
                    b"Content-Length: 3, 4",
                    b"Content-Length: 99999999999999999999999",
                    b"Content-Length: x",
                    b"Transfer-Encoding: chunked",
                    b"Transfer-Encoding: x",
                    b"Content-Encoding: gzip",
                    b"Content-Encoding: deflate",
                    b"Content-Encoding: br",
                    b"Content-Encoding: zstd",
                    b"Content-Encoding: " + b"gzip, " * 20,
                    b"Connection: close",
                    b"Location: http://\xff",
                    b"Retry-After: \xff",
                    b"Set-Cookie: \0",
                    b"\xff: \xff",
                    b"no header",
                    b" more",
                ]
            ),
            max_size=3,
        ).map(b"\r\n".join),
        st.binary(max_size=20)
        | st.sampled_from(
            [b"-5\r\nabcde\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n", b"3;x=y\r\nabc\r\n0\r\nT: x\r\n\r\n"]
        ),
    ).map(lambda parts: parts[0] + parts[1] + b" OK\r\n" + parts[2] + b"\r\n\r\n" + parts[3])
)
def test_whatever_a_server_says_is_an_answer_or_none(said: bytes) -> None:
    with saying(said) as url, suppress(NotAnswered):
        status, body = HttpAsker(url).get(WAIT_S)
        assert 100 <= status <= 999
        assert len(body) <= MAX_ANSWER_BYTES


def test_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert "refused" in why(f"http://127.0.0.1:{bound.getsockname()[1]}/")


def test_a_name_that_nobody_has() -> None:
    assert why("http://nobody.invalid/")
    assert why(f"http://{'x' * 64}.example/")


# ---------------------------------------------------------------- slow ones


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ],
)
def test_who_falls_silent_has_not_answered_in_time(said: bytes) -> None:
    with saying(said, then_waits=True) as url:
        assert why(url, SOON_S) == "no answer within 0.05 s"


def test_who_says_a_byte_now_and_then_has_not_answered_in_time() -> None:
    """The time is for the whole answer, not for each piece of it."""

    def serve(client: socket.socket, _: object) -> None:
        with client:
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while True:
                client.sendall(b"x")
                gevent.sleep(SOON_S / 10)

    server = StreamServer(("127.0.0.1", 0), _quietly(serve))
    server.start()
    try:
        assert why(f"http://127.0.0.1:{server.server_port}/", SOON_S) == "no answer within 0.05 s"
    finally:
        server.stop(timeout=0)


def test_a_late_answer_is_not_taken_for_that_to_the_next_question(app: Application, url: str) -> None:
    asker = HttpAsker(url)
    assert asker.get(WAIT_S)[0] == 200
    app.may_go.clear()
    app.body = b"late"
    with pytest.raises(NotAnswered, match="no answer within"):
        asker.get(SOON_S)
    app.may_go.set()
    app.body = b"next"
    assert asker.get(WAIT_S) == (200, b"next")


def test_nobody_else_waits_for_a_slow_one(app: Application, url: str) -> None:
    asker = HttpAsker(url)
    app.may_go.clear()
    slow = gevent.spawn(asker.get, WAIT_S)
    with saying(OK) as other:
        assert HttpAsker(other).get(WAIT_S) == (200, b"ok")
    assert not slow.ready()
    app.may_go.set()
    assert slow.get(timeout=WAIT_S)[0] == 200


def test_a_timeout_of_whoever_asks_is_that_ones_own() -> None:
    with saying(b"", then_waits=True) as url, gevent.Timeout(SOON_S) as mine:
        with pytest.raises(gevent.Timeout) as caught:
            HttpAsker(url).get(WAIT_S)
        assert caught.value is mine


# ---------------------------------------------------------------- certificates


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("signer"))


def test_a_certificate_of_whom_the_topology_names_is_believed(app: Application, signer: Signer) -> None:
    with serving(app, signer.context("localhost")) as url:
        asker = HttpAsker(url, signer.file)
        assert asker.post(b"{}", WAIT_S) == asker.post(b"{}", WAIT_S) == (200, b'{"user":"7"}')
    assert len(app.clients) == 1


def test_a_certificate_of_somebody_unknown_is_not_believed(app: Application, signer: Signer, tmp_path: Path) -> None:
    with serving(app, signer.context("localhost")) as url:
        for ca in (None, Signer(tmp_path).file):
            assert "certificate verify failed" in why(url, ca=ca)
    assert app.asked == []


def test_a_certificate_for_another_name_is_not_believed(app: Application, signer: Signer) -> None:
    with serving(app, signer.context("other.example.com")) as url:
        assert "localhost" in why(url, ca=signer.file)
    assert app.asked == []


def test_a_server_without_a_certificate_is_not_believed(app: Application, signer: Signer) -> None:
    with serving(app) as url:
        assert why(url.replace("http:", "https:"), ca=signer.file) == "no TLS is spoken there"
    assert app.asked == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_who_gives_up_hangs_up(scheme: str, signer: Signer) -> None:
    """Also if no garbage collector comes by: a node runs it seldom, and each socket would be open until then."""
    heard: list[str] = []
    gc.disable()
    try:
        with saying(b"", then_waits=True, heard=heard) as url:
            assert why(url.replace("http:", f"{scheme}:"), SOON_S, signer.file) == "no answer within 0.05 s"
            wait_until(lambda: heard == ["came", "gone"], "it hangs up", 1.0)
    finally:
        gc.enable()
        gc.collect()


def test_certificates_that_are_not_there_are_named(tmp_path: Path) -> None:
    for name, content in (("nowhere.pem", None), ("empty.pem", b""), ("no.pem", b"hello"), ("folder", None)):
        file = tmp_path / name
        if content is not None:
            file.write_bytes(content)
        if name == "folder":
            file.mkdir()
        with pytest.raises(ZimError, match=f"{file}: no certificates in PEM: .") as caught:
            HttpAsker("https://localhost/", file)
        assert not isinstance(caught.value, NotAnswered)
