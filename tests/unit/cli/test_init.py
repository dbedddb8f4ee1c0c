"""`zim init`: what it writes is right, and it never writes over anything."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from zim.cli import main
from zim.cli.template import MAX_OFFSET
from zim.program import zim_command
from zim.topology import load

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize("options", [(), ("--production",), ("--machines", "3"), ("--machines", "99", "--production")])
def test_what_it_writes_passes_zim_check(options: tuple[str, ...]) -> None:
    assert run("init", *options).exit_code == 0
    checked = run("check")
    assert (checked.exit_code, checked.stderr) == (0, "")
    assert max(map(len, checked.stdout.splitlines())) <= 80
    assert max(map(len, Path("topology.toml").read_text().splitlines())) <= 120


@pytest.mark.parametrize("named", ["new/", "a/b/", "there"])
def test_into_a_folder(named: str) -> None:
    Path("there").mkdir()
    result = run("init", named)
    file = Path(named) / "topology.toml"
    assert result.stdout == f"{file} describes 4 nodes.\nStart them: {zim_command()} up {file}\n"
    assert load(file).data_dir == file.absolute().parent / "var"
    assert run("init", named).exit_code == 1
    Path("file").write_text("")
    assert "file cannot be made: File exists" in run("init", "file/").stderr


def test_by_default_it_is_the_topology_of_the_repository() -> None:
    result = run("init")
    assert result.stdout == f"topology.toml describes 4 nodes.\nStart them: {zim_command()} up\n"
    assert tomllib.loads(Path("topology.toml").read_text()) == tomllib.loads((ROOT / "topology.toml").read_text())


def test_in_production_only_places_differ_and_limits_are_the_defaults() -> None:
    run("init", "default.toml")
    assert run("init", "--production", "production.toml").stdout.endswith(f": {zim_command()} up production.toml\n")
    default, production = load(Path("default.toml")), load(Path("production.toml"))
    assert production.data_dir == Path("/var/lib/zim")
    assert production.admin
    assert all(node.admin for node in production.nodes)
    own = {name: getattr(default, name) for name in ("name", "data_dir", "admin", "path", "limits")}
    assert all(comet.max_memory_bytes for comet in production.comets)
    comets = tuple(dataclasses.replace(comet, max_memory_bytes=0) for comet in production.comets)
    assert dataclasses.replace(production, comets=comets, **own) == default


def test_in_production_there_are_limits_and_two_wait_for_the_addresses_of_clients() -> None:
    run("init", "--production", "mine.toml")
    file = Path("mine.toml")
    off = {name for name, value in dataclasses.asdict(load(file).limits).items() if not value}
    assert off == {"connects_per_address", "connects_per_network"}
    file.write_text(switch_on(file.read_text()))
    assert all(dataclasses.asdict(load(file).limits).values())


def switch_on(text: str) -> str:
    """What begins with # and no blank."""
    return re.sub(r"^#(?=\S)", "", text, flags=re.MULTILINE)


def left_to_do(*arguments: str) -> tuple[int, set[str]]:
    """The exit code of zim check --production, and the keys it names, but for what is of this machine."""
    result = run("check", "--production", *arguments)
    rows = re.findall(r"^(?:error|warning|note) +(.*)$", result.stdout, re.MULTILINE)
    return result.exit_code, {key for row in rows for key in row.split(", ")} - {"fabric.data_dir", "topology"}


def test_in_production_there_is_left_to_do_what_only_the_operator_knows(tmp_path: Path) -> None:
    result = run("init", "--production", "mine.toml")
    assert f"Before strangers come: {zim_command()} check --production mine.toml\n" in result.stdout
    file = Path("mine.toml")
    limits = {"comet[0].max_connections"}  # where this runs
    code, keys = left_to_do("mine.toml")
    assert (code, keys - limits) == (1, {"issuer", "api_key", "comet[0].ws.origins", "sessions", "router"})

    file.write_text(switch_on(file.read_text()))
    assert run("check", "mine.toml").exit_code == 0
    code, keys = left_to_do("mine.toml")
    missing = {"issuer[0].secret_file", "issuer[0].algorithms"}  # the file; and that it is a secret
    assert (code, keys - limits) == (1, {"api_key", "comet[0].ws.origins", "router", *missing})


def test_the_commands_in_its_comments_are_what_is_left(tmp_path: Path) -> None:
    run("init", "--production", "mine.toml")
    file = Path("mine.toml")
    commands = re.findall(r"^#   (.*)$", file.read_text(), re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        shell = command.replace("zim api-key", f"{sys.executable} -m zim api-key").replace("python3", sys.executable)
        subprocess.run(shell, shell=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    secrets = [Path("secrets/jwt"), Path("secrets/app.key")]
    assert [path.stat().st_mode & 0o777 for path in secrets] == [0o600, 0o600]
    (ws,) = re.findall(r"^# (ws = .*)$", file.read_text(), re.MULTILINE)
    file.write_text(switch_on(file.read_text()).replace('ws = "127.0.0.1:8090"', ws))
    code, keys = left_to_do("mine.toml")
    assert (code, keys - {"comet[0].max_connections"}) == (0, {"issuer[0].algorithms", "router"})
    assert run("token", "make", "anna", "--topology", "mine.toml").exit_code == 0
    assert run("api-key", "check", "mine.toml", "--key-file", "secrets/app.key").exit_code == 0


@pytest.mark.parametrize("name", ["a b.toml", "a\nb.toml", "a'b.toml"])
def test_a_name_that_cannot_stand_in_a_command(name: str) -> None:
    assert run("init", "--production", name).exit_code == 0
    assert "2>> FILE)\n" in Path(name).read_text()
    assert run("check", name).exit_code == 0


def test_each_machine_has_one_of_each() -> None:
    result = run("init", "--machines", "3", "three.toml")
    assert f": {zim_command()} up --host machine-1 three.toml" in result.stdout
    topology = load(Path("three.toml"))
    for n in (1, 2, 3):
        names = [node.name for node in topology.nodes if node.host == f"machine-{n}"]
        assert names == [f"router-{n}", f"job-{n}", f"logic-{n}", f"comet-{n}"]
    assert topology.node("router-2").endpoint == "tcp://machine-2:7270"


@pytest.mark.parametrize("name", ["topology.toml", "empty.toml", "broken-link"])
def test_it_writes_over_nothing(name: str) -> None:
    Path("topology.toml").write_text("mine")
    Path("empty.toml").touch()
    Path("broken-link").symlink_to("nowhere")
    result = run("init", name)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"zim init: {name} is there already, and stays as it is; name another, or move it away\n"
    assert Path("topology.toml").read_text() == "mine"
    assert Path("empty.toml").read_text() == ""
    assert not Path("nowhere").exists()


def test_a_file_that_cannot_be_written() -> None:
    result = run("init", "nowhere/topology.toml")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "zim init: nowhere/topology.toml cannot be written: No such file or directory\n"
    assert run("init", "--machines", "0").exit_code == 2


def test_what_is_in_the_package_is_in_the_wheel() -> None:
    """Modules are; all else has to be named."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = [p for p in (ROOT / "zim").rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")]
    assert {path.relative_to(ROOT / "zim").as_posix() for path in found} == set(settings["package-data"]["zim"])
    assert all((folder / "__init__.py").exists() for folder in {p.parent for p in (ROOT / "zim").rglob("*.py")})


def test_an_offset_is_added_to_every_port() -> None:
    assert run("init", "--offset", "10000", "second.toml").exit_code == 0
    ports = {int(port) for port in re.findall(r":(\d+)\"", Path("second.toml").read_text())}
    run("init")
    assert ports == {10_000 + int(port) for port in re.findall(r":(\d+)\"", Path("topology.toml").read_text())}
    assert load(Path("second.toml")).data_dir.name == "var-second"  # the logs of two fabrics do not mix
    assert run("init", "--offset", f"{MAX_OFFSET}", "last.toml").exit_code == 0
    assert run("check", "last.toml").exit_code == 0
    assert run("init", "--offset", f"{MAX_OFFSET + 1}", "none.toml").exit_code == 2


def test_a_file_for_several_machines_wants_to_know_which_one_this_is() -> None:
    run("init", "--machines", "3", "three.toml")
    found = run("up", "three.toml")
    assert found.exit_code == 1
    assert "is for 3 machines: machine-1, machine-2, machine-3" in found.stderr
    assert "--host machine-1" in found.stderr
