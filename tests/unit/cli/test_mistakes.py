"""What the program says to who makes a mistake on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from zim.cli import main

KEY = "zim_" + "k" * 43
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJhIn0.c2lnbmF0dXJl"
BY_KEY_FILE, BY_TOKEN_FILE = "--key-file FILE, or in ZIM_API_KEY", "--token-file FILE, or in ZIM_TOKEN"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ZIM_TOPOLOGY", "ZIM_API_KEY", "ZIM_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def said(*words: str) -> str:
    """What is said of a line that is wrong."""
    result = CliRunner().invoke(main, words)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    return result.stderr.partition("Error: ")[2]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("psuh user 7 hi", "no such command: psuh; did you mean push?\n"),
        ("reolad", "no such command: reolad; did you mean reload?\n"),
        ("serve", "no such command: serve; right is one of init, up, "),
        ("token chek", "no such command: chek; did you mean check?\n"),
        ("api-key maek", "no such command: maek; did you mean make?\n"),
        ("who usr 7", "no such command: usr; did you mean user?\n"),
        ("who lobby", "zim who room lobby, or: "),
        ("who lobby", "zim who user lobby\n"),
        ("push room lobby hi --wiat 2", "no such option: --wiat; did you mean --wait?\n"),
        ("push room lobby hi --wiat=2", "no such option: --wiat; did you mean --wait?\n"),
        ("push room lobby --wiat 2 hi", "no such option: --wiat; did you mean --wait?\n"),
        ("push room lobby hi --zzz 2", "no such option: --zzz\n"),
        ("who room lobby --jsn", "no such option: --jsn; did you mean --json?\n"),
        ("push user 7 hi there", "too many words: there\n"),
        ("listen 7", "7 has no place here; did you mean --uid 7?\n"),
        ("reload --hst a", "no such option: --hst; did you mean --host?\n"),
        ("listen --port 8080", "no such option: --port; did you mean --address?\n"),
        ("listen --user 7", "no such option: --user; did you mean --uid?\n"),
        ("listen --zzz", "no such option: --zzz\n"),
        ("push --wait 2 user 7 hi", "no such option: --wait; it stands behind user: "),
        ("push --port 7172 user 7 hi", "no such option: --port; did you mean --http?\n"),
        ("push user 7 --body hi", "no such option: --body; the body is the last word, such as: "),
        ("push --body hi user 7", "no such option: --body; the body is the last word, such as: "),
        ("token make anna --ttl 5", "no such option: --ttl; did you mean --for?\n"),
        ("--topology a.toml status", "no such option: --topology; it stands behind the command, such as: "),
        ("check --prod", "no such option: --prod; did you mean --production?\n"),
        ("-v", "no such option: -v; did you mean --version?\n"),
        ("who rooms lobby", "did you mean: main who room lobby?\n"),
        ("push user 7 hi --ttl 5s", "5s is no length of time; right is a number of seconds\n"),
        ("listen --uid 7 --count x", "'x' is no whole number"),
        ("status --config a.toml", "no such option: --config; did you mean --topology?\n"),
    ],
)
def test_what_was_meant(line: str, text: str) -> None:
    assert text in said(*line.split())


@pytest.mark.parametrize(
    "line",
    [
        f"token check {TOKEN}",
        "token check of-your-application",
        "listen of-your-application",
        "token check --token of-your-application",
        "explain anna lobby --token of-your-application",
        f"explain anna lobby {TOKEN}",
        f"listen --token-file {TOKEN}",
        f"token check --token-file {TOKEN}",
    ],
)
def test_a_token_is_not_said_again(line: str) -> None:
    text = said(*line.split())
    assert BY_TOKEN_FILE in text
    assert text.count(BY_TOKEN_FILE) == 1
    assert line.split()[-1] not in text


@pytest.mark.parametrize(
    "line",
    [
        f"push --key {KEY} user 7 hi",
        f"push user 7 hi --key {KEY}",
        f"push user 7 hi --key={KEY}",
        f"push user 7 hi --api-key {KEY}",
        f"push --key-file {KEY} user 7 hi",
        f"push user 7 hi {KEY}",
        f"who user 7 --key {KEY}",
        f"who --key={KEY} rooms",
        f"ledger --key {KEY}",
        f"ledger {KEY}",
        f"api-key check {KEY}",
        f"api-key check --key {KEY}",
        f"explain anna lobby --key {KEY}",
    ],
)
def test_a_key_is_not_said_again(line: str) -> None:
    text = said(*line.split())
    assert BY_KEY_FILE in text
    assert KEY not in text


SUBCOMMANDS = st.sampled_from(["push user 7 hi", "who room lobby", "explain anna lobby", "check", "up", "token check"])


@given(SUBCOMMANDS, st.lists(st.sampled_from([KEY, TOKEN, "--key", f"--x={KEY}", "--", "a", "-1"]), min_size=2))
def test_no_secret_is_said_wherever_it_stands(command: str, words: list[str]) -> None:
    result = CliRunner().invoke(main, [*command.split(), *words, "a", "b", "c"])
    assert result.exit_code == 2
    assert KEY not in result.output
    assert TOKEN not in result.output
