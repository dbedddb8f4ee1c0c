"""Which topology a command takes: that of its option or argument, of the environment, of the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner, Result

from tests.unit.cli.test_push import write_topology
from zim.cli import main
from zim.cli.where import DEFAULT_HTTP, comet_addresses, http_address, reachable
from zim.topology import ListenAddress
from zim.topology.nodes import CertificatePair

OPTION = ("--topology", "option.toml")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with four files that differ in where HTTP is."""
    monkeypatch.chdir(tmp_path)
    for n, name in enumerate(("option", "argument", "environment", "topology"), 11):
        write_topology(Path(f"{name}.toml"), f"127.0.0.1:{n}")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize(
    ("arguments", "environment", "file"),
    [
        (OPTION, "environment.toml", "option.toml"),
        (("argument.toml",), "environment.toml", "argument.toml"),
        ((), "environment.toml", "environment.toml"),
        ((), "", "topology.toml"),
    ],
)
def test_which_file(arguments: tuple[str, ...], environment: str, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZIM_TOPOLOGY", environment)
    assert run("check", *arguments).stdout.startswith(f"OK: {file} describes 4 nodes.")


@pytest.mark.parametrize(
    ("file", "environment", "address"),
    [("option.toml", "environment.toml", 11), (None, "environment.toml", 13), (None, None, 14)],
)
def test_the_fabric_of_a_file(
    file: str | None, environment: str | None, address: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if environment:
        monkeypatch.setenv("ZIM_TOPOLOGY", environment)
    found = Path(file) if file else None
    assert http_address(None, found) == f"127.0.0.1:{address}"
    assert http_address("there:1", found) == "there:1"


def test_without_any_file_it_is_goims_port() -> None:
    Path("topology.toml").unlink()
    assert http_address(None, None) == DEFAULT_HTTP


@pytest.mark.parametrize(
    ("names", "listens", "address"),
    [
        (("localhost", "push.example.com"), "127.0.0.1:1", "https://localhost:1"),
        (("push.example.com", "localhost"), "0.0.0.0:1", "https://localhost:1"),
        (("*.example.com", "push.example.com"), "0.0.0.0:1", "https://push.example.com:1"),
        (("push.example.com", "127.0.0.1"), "0.0.0.0:1", "https://127.0.0.1:1"),
        (("push.example.com",), "192.0.2.1:1", "https://push.example.com:1"),
        (("*.example.com",), "127.0.0.1:1", "https://127.0.0.1:1"),
        ((), "127.0.0.1:1", "https://127.0.0.1:1"),
    ],
)
def test_with_tls_it_is_a_name_that_its_certificate_is_for(
    names: tuple[str, ...], listens: str, address: str, tmp_path: Path
) -> None:
    if names:
        trustme.CA().issue_cert(*names).cert_chain_pems[0].write_to_path(tmp_path / "push.crt")
    pair = CertificatePair("push.crt", "push.key")
    assert reachable(ListenAddress(listens, tls=(pair,)), tmp_path, tls="https") == address


@pytest.mark.parametrize("command", ["up", "check", "ledger"])
def test_a_topology_is_named_once(command: str) -> None:
    result = run(command, "argument.toml", *OPTION)
    assert result.exit_code == 2
    assert "named twice, argument.toml and --topology option.toml; give it once" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("up",),
        ("check",),
        ("node", "comet-1"),
        ("restored", "router-1"),
        ("ledger",),
        ("push", "all", "x"),
        ("listen", "--uid", "7"),
    ],
)
def test_every_command_takes_it_and_says_whose_file_is_missing(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("topology.toml").unlink()
    result = run(*command, "--topology", "topology.toml")
    assert result.exit_code in (1, 2)
    assert "topology.toml: there is no such file" in result.stderr
    monkeypatch.setenv("ZIM_TOPOLOGY", "none.toml")
    result = run(*command)
    assert result.exit_code in (1, 2)
    assert "none.toml: there is no such file, and ZIM_TOPOLOGY names it" in result.stderr


def test_an_address_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZIM_TOPOLOGY", "none.toml")
    result = run("listen", "--uid", "7", "--tcp", "127.0.0.1:1", "--timeout", "0.1")
    assert "cannot reach 127.0.0.1:1" in result.stderr


def test_the_fabric_of_several_machines_is_where_they_are() -> None:
    """From any of them, and from elsewhere; what listens at one address alone is at that one."""
    assert run("init", "--machines", "3", "cluster.toml").exit_code == 0
    file = Path("cluster.toml")
    assert http_address(None, file) == "127.0.0.1:7172"
    text = file.read_text().replace('"127.0.0.1:7172"', '{ address = "0.0.0.0:7172", insecure = true }')
    file.write_text(text.replace('"127.0.0.1:8080"', '{ address = "[::]:8080", insecure = true }'))
    assert http_address(None, file) == "machine-1:7172"
    assert comet_addresses(False, (), file) == [f"machine-{n}:8080" for n in (1, 2, 3)]
    file.write_text(file.read_text().replace("tcp://machine-1", "tcp://[fd00::1]"))
    assert http_address(None, file) == "[fd00::1]:7172"
