"""`zim push`: what it sends, prints and exits with."""

from __future__ import annotations

import base64
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.unit.client.http_peer import Answer, serving
from zim.cli.push import push
from zim.program import zim_command


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


def accept(request: bytes) -> bytes:
    """Accepts any push, and says so as the API does."""
    return json.dumps({"id": "abc", "status": "accepted", "streams": {"u:7": 1}}).encode()


def accepting() -> Answer:
    return Answer(200, accept)


def problem(status: int, detail: str, **more: Any) -> Answer:
    found = {"type": "urn:zim:problem:x", "title": "a title", "status": status, "detail": detail, **more}
    return Answer(status, json.dumps(found).encode())


@pytest.mark.parametrize(
    ("arguments", "to", "body"),
    [
        (("user", "anna", '{"test":1}'), {"users": ["anna"]}, b'{"test":1}'),
        (("user", "-5", "-1"), {"users": ["-5"]}, b"-1"),
        (("users", "7,8,anna", "not json"), {"users": ["7", "8", "anna"]}, b"not json"),
        (("room", "lobby", "x"), {"rooms": ["lobby"]}, b"x"),
        (("keys", "7_12,anna_3", "x"), {"keys": ["7_12", "anna_3"]}, b"x"),
        (("room", "lobby", "x", "--keys", "7_12"), {"rooms": ["lobby"], "keys": ["7_12"]}, b"x"),
        (("all", "-"), {"everybody": True}, b"\xfffrom stdin\n"),
        (("all", "@body.bin"), {"everybody": True}, b"\x00from a file"),
        (("user", "7", "\udcff"), {"users": ["7"]}, b"\xff"),
    ],
)
def test_what_is_sent(arguments: tuple[str, ...], to: dict[str, Any], body: bytes) -> None:
    Path("body.bin").write_bytes(b"\x00from a file")
    with serving(accepting()) as server:
        result = run(*arguments, "--http", server.address, given=b"\xfffrom stdin\n")
    assert (result.stdout, result.stderr, result.exit_code) == ("abc\n", "", 0)
    ((path, request),) = server.requests
    sent = json.loads(request)
    assert path == "/api/push"
    assert sent.pop("id")
    assert sent == {"to": to, "base64": base64.b64encode(body).decode(), "op": 5}


def test_options_of_a_push() -> None:
    with serving(accepting()) as server:
        options = ("--id", "order-1", "--ttl", "1.5", "--op", "100", "--wait", "0")
        assert run("user", "7", "x", *options, "--http", server.address).exit_code == 0
    found = json.loads(server.requests[0][1])
    assert (found["id"], found["ttl_s"], found["op"], found["wait_s"]) == ("order-1", 1.5, 100, 0)


@pytest.mark.parametrize(
    ("arguments", "request_"),
    [
        (("user", "7", "not json"), ("/1/push?uid=7", b"not json")),
        (("user", "-5", "-1"), ("/1/push?uid=-5", b"-1")),
        (("users", "7,8,9", "1"), ("/1/pushs", b'{"u":[7, 8, 9],"m":1}')),
        (("room", "1", "x"), ("/1/push/room?rid=1", b"x")),
        (("all", "-"), ("/1/push/all", b"\xfffrom stdin\n")),
    ],
)
def test_what_is_sent_to_goims_api(arguments: tuple[str, ...], request_: tuple[str, bytes]) -> None:
    with serving() as server:
        result = run(*arguments, "--goim", "--http", server.address, given=b"\xfffrom stdin\n")
    assert (result.stdout, result.stderr, result.exit_code) == ("abc\n", "", 0)
    assert server.requests == [request_]


def test_the_fabric_and_goim_may_be_named_before_the_target() -> None:
    with serving() as server:
        assert run("--goim", "--http", server.address, "room", "1", "x").exit_code == 0
    assert server.requests == [("/1/push/room?rid=1", b"x")]


def test_the_fabric_of_a_topology() -> None:
    with serving(accepting(), accepting()) as server:
        write_topology(Path("other.toml"), server.address)
        assert run("user", "7", "x", "--topology", "other.toml").exit_code == 0
        write_topology(Path("topology.toml"), server.address)
        assert run("user", "8", "x").exit_code == 0
    assert len(server.requests) == 2


def test_what_became_of_it_is_told_in_a_sentence() -> None:
    counts = {"targeted": 2, "delivered": 2, "gone": 0, "shed": 0, "expired": 0, "unknown": 0, "pending": 0}
    receipt = {"id": "abc", **counts, "offline": 1, "silent": [], "hops_ms": {}, "forgotten": [], "offline_users": []}
    answer = {"id": "abc", "status": "accepted", "streams": {}, "receipt": receipt}
    with serving(Answer(200, json.dumps(answer).encode()), accepting()) as server:
        told = run("user", "7", "x", "--wait", "2", "--http", server.address)
        untold = run("user", "7", "x", "--wait", "2", "--http", server.address)
    assert told.stdout == "abc\ndelivered to 2 sessions; 1 user is offline\n"
    assert untold.stdout == "abc\nwhat became of it was not told\n"


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (problem(400, "op: 6 is not for pushes", expected="5"), 1, "op: 6 is not for pushes; right is 5\n"),
        (problem(422, "its key was used before"), 1, "zim push: its key was used before\n"),
        (Answer(404, b""), 1, "logic node's HTTP port"),
        (problem(503, "nothing was kept"), 3, "cannot take it now (503): nothing was kept\n"),
        (
            problem(504, "router-2 is away"),
            3,
            "(504): router-2 is away; with --id k the same again is not pushed twice",
        ),
        (None, 3, "hung up"),
    ],
)
def test_exit_codes(answer: Answer | None, code: int, text: str) -> None:
    with serving(answer) as server:
        result = run("user", "x", "body", "--id", "k", "--http", server.address)
    assert result.exit_code == code
    assert text in result.stderr
    assert result.stdout == ""


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
def test_exit_codes_of_goims_api(answer: Answer | None, code: int, text: str) -> None:
    with serving(answer) as server:
        result = run("--goim", "user", "x", "body", "--http", server.address)
    assert result.exit_code == code
    assert text in result.stderr
    assert result.stdout == ""


def test_nothing_listens() -> None:
    address = free_address()
    result = run("all", "x", "--http", address)
    assert result.exit_code == 3
    assert result.stderr == f"zim push: nothing listens on {address}; is the fabric up? {zim_command()} up\n"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("user", "7", "x", "--http", "nowhere"), 1, "write host:port"),
        (("user", "7", "x", "--topology", "none.toml"), 1, "none.toml: there is no such file"),
        (("--goim", "users", "7,x", "1"), 1, "'x' is not a uid"),
        (("--goim", "users", "7", "no json"), 1, "must be JSON"),
        (("--goim", "user", "7", "x", "--ttl", "1"), 2, "goim's API has no --ttl; leave out --goim, or --ttl"),
        (("--goim", "room", "7", "x", "--keys", "7_1"), 2, "goim's API has no --keys"),
        (("keys", "7_12", "x", "--goim"), 2, "goim's API has no pushes to keys"),
        (("users", "6,7", "x", "--keys", "7_12"), 2, "all sessions of 7 get it, not 7_12 alone"),
        (("user", "\udcff", "x"), 2, "is not UTF-8"),
        (("room", "a", "x", "--keys", "\udcff_1"), 2, "is not UTF-8"),
        (("user", "7", "x", "--id", ""), 2, "'' cannot be a key; right is 1 to 255 bytes"),
        (("user", "7", "x", "--wait", "31"), 2, "Invalid value for '--wait'"),
        (("user", "7", "x", "--wait", "nan"), 2, "nan is no length of time; right is a number of seconds"),
        (("user", "7", "x", "--ttl", "nan"), 2, "nan is no length of time"),
        (("user", "7", "x", "--ttl", "0"), 2, "Invalid value for '--ttl'"),
        (("user", "7"), 2, "Missing argument 'BODY'"),
        (("user", "7", "@none"), 2, "cannot read the file none: No such file"),
        (("nobody", "7", "x"), 2, "'nobody' does not say to whom; right is one of user, users, room"),
        (("nobody", "to me"), 2, "zim push user nobody 'to me'\n"),
        (("everybody", "hi"), 2, "did you mean all? Right is one of user,"),
        (("rooms", "lobby", "hi"), 2, "'rooms' does not say to whom; did you mean room? Right is one of user, users,"),
        (("rooms", "lobby", "hi"), 2, "zim push room lobby hi\n"),
        (
            ("usr",),
            2,
            "zim push user 7 hello\n",
        ),
        (("7", "hi"), 2, "zim push user 7 hi"),
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


@pytest.mark.parametrize("goim", [(), ("--goim",)])
def test_a_key_is_needed(goim: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZIM_API_KEY", raising=False)
    with serving(problem(401, "an API key is needed")) as server:
        result = run("user", "7", "x", "--http", server.address, *goim)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("zim push: refused (401): an API key is needed")
    assert goim or "--key-file FILE, or in ZIM_API_KEY" in result.stderr
    assert "api_key=" not in result.stderr
