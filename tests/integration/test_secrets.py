"""Secrets are planted, and all is made to fail, with DEBUG on: they turn up in no log, answer, metric or file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from gevent import socket

from tests.harness import Client, wait_until
from tests.integration.liar import WAYS, Liar, reply
from tests.integration.planted import (
    KEY,
    OPAQUE,
    PUSH_KEY,
    TOKENS,
    UNKNOWN_KEY,
    Told,
    look_for_all,
    planted,
    planting,
)
from tests.integration.visits import Stranger, knock
from zim.client import PushError, ZmqPublisher
from zim.protocol.frame import Op


@pytest.fixture(scope="module")
def planted_fabric(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Told, Liar]]:
    with planting(tmp_path_factory.mktemp("secrets")) as found:
        yield found


@pytest.fixture
def told(planted_fabric: tuple[Told, Liar]) -> Iterator[Told]:
    yield planted_fabric[0]
    planted_fabric[0].look_at_all()


@pytest.fixture
def liar(planted_fabric: tuple[Told, Liar]) -> Liar:
    return planted_fabric[1]


def test_the_search_finds_what_is_there(told: Told) -> None:
    for secret in planted().values():
        with pytest.raises(AssertionError, match="has: "):
            look_for_all("a line", f'2026 logic-1 AUDIT reason="{secret}"')
    for name in ("key", "jwt"):
        with pytest.raises(AssertionError):
            look_for_all("a file", (told.folder / name).read_text())


@pytest.mark.parametrize("name", TOKENS)
def test_tokens(told: Told, liar: Liar, name: str) -> None:
    liar.way["*"] = lambda client: client.sendall(reply({"reason": "no"}))
    fabric, shown = told.fabric, TOKENS[name]
    for is_ws in (False, True):
        client = knock(fabric, shown, is_ws)
        wait_until(lambda client=client: client.packets or client.is_closed, "an answer")  # type: ignore[misc]
        with_more = knock(fabric, shown + "x", is_ws)
        with_more.wait_closed()
        broken = Stranger((fabric.ws if is_ws else fabric.tcp)["comet-1"], None, is_ws)
        broken.say(Op.AUTH, b'{"token":"%b","%b":1}' % (shown.encode(), b"field"))
        broken.wait_closed()
        goim = Client((fabric.ws if is_ws else fabric.tcp)["comet-1"], None, is_ws)
        goim.say(Op.AUTH, json.dumps(shown).encode(), 1)
        wait_until(lambda goim=goim: goim.packets or goim.is_closed, "an answer")  # type: ignore[misc]
        in_zims_body = Client((fabric.ws if is_ws else fabric.tcp)["comet-1"], None, is_ws)
        in_zims_body.say(Op.AUTH, json.dumps({"token": shown}).encode(), 1)
        in_zims_body.wait_closed()
        refreshed = knock(fabric, TOKENS["good"], is_ws)
        refreshed.wait(1)
        refreshed.say(Op.REFRESH, json.dumps({"token": shown}).encode(), 2)
        wait_until(lambda r=refreshed: len(r.packets) > 1, "an answer")  # type: ignore[misc]
    assert "login refused" in fabric.log


def echoes(client: socket.socket) -> None:
    """What it has been asked, as it came, in place of an answer."""
    client.sendall(json.dumps({"token": OPAQUE, "device": ""}).encode() + b"\r\n\r\n")


ECHOES = {
    "in place of HTTP": echoes,
    "as a header": lambda client: client.sendall(b"HTTP/1.1 200 OK\r\n" + OPAQUE.encode() + b"\r\n\r\n"),
    "as a status": lambda client: client.sendall(b"HTTP/1.1 " + OPAQUE.encode() + b"\r\n\r\n"),
    "as a length": lambda client: client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\n" % OPAQUE.encode()),
    "as a chunk": lambda client: client.sendall(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b\r\n" % OPAQUE.encode()
    ),
    "as an encoding": lambda client: client.sendall(
        reply({"user": 7.5}, "200 OK", f"Content-Encoding: {OPAQUE}", f"Location: http://{OPAQUE}/")
    ),
    "as a pattern": lambda client: client.sendall(reply({"user": "7", "join": OPAQUE})),
    "as a number": lambda client: client.sendall(reply({"user": "7", "sessions": OPAQUE})),
    "as text": lambda client: client.sendall(reply(OPAQUE)),
    "as no JSON": lambda client: client.sendall(reply(b"{" + OPAQUE.encode())),
}


@pytest.mark.parametrize("name", [*WAYS, *ECHOES])
def test_an_application_that_lies(told: Told, liar: Liar, name: str) -> None:
    """What it answers may have the token in it, in any place but a name, for which it is then taken."""
    liar.way["*"] = lambda client: client.sendall(reply({"user": "7"}))

    def is_in() -> bool:
        client = knock(told.fabric, f"another {time.monotonic()}")
        wait_until(lambda: client.packets, "an answer")
        return client.packets[0].op == Op.AUTH_REPLY

    wait_until(is_in, "it is asked", 40)
    liar.way["*"] = (WAYS | ECHOES)[name]
    before = len(liar.asked)
    for is_ws in (False, True):
        knock(told.fabric, OPAQUE, is_ws).wait_closed()
    assert len(liar.asked) > before
    wait_until(lambda: "callout failed" in told.fabric.log, "the log says so")


def test_tokens_in_the_wrong_place(told: Told) -> None:
    shown, fabric = TOKENS["good"], told.fabric
    for address in (fabric.ws["comet-1"], fabric.http["logic-1"], fabric.admin["comet-1"]):
        for secret in (shown, KEY, OPAQUE):
            for head in (
                f"GET /sub?token={secret} HTTP/1.1\r\nHost: localhost\r\n",
                f"GET /sub?token={secret} HTTP/1.1\r\nHost: evil.example.com\r\n",
                f"GET /sub?token={secret} HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example.com\r\n",
                f"GET /sub?token={secret} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
                f"GET /sub?token={secret} HTTP/9.9\r\nHost: localhost\r\n",
                f"GET /sub?token={secret}\r\n",
                f"GET /sub?token={secret} x y z HTTP/1.1\r\n",
                f"{secret} /sub HTTP/1.1\r\nHost: localhost\r\n",
                f"GET /sub HTTP/1.1\r\nHost: localhost\r\nAuthorization {secret}\r\n",
                f"GET /sub HTTP/1.1\r\nHost: localhost\r\nContent-Length: {secret}\r\n",
                f"GET /sub HTTP/1.1\r\nHost: localhost\r\nCookie: session={secret}\r\nUpgrade: websocket\r\n",
                f"GET /sub HTTP/1.1\r\nHost: localhost\r\nCookie: session={secret}\r\n\0\r\n",
            ):
                told.say(address, head.encode() + b"\r\n")
    for address in (
        fabric.tcp["comet-1"],
        fabric.binds["logic-1"],
        fabric.binds["router-1"],
        fabric.publish["logic-1"],
    ):
        told.say(address, shown.encode() + b"\r\n\r\n" + KEY.encode())


def test_api_keys(told: Told) -> None:
    fabric, document = told.fabric, '{"to":{"rooms":["lobby"]},"body":1}'
    json_type = {"Content_Type": "application/json"}
    for query in ("api_key", "key", "access_token", "token", "authorization", "X-Push-Key"):
        assert told.ask("POST", f"/api/push?{query}={KEY}", document, **json_type) == 401
        assert told.ask("POST", f"/1/push/all?{query}={KEY}", b"x") == 401
    for shown in (f"Bearer {UNKNOWN_KEY}", f"Basic {KEY}", f"Bearer {KEY} {KEY}", KEY, f"Bearer {KEY[:-1]}", "Bearer"):
        assert told.ask("POST", "/api/push", document, Authorization=shown, **json_type) == 401
    assert told.ask("POST", "/1/push/all", b"x", X_Push_Key=UNKNOWN_KEY) == 401
    assert told.ask("POST", "/1/push/all", b"x", X_Push_Key=PUSH_KEY) == 403
    assert told.ask("POST", "/api/push", document, Authorization=f"Bearer {PUSH_KEY}", **json_type) == 200
    may_all = {"Authorization": f"Bearer {KEY}"}
    for path in ("/api/ledger", "/api/bans", "/api/rooms", "/api/users/7", "/api/streams/r:lobby?after=0"):
        assert told.ask("GET", path, Authorization=f"Bearer {PUSH_KEY}") in (400, 403)
        told.ask("GET", path, **may_all)
    for body in (b"{oops", b"", b"\xff", b'{"to":{}}', b'{"to":{"users":["*\\n"]},"body":1}', b"[" * 10_000):
        assert told.ask("POST", "/api/push", body, **json_type, **may_all) == 400
    too_large = json.dumps({"to": {"users": ["7"]}, "body": "x" * 100_000})
    told.ask("POST", "/api/push", too_large, **json_type, **may_all)
    told.ask("POST", "/api/bans", b'{"user":"666","reason":"spam"}', **json_type, **may_all)
    told.ask("POST", "/api/kick", b'{"user":"7"}', **json_type, **may_all)
    told.ask("GET", "/api/nothing", **may_all)
    told.ask("GET", "/api/openapi.json")
    told.ask("GET", "/")
    told.ask("GET", "/healthz")
    told.ask("GET", "/readyz")
    assert {200, 400, 401, 403, 404, 413} <= told.statuses
    for key in (KEY, PUSH_KEY, UNKNOWN_KEY):
        with ZmqPublisher(fabric.publish["logic-1"], api_key=key) as publisher:
            pending = publisher.push(b"1", users="7")
            publisher.flush(20)
            outcome = pending.outcome()
            assert isinstance(outcome, PushError) == (key != KEY)
            look_for_all("an outcome", repr(outcome) + str(outcome))
            look_for_all("a publisher", repr(publisher) + repr(pending))
    for event in (" DEBUG push asked for", "request refused", "banned", "pushes refused"):
        wait_until(lambda event=event: event in fabric.log, event)  # type: ignore[misc]
