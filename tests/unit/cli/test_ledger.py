"""`zim ledger`: what it asks, prints and exits with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.unit.cli.test_push import free_address, problem, write_topology
from tests.unit.client.http_peer import Answer, serving
from zim.cli.ledger import ledger
from zim.program import zim_command


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No topology.toml in the working directory."""
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    """Runs the command."""
    return CliRunner().invoke(ledger, arguments)


def document(**changed: Any) -> dict[str, Any]:
    """A ledger of 1,203 sessions, one of each fate but delivered."""
    counts = {"pushes": 1000, "targeted": 1203, "delivered": 1199, "gone": 1, "shed": 1, "expired": 1, "unknown": 1}
    return {**counts, "pending": 0, "offline": 7, "balanced": True, "silent": [], **changed}


def answer(**changed: Any) -> Answer:
    return Answer(body=json.dumps(document(**changed)).encode())


def test_the_table() -> None:
    with serving(answer()) as server:
        result = run("--http", server.address)
    assert (result.exit_code, result.stderr) == (0, "")
    assert server.requests == [("/api/ledger", b"")]
    assert result.stdout.splitlines()[1] == "targeted   1,203  sessions that they were for"
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        ["pushes", "1,000"],
        ["targeted", "1,203"],
        ["delivered", "1,199"],
        ["gone", "1"],
        ["shed", "1"],
        ["expired", "1"],
        ["unknown", "1"],
        ["pending", "0"],
        ["offline", "7"],
    ]


def test_json() -> None:
    with serving(answer()) as server:
        result = run("--json", "--http", server.address)
    assert json.loads(result.stdout) == document()


def test_the_fabric_of_a_topology() -> None:
    with serving(answer(), answer()) as server:
        write_topology(Path("other.toml"), server.address)
        assert run("other.toml").exit_code == 0
        write_topology(Path("topology.toml"), server.address)
        assert run().exit_code == 0


@pytest.mark.parametrize(
    ("found", "code", "text"),
    [
        ({"delivered": 0, "balanced": False}, 1, "it does not balance: 1203 targeted, 4 accounted for"),
        (
            {"balanced": False, "silent": ["router-1", "router-3"]},
            3,
            "no answer from router-1, router-3: what they know",
        ),
        ({"pending": 1, "delivered": 1198}, 0, ""),
    ],
)
def test_exit_codes(found: dict[str, Any], code: int, text: str) -> None:
    with serving(answer(**found)) as server:
        result = run("--http", server.address)
    assert result.exit_code == code
    assert text in result.stderr
    assert result.stdout.startswith("pushes")


@pytest.mark.parametrize(
    "wrong",
    [
        Answer(404, b"404 page not found\n"),
        Answer(200, b'{"ret":1}'),
        Answer(200, b"[]"),
        Answer(200, b"{"),
        Answer(200, json.dumps(document(pending="0")).encode()),
        Answer(503, json.dumps(document()).encode()),
    ],
)
def test_what_is_no_ledger_tells_nothing(wrong: Answer) -> None:
    with serving(wrong) as server:
        result = run("--http", server.address)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "is no ledger; is this a logic node's HTTP port?" in result.stderr


def test_a_key_is_needed() -> None:
    needed = problem(401, "an API key is needed: Authorization: Bearer zim_…")
    with serving(needed) as server:
        result = run("--http", server.address)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("zim ledger: an API key is needed: Authorization: Bearer zim_…; ")
    assert "--key-file" in result.stderr
    assert "ZIM_API_KEY" in result.stderr
    with serving(problem(503, "a router does not answer")) as server:
        result = run("--http", server.address)
    assert (result.exit_code, result.stderr) == (3, "zim ledger: a router does not answer\n")


def test_nobody_answers() -> None:
    address = free_address()
    result = run("--http", address)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == f"zim ledger: nothing listens on {address}; is the fabric up? {zim_command()} up\n"
    with serving(None) as server:
        result = run("--http", server.address)
    assert result.exit_code == 3
    assert "no answer from" in result.stderr


def test_it_waits_until_nothing_is_pending_and_every_router_has_answered() -> None:
    unsettled = [answer(pending=1, delivered=1198), answer(silent=["router-1"], balanced=False)]
    with serving(*unsettled, answer()) as server:
        result = run("--http", server.address, "--wait", "60")
    assert (result.exit_code, len(server.requests)) == (0, 3)


def test_it_does_not_wait_for_ever() -> None:
    pending = [answer(pending=1, delivered=1198)] * 20
    with serving(*pending) as server:
        result = run("--http", server.address, "--wait", "0.15")
    assert result.exit_code == 3
    assert result.stderr == "zim ledger: 1 sessions are pending still after 0.15 s\n"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--http", "nowhere"), 1, "write host:port"),
        (("none.toml",), 1, "none.toml: there is no such file"),
        (("--wait", "-1"), 2, "Invalid value for '--wait'"),
        (("--wait", "nan"), 2, "nan is no length of time"),
        (("a", "b"), 2, "unexpected extra argument"),
    ],
)
def test_what_is_wrong_on_the_command_line(arguments: tuple[str, ...], code: int, text: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert text in result.stderr
