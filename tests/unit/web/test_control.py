"""Orders about people: what is refused before anybody is asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.web.support import Recorder, ask
from zim.web.app import create_app, request_limits
from zim.web.server import HttpServer


@pytest.fixture
def server() -> Iterator[HttpServer]:
    server = HttpServer(create_app(Recorder(), 1000), ("127.0.0.1", 0), 5.0, request_limits(1000))
    server.start()
    yield server
    server.stop(5)


@pytest.mark.parametrize(
    ("query", "about"),
    [
        ("", "user: it is missing, and so is address"),
        ("device=phone", "user: it is missing, and so is address"),
        ("user=7&address=", "user: it is there, and so is address"),
        ("user=&address=203.0.113.7", "user: it is there, and so is address"),
        ("user=", "nobody can be called"),
        ("address=", "address"),
        ("address=203.0.113.7&device=phone", "device: it is there with an address"),
    ],
)
def test_a_ban_is_of_one_user_or_of_one_address(server: HttpServer, query: str, about: str) -> None:
    answer = ask(server, "DELETE", f"/api/bans?{query}")
    assert answer.status == 400
    assert about in answer.json["detail"]


def test_what_is_one_of_them_is_taken(server: HttpServer) -> None:
    assert ask(server, "DELETE", "/api/bans?user=7").status == 200
    assert ask(server, "DELETE", "/api/bans?address=203.0.113.7").status == 200
