"""The page "kick and ban", word for word but for the ports: what comes back, what clients see, what stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import wait_until
from tests.pages import Page, assert_says, follow, free_offset, listening, ran, sh, told, up
from tests.programs import program
from zim.client import Listener, SentAway

OFFSET = free_offset()
PAGE, JWT = Page("banning", OFFSET), Page("jwt", OFFSET)
TCP = f"127.0.0.1:{PAGE.port(8080)}"
BANNED, KICKED, SENT_AWAY, REPLACED, TOO_MANY = 4405, 4406, 4206, 4407, 4408


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the two pages have been followed, up to the moderators' key."""
    program("curl", "curl")
    _, setup, *_ = JWT.blocks("sh", "zim")
    found = JWT.begin(tmp_path_factory.mktemp("banning"))
    ran(JWT.setup(setup), found)
    (key,) = PAGE.blocks("sh", "A key for it")
    with up(found):
        ran(key, found)
        yield found


def text(heading: str) -> str:
    """What a client of this part of the page says."""
    (found,) = PAGE.blocks("text", heading)
    return found


def ask(folder: Path, method: str, path: str, **document: object) -> str:
    """What the moderators' key is answered."""
    url = f"http://127.0.0.1:{PAGE.port(7172)}{path}"
    body = f"-d '{json.dumps(document)}'" if document else ""
    headers = "-H @secrets/mod.header -H 'Content-Type: application/json'"
    return ran(f"curl -s {headers} -X {method} '{url}' {body}", folder)


def token(folder: Path, words: str) -> str:
    return ran(f"zim token make {words}", folder).strip()


def rooms(folder: Path, user: str) -> list[list[str]]:
    """Of each of a user's sessions."""
    return [session["rooms"] for session in json.loads(ask(folder, "GET", f"/api/users/{user}"))["sessions"]]


def sent_away(shown: str) -> tuple[int, str]:
    """The code with which a token is sent away at once, and why."""
    with Listener(TCP, shown) as listener, pytest.raises(SentAway) as e:
        next(iter(listener))
    return e.value.code, str(e.value)


def test_kicked_banned_moved(folder: Path) -> None:
    """The page from top to bottom, with anna's two sessions."""
    clients, kick = PAGE.blocks("sh", "Kick")
    ban, lift, address = PAGE.blocks("sh", "Ban")
    (move,) = PAGE.blocks("sh", "Rooms of a user")
    *tokens, phone_line, browser_line = clients.splitlines()
    for line in tokens:
        ran(line, folder)
    with listening(browser_line, folder, name="browser") as browser:
        with listening(phone_line, folder, name="phone") as phone:
            follow(kick, folder)
            wait_until(lambda: "kicked" in phone.read_text(), "the phone is off")
        assert_says(phone.read_text().splitlines()[-1], text("Kick"))
        follow(move, folder)
        wait_until(lambda: rooms(folder, "anna") == [["vip"]], "the browser is in the other room")
        # The ban is in force on the browser that is there, and on its next login.
        follow(ban, folder)
        wait_until(lambda: "banned: spam" in browser.read_text(), "the browser is off")
        assert "lost" not in browser.read_text()
    assert sent_away(token(folder, "anna --device tablet"))[0] == BANNED
    ran("zim push user anna patience --key-file secrets/app.key", folder)
    follow(lift, folder)
    assert ran(f"{browser_line} --count 1 --timeout 20", folder) == "patience\n"
    follow(address, folder)
    log = (folder / "up" / "err").read_text()
    assert_says("".join(line for line in log.splitlines() if "AUDIT kicked" in line), f"…{text('Who did it')}")


def test_a_kick_says_whether_clients_come_back(folder: Path) -> None:
    ran("zim token make berta --room lobby > berta.token", folder)
    with listening("zim listen --token-file berta.token", folder, name="berta") as out:
        assert ask(folder, "POST", "/api/kick", room="lobby", what="room") == '{"sessions":1}\n'
        wait_until(lambda: "nothing of r:lobby comes" in out.read_text(), "out of the room")
        assert ask(folder, "POST", "/api/kick", user="berta", may_return=True) == '{"sessions":1}\n'
        wait_until(lambda: out.read_text().count("connected to") == 2, "it has come back")
        key = json.loads(ask(folder, "GET", "/api/users/berta"))["sessions"][0]["key"]
        assert ask(folder, "POST", "/api/kick", key=key) == '{"sessions":1}\n'
        wait_until(lambda: out.read_text().endswith("zim listen: the server says: kicked\n"), "it has gone")
    # And who comes all the same gets in.
    with listening("zim listen --token-file berta.token", folder, name="again"):
        pass


def test_a_key_of_a_room_kicks_nobody_else(folder: Path) -> None:
    made = ran("zim api-key make host --scope kick 2>&1 > secrets/host.key", folder)
    table = made.replace('["kick"]', '{ kick = ["r:chat-*"] }')
    assert table != made
    topology = folder / "topology.toml"
    topology.write_text(topology.read_text() + table)
    ran("zim reload", folder)
    curl = (
        "curl -s -H \"Authorization: Bearer $(cat secrets/host.key)\" -H 'Content-Type: application/json' "
        f"http://127.0.0.1:{PAGE.port(7172)}/api/kick -d "
    )
    assert ran(f"""{curl} '{{"room":"chat-1"}}'""", folder) == '{"sessions":0}\n'
    for body in ('{"room":"lobby"}', '{"user":"anna"}'):
        answer = json.loads(ran(f"{curl} '{body}'", folder))
        assert (answer["status"], answer["scope"]) == (403, "kick")


@pytest.mark.parametrize("wins", ["newest", "oldest"])
def test_one_phone(folder: Path, wins: str) -> None:
    (table,) = PAGE.blocks("toml", "One phone a user")
    topology = folder / "topology.toml"
    before = topology.read_text()
    more = "" if wins == "newest" else 'wins = "oldest"\n'
    topology.write_text(f"{before}\n{table}{more}")
    ran("zim reload", folder)
    try:
        ran(f"zim token make carl-{wins} --device phone > carl.token", folder)
        listen = "zim listen --token-file carl.token"
        with listening(listen, folder, name="first") as first:
            tablet = token(folder, f"carl-{wins} --device tablet")
            with Listener(TCP, tablet) as listener:
                ran(f"zim push user carl-{wins} 1 --key-file secrets/app.key", folder)
                next(iter(listener))  # another class
            if wins == "oldest":
                code, why = sent_away((folder / "carl.token").read_text().strip())
                assert code == TOO_MANY
                assert "too many sessions" in why
                return
            with listening(listen, folder, name="second") as second:
                wait_until(lambda: "replaced" in first.read_text(), "the first one has gone")
                assert_says(first.read_text().splitlines()[-1], text("One phone a user"))
                assert "lost" not in second.read_text()
    finally:
        topology.write_text(before)
        ran("zim reload", folder)


def test_bans_survive_a_restart(tmp_path: Path) -> None:
    offset = free_offset()
    page, jwt = Page("banning", offset), Page("jwt", offset)
    _, setup, *_ = jwt.blocks("sh", "zim")
    folder = jwt.begin(tmp_path)
    ran(jwt.setup(setup), folder)
    (key,) = page.blocks("sh", "A key for it")
    ran(key.replace("zim reload\n", ""), folder)
    ban, lift, _ = page.blocks("sh", "Ban")
    ban = ban.replace(',"sessions":1', "")
    ran("zim token make anna > browser.token", folder)
    with up(folder):
        follow(ban, folder)
    with up(folder):
        (listen,) = [line for line, _ in told(ban) if line.startswith("zim listen")]
        done = sh(listen, folder)
        assert (done.returncode, done.stderr) == (1, "zim listen: the server says: banned: spam\n")
        follow(lift, folder)
        with listening(listen, folder):
            pass
