"""What Publisher says in goim's API, to a real HTTP server that answers what the test says."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.unit.client.http_peer import Answer, Server, serving
from tests.unit.client.peers import WAIT_S, Connection, TcpPeer
from zim.client import AddressError, Publisher, PushError, PushRefused, PushUnavailable, PushUnknown


@contextmanager
def publishing(server: Server, **options: Any) -> Iterator[Publisher]:
    """A publisher that is closed at the end."""
    publisher = Publisher(f"http://{server.address}", **options)
    try:
        yield publisher
    finally:
        publisher.close()


@pytest.mark.parametrize(
    ("push", "path", "body"),
    [
        (lambda to: to.push_user(7, b"\xff\x00"), "/1/push?uid=7", b"\xff\x00"),
        (lambda to: to.push_user("a&b=c", "é"), "/1/push?uid=a%26b%3Dc", "é".encode()),
        (lambda to: to.push_room(1, b"{}"), "/1/push/room?rid=1", b"{}"),
        (lambda to: to.push_room(1, b"{}", ensure=True), "/1/push/room?rid=1&ensure=true", b"{}"),
        (lambda to: to.push_all(b""), "/1/push/all", b""),
        (lambda to: to.push_users([7, "8"], b'{"a" : 1.0e0}'), "/1/pushs", b'{"u":[7, 8],"m":{"a" : 1.0e0}}'),
    ],
)
def test_requests_are_goims(push: Callable[[Publisher], str], path: str, body: bytes) -> None:
    with serving() as server, publishing(server) as publisher:
        assert push(publisher) == "abc"
    assert server.requests == [(path, body)]


def test_goim_itself_names_no_push_id() -> None:
    with serving(Answer(headers={})) as server, publishing(server) as publisher:
        assert publisher.push_user(7, b"") == ""


def test_one_connection_serves_many_pushes() -> None:
    with serving() as server, publishing(server) as publisher:
        for number in range(20):
            publisher.push_user(7, b"%d" % number)
    assert [body for _, body in server.requests] == [b"%d" % number for number in range(20)]
    assert len(server.connections) == 1


def test_threads_have_a_connection_each() -> None:
    barrier = threading.Barrier(4)

    with serving() as server:
        publisher = Publisher(server.address)

        def run() -> None:
            barrier.wait(WAIT_S)
            for _ in range(10):
                publisher.push_all(b"1")
            barrier.wait(WAIT_S)
            publisher.close()

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
    assert len(server.requests) == 40
    assert len(server.connections) == 4


def test_a_connection_that_the_server_closed_is_not_used_again() -> None:
    with serving(Answer(then_hang_up=True)) as server, publishing(server) as publisher:
        publisher.push_user(7, b"1")
        assert server.hung_up.wait(WAIT_S)
        publisher.push_user(7, b"2")
    assert [body for _, body in server.requests] == [b"1", b"2"]


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (Answer(503, b'{"ret":65535}', {"Retry-After": "2"}), PushUnavailable, "try again in 2 s"),
        (Answer(503, b'{"ret":65535}', {"Retry-After": "soon"}), PushUnavailable, "try again soon"),
        (Answer(504, b'{"ret":65535}'), PushUnknown, "does not know whether"),
        (Answer(413, b"too large"), PushRefused, r"too large \(4 bytes, 413\).*max_body_bytes"),
        (Answer(200, b'{"ret":65535}'), PushRefused, "ret 65535: a uid is a number such as 7, not 'x'"),
        (Answer(404, b"404 page not found\n"), PushRefused, "HTTP 404 .* logic node's HTTP port"),
        (Answer(200, b"<html>"), PushRefused, "no answer of goim's"),
        (Answer(200, b'{"ret":true}'), PushRefused, "no answer of goim's"),
        (Answer(200, b"[" * 100_000), PushRefused, "no answer of goim's"),
        (None, PushUnknown, "hung up before it answered"),
    ],
)
def test_errors_say_what_is_wrong(answer: Answer | None, error: type[PushError], text: str) -> None:
    with serving(answer) as server, publishing(server) as publisher:
        with pytest.raises(error, match=text) as caught:
            publisher.push_user("x", b"body")
        assert caught.value.status == (answer.status if answer else 0)
        assert publisher.push_user(7, b"the next one") == "abc"


def test_retry_after_is_a_fact() -> None:
    answer = Answer(503, b"", {"Retry-After": "2"})
    with serving(answer) as server, publishing(server) as publisher, pytest.raises(PushUnavailable) as caught:
        publisher.push_all(b"")
    assert caught.value.retry_after_s == 2.0


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(PushUnavailable, match=f"nothing listens on {address}; is the fabric up"):
        Publisher(address).push_user(7, b"")


def test_a_server_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        publisher = Publisher(f"127.0.0.1:{server.getsockname()[1]}", timeout_s=0.05)
        with pytest.raises(PushUnknown, match=r"no answer from .* in 0.05 s"):
            publisher.push_user(7, b"")


@pytest.mark.parametrize(
    ("said", "error", "text"),
    [
        (b"\xff" + bytes(8) + b"\x7f", PushUnavailable, "a ZeroMQ port answers there; HTTP is on a logic's `http`"),
        (b"SSH-2.0", PushUnknown, "what answers there is not HTTP; HTTP is on a logic's `http`; it is not known"),
        (b"HTTQ", PushUnknown, "what answers there is not HTTP"),
    ],
)
def test_what_is_not_http_is_told_at_once(said: bytes, error: type[PushError], text: str) -> None:
    def script(peer: Connection) -> None:
        peer.socket.sendall(said)
        while peer.socket.recv(4096):
            pass

    with TcpPeer(script) as peer, pytest.raises(error, match=re.escape(text)):
        Publisher(peer.address, timeout_s=10 * WAIT_S).push_user(7, b"")


def test_who_is_hung_up_on_without_a_word_is_asked_for_the_port_unless_it_has_answered_before() -> None:
    hint = "if that is a comet's `tcp`, HTTP is on a logic's `http`"
    with serving(None, Answer(), None) as server, publishing(server) as publisher:
        for is_told in (True, False):
            with pytest.raises(PushUnknown) as caught:
                publisher.push_user(7, b"")
            assert (hint in str(caught.value)) is is_told
            if is_told:
                publisher.push_user(7, b"")


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(PushUnavailable, match="no connection to"):
        Publisher("nowhere.invalid:80").push_user(7, b"")


@pytest.mark.parametrize(
    "url",
    ["https://a:1/path", "https://", "https://a:", "wss://a", "http://a:1/path", "a", "http://a", "", "http://a:1?x=1"],
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(AddressError):
        Publisher(url)


@pytest.mark.parametrize(("uids", "body"), [(["x"], b"1"), ([1.5], b"1"), ([7], b"no json"), ([7], b"NaN"), ([7], b"")])
def test_what_several_users_cannot_be_sent(uids: list[int | str], body: bytes) -> None:
    with pytest.raises(PushRefused):
        Publisher("127.0.0.1:1").push_users(uids, body)


def test_uids_keep_their_value() -> None:
    with serving() as server, publishing(server) as publisher:
        publisher.push_users(["+7", "007", -5], b"1")
    assert json.loads(server.requests[0][1]) == {"u": [7, 7, -5], "m": 1}


def test_a_key_is_needed() -> None:
    why = pytest.raises(PushRefused, match=r"^refused \(401\): an API key is needed")
    with serving(Answer(401, b'{"ret":65535}')) as server, publishing(server) as publisher, why:
        publisher.push_user(7, b"1")
