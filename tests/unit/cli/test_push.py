"""`zim push`: what it sends, prints and exits with."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.unit.client.http_peer import Answer, serving
from zim.cli.push import push


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No topology.toml in the working directory."""
    monkeypatch.chdir(tmp_path)


def run(*arguments: str, given: bytes = b"") -> Result:
    """Runs the command."""
    return CliRunner().invoke(push, arguments, input=given)


def free_address() -> str:
    """Where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def write_topology(path: Path, http: str) -> None:
    """A topology whose first logic node is there."""
    path.write_text(
        "[fabric]\nname = 'x'\ndata_dir = 'var'\n[[router]]\nid = 1\nbind = 'tcp://127.0.0.1:1'\n"
        f"[[logic]]\nid = 1\nbind = 'tcp://127.0.0.1:2'\nhttp = '{http}'\n"
        "[[job]]\nid = 1\nbind = 'tcp://127.0.0.1:3'\n"
        "[[comet]]\nid = 1\nbind = 'tcp://127.0.0.1:4'\ntcp = '127.0.0.1:5'\n"
    )


@pytest.mark.parametrize(
    ("arguments", "request_"),
    [
        (("user", "7", '{"test":1}'), ("/1/push?uid=7", b'{"test":1}')),
        (("user", "7", "not json"), ("/1/push?uid=7", b"not json")),
        (("user", "-5", "-1"), ("/1/push?uid=-5", b"-1")),
        (("users", "7,8,9", "1"), ("/1/pushs", b'{"u":[7, 8, 9],"m":1}')),
        (("room", "1", "x"), ("/1/push/room?rid=1", b"x")),
        (("all", "-"), ("/1/push/all", b"\xfffrom stdin\n")),
        (("all", "@body.bin"), ("/1/push/all", b"\x00from a file")),
        (("user", "7", "\udcff"), ("/1/push?uid=7", b"\xff")),
    ],
)
def test_what_is_sent(arguments: tuple[str, ...], request_: tuple[str, bytes]) -> None:
    Path("body.bin").write_bytes(b"\x00from a file")
    with serving() as server:
        result = run(*arguments, "--http", server.address, given=b"\xfffrom stdin\n")
    assert (result.stdout, result.stderr, result.exit_code) == ("abc\n", "", 0)
    assert server.requests == [request_]


def test_the_fabric_may_be_named_before_the_target() -> None:
    with serving() as server:
        assert run("--http", server.address, "room", "1", "x").exit_code == 0
    assert server.requests == [("/1/push/room?rid=1", b"x")]


def test_the_fabric_of_a_topology() -> None:
    with serving() as server:
        write_topology(Path("other.toml"), server.address)
        assert run("user", "7", "x", "--topology", "other.toml").exit_code == 0
        write_topology(Path("topology.toml"), server.address)
        assert run("user", "8", "x").exit_code == 0
    assert [path for path, _ in server.requests] == ["/1/push?uid=7", "/1/push?uid=8"]


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (Answer(200, b'{"ret":65535}'), 1, "refused with ret 65535: a uid is a number such as 7"),
        (Answer(413, b""), 1, "too large"),
        (Answer(404, b""), 1, "logic node's HTTP port"),
        (Answer(503, b"", {"Retry-After": "1"}), 3, "try again in 1 s"),
        (Answer(504, b""), 3, "does not know"),
        (None, 3, "hung up"),
        (Answer(headers={}), 0, "names no push id"),
    ],
)
def test_exit_codes(answer: Answer | None, code: int, text: str) -> None:
    with serving(answer) as server:
        result = run("user", "x", "body", "--http", server.address)
    assert result.exit_code == code
    assert text in result.stderr
    assert result.stdout == ""


def test_nothing_listens() -> None:
    address = free_address()
    result = run("all", "x", "--http", address)
    assert result.exit_code == 3
    assert result.stderr == f"zim push: nothing listens on {address}; is the fabric up? zim up\n"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("user", "7", "x", "--http", "nowhere"), 1, "write host:port"),
        (("user", "7", "x", "--topology", "none.toml"), 1, "none.toml: there is no such file"),
        (("users", "7,x", "1"), 1, "'x' is not a uid"),
        (("users", "7", "no json"), 1, "must be JSON"),
        (("user", "7"), 2, "Missing argument 'BODY'"),
        (("user", "7", "@none"), 2, "cannot read none: No such file"),
        (("nobody", "7", "x"), 2, "No such command 'nobody'"),
    ],
)
def test_what_is_wrong_on_the_command_line(arguments: tuple[str, ...], code: int, text: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert text in result.stderr


def test_a_topology_that_is_wrong_is_not_passed_over() -> None:
    Path("topology.toml").write_text("[fabric]\nnome = 1\n")
    result = run("user", "7", "x")
    assert result.exit_code == 1
    assert "nome" in result.stderr


def test_help_shows_examples_and_exit_codes() -> None:
    text = run("--help").stdout
    assert "zim push user 7 '{\"test\":1}'" in text
    assert "3  the fabric is not reachable" in text
