"""The commands against a real fabric."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Client, Fabric, running


@pytest.fixture(scope="module")
def fabric() -> Iterator[Fabric]:
    with running(routers=2, comets=2) as started:
        yield started


def zim(fabric: Fabric, *arguments: str, given: bytes = b"") -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr of a command."""
    command = [sys.executable, "-m", "zim", *arguments, "--topology", str(fabric.file)]
    done = subprocess.run(command, input=given, capture_output=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_push_arrives_byte_for_byte_and_says_so(fabric: Fabric) -> None:
    client = Client(fabric.tcp["comet-1"], "7")
    try:
        code, out, err = zim(fabric, "push", "user", "7", "-", "--wait", "20", given=b"\xff\x00")
        assert (code, err) == (0, b"")
        assert out.splitlines()[1] == b"delivered to 1 session"
        assert zim(fabric, "push", "user", "7", '{"a" : 1}', "--id", "one")[0] == 0
        assert zim(fabric, "push", "user", "7", '{"a" : 1}', "--id", "one")[0] == 0
        assert zim(fabric, "push", "user", "7", "last")[0] == 0
        client.wait(3)
        assert client.bodies == [b"\xff\x00", b'{"a" : 1}', b"last"]
    finally:
        client.close()


def test_names_that_are_no_numbers(fabric: Fabric) -> None:
    assert zim(fabric, "push", "users", "anna,bert", "x")[0] == 0
    assert [fabric.get(f"/api/users/{uid}/unread")["unread"] for uid in ("anna", "bert")] == [1, 1]
    code, out, _ = zim(fabric, "push", "user", "anna", "x", "--wait", "20")
    assert (code, out.splitlines()[1]) == (0, b"delivered to nobody: no session was there for it; 1 user is offline")
    code, out, _ = zim(fabric, "push", "room", "nowhere", "x", "--wait", "20")
    nobody = b"delivered to nobody: no session was there for it; nobody is in room 'nowhere'"
    assert (code, out.splitlines()[1]) == (0, nobody)


def test_a_push_that_is_refused_says_what_would_be_right(fabric: Fabric) -> None:
    code, out, err = zim(fabric, "push", "user", "7", "x", "--op", "6")
    assert (code, out) == (1, b"")
    assert err.startswith(b"zim push: refused (400): op: 6 is not for pushes; right is 5, or 100")
    assert zim(fabric, "push", "room", "lobby", "x", "--id", "two")[0] == 0
    code, _, err = zim(fabric, "push", "room", "lobby", "y", "--id", "two")
    assert code == 1
    assert err.startswith(b"zim push: its key was used before")


def test_who_takes_one_port_for_another_is_told_so(fabric: Fabric) -> None:
    tcp, http = fabric.tcp["comet-1"], fabric.http["logic-1"]
    zeromq = fabric.binds["logic-1"].removeprefix("tcp://")
    push, ws = ("push", "user", "7", "hi", "--http"), ("listen", "--uid", "7", "--timeout", "1", "--ws", "--address")
    listen = ("listen", "--uid", "7", "--timeout", "1", "--address")
    # libzmq may hang up before it has said a word: then the hint is a guess
    hung_up = ("if that is a comet's `tcp`, HTTP", "if that is a comet's `tcp`, WebSocket", "is that a comet's `tcp`?")
    for command, code, hint in (
        ((*push, zeromq), 3, "a ZeroMQ port answers there; HTTP is on a logic's `http`"),
        (("who", "rooms", "--http", zeromq), 3, "a ZeroMQ port answers there; HTTP is on a logic's `http`"),
        ((*push, tcp), 3, "if that is a comet's `tcp`, HTTP is on a logic's `http`"),
        (("ledger", "--http", tcp), 3, "if that is a comet's `tcp`, HTTP is on a logic's `http`"),
        ((*ws, tcp), 1, "(if that is a comet's `tcp`, WebSocket is on its `ws`) before it answered the login"),
        ((*ws, http), 1, "a logic answers there; clients connect to a comet's `ws`"),
        ((*ws, zeromq), 1, "is not HTTP; is this a WebSocket port?"),
        ((*listen, http), 1, "HTTP speaks there, not TCP packets"),
        ((*listen, zeromq), 1, "ZeroMQ speaks there, not TCP packets"),
    ):
        done = subprocess.run([sys.executable, "-m", "zim", *command], capture_output=True, text=True, check=False)
        hints = (hint, *hung_up) if zeromq in command else (hint,)
        assert done.returncode == code, (command, done.stderr)
        assert any(hint in done.stderr for hint in hints), (command, done.stderr)


def test_a_fabric_that_runs_already_is_not_started_again(fabric: Fabric) -> None:
    command = [sys.executable, "-m", "zim", "up", str(fabric.file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert fabric.process
    assert f"{fabric.file}: zim up runs it already (pid {fabric.process.pid}): " in done.stderr
    (other := fabric.file.with_name("other.toml")).write_text(fabric.file.read_text())
    done = subprocess.run([*command[:-1], str(other)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"is the data_dir of {fabric.file} as well, which zim up runs (pid {fabric.process.pid})" in done.stderr


def test_all_ports_in_use_are_named_before_anything_starts(fabric: Fabric, tmp_path: Path) -> None:
    file = tmp_path / "another.toml"
    file.write_text(fabric.file.read_text())
    done = subprocess.run([sys.executable, "-m", "zim", "up", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    addresses = {f"bind {address}" for address in fabric.binds.values()}
    addresses |= {f"http {address}" for address in fabric.http.values()}
    addresses |= {f"tcp {address}" for address in fabric.tcp.values()}
    addresses |= {f"ws {address}" for address in fabric.ws.values()}
    assert {address for address in addresses if f"{address} is in use already" not in done.stderr} == set()
    assert "zim init --offset 10000" in done.stderr
    assert not (tmp_path / "var").exists()


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="/proc is Linux'")
def test_a_port_in_use_names_who_has_it_and_the_key(fabric: Fabric, tmp_path: Path) -> None:
    file = tmp_path / "another.toml"
    file.write_text(fabric.file.read_text())  # another folder: only its ports are those of the first
    for name, address in (("job-1", fabric.binds["job-1"]), ("logic-1", fabric.binds["logic-1"])):
        command = [sys.executable, "-m", "zim", "node", name, "--topology", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert f"{name}: bind {address} is in use already, by " in done.stderr
        assert fabric.process
        who = f"{name} of zim up {fabric.file} (pid {fabric.process.pid})"
        assert f"by {who}; stop what uses it, or change bind in the topology\n" in done.stderr
