"""zim's own API over real sockets: what is asked, what is kept, what is answered, and how problems are said."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import gevent
import msgspec
import pytest

from tests.unit.web.support import EPOCH, MAX_BODY_BYTES, ROUTERS, Answer, Client, Recorder, ask, receipt, router_of
from zim.fabric.answers import Place
from zim.fabric.limits import KEY_BYTES, NAME_BYTES, RECIPIENTS
from zim.fabric.tally import Tally
from zim.net.http1 import MAX_HEAD_BYTES
from zim.web.api import max_push_bytes
from zim.web.app import App
from zim.web.problems import KINDS
from zim.web.server import HttpServer

JSON = "Content-Type: application/json\r\n"
HERE, THERE = next(f"u:{n}" for n in range(9) if router_of(f"u:{n}") == ROUTERS[0]), "r:a"


def push(server: HttpServer, document: Any, headers: str = "") -> Answer:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return ask(server, "POST", "/api/push", body, JSON + headers)


def problem(answer: Answer) -> dict[str, Any]:
    """The answer's members; those of RFC 9457 are as they must be."""
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json
    assert document["status"] == answer.status
    [kind] = [kind for kind in KINDS if kind.type == document["type"]]
    assert document["title"] == kind.title
    assert document["detail"]
    return document


def test_a_push_to_any_mix(server: HttpServer, fabric: Recorder) -> None:
    to = {"users": [7, "7", "é", 8], "rooms": ["a", 1], "keys": ["7_12", "a_b_3", "9_4", "9_5"], "everybody": True}

    answer = push(server, {"to": to, "body": {"a": [1]}, "op": 1000, "ttl_s": 1.5, "id": "k"})

    streams = ["u:7", "u:é", "u:8", "u:a_b", "u:9", "r:a", "r:1", "*"]
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {"id": "push-1", "status": "accepted", "streams": dict.fromkeys(streams, 1)}
    [pushed] = fabric.pushes
    assert pushed.streams == streams
    assert (pushed.op, pushed.ttl_s, pushed.key) == (1000, 1.5, "k")
    assert pushed.only == ("a_b_3", "9_4", "9_5")


def test_null_is_absence(server: HttpServer, fabric: Recorder) -> None:
    nothing = dict.fromkeys(("base64", "op", "ttl_s", "id", "wait_s"))
    to = {"users": ["7"], "rooms": None, "keys": None, "everybody": None}

    assert push(server, {"to": to, "body": None, **nothing}).status == 200
    [pushed] = fabric.pushes
    assert (pushed.streams, pushed.body, pushed.op, pushed.ttl_s, pushed.key) == (["u:7"], b"null", 5, 0.0, "")
    assert push(server, b'{"to":{"users":["7"]},"id":null,"body":"\\ud83d"}').status == 200
    assert problem(push(server, {"to": None, "body": 1}))["key"] == "to"
    assert problem(push(server, {"to": {"users": None}, "body": 1}))["key"] == "to"
    assert problem(push(server, {"to": USER, "body": 1, "other": None}))["type"].endswith("unknown-field")
    for broken in (b'{"to":{"users":["7"]},"id":null,"body":1} x', b'{"to":{"users":["7"]},"id":null,"body":[1,}'):
        assert problem(push(server, broken))["type"].endswith("malformed-json")


def test_sessions_of_one_user_are_a_thousand(server: HttpServer, fabric: Recorder) -> None:
    keys = [f"7_{n}" for n in range(1, 1_001)]

    assert (
        push(server, {"to": {"keys": [*keys, "7_1", *(f"{n}_1" for n in range(100, 2_000))]}, "body": 1}).status == 200
    )
    found = problem(push(server, {"to": {"keys": [*keys, "7_1001"]}, "body": 1}))
    assert found["detail"] == "to.keys[1000]: more than 1,000 sessions of one user"
    assert push(server, {"to": {"users": [7], "keys": [*keys, "7_1001"]}, "body": 1}).status == 200  # all of them


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (b'"body": {"b": 1, "a" : 1e999} ', b'{"b": 1, "a" : 1e999}'),
        (b'"body":null', b"null"),
        (b'"body":""', b'""'),
        (b'"body":[' + b"9" * 900 + b"]", b"[" + b"9" * 900 + b"]"),
        ('"body":"é"'.encode(), '"é"'.encode()),
        (b'"base64":"AP8="', b"\x00\xff"),
        (b'"base64":""', b""),
        (
            b'"body":{"to":1,"id":2,"to":3,"body":{"users":1,"users":2}}',
            b'{"to":1,"id":2,"to":3,"body":{"users":1,"users":2}}',
        ),
    ],
)
def test_bodies(sent: bytes, body: bytes, server: HttpServer, fabric: Recorder) -> None:
    answer = push(server, b'{"to":{"users":["7"]},' + sent + b"}")

    assert answer.status == 200, answer.json
    assert fabric.published == [(["u:7"], body)]
    assert (fabric.pushes[0].op, fabric.pushes[0].ttl_s, fabric.pushes[0].key) == (5, 0, "")


USER = {"users": ["7"]}
FIELDS = ["to", "body", "base64", "op", "ttl_s", "id", "wait_s"]


@pytest.mark.parametrize(
    ("document", "key"),
    [
        ([], None),
        ({"body": 1}, "to"),
        ({"to": USER}, "body"),
        ({"to": USER, "body": 1, "base64": "AA=="}, "base64"),
        ({"to": {}, "body": 1}, "to"),
        ({"to": {"users": [], "everybody": False}, "body": 1}, "to"),
        ({"to": {"users": ["7", ""]}, "body": 1}, "to.users[1]"),
        ({"to": {"users": ["7\n"]}, "body": 1}, "to.users[0]"),
        ({"to": {"users": ["\0"]}, "body": 1}, "to.users[0]"),
        ({"to": {"users": ["\x85"]}, "body": 1}, "to.users[0]"),
        ({"to": {"users": ["é" * 128]}, "body": 1}, "to.users[0]"),
        ({"to": {"users": [-1]}, "body": 1}, "to.users[0]"),
        ({"to": {"users": [1 << 63]}, "body": 1}, "to.users[0]"),
        ({"to": {"users": [7.5]}, "body": 1}, "to.users[0]"),
        ({"to": {"users": [None]}, "body": 1}, "to.users[0]"),
        ({"to": {"users": "7"}, "body": 1}, "to.users"),
        ({"to": {"rooms": ["a", "*"]}, "body": 1}, "to.rooms[1]"),
        ({"to": {"keys": ["7"]}, "body": 1}, "to.keys[0]"),
        ({"to": {"keys": ["7_0"]}, "body": 1}, "to.keys[0]"),
        ({"to": {"keys": ["_1"]}, "body": 1}, "to.keys[0]"),
        ({"to": {"keys": [7]}, "body": 1}, "to.keys[0]"),
        ({"to": {"everybody": 1}, "body": 1}, "to.everybody"),
        ({"to": USER, "body": 1, "op": 4}, "op"),
        ({"to": USER, "body": 1, "op": 99}, "op"),
        ({"to": USER, "body": 1, "op": 254}, "op"),
        ({"to": USER, "body": 1, "op": 255}, "op"),
        ({"to": USER, "body": 1, "op": 1 << 31}, "op"),
        ({"to": USER, "body": 1, "op": "5"}, "op"),
        ({"to": USER, "body": 1, "ttl_s": 0}, "ttl_s"),
        ({"to": USER, "body": 1, "ttl_s": 1e9}, "ttl_s"),
        ({"to": USER, "body": 1, "id": ""}, "id"),
        ({"to": USER, "body": 1, "id": 7}, "id"),
        ({"to": USER, "body": 1, "id": "x" * (KEY_BYTES + 1)}, "id"),
        ({"to": USER, "body": 1, "id": "a\n"}, "id"),
        ({"to": {"keys": ["x" * (NAME_BYTES + 1) + "_1"]}, "body": 1}, "to.keys[0]"),
        ({"to": USER, "body": 1, "wait_s": 31}, "wait_s"),
        ({"to": USER, "base64": "AA"}, "base64"),
    ],
)
def test_wrong_values_are_named(document: Any, key: str | None, server: HttpServer, fabric: Recorder) -> None:
    said = problem(push(server, document))

    assert (said["status"], said["type"]) == (400, "urn:zim:problem:invalid-value")
    assert said.get("key") == key
    assert said["expected"]
    assert key is None or said["detail"].startswith(key)
    assert fabric.pushes == []


@pytest.mark.parametrize(
    ("document", "key", "known"),
    [
        ({"to": USER, "body": 1, "too": 1}, "too", FIELDS),
        ({"to": {"user": 1}, "body": 1}, "to.user", ["users", "rooms", "keys", "everybody"]),
        ({"to": USER, "body": 1, 'a"b - at `$.x`': 1}, 'a"b - at `$.x`', FIELDS),
    ],
)
def test_unknown_fields_are_named(document: Any, key: str, known: list[str], server: HttpServer) -> None:
    said = problem(push(server, document))

    assert (said["status"], said["type"]) == (400, "urn:zim:problem:unknown-field")
    assert (said["key"], said["known"]) == (key, known)


@pytest.mark.parametrize(
    ("document", "at"),
    [
        (b"", (1, 1)),
        (b"\xef\xbb\xbf{}", (1, 1)),
        (b"{'to':1}", (1, 2)),
        (b'{"to": {"users": ["7"]},\n "body": NaN}', (2, 10)),
        (b'{"to": {"users": ["7"]},\n "body": 1, "ttl_s": Infinity}', (2, 22)),
        (b'{"to": {"users": ["7"]},\r\n "body": 01}', (2, 11)),
        (b'{"to": {"users": ["7"]},\n "body": "\xff"}', (2, 11)),
        (b'{"to": {"users": ["\xc3"]}, "body": 1}', (1, 20)),
        (b'{"to": {"users": ["7"]}, "body": 1} 2', (1, 37)),
        (b'{"to": {"users": ["7"]}, "body": 1', (1, 35)),
    ],
)
def test_what_is_not_json_is_shown_where(document: bytes, at: tuple[int, int], server: HttpServer) -> None:
    said = problem(push(server, document))

    assert (said["status"], said["type"]) == (400, "urn:zim:problem:malformed-json")
    assert (said["line"], said["column"]) == at


@pytest.mark.parametrize("surrogate", [b"\\ud800", b"\\udc00", b"\\ud800\\u0041"])
@pytest.mark.parametrize("where", [b'{"to":{"users":["%s"]},"body":1}', b'{"to":{"users":["7"]},"body":1,"id":"%s"}'])
def test_half_a_surrogate_pair_is_in_no_name(where: bytes, surrogate: bytes, server: HttpServer) -> None:
    assert problem(push(server, where % surrogate))["type"] == "urn:zim:problem:malformed-json"


@pytest.mark.parametrize("surrogate", [b"\\ud800", b"\\udc00", b"\\ud800\\u0041", b"\\ud83d\\ude00 \\uD83D"])
def test_half_a_surrogate_pair_passes_in_a_body(surrogate: bytes, server: HttpServer, fabric: Recorder) -> None:
    """As it stands: JavaScript's slice cuts emojis in half."""
    body = b'{"text": "%s", "n": 1.0e0}' % surrogate
    assert push(server, b'{"to":{"users":["7"]}, "body" : %s}' % body).status == 200
    assert fabric.published[-1] == (["u:7"], body)
    answer = ask(server, "GET", "/api/streams/u:7?after=0")
    assert body in answer.body
    assert push(server, b'{"to":{"users":["7"]},"body":%s,"body":1}' % body).status == 400


@pytest.mark.parametrize(("depth", "status"), [(64, 200), (65, 400)])
def test_nesting_has_one_limit(depth: int, status: int, server: HttpServer) -> None:
    nested = b"[" * (depth - 1) + b'"]]]"' + b"]" * (depth - 1)  # and the document around it
    assert push(server, b'{"to":{"users":["7"]},"body":%s}' % nested).status == status


@pytest.mark.parametrize(
    ("document", "key"),
    [
        (b'{"to":{"users":["7"]},"body":1,"body":2}', "body"),
        (b'{"to":{"users":["7"]},"to":{"users":["8"]},"body":1}', "to"),
        (b'{"to":{"users":["7"],"users":["8"]},"body":1}', "to.users"),
        (b'{"to":{"users":["7"],"u\\u0073ers":["8"]},"body":1}', "to.users"),
        (b'{"to":{"users":["7"]},"body":{"id":1},"id":"a","id":"b"}', "id"),
    ],
)
def test_fields_that_are_there_twice(document: bytes, key: str, server: HttpServer, fabric: Recorder) -> None:
    assert problem(push(server, document))["key"] == key
    assert fabric.pushes == []


@pytest.mark.parametrize("deep", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000])
def test_deep_nesting(deep: bytes, server: HttpServer) -> None:
    for document in (deep, b'{"to":{"users":["7"]},"body":' + deep + b"}", b'{"to":{"users":' + deep + b"}}"):
        assert problem(push(server, document))["status"] == 400


@pytest.mark.parametrize("number", [b"9" * 5_000, b"1e999", b"-1e999", b"1" * 400 + b".5"])
def test_huge_numbers(number: bytes, server: HttpServer) -> None:
    for field in (b"op", b"ttl_s", b"wait_s"):
        said = problem(push(server, b'{"to":{"users":["7"]},"body":1,"%s":%s}' % (field, number)))
        assert said["status"] == 400
    assert problem(push(server, b'{"to":{"users":[' + number + b']},"body":1}'))["status"] == 400


def test_body_limit(server: HttpServer, fabric: Recorder) -> None:
    fits, too_large = '"' + "x" * (MAX_BODY_BYTES - 2) + '"', '"' + "x" * (MAX_BODY_BYTES - 1) + '"'

    assert push(server, f'{{"to":{{"everybody":true}},"body":{fits}}}'.encode()).status == 200
    said = problem(push(server, f'{{"to":{{"everybody":true}},"body":{too_large}}}'.encode()))
    assert (said["status"], said["limit"], said["key"]) == (413, MAX_BODY_BYTES, "body")
    said = problem(push(server, {"to": {"everybody": True}, "base64": "AAAA" * MAX_BODY_BYTES}))
    assert (said["status"], said["key"]) == (413, "base64")
    assert fabric.published == [(["*"], fits.encode())]


def test_recipients_limit(server: HttpServer, fabric: Recorder) -> None:
    said = problem(push(server, {"to": {"users": [7] * RECIPIENTS, "rooms": [1]}, "body": 1}))

    assert (said["status"], said["limit"], said["key"]) == (413, RECIPIENTS, "to")
    uids = list(range(RECIPIENTS))
    assert push(server, {"to": {"users": uids}, "body": 1}).json["streams"] == {f"u:{uid}": 1 for uid in uids}


@pytest.mark.parametrize("headers", ["Content-Length: %d\r\n", "Transfer-Encoding: chunked\r\n"])
def test_a_request_over_its_limit_is_a_problem_too(headers: str, server: HttpServer) -> None:
    n = max_push_bytes(MAX_BODY_BYTES) + 1
    head = f"POST /api/push HTTP/1.1\r\nHost: zim\r\n{JSON}{headers % n if '%' in headers else headers}\r\n"
    with Client(server) as client:
        client.send(head.encode())
        if "%" not in headers:
            client.send(b"%x\r\n" % n + b" " * n)
        answer = client.receive()
        assert problem(answer)["status"] == 413
        assert answer.headers["connection"] == "close"


def test_broken_requests_are_problems_under_api_only(server: HttpServer, hasty: HttpServer) -> None:
    chunked = "POST {} HTTP/1.1\r\nHost: zim\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"
    for path in ("/api/push", "/api/nothing"):
        with Client(server) as client:
            client.send(chunked.format(path).encode())
            assert problem(client.receive())["type"] == "urn:zim:problem:broken-request"
    with Client(server) as client:
        client.send(chunked.format("/1/push").encode())
        assert client.receive().json == {"ret": 65535}
    with Client(server) as client:
        client.send(b"POST /api/push HTTP/1.1\r\nHost: zim\r\nX: " + b"x" * 3 * MAX_HEAD_BYTES)
        assert client.receive().status == 431
    with Client(hasty) as client:
        client.send(b"POST /api/push HTTP/1.1\r\nHost: zim\r\nContent-Length: 5\r\n\r\n")
        assert problem(client.receive())["status"] == 408


@pytest.mark.parametrize("headers", ["", "Content-Type: application/x-www-form-urlencoded\r\n", "Content-Type: ;\r\n"])
@pytest.mark.parametrize(
    ("path", "expected"), [("/api/push", "application/json"), ("/api/push/batch", "application/x-ndjson")]
)
def test_wrong_content_types(path: str, expected: str, headers: str, server: HttpServer, fabric: Recorder) -> None:
    said = problem(ask(server, "POST", path, b'{"to":{"users":[7]},"body":1}', headers))
    assert (said["status"], said["key"], said["expected"]) == (415, "Content-Type", expected)

    compressed = f"Content-Type: {expected}\r\nContent-Encoding: gzip\r\n"
    said = problem(ask(server, "POST", path, b'{"to":{"users":[7]},"body":1}', compressed))
    assert (said["status"], said["key"]) == (415, "Content-Encoding")
    assert fabric.pushes == []


def test_parameters_of_content_types(server: HttpServer) -> None:
    body = b'{"to":{"users":[7]},"body":1}'
    assert ask(server, "POST", "/api/push", body, "Content-Type: Application/JSON; charset=utf-8\r\n").status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "MERGE"])
@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("/api/push", {"POST"}),
        ("/api/push/batch", {"POST"}),
        ("/api/streams/u%3A7", {"GET", "HEAD"}),
        ("/api/users/7", {"GET", "HEAD"}),
        ("/api/users/7/unread", {"GET", "HEAD"}),
        ("/api/rooms", {"GET", "HEAD"}),
        ("/api/rooms/a", {"GET", "HEAD"}),
        ("/api/pushes/x", {"GET", "HEAD"}),
        ("/api/openapi.json", {"GET", "HEAD"}),
    ],
)
def test_wrong_methods(method: str, path: str, right: set[str], server: HttpServer) -> None:
    answer = ask(server, method, path)

    assert (answer.status == 405) == (method not in right)
    if answer.status == 405:
        assert set(answer.headers["allow"].split(", ")) == right
        assert method == "HEAD" or set(problem(answer)["allowed"]) == right


@pytest.mark.parametrize(
    "path",
    [
        *("/api/", "/api/push/", "/api/streams", "/api/streams/", "/api/streams/u:a/b", "/api/x"),
        *("/api/users", "/api/users/", "/api/users//unread", "/api/users/a/b/unread", "/api/users/7/sessions"),
        *("/api/rooms/", "/api/rooms/a/b", "/api/rooms%2Fa"),
    ],
)
def test_unknown_paths(path: str, server: HttpServer) -> None:
    assert problem(ask(server, "GET", path))["type"] == "urn:zim:problem:not-found"


@pytest.mark.parametrize(
    ("method", "path", "key", "known"),
    [
        ("POST", "/api/push?x=1", "x", []),
        ("POST", "/api/push/batch?x=1", "x", []),
        ("GET", "/api/streams/*?befor=1&limit=2", "befor", ["after", "limit"]),
        ("GET", "/api/users/7/unread?x=", "x", []),
        ("GET", "/api/users/7?x=1", "x", []),
        ("GET", "/api/rooms?after=1", "after", ["limit"]),
        ("GET", "/api/rooms/a?limit=1", "limit", []),
        ("GET", "/api/pushes/x?wait=1", "wait", ["wait_s"]),
        ("GET", "/api/openapi.json?x=1", "x", []),
    ],
)
def test_unknown_parameters(method: str, path: str, key: str, known: list[str], server: HttpServer) -> None:
    said = problem(ask(server, method, path))

    assert (said["status"], said["type"]) == (400, "urn:zim:problem:unknown-field")
    assert (said["key"], said["known"]) == (key, known)


@pytest.mark.parametrize("header", ["k 1", '"k 1"'])
def test_the_same_key_is_the_same_push(header: str, server: HttpServer, fabric: Recorder) -> None:
    document = {"to": {"users": [7, 8], "rooms": ["a"]}, "body": 1}

    answers = [
        push(server, document, f"Idempotency-Key: {header}\r\n"),
        push(server, {**document, "id": "k 1"}),
        push(server, {**document, "id": "k 1"}, f"Idempotency-Key: {header}\r\n"),
    ]

    assert [answer.status for answer in answers] == [200] * 3
    assert {answer.body for answer in answers} == {answers[0].body}
    assert {stream: len(kept) for stream, kept in fabric.streams.items()} == {"u:7": 1, "u:8": 1, "r:a": 1}


def test_keys_that_cannot_be(server: HttpServer, fabric: Recorder) -> None:
    document = {"to": USER, "body": 1}
    for header in ("", '"', '""', '"a"b', "a,b", '"a", "b"', "a\r\nIdempotency-Key: a", "x" * 256, "\xff\xfe", '"\\a"'):
        head = f"Idempotency-Key: {header}\r\n"
        with Client(server) as client:
            body = json.dumps(document).encode()
            start = f"POST /api/push HTTP/1.1\r\nHost: zim\r\n{JSON}Content-Length: {len(body)}\r\n{head}\r\n"
            client.send(start.encode("latin-1") + body)
            said = problem(client.receive())
        assert (said["status"], said["type"]) == (400, "urn:zim:problem:idempotency-key")

    said = problem(push(server, {**document, "id": "a"}, "Idempotency-Key: b\r\n"))
    assert (said["status"], said["type"], said["key"]) == (400, "urn:zim:problem:idempotency-key", "id")
    assert fabric.pushes == []


def test_a_key_of_another_push(server: HttpServer, fabric: Recorder) -> None:
    assert push(server, {"to": USER, "body": 1, "id": "k"}).status == 200

    for other in ({"body": 2}, {"to": {"users": ["8"]}}, {"op": 1000}, {"ttl_s": 1}):
        said = problem(push(server, {"to": USER, "body": 1, "id": "k", **other}))
        assert (said["status"], said["type"], said["id"]) == (422, "urn:zim:problem:conflict", "push-1")
    assert len(fabric.streams["u:7"]) == 1


def test_nothing_kept(server: HttpServer, fabric: Recorder) -> None:
    fabric.fail("unavailable")

    answer = push(server, {"to": {"users": [HERE[2:]], "rooms": ["a"]}, "body": 1})

    said = problem(answer)
    assert (said["status"], said["type"]) == (503, "urn:zim:problem:unavailable")
    assert answer.headers["retry-after"] == "3"
    assert said["retry_after_s"] == 3
    assert [part["status"] for part in said["parts"]] == ["unavailable"] * len(said["parts"])


@pytest.mark.parametrize("fate", ["unavailable", "unknown"])
@pytest.mark.parametrize("key", ["k", ""])
def test_a_dead_router_affects_its_own_part_only(fate: Any, key: str, server: HttpServer, fabric: Recorder) -> None:
    there = next(f"r:{n}" for n in range(99) if router_of(f"r:{n}") == ROUTERS[1])
    fabric.fates[ROUTERS[1]] = fate
    document = {"to": {"users": [HERE[2:]], "rooms": [there[2:]]}, "body": 1, **({"id": key} if key else {})}

    answer = push(server, document)

    said = problem(answer)
    assert (said["status"], said["type"], said["id"]) == (504, "urn:zim:problem:unknown", "push-1")
    assert said["parts"] == [
        {"router": ROUTERS[0], "status": "ok", "streams": {HERE: 1}, "why": ""},
        {"router": ROUTERS[1], "status": fate, "streams": {there: None}, "why": "as told"},
    ]
    assert said["detail"].endswith("(as told)")
    assert ("send it again" in said["detail"]) == bool(key)
    fabric.fates.clear()
    if key:
        assert push(server, document).json == {"id": "push-1", "status": "accepted", "streams": {HERE: 1, there: 1}}


@pytest.mark.parametrize("wait_s", [0, 1.5, 30])
def test_waiting_for_the_verdict(wait_s: float, server: HttpServer, fabric: Recorder) -> None:
    answer = push(server, {"to": {"users": [7, 8]}, "body": 1, "wait_s": wait_s})

    assert fabric.waited_s == [wait_s]
    assert answer.json["receipt"] == {
        **{"id": "push-1", "targeted": 2, "delivered": 2, "offline": 0, "gone": 0, "shed": 0, "expired": 0},
        **{"unknown": 0, "pending": 0, "hops_ms": {"kept": 0.5}, "silent": [], "forgotten": [], "offline_users": []},
        "empty_rooms": [],
        "awaited": 0,
    }


def test_a_receipt(server: HttpServer, fabric: Recorder) -> None:
    fabric.receipts["a/b é"] = receipt("a/b é", Tally(7, 1, 1, 1, 1, 1), 3, {"kept": 1.25})
    fabric.silent = ["router-2"]

    answer = ask(server, "GET", f"/api/pushes/{quote('a/b é', safe='')}?wait_s=2.5")

    assert answer.status == 200
    assert answer.json == {
        **{"id": "a/b é", "targeted": 7, "delivered": 1, "gone": 1, "shed": 1, "expired": 1, "unknown": 1},
        **{
            "pending": 2,
            "offline": 3,
            "hops_ms": {"kept": 1.25},
            "silent": ["router-2"],
            "forgotten": [],
            "offline_users": [],
            "awaited": 0,
            "empty_rooms": [],
        },
    }
    assert fabric.waited_s == [2.5]


def test_no_receipt(server: HttpServer, fabric: Recorder) -> None:
    said = problem(ask(server, "GET", "/api/pushes/none"))
    assert (said["status"], said["type"], said["id"]) == (404, "urn:zim:problem:no-push", "none")

    fabric.silent = ["router-2"]
    answer = ask(server, "GET", "/api/pushes/none")
    said = problem(answer)
    assert (said["status"], said["silent"]) == (503, ["router-2"])
    assert answer.headers["retry-after"]


def test_the_ledger(server: HttpServer, fabric: Recorder) -> None:
    fabric.receipts["a"] = receipt("a", Tally(7, 1, 1, 1, 1, 1), 3)
    fabric.receipts["b"] = receipt("b", Tally(1, 1))
    document = {
        **{"pushes": 2, "targeted": 8, "delivered": 2, "gone": 1, "shed": 1, "expired": 1, "unknown": 1, "pending": 2},
        **{"offline": 3, "balanced": True, "silent": []},
    }
    assert ask(server, "GET", "/api/ledger").json == document

    fabric.silent = ["router-2"]
    answer = ask(server, "GET", "/api/ledger")
    assert (answer.status, answer.json) == (200, {**document, "balanced": False, "silent": ["router-2"]})

    lost = msgspec.structs.replace(fabric.receipts["b"], delivered=0)
    fabric.silent, fabric.receipts["b"] = [], lost
    assert ask(server, "GET", "/api/ledger").json == {**document, "delivered": 1, "balanced": False}


def test_requests_are_counted_by_rule_and_status(server: HttpServer) -> None:
    pushes = ("/api/pushes/none", "/api/pushes/other")
    for path in ("/api/ledger", "/api/ledger?x=1", *pushes, "/api/users/7/unread", "/api/none", "/none", "/healthz"):
        ask(server, "GET", path)
    ask(server, "POST", "/api/ledger")
    with Client(server) as client:
        client.send(b"rubbish\r\n\r\n")
        client.receive()
    app = server.application
    assert isinstance(app, App)
    assert app.answered == {
        ("/api/ledger", 200): 1,
        ("/api/ledger", 400): 1,
        ("/api/pushes/*", 404): 2,
        ("/api/users/*/unread", 200): 1,
        ("?", 404): 2,
        ("?", 405): 1,
        ("/healthz", 200): 1,
    }
    assert server.refused == {400: 1}


@pytest.mark.parametrize("wait_s", ["", "-1", "31", "nan", "inf", "1_0", "1e999", "x", "1&wait_s=2"])
def test_waits_that_cannot_be(wait_s: str, server: HttpServer) -> None:
    said = problem(ask(server, "GET", f"/api/pushes/x?wait_s={wait_s}"))
    assert (said["status"], said["key"]) == (400, "wait_s")


def test_a_stream(server: HttpServer, fabric: Recorder) -> None:
    bodies = [b'{"a": 1}', b" 7 \n", b"\x00\xff", b"", b"x", b'"\xff"', b"NaN", '"é"'.encode()]
    for body in bodies:
        assert ask(server, "POST", "/1/push?uid=7", body).status == 200
    assert push(server, {"to": {"users": [7]}, "base64": "W1tb", "op": 1000}).status == 200

    answer = ask(server, "GET", "/api/streams/u%3A7")

    assert answer.status == 200
    shown: list[dict[str, Any]] = [
        {"body": {"a": 1}},
        {"body": 7},
        {"base64": "AP8="},
        {"base64": ""},
        {"base64": "eA=="},
        {"base64": "Iv8i"},
        {"base64": "TmFO"},
        {"body": "é"},
        {"base64": "W1tb", "op": 1000},
    ]
    assert answer.json == {
        **{"stream": "u:7", "epoch": EPOCH, "first": 1, "head": len(shown)},
        "messages": [
            {"offset": n, "time": 1_700_000_000_000 + n, "op": 5, **message} for n, message in enumerate(shown, 1)
        ],
    }
    messages = answer.json["messages"]
    assert ask(server, "GET", "/api/streams/u:7?after=2&limit=3").json["messages"] == messages[2:5]
    assert ask(server, "GET", "/api/streams/u:7?after=9").json["messages"] == []


@pytest.mark.parametrize("room", ["a/b", "é?#%", "a b+c", "..", "u:7", "a//b", "日本", "**", "a/unread", "/", "%2F"])
def test_names_of_streams(room: str, server: HttpServer) -> None:
    assert push(server, {"to": {"rooms": [room], "users": [room], "everybody": True}, "body": room}).status == 200

    for stream in (f"r:{room}", f"u:{room}", "*"):
        answer = ask(server, "GET", f"/api/streams/{quote(stream, safe='')}")
        assert (answer.status, answer.json["stream"]) == (200, stream)
        assert [message["body"] for message in answer.json["messages"]] == [room]
    answer = ask(server, "GET", f"/api/users/{quote(room, safe='')}/unread")
    assert answer.json == {"stream": f"u:{room}", "epoch": EPOCH, "head": 1, "acknowledged": 0, "unread": 1}
    assert ask(server, "GET", f"/api/users/{quote(room, safe='')}").json["user"] == room
    assert ask(server, "GET", f"/api/rooms/{quote(room, safe='')}").json["room"] == room


def test_an_empty_stream(server: HttpServer) -> None:
    empty = {"stream": "r:none", "epoch": EPOCH, "first": 1, "head": 0, "messages": []}
    assert ask(server, "GET", "/api/streams/r%3Anone").json == empty


@pytest.mark.parametrize(
    "stream", ["7", "u:", "r:", "r:*", "**", "x:7", "u:%00", "u:%C2%85", "u:%FF", "u:" + "x" * 256]
)
def test_no_streams(stream: str, server: HttpServer) -> None:
    said = problem(ask(server, "GET", f"/api/streams/{stream}"))
    assert (said["status"], said["key"]) == (400, "path")


@pytest.mark.parametrize("name", ["%00", "%C2%85", "%FF", "%C3", "%ED%A0%80", "x" * 254, "%C3%A9" * 127])
def test_no_names(name: str, server: HttpServer) -> None:
    for path in ("/api/users/{}", "/api/users/{}/unread", "/api/rooms/{}", "/api/pushes/{}"):
        said = problem(ask(server, "GET", path.format(name)))
        assert (said["status"], said["key"]) == (400, "path")
        assert said["detail"].startswith(f"path: {name} is no ")
        assert said["expected"]


def test_the_room_of_everybody_is_none(server: HttpServer) -> None:
    for name in ("*", "%2A"):
        assert problem(ask(server, "GET", f"/api/rooms/{name}"))["status"] == 400


def test_who_is_there(server: HttpServer, fabric: Recorder) -> None:
    fabric.places["7"] = [Place("comet-1", "7_1", ("a/b", "c")), Place("comet-2", "7_4", ("a/b",))]
    fabric.places["8"] = [Place("comet-1", "8_2", ("a/b",))]
    places = [
        {"comet": "comet-1", "key": "7_1", "rooms": ["a/b", "c"]},
        {"comet": "comet-2", "key": "7_4", "rooms": ["a/b"]},
    ]
    nobody = {"user": "9", "online": False, "sessions": [], "left_out": 0}
    sizes = [{"room": "a/b", "sessions": 3}, {"room": "c", "sessions": 1}]
    for path, document in (
        ("/api/users/7", {"user": "7", "online": True, "sessions": places, "left_out": 0}),
        ("/api/users/9", nobody),
        ("/api/rooms/a%2Fb", {"room": "a/b", "sessions": 3, "users": 2}),
        ("/api/rooms/a", {"room": "a", "sessions": 0, "users": 0}),
        ("/api/rooms", {"rooms": sizes}),
        ("/api/rooms?limit=1", {"rooms": sizes[:1]}),
    ):
        answer = ask(server, "GET", path)
        assert (answer.status, answer.json) == (200, document)


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "1e1", "", "x"])
def test_how_many_rooms_there_cannot_be(limit: str, server: HttpServer) -> None:
    said = problem(ask(server, "GET", f"/api/rooms?limit={limit}"))
    assert (said["status"], said["key"]) == (400, "limit")
    assert "1 to 1000" in said["expected"]


@pytest.mark.parametrize(
    "query",
    [
        *("after=-1", "after=1e3", "after=2.0", "after=x", "after=", "after=9223372036854775808"),
        *("limit=0", "limit=1001", "limit=1e1"),
    ],
)
def test_wrong_parameters(query: str, server: HttpServer) -> None:
    said = problem(ask(server, "GET", f"/api/streams/*?{query}"))
    assert (said["status"], said["key"]) == (400, query.partition("=")[0])
    assert said["expected"]


@pytest.mark.parametrize("query", ["after", "after=1&", "&", "after=%FF", "a" + "&a" * 30])
def test_broken_queries(query: str, server: HttpServer) -> None:
    assert problem(ask(server, "GET", f"/api/streams/*?{query}"))["status"] == 400


def test_a_router_away(server: HttpServer, fabric: Recorder) -> None:
    fabric.is_away = True

    for path in ("/api/streams/*", "/api/users/7", "/api/users/7/unread", "/api/rooms", "/api/rooms/a"):
        answer = ask(server, "GET", path)
        said = problem(answer)
        assert (said["status"], said["silent"]) == (503, ["router-1"])
        assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("error", [ValueError("a defect"), gevent.Timeout(exception=None)])
def test_a_defect(error: BaseException, server: HttpServer, fabric: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    fabric.error = error

    said = problem(push(server, {"to": USER, "body": 1}))

    assert (said["status"], said["type"]) == (500, "urn:zim:problem:defect")
    assert "defect" not in said["detail"]
    assert len([record for record in caplog.records if record.exc_info]) == 1
