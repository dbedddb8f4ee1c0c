"""Secrets that commands are shown, and that stand where they should not: no command says them again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from tests.harness import free_ports
from tests.integration.liar import Liar
from tests.integration.planted import (
    KEY,
    OPAQUE,
    PASSWORD,
    PUSH_KEY,
    SECRET,
    TOKENS,
    UNKNOWN_KEY,
    Told,
    planting,
)
from tests.integration.visits import ISSUER


@pytest.fixture(scope="module")
def planted_fabric(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Told, Liar]]:
    with planting(tmp_path_factory.mktemp("secrets")) as found:
        yield found


@pytest.fixture
def told(planted_fabric: tuple[Told, Liar]) -> Iterator[Told]:
    yield planted_fabric[0]
    planted_fabric[0].look_at_all()


@pytest.mark.timeout(600)  # some sixty of them
def test_commands(told: Told) -> None:
    fabric, folder, secret = told.fabric, told.folder, {"ZIM_API_KEY": UNKNOWN_KEY}
    file, http = str(fabric.file), ["--http", fabric.http["logic-1"]]
    for name, shown in TOKENS.items():
        (folder / "token").write_text(shown)
        done = told.run("token", "check", "--topology", file, ZIM_TOKEN=shown)
        assert done.returncode == (name != "good"), done.stderr
        if name in ("good", "expired"):
            told.run("token", "check", "--topology", file, "--token-file", "token")
            told.run("token", "check", "--topology", file, stdin=f"Bearer {shown}!")
            tcp = fabric.tcp["comet-1"]
            told.run("listen", "--tcp", tcp, "--token-file", "token", "--timeout", "0.5", "-v")
            told.run("listen", "--tcp", tcp, "--goim", "--timeout", "0.5", "-v", ZIM_TOKEN=shown)
    told.run("token", "check", "--topology", file, stdin=OPAQUE + "\n")
    told.run("token", "make", "7", "--topology", file, "--issuer", ISSUER, "--private-key-file", "key")
    told.run(
        "token", "make", "7", "--topology", file, "--issuer", "https://other.example.com", "--private-key-file", "jwt2"
    )
    for key_file, code in (("key", 0), ("push.key", 0), ("unknown.key", 1), ("jwt", 1), ("topology.toml", 1)):
        assert told.run("api-key", "check", file, "--key-file", key_file).returncode == code
        told.run("push", "room", "lobby", "hello", *http, "--key-file", key_file)
    for command in (["who"], ["ledger"], ["push", "all", "hello"]):
        told.run(*command, *http, "--key-file", "push.key")
    told.run("api-key", "check", file, **secret)
    told.run("push", "user", "7", "hello", *http, **secret)
    told.run("push", "user", "7", "hello", "--goim", *http, **secret)
    told.run("push", "user", "7", "hello", "--http", f"127.0.0.1:{free_ports(1)[0]}", **secret)
    told.run("push", "user", "7", "hello", *http, ZIM_API_KEY=KEY + "\u00e9 \x7f")
    told.run("api-key", "list", file)
    told.run("check", file)


WRONG_TOPOLOGIES: dict[str, Sequence[tuple[str, str]]] = {
    "a secret in it": [('secret_file = "jwt"', f'secret = "{SECRET.decode()}"')],
    "a key in it": [('sha256 = "', f'sha256 = "{KEY}" # "')],
    "keys in it": [('sha256 = "', f'sha256 = ["{KEY}", "{PUSH_KEY}"] # "')],
    "a password in a URL": [('connect = "http://', f'connect = "https://zim:{PASSWORD}@')],
    "a password in a URL of rooms": [('join = "http://', f'join = "https://{PASSWORD}@app/')],
}


@pytest.mark.parametrize("name", WRONG_TOPOLOGIES)
def test_topologies_that_are_wrong(told: Told, name: str) -> None:
    text = told.fabric.file.read_text()
    for old, new in WRONG_TOPOLOGIES[name]:
        if old not in text:
            pytest.fail(f"the topology has no {old}")
        text = text.replace(old, new, 1)
    file = told.folder / "wrong.toml"
    file.write_text(text)
    for command in (["check"], ["up", "-v"], ["api-key", "list"], ["token", "make", "7", "--topology"]):
        assert told.run(*command, str(file)).returncode != 0
    file.unlink()


@pytest.mark.parametrize("content", [SECRET[:20], b"", b"\n", b"-----BEGIN PRIVATE KEY-----\n" + SECRET, b"x" * 70_000])
def test_secrets_that_are_none(told: Told, content: bytes) -> None:
    """The node says what is wrong with it and not what it is."""
    (told.folder / "bad").write_bytes(content)
    file = told.folder / "bad.toml"
    file.write_text(told.fabric.file.read_text().replace('secret_file = "jwt"', 'secret_file = "bad"'))
    for command in (["token", "check", "--topology", str(file)], ["node", "logic-1", str(file)]):
        done = told.run(*command, stdin=TOKENS["good"] + "\n")
        assert done.returncode != 0
        assert not content.strip() or content[:20].decode() not in done.stderr + done.stdout
    file.unlink()
    (told.folder / "bad").unlink()
