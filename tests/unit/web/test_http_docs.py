"""The examples of docs/http-api.md work, and its lists are complete."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit

from tests.unit.web.support import Recorder, ask
from zim.fabric.answers import Place
from zim.fabric.limits import (
    KEY_BYTES,
    LARGEST,
    NAME_BYTES,
    RECIPIENTS,
    SESSION_ROOMS,
    SESSIONS,
    TTL_S,
    WAIT_S,
)
from zim.web import problems
from zim.web.api import ROUTES
from zim.web.batch import MAX_BATCH_BYTES, MAX_LINES
from zim.web.openapi import document
from zim.web.server import HttpServer

PAGE = (Path(__file__).parents[3] / "docs" / "http-api.md").read_text()


def examples() -> list[tuple[str, list[str]]]:
    """Command lines, and the lines that are answered, `…` for anything."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("# "):
                found[-1][1].append(line[2:])
            else:
                found.append((line, []))
    return found


def run(server: HttpServer, command: str) -> str:
    """The body of the answer to a curl command, or to printf | curl."""
    printed, _, curl = command.rpartition(" | ")
    stdin = "\n".join(shlex.split(printed)[2:])
    words = iter(shlex.split(curl)[1:])
    headers, body, url, method = "", b"", "", ""
    for word in words:
        match word:
            case "-H":
                headers += next(words) + "\r\n"
            case "-d" | "--data-binary":
                body = next(words).replace("@-", stdin).encode()
            case "-X":
                method = next(words)
            case _:
                url = word
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    return ask(server, method or ("POST" if body else "GET"), path, body, headers).body.decode()


def test_examples(server: HttpServer, fabric: Recorder) -> None:
    fabric.places["7"] = [Place("comet-1", "7_1", ("lobby",))]
    for command, expected in examples():
        lines = run(server, command).splitlines()
        assert len(lines) == len(expected), command
        for line, pattern in zip(lines, expected, strict=True):
            assert re.fullmatch(".*".join(re.escape(piece) for piece in pattern.split("…")), line), (command, line)
    assert [len(fabric.streams[stream]) for stream in ("u:7", "u:8", "u:9", "r:a")] == [2, 1, 1, 1]


def test_every_problem_is_listed() -> None:
    rows = dict(re.findall(r"^\| `([\w-]+)` \| ([0-9]{3})", PAGE, re.MULTILINE))
    assert rows == {kind.name: str(kind.status) for kind in problems.KINDS}


def test_every_path_and_field_is_listed() -> None:
    described = document(ROUTES, 1)
    for path in described["paths"]:
        shown = path.replace("{", "<").replace("}", ">")
        assert re.search(rf"^\| `(GET|POST) {shown}[?`]", PAGE, re.MULTILINE), path
    schemas = described["components"]["schemas"]
    fields = [f"to.{name}" for name in schemas["To"]["properties"]] + list(schemas["PushRequest"]["properties"])
    for field in set(fields) - {"to"}:
        assert f"`{field}`" in PAGE, field
    for field in schemas["Receipt"]["properties"]:
        assert f"`{field}`" in PAGE or f'"{field}"' in PAGE, field


def test_limits_are_true() -> None:
    assert f"1 to {NAME_BYTES} bytes" in PAGE
    assert f"1 to {KEY_BYTES} bytes" in PAGE
    assert f"{RECIPIENTS:,} recipients" in PAGE
    assert f"{MAX_LINES:,} lines and {MAX_BATCH_BYTES >> 20} MiB" in PAGE
    assert f"0 to {WAIT_S:.0f}" in PAGE
    assert f"{TTL_S / 86_400:.0f} days" in PAGE
    text = " ".join(PAGE.split())
    assert f"at most {SESSIONS:,} sessions are shown, and no more than are in {SESSION_ROOMS:,} rooms" in text
    assert f"decides. `limit` is at most {LARGEST:,}." in text
