"""`zim who`: what it asks, prints and exits with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.cells import cell_len

from tests.unit.cli.test_push import free_address, write_topology
from tests.unit.client.http_peer import Answer, serving
from zim.cli.who import WIDTH, who

PLACES = [
    {"comet": "comet-1", "key": "7_1", "rooms": ["lobby", "a/b"]},
    {"comet": "comet-2", "key": "7_12", "rooms": []},
]
USER = {"user": "7", "online": True, "sessions": PLACES, "left_out": 0}
ROOM = {"room": "lobby", "sessions": 1203, "users": 1}
ROOMS = {"rooms": [{"room": "lobby", "sessions": 1203}, {"room": "a/b", "sessions": 1}]}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No topology.toml in the working directory."""
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    """Runs the command."""
    return CliRunner().invoke(who, arguments)


def told(document: Any, *arguments: str) -> tuple[str, str]:
    """What is asked for where this is the answer, and what is printed."""
    with serving(Answer(body=json.dumps(document).encode())) as server:
        result = run(*arguments, "--http", server.address)
    assert (result.exit_code, result.stderr) == (0, "")
    ((path, _),) = server.requests
    return path, result.stdout


def test_a_user() -> None:
    path, text = told(USER, "user", "7")
    assert path == "/api/users/7"
    first, head, _, *rows = text.splitlines()
    assert first == "user 7 is online: 2 sessions"
    assert head.split() == ["session", "comet", "rooms"]
    assert [row.split() for row in rows] == [["7_1", "comet-1", "lobby,", "a/b"], ["7_12", "comet-2"]]


def test_a_user_with_too_many_sessions() -> None:
    _, text = told({**USER, "left_out": 1998}, "user", "7")
    assert text.splitlines()[0] == "user 7 is online: 2,000 sessions"
    assert text.splitlines()[-1] == "and 1,998 more"


def test_a_room() -> None:
    assert told(ROOM, "room", "lobby") == ("/api/rooms/lobby", "room lobby: 1,203 sessions of 1 user\n")


def test_the_largest_rooms() -> None:
    path, text = told(ROOMS, "rooms")
    assert path == "/api/rooms?limit=100"
    assert [line.split() for line in text.splitlines()[2:]] == [["lobby", "1,203"], ["a/b", "1"]]
    assert told(ROOMS, "rooms", "--limit", "7")[0] == "/api/rooms?limit=7"


def test_nobody_is_no_error() -> None:
    assert (
        told({"user": "7", "online": False, "sessions": [], "left_out": 0}, "user", "7")[1] == "user 7 is not online\n"
    )
    assert told({**ROOM, "sessions": 0, "users": 0}, "room", "lobby")[1] == "nobody is in room lobby\n"
    assert told({"rooms": []}, "rooms")[1] == "nobody is in a room\n"


@pytest.mark.parametrize(
    ("document", "arguments"), [(USER, ("user", "7")), (ROOM, ("room", "lobby")), (ROOMS, ("rooms",))]
)
def test_json(document: Any, arguments: tuple[str, ...]) -> None:
    assert json.loads(told(document, *arguments, "--json")[1]) == document
    assert json.loads(told(document, "--json", *arguments)[1]) == document


@pytest.mark.parametrize(
    ("name", "segment"),
    [("a/b", "a%2Fb"), ("-5", "-5"), ("é ?", "%C3%A9%20%3F"), ("..", ".."), ("\udcff", "%FF"), ("%2F", "%252F")],
)
def test_names_are_encoded(name: str, segment: str) -> None:
    assert told(USER, "user", name)[0] == f"/api/users/{segment}"
    assert told(ROOM, "room", name)[0] == f"/api/rooms/{segment}"


@pytest.mark.parametrize(
    "name", ["\x1b[2Ja", "a\nb", "\x9b31m", "\u202eabc", "a\u2028b", "\x7f", "[red]x[/red] :smile:"]
)
def test_a_terminal_gets_no_control_characters_of_names(name: str) -> None:
    shown = name.encode("unicode_escape").decode()
    place = {"comet": name, "key": name, "rooms": [name]}
    for document, arguments in (
        ({**USER, "user": name}, ("user", "7")),
        ({**USER, "online": False, "user": name}, ("user", "7")),
        ({**USER, "sessions": [place]}, ("user", "7")),
        ({**ROOM, "room": name}, ("room", "x")),
        ({**ROOM, "room": name, "sessions": 0}, ("room", "x")),
        ({"rooms": [{"room": name, "sessions": 1}]}, ("rooms",)),
    ):
        _, text = told(document, *arguments)
        assert shown in text
        assert all(c.isprintable() or c == "\n" for c in text)
        assert name.isprintable() or name not in text
        assert told(document, *arguments, "--json")[1].isascii()
    with serving(Answer(400, json.dumps({"detail": name}).encode())) as server:
        assert run("rooms", "--http", server.address).stderr == f"zim who: {shown}\n"


@pytest.mark.parametrize("name", ["x" * 253, "é" * 126, "日" * 84, "a b " * 60])
def test_tables_fit(name: str) -> None:
    place = {"comet": "comet-1", "key": f"{name}_1", "rooms": [name] * 3}
    texts = [
        told({**USER, "sessions": [place]}, "user", "7")[1],
        told({"rooms": [{"room": name, "sessions": 1}]}, "rooms")[1],
    ]
    for text in texts:
        assert max(map(cell_len, text.splitlines())) <= WIDTH == 80
        assert text.count(name[0]) >= name.count(name[0])  # nothing of it is cut off


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (
            Answer(400, b'{"detail":"path: * is no room","expected":"a name"}'),
            1,
            "path: * is no room; right is: a name\n",
        ),
        (Answer(404, b'{"detail":"no path of this API"}'), 1, "no path of this API"),
        (Answer(404, b"404 page not found\n"), 3, "is no answer; is this a logic node's HTTP port?"),
        (Answer(200, b'{"ret":1}'), 3, "is no answer"),
        (Answer(200, b"["), 3, "is no answer"),
        (Answer(503, b'{"detail":"router-1: no answer"}'), 3, "zim who: router-1: no answer\n"),
        (Answer(500, b'{"detail":"a defect"}'), 3, "a defect"),
        (None, 3, "no answer from"),
    ],
)
def test_exit_codes(answer: Answer | None, code: int, text: str) -> None:
    with serving(answer) as server:
        result = run("room", "x", "--http", server.address)
    assert (result.exit_code, result.stdout) == (code, "")
    assert text in result.stderr


def test_the_fabric_of_a_topology() -> None:
    answer = Answer(body=json.dumps(ROOM).encode())
    with serving(answer, answer, answer) as server:
        write_topology(Path("other.toml"), server.address)
        assert run("room", "x", "--topology", "other.toml").exit_code == 0
        assert run("--topology", "other.toml", "room", "x").exit_code == 0
        write_topology(Path("topology.toml"), server.address)
        assert run("room", "x").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("rooms", "--http", "nowhere"), 1, "write host:port"),
        (("rooms", "--topology", "none.toml"), 1, "none.toml: there is no such file"),
        (("rooms", "--http", free_address()), 3, "zim up\n"),
        (("rooms", "--limit", "1001"), 2, "1001 is not in the range"),
        (("room", ""), 2, "a name has one character at least"),
        (("room",), 2, "Missing argument 'ROOM'"),
        (("nobody", "7"), 2, "no such command: nobody; right is: "),
    ],
)
def test_what_is_wrong(arguments: tuple[str, ...], code: int, text: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert text in result.stderr
