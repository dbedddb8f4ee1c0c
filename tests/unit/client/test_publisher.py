"""What Publisher says in zim's own API, to a real HTTP server that answers what the test says."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.client.http_peer import Answer, Server, serving
from zim.client import (
    Accepted,
    AddressError,
    Publisher,
    Push,
    PushConflict,
    PushError,
    PushRefused,
    PushUnavailable,
    PushUnknown,
    Receipt,
)
from zim.client.pushes import encode_push, read_answer


@contextmanager
def publishing(*servers: Server, **options: Any) -> Iterator[Publisher]:
    """A publisher that does not try again, and is closed at the end."""
    with Publisher([server.address for server in servers], **{"retry_s": 0.0, **options}) as publisher:
        yield publisher


def accept(request: bytes) -> bytes:
    """Accepts every line of a request."""
    lines = [json.loads(line) for line in request.splitlines()]
    return b"".join(accepted(line["id"]) for line in lines)


def accepted(id: str, **streams: int) -> bytes:
    """The answer for one push."""
    return json.dumps({"id": "p" + id, "status": "accepted", "streams": streams}).encode() + b"\n"


def problem(status: int, title: str = "no", **more: Any) -> bytes:
    """A problem, as the answer or a line of it."""
    found = {"type": "urn:x", "title": title, "status": status, "detail": "because", **more}
    return json.dumps(found).encode() + b"\n"


def documents(server: Server) -> list[list[dict[str, Any]]]:
    """The lines of every request."""
    return [[json.loads(line) for line in body.splitlines()] for _, body in server.requests]


def test_a_push_and_its_answer() -> None:
    with serving(Answer(200, accepted("k", **{"u:7": 12, "r:a": 3}))) as server, publishing(server) as publisher:
        found = publisher.push(
            b"\xff", users=[7, "x"], rooms="a", keys="9_1", everybody=True, op=100, ttl_s=1.5, id="k"
        )
    assert found == Accepted("pk", {"u:7": 12, "r:a": 3})
    assert server.requests[0][0] == "/api/push"
    assert server.types == ["application/json"]
    assert documents(server) == [
        [
            {
                "to": {"users": ["7", "x"], "rooms": ["a"], "keys": ["9_1"], "everybody": True},
                "base64": base64.b64encode(b"\xff").decode(),
                "op": 100,
                "ttl_s": 1.5,
                "id": "k",
            }
        ]
    ]


RECEIPT = Receipt(
    "pk",
    targeted=2,
    delivered=1,
    gone=0,
    shed=0,
    expired=0,
    unknown=0,
    pending=1,
    offline=1,
    silent=[],
    hops_ms={},
    forgotten=[],
    offline_users=[],
)


@pytest.mark.parametrize(
    ("told", "receipt"), [(msgspec.to_builtins(RECEIPT), RECEIPT), ({"delivered": 1}, None), (None, None)]
)
def test_a_push_that_waits_has_a_receipt(told: Any, receipt: Receipt | None) -> None:
    answer = json.dumps({"id": "pk", "status": "accepted", "streams": {}, "receipt": told}).encode()
    with serving(Answer(200, answer)) as server, publishing(server) as publisher:
        assert publisher.push(b"", users=7, wait_s=2) == Accepted("pk", {}, receipt)
    ((line,),) = documents(server)
    assert line["wait_s"] == 2


def test_the_answer_may_take_as_long_as_it_was_asked_to() -> None:
    def late(request: bytes) -> bytes:
        time.sleep(0.5)
        return accept(request)

    with (
        serving(Answer(200, late), Answer(200, late)) as server,
        publishing(server, timeout_s=0.2) as publisher,
    ):
        assert publisher.push(b"", users=7, id="k", wait_s=30).push_id == "pk"
        with pytest.raises(PushUnknown, match=r"in 0\.2 s"):
            publisher.push(b"", users=7)


def test_every_push_has_a_key_of_its_own() -> None:
    with serving(Answer(200, accept), Answer(200, accept)) as server, publishing(server) as publisher:
        publisher.push("é", users=7)
        publisher.push("é", users=7)
    (first,), (second,) = documents(server)
    assert first["id"] != second["id"]
    assert {**first, "id": ""} == {"to": {"users": ["7"]}, "base64": "w6k=", "op": 5, "id": ""}
    assert len(server.connections) == 1


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (Answer(503, problem(503), {"Retry-After": "2"}), PushUnavailable, r"now \(503\): because"),
        (Answer(503, problem(503, "", detail="", retry_after_s=3), {}), PushUnavailable, "in 3 s"),
        (Answer(503, b"<html>", {"Retry-After": "never"}), PushUnavailable, "503.*soon"),
        (Answer(429, b""), PushUnavailable, "429"),
        (Answer(504, problem(504)), PushUnknown, r"accepted \(504\): because"),
        (Answer(500, problem(500)), PushUnknown, r"\(500\): because"),
        (Answer(422, problem(422, "conflict")), PushConflict, "^because$"),
        (Answer(400, problem(400, "bad")), PushRefused, r"refused \(400\): because"),
        (Answer(400, problem(400, expected="5")), PushRefused, r"refused \(400\): because; right is 5$"),
        (Answer(400, problem(400, "bad", detail="")), PushRefused, r"refused \(400\): bad$"),
        (Answer(413, problem(413)), PushRefused, "413"),
        (Answer(404, b"404 page not found\n"), PushRefused, "logic node's HTTP port"),
        (Answer(200, b"<html>"), PushUnknown, "not understood"),
        (Answer(200, b"[" * 100_000), PushUnknown, "not understood"),
        (Answer(200, b'{"id":5,"status":"accepted","streams":{}}'), PushUnknown, "not understood"),
        (Answer(200, b'{"id":"5","status":"accepted","streams":{"a":true}}'), PushUnknown, "not understood"),
        (Answer(204, b""), PushUnknown, "not understood"),
        (Answer(200, accepted("k"), missing_bytes=5, then_hang_up=True), PushUnknown, "hung up before it answered"),
        (None, PushUnknown, "hung up before it answered"),
    ],
)
def test_errors_say_what_is_wrong(answer: Answer | None, error: type[PushError], text: str) -> None:
    with serving(answer, Answer(200, accept)) as server, publishing(server) as publisher:
        with pytest.raises(error, match=text) as caught:
            publisher.push(b"", users=7, id="k")
        assert type(caught.value) is error
        assert caught.value.id == "k"
        assert publisher.push(b"", users=7, id="k").push_id == "pk"


@pytest.mark.parametrize("failure", [Answer(503, problem(503), {"Retry-After": "0"}), Answer(504, problem(504)), None])
def test_what_fails_is_tried_again_with_the_same_key(failure: Answer | None) -> None:
    with serving(failure, failure, Answer(200, accept)) as server, publishing(server, retry_s=60.0) as publisher:
        assert publisher.push(b"x", rooms="a").push_id
    (first,), (second,), (third,) = documents(server)
    assert first == second == third


def test_the_next_node_is_asked_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        nobody = f"127.0.0.1:{unused.getsockname()[1]}"
    with (
        serving(None) as one,
        serving(Answer(200, accept)) as two,
        Publisher([nobody, one.address, f"http://{two.address}"], retry_s=60.0) as publisher,
    ):
        assert publisher.push(b"x", rooms="a", id="k").push_id == "pk"
    assert documents(one) == documents(two)


def test_what_nobody_knows_stays_unknown() -> None:
    answers = (Answer(504, problem(504)), Answer(503, problem(503), {"Retry-After": "1000"}))
    with (
        serving(*answers) as server,
        publishing(server, retry_s=60.0) as publisher,
        pytest.raises(PushUnknown, match="an earlier attempt may have been accepted"),
    ):
        publisher.push(b"x", rooms="a")
    assert len(server.requests) == 2


def test_what_is_refused_is_not_tried_again() -> None:
    with (
        serving(Answer(400, problem(400))) as server,
        publishing(server, retry_s=60.0) as publisher,
        pytest.raises(PushRefused),
    ):
        publisher.push(b"x", rooms="a")
    assert len(server.requests) == 1


def test_nobody_is_no_recipient() -> None:
    with pytest.raises(PushRefused, match="to nobody"):
        Publisher("127.0.0.1:1").push(b"x")


@pytest.mark.parametrize("wait_s", [-1, 30.1, float("nan"), float("inf")])
def test_nobody_waits_that_long(wait_s: float) -> None:
    with pytest.raises(PushRefused, match="right is 0 to 30 seconds"):
        Publisher("127.0.0.1:1").push(b"x", users=7, wait_s=wait_s)


def test_no_address() -> None:
    with pytest.raises(AddressError):
        Publisher([])


def test_an_answer_without_end_is_left() -> None:
    with serving(Answer(200, b"x" * 100)) as server, publishing(server) as publisher:
        publisher._links[0]._max_answer_bytes = 50
        with pytest.raises(PushUnknown, match="more than 50 bytes"):
            publisher.push(b"x", rooms="a")


def test_a_batch_is_answered_in_its_order() -> None:
    def answer(request: bytes) -> bytes:
        found = accept(request).splitlines(keepends=True)
        return b"".join([found[0], problem(400), problem(422), *found[3:]])

    with serving(Answer(200, answer)) as server, publishing(server) as publisher:
        results = publisher.push_batch(Push(b"%d" % number, users=number, id=str(number)) for number in range(5))
    assert server.requests[0][0] == "/api/push/batch"
    assert server.types == ["application/x-ndjson"]
    assert [type(result) for result in results] == [Accepted, PushRefused, PushConflict, Accepted, Accepted]
    assert [result.push_id for result in results if isinstance(result, Accepted)] == ["p0", "p3", "p4"]
    assert [line["id"] for line in documents(server)[0]] == list("01234")


def test_only_the_lines_that_failed_are_sent_again() -> None:
    def first(request: bytes) -> bytes:
        found = accept(request).splitlines(keepends=True)
        return b"".join([found[0], problem(503), found[2], problem(504)])

    answers = (Answer(200, first), Answer(503, problem(503)), Answer(200, accept))
    with serving(*answers) as server, publishing(server, retry_s=60.0) as publisher:
        results = publisher.push_batch([Push(b"x", users=7, id=str(number)) for number in range(4)])
    assert [result.push_id for result in results if isinstance(result, Accepted)] == ["p0", "p1", "p2", "p3"]
    assert [[line["id"] for line in lines] for lines in documents(server)] == [list("0123"), list("13"), list("13")]


def test_a_batch_that_fails_as_a_whole_and_one_that_is_cut_short() -> None:
    pushes = [Push(b"x", users=7, id="a"), Push(b"x", users=7, id="b")]
    with (
        serving(Answer(413, problem(413)), Answer(200, accepted("a")), None) as server,
        publishing(server) as publisher,
    ):
        assert [type(result) for result in publisher.push_batch(pushes)] == [PushRefused, PushRefused]
        assert [type(result) for result in publisher.push_batch(pushes)] == [Accepted, PushUnknown]
        results = publisher.push_batch(pushes)
    assert [(type(result), result.id) for result in results if isinstance(result, PushError)] == [
        (PushUnknown, "a"),
        (PushUnknown, "b"),
    ]


def test_a_large_batch_goes_in_several_requests() -> None:
    answers = [Answer(200, accept)] * 20
    with serving(*answers) as server, publishing(server) as publisher:
        many = publisher.push_batch(Push(b"x", users=7) for _ in range(2500))
        large = publisher.push_batch(Push(bytes(100_000), users=7) for _ in range(3))
        wide = publisher.push_batch(Push(b"x", users=range(30_000)) for _ in range(2))
        assert publisher.push_batch([]) == []
    assert all(isinstance(result, Accepted) for result in [*many, *large, *wide])
    assert [len(lines) for lines in documents(server)] == [1000, 1000, 500, 1, 1, 1, 1, 1]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["id", "status", "streams", "title", "detail", "retry_after_s"])
ANSWERS = st.binary(max_size=50) | st.dictionaries(FIELDS, JSON | st.just("accepted")).map(
    lambda found: json.dumps(found).encode()
)


def test_what_is_said_to_plain_http_is_passed_on() -> None:
    said = b"TLS is spoken here: right is https:// or wss://\n"
    assert "TLS is spoken here" in str(read_answer(400, said, "k"))
    for other in (b"<html>Bad Request</html>", b"Bad\x1b[2J", b"x" * 300):
        assert "is this a logic node's HTTP port" in str(read_answer(400, other, "k"))


@given(st.integers(0, 999), ANSWERS)
def test_any_answer_is_a_verdict(status: int, text: bytes) -> None:
    found = read_answer(status, text, "k")
    assert isinstance(found, Accepted | PushError)
    assert str(found)


@given(
    st.binary(), st.lists(st.text() | st.integers(), min_size=1, max_size=3), st.integers(5, 1000), st.floats(0, 1e6)
)
def test_a_push_is_one_line(body: bytes, users: list[str | int], op: int, ttl_s: float) -> None:
    line = encode_push(Push(body, users=users, op=op, ttl_s=ttl_s), "k")
    assert b"\n" not in line
    found = json.loads(line)
    assert base64.b64decode(found["base64"]) == body
    assert found["to"]["users"] == [str(user) for user in users]
    assert (found["op"], found.get("ttl_s", 0)) == (op, ttl_s)


@pytest.mark.parametrize(("key", "ends"), [("", "Publisher takes one as api_key="), ("zim_" + "x" * 43, "because")])
def test_who_shows_no_key_is_told_how(key: str, ends: str) -> None:
    with serving(*[Answer(401, problem(401))] * 2) as server, publishing(server, api_key=key) as publisher:
        with pytest.raises(PushRefused) as caught:
            publisher.push(b"1", users=7, id="k")
        (found,) = publisher.push_batch([Push(b"1", users=7, id="k")])
    for error in (caught.value, found):
        assert isinstance(error, PushRefused)
        assert (error.status, error.id) == (401, "k")
        assert str(error).endswith(ends)
