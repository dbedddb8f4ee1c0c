"""`POST /api/push/batch` over real sockets: a push a line in, a verdict a line out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.web.support import MAX_BODY_BYTES, ROUTERS, Answer, Client, Recorder, ask, router_of
from zim.web import batch
from zim.web.api import max_push_bytes
from zim.web.batch import MAX_BATCH_BYTES, MAX_LINES
from zim.web.server import HttpServer
from zim.web.v1 import max_request_bytes

NDJSON = "Content-Type: application/x-ndjson\r\n"
BAD = [
    (b"{", 400, "malformed-json"),
    (b'{"to":{"users":["7"]}}', 400, "invalid-value"),
    (b'{"to":{"users":["7"]},"body":1,"wait_s":1}', 400, "unknown-field"),
    (b'{"to":{"users":["7"]},"body":"%s"}' % (b"x" * MAX_BODY_BYTES), 413, "too-large"),
    (b" " * (max_push_bytes(MAX_BODY_BYTES) + 1) + b"{}", 413, "too-large"),
    (b"\xff", 400, "malformed-json"),
    (b'{"to":{"users":["7"]},"body":' + b"[" * 100_000, 400, "malformed-json"),
]


def push(server: HttpServer, lines: bytes) -> Answer:
    return ask(server, "POST", "/api/push/batch", lines, NDJSON)


def verdicts(answer: Answer) -> list[Any]:
    assert answer.status == 200, answer.json
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.body == b"" or answer.body.endswith(b"\n")
    return [json.loads(line) for line in answer.body.splitlines()]


def line(uid: int, body: Any = 1, **more: Any) -> bytes:
    return json.dumps({"to": {"users": [uid]}, "body": body, **more}).encode()


def test_a_verdict_a_line(server: HttpServer, fabric: Recorder) -> None:
    lines = [line(7, "a"), line(8, "b"), b'{"to":{"everybody":true,"rooms":["a"]},"base64":"AP8=","op":1000,"ttl_s":2}']

    answer = push(server, b"\n".join(lines))

    assert verdicts(answer) == [
        {"id": "push-1", "status": "accepted", "streams": {"u:7": 1}},
        {"id": "push-2", "status": "accepted", "streams": {"u:8": 1}},
        {"id": "push-3", "status": "accepted", "streams": {"r:a": 1, "*": 1}},
    ]
    assert fabric.published == [(["u:7"], b'"a"'), (["u:8"], b'"b"'), (["r:a", "*"], b"\x00\xff")]


@pytest.mark.parametrize(("bad", "status", "kind"), BAD)
def test_a_broken_line_spoils_no_other(bad: bytes, status: int, kind: str, server: HttpServer) -> None:
    before, said, behind = verdicts(push(server, b"\r\n".join([line(7), b"", bad, b" \t", line(7), b""])))

    assert (before["streams"], behind["streams"]) == ({"u:7": 1}, {"u:7": 2})
    assert (said["status"], said["type"], said["line"]) == (status, f"urn:zim:problem:{kind}", 3)
    assert {"title", "detail"} <= set(said)


@pytest.mark.parametrize("lines", [b"", b"\n", b" \r\n\n\t"])
def test_no_lines(lines: bytes, server: HttpServer, fabric: Recorder) -> None:
    assert verdicts(push(server, lines)) == []
    assert fabric.pushes == []


def test_each_line_has_its_key(server: HttpServer, fabric: Recorder) -> None:
    lines = [line(7, 1, id="a"), line(7, 1, id="b"), line(7, 1, id="a"), line(7, 2, id="a"), line(7, 1)]

    said = verdicts(push(server, b"\n".join(lines)))

    assert said[0] == said[2]
    assert [verdict["status"] for verdict in said] == ["accepted", "accepted", "accepted", 422, "accepted"]
    assert said[3]["type"] == "urn:zim:problem:conflict"
    assert verdicts(push(server, lines[0])) == said[:1]
    assert len(fabric.streams["u:7"]) == 3


def test_a_key_for_the_whole_batch_is_refused(server: HttpServer, fabric: Recorder) -> None:
    answer = ask(server, "POST", "/api/push/batch", line(7), NDJSON + "Idempotency-Key: a\r\n")

    assert (answer.status, answer.json["type"]) == (400, "urn:zim:problem:idempotency-key")
    assert "its lines" in answer.json["detail"]
    assert fabric.pushes == []


def test_a_dead_router_affects_its_own_lines_only(server: HttpServer, fabric: Recorder) -> None:
    fabric.fates[ROUTERS[1]] = "unavailable"

    said = verdicts(push(server, b"\n".join(line(uid) for uid in range(20))))

    dead = [router_of(f"u:{uid}") == ROUTERS[1] for uid in range(20)]
    assert len(set(dead)) == 2
    assert [verdict["status"] for verdict in said] == [503 if is_dead else "accepted" for is_dead in dead]
    [part] = next(verdict["parts"] for verdict in said if "parts" in verdict)
    assert (part["router"], part["status"], part["why"]) == (ROUTERS[1], "unavailable", "as told")


def test_thousands_of_lines(server: HttpServer, fabric: Recorder) -> None:
    said = verdicts(push(server, b"\n".join(line(n % 7, n) for n in range(MAX_LINES))))

    assert [verdict["id"] for verdict in said] == [f"push-{n + 1}" for n in range(MAX_LINES)]
    assert [int(kept.body) for kept in fabric.streams["u:3"]] == list(range(3, MAX_LINES, 7))


def test_too_many_lines(server: HttpServer, fabric: Recorder) -> None:
    answer = push(server, b"{}\n" * (MAX_LINES + 1))

    assert (answer.status, answer.json["type"], answer.json["limit"]) == (413, "urn:zim:problem:too-large", MAX_LINES)
    assert fabric.pushes == []


def test_a_batch_may_be_larger_than_other_requests(server: HttpServer, fabric: Recorder) -> None:
    n = 4_000
    lines = b"\n".join(line(7, "x" * 900) for _ in range(n))
    assert len(lines) > max_request_bytes(MAX_BODY_BYTES)

    assert len(verdicts(push(server, lines))) == n
    for path, n_bytes in (("/1/pushs", len(lines)), ("/api/push/batch", MAX_BATCH_BYTES + 1)):
        with Client(server) as client:
            client.send(f"POST {path} HTTP/1.1\r\nHost: zim\r\nContent-Length: {n_bytes}\r\n\r\n".encode())
            assert client.receive().status == 413
    assert server.bodies.n_bytes == 0


def test_recipients_limit(server: HttpServer, fabric: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "RECIPIENTS", 5)
    everybody = b'{"to":{"everybody":true},"body":1}'
    many = b'{"to":{"users":[1,2],"rooms":[1],"keys":["9_1"]},"body":1}'

    said = verdicts(push(server, b"\n".join([many, line(7), many, everybody])))

    assert [verdict["status"] for verdict in said] == ["accepted", "accepted", 413, "accepted"]
    assert (said[2]["key"], said[2]["limit"]) == ("to", 5)


def test_a_defect_costs_some_lines_their_verdict(
    server: HttpServer, fabric: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(batch, "GATHERED_LINES", 2)
    fabric.fail_after(3)

    said = verdicts(push(server, b"\n".join([line(7), line(7), b"{", line(7), line(7), line(7)])))

    assert [verdict["status"] for verdict in said] == ["accepted", "accepted", 400, "accepted", 500, 500]
    assert caplog.messages == ["batch failed"]


PIECE = st.sampled_from([b"\n", b"\r", b" ", b"\x0b", b"\x1c", line(7), line(8, {"a": 1}), b"{", b"}", b"\xe2\x80\xa8"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(st.lists(PIECE | st.binary(max_size=20)).map(b"".join))
def test_any_lines(server: HttpServer, lines: bytes) -> None:
    wanted = [number for number, text in enumerate(lines.split(b"\n"), 1) if text.strip(b" \t\r")]

    said = verdicts(push(server, lines))

    assert len(said) == len(wanted)
    for verdict, number in zip(said, wanted, strict=True):
        assert verdict["status"] == "accepted" or verdict["line"] == number
