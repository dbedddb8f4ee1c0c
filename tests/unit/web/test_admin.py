"""A node's admin address."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from hashlib import sha256

import pytest

from tests.unit.web.support import ask
from zim.errors import NodeError
from zim.fabric.health import Health
from zim.fabric.principals import ApiKey, Principals
from zim.metrics import Metric, gauge
from zim.net.visitors import Visitors
from zim.web.admin import Drain, admin_server
from zim.web.keys import Keys
from zim.web.server import HttpServer

broken = False
health = Health()
KEY = "zim_abc"
ELSEWHERE = "there are /metrics, /healthz, /readyz and POST /drain; pushes go to a logic's `http`\n"
KEYS = [
    ApiKey("prometheus", (sha256(KEY.encode()).hexdigest(),), {"metrics": ("*",)}),
    ApiKey("orders", (sha256(b"zim_orders").hexdigest(),), {"push": ("*",)}),
]


def read() -> Iterable[Metric]:
    if broken:
        raise ValueError("a defect")
    return [gauge("zim_answer", "The answer", 42)]


@pytest.fixture
def admin() -> Iterator[HttpServer]:
    server = admin_server(read, lambda: health, ("127.0.0.1", 0))
    server.start()
    yield server
    server.stop(5)


def test_metrics(admin: HttpServer) -> None:
    answer = ask(admin, "GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert b"# HELP zim_answer The answer\n# TYPE zim_answer gauge\nzim_answer 42.0\n" in answer.body
    assert ask(admin, "HEAD", "/metrics").body == b""


def test_healthz(admin: HttpServer) -> None:
    assert ask(admin, "GET", "/healthz?x=1").json == {"status": "ok"}


def test_readyz_says_in_words_what_is_missing(admin: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(admin, "GET", "/readyz").json == {"status": "ok"}
    monkeypatch.setattr(f"{__name__}.health", Health(False, ("job-1 is not connected",)))
    answer = ask(admin, "GET", "/readyz")
    assert (answer.status, answer.json) == (503, {"status": "not ready", "missing": ["job-1 is not connected"]})
    assert ask(admin, "GET", "/healthz").status == 200


def test_who_can_do_a_part_of_the_work_is_ready_and_says_what_is_missing(
    admin: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.health", Health(True, ("router-2 is not connected",)))
    answer = ask(admin, "GET", "/readyz")
    assert (answer.status, answer.json) == (200, {"status": "ok", "missing": ["router-2 is not connected"]})


@pytest.mark.parametrize("has_keys", [True, False])
def test_metrics_need_a_key_where_there_is_any(has_keys: bool) -> None:
    at = ("127.0.0.1", 0)
    server = admin_server(read, Health, at, Visitors(hosts=("*",)), Keys(Principals(KEYS)) if has_keys else None)
    server.start()
    try:
        shown = [f"Authorization: Bearer {key}\r\n" for key in (KEY, "zim_orders", "zim_other")]
        found = [ask(server, "GET", "/metrics", headers=headers).status for headers in ["", *shown]]
        assert found == ([401, 200, 403, 401] if has_keys else [200, 200, 200, 200])
        assert [ask(server, "GET", path).status for path in ("/healthz", "/readyz")] == [200, 200]
    finally:
        server.stop(5)


@pytest.mark.parametrize("path", ["/", "/metrics/", "/1/push", "/api/ledger", "//metrics"])
def test_there_is_nothing_else(admin: HttpServer, path: str) -> None:
    assert ask(admin, "GET", path).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_it_is_only_read(admin: HttpServer, method: str) -> None:
    answer = ask(admin, method, "/metrics")
    assert (answer.status, answer.headers["allow"]) == (405, "GET")


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        (
            "POST",
            "/1/push/all",
            404,
            ELSEWHERE,
        ),
        (
            "POST",
            "/api/push",
            404,
            ELSEWHERE,
        ),
        ("POST", "/metrics", 405, "Method Not Allowed\n"),
        ("GET", "/metrics", 413, "the body has more than 0 bytes\n"),
    ],
)
@pytest.mark.parametrize("size", [1, 100_000])
def test_a_body_changes_nothing_of_what_is_said_but_where_all_else_is_right(
    method: str, path: str, status: int, words: str, size: int, admin: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    answer = ask(admin, method, path, b"x" * size)
    assert (answer.status, answer.body.decode()) == (status, words)
    assert answer.headers["content-type"].startswith("text/plain")
    if status != 413:
        without = ask(admin, method, path)
        assert (without.status, without.body, without.headers.get("allow")) == (
            status,
            answer.body,
            answer.headers.get("allow"),
        )
    assert admin.refused == {status: 1}
    (record,) = caplog.records
    assert (record.getMessage(), vars(record)["status"]) == ("request refused", status)


def test_a_page_from_elsewhere_is_told_so_in_words() -> None:
    server = admin_server(read, Health, ("127.0.0.1", 0), Visitors(is_local=True))
    server.start()
    answer = ask(server, "GET", "/metrics", headers="Origin: https://evil.example\r\n")
    server.stop(5)
    assert (answer.status, b"origins" in answer.body, b"ret" in answer.body) == (403, True, False)


def test_a_defect_is_a_500_and_in_the_log(
    admin: HttpServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(f"{__name__}.broken", True)
    assert ask(admin, "GET", "/metrics").status == 500
    assert [record.getMessage() for record in caplog.records] == ["app failed"]


def test_an_address_that_is_in_use_names_its_key(admin: HttpServer) -> None:
    assert isinstance(admin.address, tuple)
    with pytest.raises(NodeError, match=rf"^admin 127\.0\.0\.1:{admin.address[1]} is in use already.*change admin in"):
        admin_server(read, Health, ("127.0.0.1", admin.address[1]))
    with pytest.raises(NodeError, match=r"change fabric\.admin in the topology$"):
        admin_server(read, Health, ("127.0.0.1", admin.address[1]), key="fabric.admin")


def test_a_drain_needs_the_scope_operate_also_where_metrics_need_no_key() -> None:
    begun: list[str] = []

    def begin() -> str:
        begun.append("begun")
        return "comet-1 is being drained"

    keys = [*KEYS, ApiKey("operator", (sha256(b"zim_operator").hexdigest(),), {"operate": ("*",)})]
    server = admin_server(read, Health, ("127.0.0.1", 0), drain=Drain(Keys(Principals(keys)), begin))
    server.start()
    try:
        assert ask(server, "POST", "/drain").status == 401
        answer = ask(server, "POST", "/drain", headers=f"Authorization: Bearer {KEY}\r\n")
        assert (answer.status, answer.body) == (403, b"the API key prometheus has no scope operate\n")
        assert ask(server, "GET", "/metrics").status == 200
        assert (ask(server, "GET", "/drain").status, begun) == (405, [])
        answer = ask(server, "POST", "/drain", headers="Authorization: Bearer zim_operator\r\n")
        assert (answer.status, answer.body, begun) == (202, b"comet-1 is being drained\n", ["begun"])
    finally:
        server.stop(5)


def test_what_cannot_be_drained_says_so(admin: HttpServer) -> None:
    assert ask(admin, "POST", "/drain").status == 404
    assert ask(admin, "PUT", "/drain").headers["allow"] == "POST"
