"""`zim drain`, `zim start`, `zim restart` and `zim status`: nobody misses anything when a node goes on purpose."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import gevent

from tests.fault.load import Publisher
from tests.harness import Fabric, running, wait_until
from zim.client import Listener, Message


def zim(fabric: Fabric, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "zim", command, *options, "--topology", str(fabric.file)]
    return subprocess.run(call, capture_output=True, text=True, timeout=180)


def states(fabric: Fabric) -> dict[str, str]:
    return {one["node"]: one["state"] for one in json.loads(zim(fabric, "status", "--json").stdout)["nodes"]}


class Device:
    """A zim client in room 1, which knows all comets."""

    def __init__(self, fabric: Fabric, uid: int) -> None:
        comets = list(fabric.tcp.values())
        self.got: list[int] = []
        self.connects = 0
        self._listener = Listener([*comets[uid % len(comets) :], *comets[: uid % len(comets)]], str(uid), rooms=["1"])
        self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        for event in self._listener:
            if isinstance(event, Message):
                self.got.append(json.loads(event.body)["n"])

    def close(self) -> None:
        self._listener.close()
        self._greenlet.kill()


def test_a_comet_is_drained_and_nobody_misses_anything() -> None:
    with running(routers=1, logics=1, jobs=1, comets=2) as fabric:
        devices = [Device(fabric, uid) for uid in range(60)]
        wait_until(lambda: sum(fabric.count("room").values()) == 60, "all are in the room")
        publisher = Publisher(fabric, rate=50)
        publisher.push_more(20)
        done = zim(fabric, "drain", "comet-1")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("comet-1 has ended after ")
        publisher.push_more(20)
        assert fabric.count("server") == {2: 60}
        assert states(fabric)["comet-1"] == "drained"
        again = zim(fabric, "drain", "comet-1")
        assert (again.returncode, again.stderr) == (1, "zim drain: comet-1 is drained already\n")
        done = zim(fabric, "start", "comet-1")
        assert (done.returncode, done.stderr) == (0, "")
        assert set(states(fabric).values()) == {"ready"}
        accepted = publisher.stop()
        assert set(publisher.answers) == {200}
        wait_until(lambda: all(device.got[-1:] == accepted[-1:] for device in devices), "all have the last one")
        for device in devices:
            assert device.got == accepted[-len(device.got) :]
            device.close()
        assert fabric.request("GET", "/api/ledger")[1]["unknown"] == 0


def test_other_nodes_are_drained() -> None:
    with running(routers=2, logics=2, jobs=2, comets=1) as fabric:
        for name in ("job-1", "logic-1"):
            assert zim(fabric, "drain", name).returncode == 0
        done = zim(fabric, "drain", "router-1")
        assert done.returncode == 1
        assert "its streams pause until it is back. Nothing was done; --yes" in done.stderr
        assert zim(fabric, "drain", "router-1", "--yes").returncode == 0
        drained = [name for name, state in states(fabric).items() if state == "drained"]
        assert drained == ["router-1", "job-1", "logic-1"]
        for name in drained:
            assert zim(fabric, "start", name).returncode == 0
        assert set(states(fabric).values()) == {"ready"}


def test_what_cannot_be_drained_is_named(tmp_path: Path) -> None:
    with running() as fabric:
        done = zim(fabric, "drain", "comet-9")
        assert (done.returncode, done.stderr) == (
            1,
            "zim drain: comet-9 is no node; there are router-1, job-1, logic-1, comet-1\n",
        )
        done = zim(fabric, "drain", "comet-1")
        assert done.stderr.startswith(
            "zim drain: comet-1 is the only comet that is left: its clients have nowhere to go."
        )
        assert zim(fabric, "start", "comet-1").stderr == "zim start: comet-1 is not drained\n"
        fabric.stop()
        done = zim(fabric, "status")
        assert (done.returncode, "no zim up takes orders" in done.stderr) == (3, True)


def test_all_are_restarted_one_after_the_other() -> None:
    with running(routers=1, logics=2, jobs=1, comets=2) as fabric:
        pids = {name: fabric.pid(name) for name in fabric.binds}
        publisher = Publisher(fabric, rate=20)
        publisher.push_more(5)
        done = zim(fabric, "restart", "--rolling")
        assert done.returncode == 1
        assert "router-1 has its log for itself" in done.stderr
        done = zim(fabric, "restart", "--rolling", "--yes")
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        steps = [line.split(":")[0].split()[1] for line in done.stdout.splitlines()]
        assert steps == ["router-1", "job-1", "logic-1", "logic-2", "comet-1", "comet-2"]
        assert all(fabric.pid(name) not in (0, pid) for name, pid in pids.items())
        publisher.push_more(5)
        publisher.stop()
        assert list(itertools.islice(publisher.answers, 3))
