"""`zim token`: what it makes, and what it says of tokens. A logic would decide the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.unit.client.http_peer import Answer, serving
from tests.unit.identity.signers import ISSUER, SECRET, TokenSigner, key_set
from tests.unit.topology.test_file import small, text_of
from zim.cli import main
from zim.nodes.logic.keysets import NAMELESS

HS = {"issuer": ISSUER, "audience": "zim", "algorithms": ["HS256"], "secret_file": "jwt"}
ES = {"issuer": ISSUER, "audience": "zim", "algorithms": ["ES256"]}
FAR = 4_000_000_000  # an end of tokens


@pytest.fixture(autouse=True)
def _fabric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ZIM_TOKEN", raising=False)
    monkeypatch.delenv("ZIM_TOPOLOGY", raising=False)
    write_topology(issuer=[HS])
    Path("jwt").write_text("s" * 48)


def write_topology(**tables: Any) -> None:
    Path("topology.toml").write_text(text_of(small() | tables))


def run(*arguments: str, given: str = "") -> Result:
    return CliRunner().invoke(main, ["token", *arguments], input=given)


def test_what_is_made_is_taken() -> None:
    made = run("make", "anna", "--room", "lobby", "--join", "chat-*", "--read", "r:news", "--device", "phone")
    assert (made.exit_code, made.stderr) == (0, "")
    result = run("check", given=made.stdout)
    assert result.exit_code == 0
    first, *rest = result.stdout.splitlines()
    assert first.startswith("it is anna's, until ")
    assert [line.split() for line in rest] == [
        ["rooms", "lobby"],
        ["join", "chat-*"],
        ["read", "r:news"],
        ["device", "phone"],
    ]


@pytest.mark.parametrize(("exp", "is_far"), [(4_000_000_000, True), (1_795_730_000_000, True), (None, False)])
def test_an_end_that_is_far_away_is_said(exp: int | None, is_far: bool) -> None:
    """Such as one in milliseconds."""
    if exp is None:
        token = run("make", "anna", "--for", "31536000").stdout
    else:
        Path("jwt").write_bytes(SECRET)
        token = TokenSigner("HS256").token(exp=exp).decode()
    result = run("check", given=token)
    assert result.exit_code == 0, result.stderr
    assert ("counts for 366 days; is it in seconds since 1970?" in result.stdout) == is_far


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("",), "nobody can be called ''"),
        (("anna", "--room", "*"), "no room can be called '*'"),
        (("anna", "--join", ""), "'' is no pattern"),
        (("anna", "--device", "a\nb"), "is no class of devices"),
    ],
)
def test_what_nobody_would_take_is_not_made(arguments: tuple[str, ...], why: str) -> None:
    result = run("make", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert why in result.stderr


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("7", "the token is no JWT"),
        (TokenSigner("HS256").token(iss="b").decode(), f"the token's iss is 'b'; known are: {ISSUER}"),
        (TokenSigner("HS256").token(exp=FAR).decode(), "the token's signature is not right (the signature is not"),
        (TokenSigner("HS512").token(exp=FAR).decode(), "the token is signed by 'HS512'; right is HS256"),
    ],
)
def test_why_a_token_is_refused(token: str, why: str) -> None:
    result = run("check", given=token)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"zim token: {why}")


def at_a_url(n_keys: int, signer: TokenSigner) -> Result:
    """What is said of its token where so many keys stand at a URL, the first of which is called a."""
    keys = [TokenSigner("ES256", kid=f"{i}", number=i).jwk() for i in range(1, n_keys)]
    document = key_set(TokenSigner("ES256", kid="a").jwk(), *keys)
    with serving(Answer(body=document)) as server:
        write_topology(issuer=[ES | {"jwks": f"http://{server.address}/keys"}])
        return run("check", given=signer.token(exp=FAR).decode())


@pytest.mark.parametrize(
    ("n_keys", "signer", "why"),
    [
        (NAMELESS + 1, TokenSigner("ES256", kid="a"), ""),
        (NAMELESS + 1, TokenSigner("ES256", kid="b"), "the token's kid is 'b', which http://"),
        (NAMELESS, TokenSigner("ES256"), ""),
        (NAMELESS + 1, TokenSigner("ES256"), "the token names no kid, and its issuer has many keys"),
    ],
)
def test_keys_at_a_url(n_keys: int, signer: TokenSigner, why: str) -> None:
    result = at_a_url(n_keys, signer)
    assert result.exit_code == bool(why)
    assert result.stderr.startswith(f"zim token: {why}" if why else "")


def test_a_server_of_keys_that_is_away_is_named() -> None:
    with serving(Answer()) as server:
        url = f"http://{server.address}/keys"
    write_topology(issuer=[ES | {"jwks": url}])
    result = run("check", given=TokenSigner("ES256").token(exp=FAR).decode())
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"zim token: {url}: ")
