"""`zim explain`: what it prints and exits with."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.unit.cli.test_push import free_address, problem
from tests.unit.client.http_peer import Answer, serving
from tests.unit.topology.test_file import small, text_of
from zim.cli import main

ISSUER = {"issuer": "https://app.example.com", "audience": "zim", "algorithms": ["HS256"], "secret_file": "jwt"}
BANS = {"bans": [{"time": 1, "user": "anna", "reason": "spam\x1b[31m"}], "total": 1}


@pytest.fixture(autouse=True)
def _fabric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ZIM_TOKEN", raising=False)
    monkeypatch.delenv("ZIM_TOPOLOGY", raising=False)
    write_topology(issuer=[ISSUER])
    Path("jwt").write_text("s" * 48)
    Path("anna.token").write_text(run("token", "make", "anna", "--room", "lobby", "--join", "chat-*").stdout)


def write_topology(**tables: Any) -> None:
    Path("topology.toml").write_text(text_of(small() | tables))


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, arguments, env=environment)


def test_yes() -> None:
    result = run("explain", "anna", "chat-1", "--token-file", "anna.token")
    first, until, bans, kept = result.stdout.splitlines()
    assert (result.exit_code, first) == (0, "yes: the token's claim zim.join has 'chat-*'")
    end = time.mktime(time.strptime(until, "  the token is anna's, until %Y-%m-%d %H:%M:%S"))
    assert 3500 < end - time.time() <= 3600
    assert bans == "  bans were not looked at; with --http or --key-file they are"
    assert kept == "  'chat-1' is of no room class: the newest 100,000 messages are kept, for 1 day"


def test_no_by_the_environments_token() -> None:
    result = run("explain", "anna", "news", ZIM_TOKEN=Path("anna.token").read_text())
    assert result.exit_code == 1
    assert result.stdout.startswith("no: neither the token's claim zim.rooms nor join has it\n")


def test_it_depends() -> None:
    result = run("explain", "anna", "chat-1")
    assert result.exit_code == 3
    assert result.stdout.startswith("it depends: the token decides; show it with --token-file\n")


def test_a_token_file_is_no_path_around_the_issuer() -> None:
    Path("jwt").write_text("t" * 48)
    result = run("explain", "anna", "chat-1", "--token-file", "anna.token")
    assert result.exit_code == 1
    assert result.stdout.startswith("no: the token is refused: the token's signature is not right\n")


def test_keys_that_cannot_be_had() -> None:
    Path("jwt").unlink()
    result = run("explain", "anna", "chat-1", "--token-file", "anna.token")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("zim explain: issuer[0].secret_file: ")


def test_keys_at_a_url() -> None:
    with serving(Answer(404, b"")) as server:
        issuer = {**ISSUER, "algorithms": ["RS256"], "jwks": f"http://{server.address}/keys"}
        del issuer["secret_file"]
        write_topology(issuer=[issuer])
        Path("jwt.token").write_text("eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL2FwcC5leGFtcGxlLmNvbSJ9.x")
        result = run("explain", "anna", "chat-1", "--token-file", "jwt.token")
    assert (result.exit_code, result.stderr) == (
        3,
        f"zim explain: http://{server.address}/keys answers with status 404\n",
    )
    result = run("explain", "anna", "chat-1", "--token-file", "jwt.token")
    assert result.exit_code == 3
    assert result.stderr.startswith(
        f"zim explain: http://{server.address}/keys: "
    )  # and what it is that did not answer


@pytest.mark.parametrize("arguments", [("anna", "*"), ("anna", ""), ("", "lobby"), ("an\nna", "lobby")])
def test_names_that_are_none(arguments: tuple[str, str]) -> None:
    result = run("explain", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "can be called" in result.stderr


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_no_token_in_the_file(content: str | None) -> None:
    if content is not None:
        Path("x.token").write_text(content)
    result = run("explain", "anna", "lobby", "--token-file", "x.token")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "x.token" in result.stderr


def test_a_user_who_is_banned() -> None:
    Path("ops.key").write_text("zim_ops")
    with serving(Answer(body=json.dumps(BANS).encode())) as server:
        more = ("--token-file", "anna.token", "--http", server.address, "--key-file", "ops.key")
        result = run("explain", "anna", "lobby", *more)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[:2] == [
        "no: 'anna' is banned for ever: spam\\x1b[31m",
        "  else yes: the token's claim zim.rooms has 'lobby': it is there from the start",
    ]
    assert server.requests[0][0] == "/api/bans?limit=1000"


def test_a_key_alone_asks_the_topologys_logic() -> None:
    Path("ops.key").write_text("zim_ops")
    with serving(Answer(body=b'{"bans": [], "total": 0}')) as server:
        logic = [{"id": 1, "http": server.address, "bind": "tcp://127.0.0.1:7170"}]
        write_topology(issuer=[ISSUER], logic=logic)
        result = run("explain", "anna", "lobby", "--token-file", "anna.token", "--key-file", "ops.key")
    assert result.exit_code == 0
    assert "  'anna' is not banned\n" in result.stdout


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (
            problem(403, "the API key app has no scope ban"),
            "bans are not told (HTTP 403): the API key app has no scope ban",
        ),
        (Answer(404, b"<html>"), "are no bans; is this a logic node's HTTP port?"),
        (Answer(body=b"[]"), "are no bans; is this a logic node's HTTP port?"),
        (None, "nothing listens on "),
    ],
)
def test_bans_that_are_not_told(answer: Answer | None, why: str) -> None:
    if answer is None:
        result = run("explain", "anna", "lobby", "--token-file", "anna.token", "--http", free_address())
    else:
        with serving(answer) as server:
            result = run("explain", "anna", "lobby", "--token-file", "anna.token", "--http", server.address)
    assert result.exit_code == 3
    assert result.stdout.startswith("yes: the token's claim zim.rooms has 'lobby'")
    assert "not banned" not in result.stdout
    assert result.stderr.startswith("zim explain: ")
    assert why in result.stderr


def test_who_may_not_be_there_may_not_whoever_is_banned() -> None:
    with serving(problem(403, "the API key app has no scope ban")) as server:
        result = run("explain", "anna", "news", "--token-file", "anna.token", "--http", server.address)
    assert (result.exit_code, result.stdout.partition(":")[0]) == (1, "no")
    assert "has no scope ban" in result.stderr
