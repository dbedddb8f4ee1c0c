"""What whoever opens the address of the HTTP API sees first."""

from __future__ import annotations

import re

from tests.unit.web.support import ask
from zim import __version__
from zim.web.server import HttpServer


def test_it_says_what_this_is_and_all_it_names_is_there(server: HttpServer) -> None:
    answer = ask(server, "GET", "/")
    assert answer.status == 200
    text = answer.body.decode()
    assert text.startswith(f"zim {__version__}")
    named = re.findall(r"^(GET|POST) +(/[^ ?]+)", text, re.MULTILINE)
    assert len(named) == 4
    for method, path in named:
        assert ask(server, method, path, b"{}").status not in (404, 405)
    assert ask(server, "POST", "/").status == 405


def test_json_ends_with_its_line(server: HttpServer) -> None:
    for path in ("/api/openapi.json", "/api/ledger", "/api/pushes/none", "/api/nothing"):
        assert ask(server, "GET", path).body.endswith(b"}\n")
