"""The page "another key", word for word but for the ports: API keys, secrets, sets of keys, while it runs."""

from __future__ import annotations

import json
import re
import stat
import sys
import time
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

import jwt
import pytest

from tests.harness import Client, free_ports, wait_until
from tests.pages import Page, follow, free_offset, listening, ran, sh, up
from tests.programs import serving
from tests.unit.identity.signers import TokenSigner, key_set, private_key
from zim.client import PushRefused, ZmqPublisher
from zim.protocol import frame
from zim.protocol.frame import Op

OFFSET = free_offset()
PAGE, JWT = Page("keys", OFFSET), Page("jwt", OFFSET)
TCP = f"127.0.0.1:{PAGE.port(8080)}"
NOT_KNOWN = "zim push: refused (401): the API key is not known; one that was made just now is known after zim reload\n"
LET_IN, TRY_AGAIN, REFUSED = 0, 4200, 4402


class Stranger(Client):
    """A client of zim's protocol that nobody has let in."""

    version = frame.VERSION


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the page that this one goes on from has been followed; nothing runs."""
    _, setup, *_ = JWT.blocks("sh", "zim")
    found = JWT.begin(tmp_path)
    ran(JWT.setup(setup), found)
    return found


def write(folder: Path, key: str, line: str) -> None:
    """A line of the page takes the place of that in the topology."""
    topology = folder / "topology.toml"
    text, count = re.subn(rf"^{key} = .*$", line.strip(), topology.read_text(), flags=re.MULTILINE)
    assert count == 1
    topology.write_text(text)


def push(folder: Path, key: str, more: str = "") -> str:
    """What becomes of a push to anna with this key."""
    done = sh(f"zim push --key-file secrets/{key}.key {more} user anna hello", folder)
    return done.stdout + done.stderr


def knock(shown: str) -> int:
    """The code with which a token is refused; LET_IN if it is not."""
    client = Stranger(TCP, None)
    client.say(Op.AUTH, json.dumps({"token": shown}).encode(), seq=1)
    packet = client.wait(1)[0]
    client.close()
    return LET_IN if packet.op == Op.AUTH_REPLY else int(json.loads(packet.body)["code"])


def token(folder: Path, words: str = "anna") -> str:
    return ran(f"zim token make {words}", folder).strip()


def digest(folder: Path, key: str) -> str:
    return sha256((folder / "secrets" / f"{key}.key").read_bytes().strip()).hexdigest()


def test_an_api_key(folder: Path) -> None:
    """At no time is a backend refused that has a right one, and a push that is sent again with the new one is one."""
    make, show, take, out = PAGE.blocks("sh", "An API key")
    (both,) = PAGE.blocks("toml", "An API key")
    (listed,) = PAGE.blocks("text", "An API key")
    with up(folder):
        first = push(folder, "app", "--id rotated")
        made = sh(make, folder)
        assert made.returncode == 0, made.stderr
        assert stat.S_IMODE((folder / "secrets" / "app-new.key").stat().st_mode) == 0o600
        new, old = digest(folder, "app-new"), digest(folder, "app")
        assert f'id = "app"\nsha256 = "{new}"' in made.stderr
        assert push(folder, "app-new") == NOT_KNOWN

        write(folder, "sha256", both.replace("NEW", new).replace("OLD", old))
        said = [line.rstrip() for line in ran(show, folder).splitlines()]
        assert [line for line in said if line] == listed.splitlines()
        assert "zim api-key: by topology.toml" not in ran("zim api-key check --key-file secrets/app-new.key", folder)
        assert "(401)" in push(folder, "app-new")  # the fabric has the old one alone
        assert ran(take, folder) == "In force:\n  api_key app\n"
        assert [push(folder, key, "--id rotated") for key in ("app", "app-new")] == [first] * 2
        assert "push" in first

        endpoint = f"tcp://127.0.0.1:{PAGE.port(7176)}"
        with ZmqPublisher(endpoint, api_key=(folder / "secrets" / "app.key").read_text().strip()) as publisher:
            publisher.push(b"1", users="anna").result(20)
            write(folder, "sha256", f'sha256 = "{new}"')
            follow(out, folder)
            with pytest.raises(PushRefused):
                publisher.push(b"2", users="anna").result(20)
        assert push(folder, "app") == NOT_KNOWN
        assert push(folder, "app-new", "--id rotated") == first


def test_keys_are_rotated_by_reload(folder: Path) -> None:
    """A secret: who has a token of a secret that is known gets in, and who is there stays."""
    make, first, second = PAGE.blocks("sh", "A secret of tokens")
    both, alone = PAGE.blocks("toml", "A secret of tokens")
    with up(folder):
        ran(make, folder)
        old = token(folder)
        (folder / "old.token").write_text(old)
        with listening("zim listen --token-file old.token", folder, name="old") as there:
            write(folder, "secret_file", both)
            new = token(folder)
            assert (knock(old), knock(new)) == (LET_IN, REFUSED)
            ran(first, folder)
            assert (knock(old), knock(new)) == (LET_IN, LET_IN)
            write(folder, "secret_file", alone)
            ran(second, folder)
            assert (knock(old), knock(new)) == (REFUSED, LET_IN)
            push(folder, "app")
            wait_until(lambda: "hello" in there.read_text(), "who is there gets it")
            assert "lost" not in there.read_text()


def test_a_file_that_was_written_over(folder: Path) -> None:
    with up(folder):
        old = token(folder)
        ran(PAGE.blocks("sh", "A secret of tokens")[0], folder)
        ran("mv secrets/jwt-new secrets/jwt", folder)
        assert knock(old) == LET_IN
        ran("zim reload", folder)
        assert (knock(old), knock(token(folder))) == (REFUSED, LET_IN)


def test_a_secret_that_has_leaked(folder: Path) -> None:
    """The page's three steps: the thief's session ends with the restart, an honest one goes on."""
    make, *_ = PAGE.blocks("sh", "A secret of tokens")
    both, alone = PAGE.blocks("toml", "A secret of tokens")
    ran(make, folder)
    ran("zim token make anna --for 31536000 > thief.token; zim token make anna > honest.token", folder)
    with ExitStack() as stack:
        with up(folder):
            thief, honest = (
                stack.enter_context(listening(f"zim listen --token-file {name}.token", folder, name=name))
                for name in ("thief", "honest")
            )
            write(folder, "secret_file", both)
            ran("zim reload; zim token make anna > honest.token", folder)
            write(folder, "secret_file", alone)
            ran("zim reload", folder)
            push(folder, "app")
            wait_until(lambda: "hello" in thief.read_text(), "the thief is still there")
        with up(folder):
            wait_until(lambda: "zim listen: the server says: login refused" in thief.read_text(), "not any more")
            wait_until(lambda: honest.read_text().count("connected to") == 2, "the honest one is")
            push(folder, "app")
            wait_until(lambda: honest.read_text().count("hello") == 2, "and goes on")
            assert thief.read_text().count("hello") == 1
            assert "could not recover" not in honest.read_text()


def test_keys_at_a_url(folder: Path) -> None:
    (port,) = free_ports(1)
    signers = [TokenSigner("RS256", kid, number) for number, kid in enumerate(("one", "two"))]

    def publish(*which: int) -> None:
        (folder / "jwks.json").write_bytes(key_set(*(signers[i].jwk() for i in which)))

    def made(number: int) -> str:
        claims = {"iss": "https://id.example.com", "aud": "zim", "sub": "anna", "exp": time.time() + 300}
        headers = {"kid": signers[number].kid}
        return jwt.encode(claims, private_key("RSA", number), "RS256", headers=headers)

    publish(0)
    with (folder / "topology.toml").open("a") as f:
        f.write(
            f'\n[[issuer]]\nissuer = "https://id.example.com"\naudience = "zim"\nalgorithms = ["RS256"]\n'
            f'jwks = "http://127.0.0.1:{port}/jwks.json"\n'
        )
    server = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]
    with serving(server, port, folder) as log, up(folder):
        wait_until(lambda: knock(made(0)) == LET_IN, "the set is there")
        before = log.read_text().count("GET /jwks.json")
        publish(0, 1)
        wait_until(lambda: knock(made(1)) == LET_IN, "the set is fetched for a new kid")
        assert log.read_text().count("GET /jwks.json") == before + 1
        publish(1)
        assert (knock(made(0)), knock(made(1))) == (LET_IN, LET_IN)
        ran("zim reload", folder)
        wait_until(lambda: knock(made(0)) == REFUSED, "at a reload it is fetched")
        assert knock(made(1)) == LET_IN
