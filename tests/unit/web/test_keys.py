"""API keys over HTTP: who may do what, in both APIs; and what pages of browsers may."""

from __future__ import annotations

import ast
import inspect
import json
import logging
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest

from tests.unit.web.support import Recorder, ask
from zim.fabric import principals
from zim.fabric.bans import Banned
from zim.fabric.principals import ApiKey, Principals
from zim.fabric.questions import BanWho
from zim.net.visitors import Visitors
from zim.web.app import create_app, request_limits
from zim.web.keys import Keys
from zim.web.server import HttpServer

ALL, ORDERS, OLD = "zim_all", "zim_orders", "zim_orders-old"


def digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


API_KEYS = [
    ApiKey("all", (digest(ALL),), dict.fromkeys(principals.SCOPES, ("*",))),
    ApiKey("orders", (digest(ORDERS), digest(OLD)), {"push": ("u:*", "r:orders-*"), "count": ("r:orders-*",)}),
]
JSON = "Content-Type: application/json\r\n"


@pytest.fixture
def fabric() -> Recorder:
    return Recorder()


@pytest.fixture
def server(fabric: Recorder) -> Iterator[HttpServer]:
    app = create_app(fabric, 1000, Keys(Principals(API_KEYS), "X-Push-Key"))
    visitors = Visitors(is_local=True, origins=("https://app.example.com",), hosts=("zim",))
    server = HttpServer(app, ("127.0.0.1", 0), 5.0, request_limits(1000), visitors=visitors)
    server.start()
    yield server
    server.stop(5)


def bearer(key: str) -> str:
    return f"Authorization: Bearer {key}\r\n"


def push(server: HttpServer, to: dict[str, Any], headers: str) -> Any:
    body = json.dumps({"to": to, "body": 1, "id": "k"}).encode()
    return ask(server, "POST", "/api/push", body, JSON + headers)


@pytest.mark.parametrize(
    "headers",
    [
        "",
        bearer("zim_other"),
        "Authorization: Basic em06eg==\r\n",
        bearer("zim_" + "x" * 4000),
        "X-Push-Key: zim_all\r\n",
    ],
    ids=["none", "unknown", "basic", "long", "goim's header"],
)
def test_without_a_key_that_is_known_nothing_is_answered(server: HttpServer, fabric: Recorder, headers: str) -> None:
    answer = push(server, {"users": ["7"]}, headers)
    assert (answer.status, answer.json["type"]) == (401, "urn:zim:problem:unauthorized")
    assert answer.headers["www-authenticate"] == 'Bearer realm="zim"'
    assert ask(server, "GET", "/api/streams/u:7", headers=headers).status == 401
    assert fabric.pushes == []


def test_a_key_in_the_url_is_none(server: HttpServer) -> None:
    for path in ("/api/rooms/a?key=zim_all", "/api/rooms/a?access_token=zim_all", "/1/count?type=room&key=zim_all"):
        assert ask(server, "GET", path).status == 401


def test_what_needs_no_key(server: HttpServer) -> None:
    for path in ("/healthz", "/readyz", "/", "/api/openapi.json"):
        assert ask(server, "GET", path).status == 200


def test_a_scope_is_for_its_streams(server: HttpServer, fabric: Recorder) -> None:
    assert push(server, {"users": ["7"], "rooms": ["orders-1"]}, bearer(ORDERS)).status == 200
    for to, stream in (
        ({"rooms": ["lobby"]}, "r:lobby"),
        ({"everybody": True}, "*"),
        ({"users": ["7"], "rooms": ["x"]}, "r:x"),
    ):
        answer = push(server, to, bearer(ORDERS))
        assert (answer.status, answer.json["scope"], answer.json["stream"]) == (403, "push", stream)
        assert stream in answer.json["detail"]
    assert len(fabric.pushes) == 1
    assert ask(server, "GET", "/api/rooms/orders-1", headers=bearer(ORDERS)).status == 200
    refused: list[tuple[str, str, str | None]] = [
        ("/api/rooms/lobby", "count", "r:lobby"),
        ("/api/rooms", "count", "all"),
        ("/api/streams/u:7", "read", None),
        ("/api/users/7/unread", "read", None),
        ("/api/bans", "ban", None),
    ]
    for path, scope, at in refused:
        answer = ask(server, "GET", path, headers=bearer(ORDERS))
        assert (answer.status, answer.json["scope"], answer.json.get("stream")) == (403, scope, at)


def test_one_line_of_a_batch_that_is_forbidden_spoils_no_other(server: HttpServer) -> None:
    lines = [
        {"to": {"users": ["7"]}, "body": 1},
        {"to": {"rooms": ["lobby"]}, "body": 1},
        {"to": {"users": ["8"]}, "body": 1},
    ]
    body = b"\n".join(json.dumps(line).encode() for line in lines)
    answer = ask(server, "POST", "/api/push/batch", body, "Content-Type: application/x-ndjson\r\n" + bearer(ORDERS))
    verdicts = [json.loads(line) for line in answer.body.splitlines()]
    assert [verdict["status"] for verdict in verdicts] == ["accepted", 403, "accepted"]
    assert (verdicts[1]["stream"], verdicts[1]["line"]) == ("r:lobby", 2)


def test_the_old_key_and_the_new_one_are_one_principal(server: HttpServer) -> None:
    assert (
        push(server, {"users": ["7"]}, bearer(OLD)).status
        == push(server, {"users": ["7"]}, bearer(ORDERS)).status
        == 200
    )


def test_goims_endpoints_take_a_header_of_ones_choice_too(server: HttpServer, fabric: Recorder) -> None:
    assert ask(server, "POST", "/1/push?uid=7", b"x", f"X-Push-Key: {ORDERS}\r\n").json == {"ret": 1}
    assert ask(server, "POST", "/1/push?uid=7", b"x", bearer(ORDERS)).json == {"ret": 1}
    assert len(fabric.pushes) == 2
    for path, headers, status in (
        ("/1/push?uid=7", "", 401),
        ("/1/push/all", bearer(ORDERS), 403),
        ("/1/push/room?rid=1", bearer(ORDERS), 403),
        ("/1/server/del?server=1", bearer(ORDERS), 403),
        ("/1/server/del?server=1", bearer(ALL), 200),
    ):
        assert ask(server, "POST", path, b"x", headers).status == status
    assert ask(server, "GET", "/1/count?type=room", headers=bearer(ORDERS)).status == 403
    assert ask(server, "GET", "/1/count?type=room", headers=bearer(ALL)).status == 200


def test_a_ban_says_whose_key_made_it_and_the_audit_has_it(
    server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "zim.audit")
    body = b'{"user":"7","reason":"spam"}'
    assert ask(server, "POST", "/api/bans", body, JSON + bearer(ORDERS)).status == 403
    assert ask(server, "POST", "/api/bans", body, JSON + bearer(ALL)).json["by"] == "all"
    refused, banned = [record for record in caplog.records if record.name == "zim.audit"]
    assert (refused.getMessage(), banned.getMessage()) == ("request refused", "banned")
    assert vars(banned)["by"] == "all"
    assert vars(banned)["user"] == "7"
    assert "no scope ban" in vars(refused)["reason"]
    for record in caplog.records:
        assert ALL not in str(vars(record))
        assert ORDERS not in str(vars(record))


def test_bans_of_networks_need_the_scope_for_all_streams() -> None:
    some = principals.Principal("x", {"ban": ("u:*",)})
    some.require("ban", BanWho(Banned("7")).about())
    with pytest.raises(principals.Forbidden, match="for all streams"):
        some.require("ban", BanWho(Banned(network="203.0.113.0/24")).about())


def test_keys_are_compared_in_constant_time_and_all_of_them() -> None:
    """By the code: how long a comparison takes cannot be tested on a busy machine."""
    find = ast.parse(inspect.getsource(principals.Principals.find).lstrip())
    (loop,) = [node for node in ast.walk(find) if isinstance(node, ast.For)]
    assert "compare_digest" in ast.unparse(loop)
    assert not [node for node in ast.walk(loop) if isinstance(node, ast.Return | ast.Break)]
    equals = [node for node in ast.walk(find) if isinstance(node, ast.Eq | ast.In)]
    assert equals == []


def test_pages_that_are_welcome_may_use_the_api_and_others_may_not(server: HttpServer) -> None:
    origin = "Origin: https://app.example.com\r\n"
    asks = origin + "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n"
    preflight = ask(server, "OPTIONS", "/api/push", headers=asks)
    assert preflight.status == 200
    assert preflight.headers["access-control-allow-origin"] == "https://app.example.com"
    assert "Authorization" in preflight.headers["access-control-allow-headers"]
    answer = push(server, {"users": ["7"]}, bearer(ORDERS) + origin)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "https://app.example.com")
    assert answer.headers["vary"] == "Origin"
    for page in ("https://evil.example", "null"):
        assert ask(server, "OPTIONS", "/api/push", headers=asks.replace("https://app.example.com", page)).status == 403
    local = ask(
        server, "OPTIONS", "/api/push", headers=asks.replace("https://app.example.com", "http://localhost:3000")
    )
    assert (local.status, local.headers.get("access-control-allow-origin")) == (405, None)
    assert push(server, {"users": ["7"]}, origin).headers["access-control-allow-origin"]  # also of what is refused
