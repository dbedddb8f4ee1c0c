"""`zim link-key`: what it makes, and what it says of what is there."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.unit.topology.test_file import small, text_of
from zim.cli import main
from zim.identity.link_keys import make_secret

NODES = ("router-1", "logic-1", "job-1", "comet-1")


@pytest.fixture(autouse=True)
def _fabric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ZIM_TOPOLOGY", raising=False)
    write_topology()


def write_topology(**tables: Any) -> None:
    Path("topology.toml").write_text(text_of(small() | tables))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["link-key", *arguments])


def test_keys_are_made_and_what_is_left_to_do_is_said() -> None:
    made = run("make")
    assert made.exit_code == 0, made.output
    assert [line.split() for line in made.output.splitlines()[:4]] == [[name, "made"] for name in sorted_as_in_file()]
    assert '[links]\nkeys = "link-keys"' in made.output
    assert set(public()) == set(NODES)
    for name in NODES:
        assert Path("link-keys", f"{name}.secret").read_text().strip() not in made.output
    write_topology(links={"keys": "link-keys"})
    again = run("make")
    assert again.exit_code == 0
    assert "[links]" not in again.output
    assert again.output.count("kept") == len(NODES)
    listed = run("list")
    assert all(f"{name:12} {key}" in listed.output for name, key in public().items())
    assert run("check").exit_code == 0


def sorted_as_in_file() -> list[str]:
    return ["router-1", "job-1", "logic-1", "comet-1"]


def public() -> dict[str, str]:
    return tomllib.loads(Path("link-keys/public.toml").read_text())


def test_keys_go_where_the_topology_or_the_command_says() -> None:
    write_topology(links={"keys": "secrets/links"})
    assert run("make").exit_code == 0
    assert Path("secrets/links/comet-1.secret").exists()
    assert run("make", "others").exit_code == 0
    assert Path("others/comet-1.secret").exists()


def test_links_that_others_reach_can_be_named_before_there_are_keys() -> None:
    tables = small()
    tables["router"][0]["bind"] = "tcp://10.0.0.1:7270"
    write_topology(**tables, links={"keys": "link-keys"})
    assert "there is no such file" in CliRunner().invoke(main, ["check"]).output
    assert run("make").exit_code == 0
    assert CliRunner().invoke(main, ["check"]).exit_code == 0


def test_of_several_machines_it_is_said_which_secrets_each_needs() -> None:
    tables = small()
    for i, kind in enumerate(("router", "logic", "job", "comet")):
        tables[kind][0]["host"] = "ab"[i % 2]
    write_topology(**tables, links={"keys": "link-keys"})
    made = run("make")
    assert "  a: router-1.secret job-1.secret\n" in made.output
    assert "  b: logic-1.secret comet-1.secret\n" in made.output
    Path("link-keys/comet-1.secret").unlink()
    assert run("check", "--host", "a").exit_code == 0
    missing = run("check", "--host", "b")
    assert missing.exit_code == 1
    assert "comet-1.secret: there is no such file" in missing.output
    assert run("check", "--host", "c").exit_code == 1
    assert "on another machine" in run("make").output


def test_nothing_is_overwritten() -> None:
    write_topology(links={"keys": "link-keys"})
    run("make")
    secret = Path("link-keys/comet-1.secret")
    secret.write_text(make_secret())
    found = run("make")
    assert found.exit_code == 1
    assert "is not the secret of the key that" in found.output
    assert secret.read_text().strip() not in found.output
    assert run("check").exit_code == 1
    Path("link-keys/public.toml").write_text("nonsense")
    found = run("make")
    assert found.exit_code == 1
    assert "public.toml: is not TOML" in found.output
    assert Path("link-keys/public.toml").read_text() == "nonsense"


def test_what_others_can_read_is_said() -> None:
    write_topology(links={"keys": "link-keys"})
    run("make")
    Path("link-keys/job-1.secret").chmod(0o644)
    found = run("check")
    assert found.exit_code == 1
    assert "others on this machine can read it; right is chmod 600" in found.output


def test_a_node_without_a_key_and_a_key_without_a_node_are_shown() -> None:
    write_topology(links={"keys": "link-keys"})
    run("make")
    listed = Path("link-keys/public.toml")
    listed.write_text(listed.read_text().replace("comet-1", "comet-9"))
    found = run("list")
    assert "comet-1      - none: it is let in nowhere" in found.output
    assert "of no node of this topology" in found.output


def test_a_folder_that_cannot_be_made_is_named() -> None:
    Path("link-keys").write_text("")
    found = run("make")
    assert found.exit_code == 1
    assert "link-keys" in found.output
    assert not isinstance(found.exception, OSError)


@pytest.mark.parametrize("command", ["list", "check"])
def test_without_keys_there_is_nothing_to_look_at(command: str) -> None:
    found = run(command)
    assert found.exit_code == 1
    assert "has no [links]: links between nodes are not encrypted" in found.output
