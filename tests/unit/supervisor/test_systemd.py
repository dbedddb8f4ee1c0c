"""What `zim up` tells to whoever has started it, over a real socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.supervisor.systemd import Manager, socket_path, status, watchdog_s


@pytest.fixture
def hears(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket as systemd's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(tmp_path / "notify"))
        s.settimeout(10)
        yield s


def told(hears: socket.socket) -> list[str]:
    return hears.recv(4096).decode().splitlines()


def test_ready_reload_and_the_end(hears: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": hears.getsockname(), "HOME": "/"}
    manager = Manager(environment, os.getpid())
    assert environment == {"HOME": "/"}  # nodes do not inherit it
    manager.ready()
    assert told(hears) == ["READY=1", "STATUS=all nodes are ready"]
    with manager.reloading():
        word, at = told(hears)
        assert (word, at.partition("=")[0]) == ("RELOADING=1", "MONOTONIC_USEC")
    assert told(hears) == ["READY=1"]
    with manager.reloading():
        told(hears)
        manager.stopping()
    assert told(hears) == ["STOPPING=1", "STATUS=stopping"]
    hears.setblocking(False)
    with pytest.raises(BlockingIOError):  # it does not say READY once more
        told(hears)


def test_who_is_missing_and_that_the_loop_runs(hears: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": hears.getsockname(), "WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(os.getpid())}
    manager = Manager(environment, os.getpid())
    missing = ["comet-1 is not ready"]
    follows = gevent.spawn(manager.follow, lambda: missing)
    gevent.sleep(0)
    assert told(hears) == ["WATCHDOG=1", "STATUS=comet-1 is not ready"]
    missing.clear()
    gevent.sleep(0.05)
    assert told(hears) == ["WATCHDOG=1", "STATUS=all nodes are ready"]
    gevent.sleep(0.05)
    assert told(hears) == ["WATCHDOG=1"]
    follows.kill()


def test_nobody_is_told() -> None:
    manager = Manager({}, os.getpid())
    manager.ready()
    manager.follow(lambda: [])  # at once
    with manager.reloading():
        manager.stopping()


def test_nobody_is_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, and zim goes on."""
    manager = Manager({"NOTIFY_SOCKET": str(tmp_path / "gone")}, os.getpid())
    manager.ready()
    manager.stopping()
    assert [record.message for record in caplog.records] == ["who has started this cannot be told"]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_an_address_or_none(named: str) -> None:
    path = socket_path(named)
    assert (path is not None) == (named[:1] in ("/", "@") and len(named) > 1)
    assert path is None or path[1:] == os.fsencode(named)[1:]


@given(st.text() | st.integers().map(str), st.sampled_from(["", "7", "8"]))
def test_any_text_is_a_time_or_none(usec: str, pid: str) -> None:
    every_s = watchdog_s(usec, pid, 7)
    assert every_s is None or every_s > 0
    if usec.isascii() and usec.isdecimal() and 0 < int(usec) < 10**18 and pid != "8":
        assert every_s == int(usec) / 1e6


def test_a_status_is_short() -> None:
    assert status([]) == "all nodes are ready"
    assert status([f"comet-{n} is not ready" for n in range(1, 7)]).endswith("comet-5 is not ready; and 1 more")
