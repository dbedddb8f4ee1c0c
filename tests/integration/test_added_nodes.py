"""Nodes that are added to a topology while the fabric runs: `zim reload` starts them, and the others find them."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Fabric, is_listening, running, wait_until
from tests.integration.test_drain import zim
from tests.integration.test_reload import reload
from tests.zim_client import ZimClient
from zim.protocol.frame import Op
from zim.supervisor.control import ask, control_path

ADDED = ("logic-2", "job-2", "comet-2")


def said(fabric: Fabric, *options: str) -> dict[str, Any]:
    """What `zim reload --json` says, and its exit code."""
    done = reload(fabric, "--json", *options)
    found: dict[str, Any] = json.loads(done.stdout)
    return {"code": done.returncode, **found}


@pytest.mark.parametrize("links", [{}, {"links": {"keys": "link-keys"}}], ids=["plain", "with link keys"])
def test_they_do_their_part_and_nobody_is_disturbed(links: dict[str, Any]) -> None:
    with running(logics=2, jobs=2, comets=2, later=ADDED, has_admin=True, **links) as fabric:
        first = ZimClient(fabric.tcp["comet-1"], "7", rooms=["a"])
        fabric.add_later()
        if links:
            (problem,) = said(fabric)["problems"]
            assert "there is no such file, and job-2 needs its secret link key" in problem
            fabric.make_link_keys()
        found = said(fabric)
        assert (found["code"], found["waiting"], found["nodes"]) == (0, [], {}), found
        assert [one for one in found["taken"] if "link" not in one] == [f"{name}, added" for name in ADDED]
        for node, peer in (("router-1", "job-2"), ("job-1", "comet-2"), ("comet-1", "logic-2")):
            assert f'queue="{peer}"' in fabric.metrics(node)
        second = ZimClient(fabric.tcp["comet-2"], "8", rooms=["a"])

        def both_get(body: int, logic: str) -> None:
            assert fabric.push({"to": {"rooms": ["a"]}, "body": body}, logic=logic)[0] == 200
            for client in (first, second):
                assert json.loads(client.take(Op.PUSH).body) == body

        both_get(1, "logic-2")
        for name in ("job-1", "logic-1"):  # the new ones do all
            assert zim(fabric, "drain", name)[0] == 0
        both_get(2, "logic-2")
        third = ZimClient(fabric.tcp["comet-1"], "9")  # who it is, logic-2 says
        pid = fabric.kill("router-1")  # who starts again knows all
        wait_until(lambda: fabric.pid("router-1") not in (0, pid), "it starts again")
        wait_until(lambda: fabric.count("server", "logic-2") == {1: 2, 2: 1}, "it knows all sessions")
        both_get(3, "logic-2")
        for name in ("job-1", "logic-1"):
            assert zim(fabric, "start", name)[0] == 0
        assert zim(fabric, "restart", "--rolling", "--yes")[0] == 0
        assert third.is_closed
        assert "Traceback" not in fabric.log


def test_a_router_with_a_log_of_its_own_is_not_added() -> None:
    with running(routers=2, later=["router-2"]) as fabric:
        fabric.add_later()
        done = reload(fabric)
        assert (done.returncode, done.stdout) == (1, "")
        assert "router-2: no such router can be added: it would take streams from the others" in done.stderr
        assert done.stderr.endswith("zim reload: nothing has changed\n")
        assert fabric.pid("router-2") == 0


def test_nothing_changes_if_somebody_else_has_its_port() -> None:
    with running(comets=2, later=["comet-2"]) as fabric, socket.socket() as other:
        host, _, port = fabric.ws["comet-2"].rpartition(":")
        other.bind((host, int(port)))
        other.listen()
        fabric.add_later()
        done = reload(fabric)
        assert done.returncode == 1
        assert f"comet-2: ws {fabric.ws['comet-2']}" in done.stderr, done.stderr
        assert "nothing has changed" in done.stderr
        other.close()
        assert said(fabric)["taken"] == ["comet-2, added"]
        ZimClient(fabric.ws["comet-2"], "7", is_ws=True)


def test_one_that_cannot_start_ends_nobody_else_and_is_started_later(tmp_path: Path) -> None:
    with running(tmp_path, comets=2, later=["comet-2"]) as fabric:
        in_the_way = tmp_path / "var" / "comet-2"
        in_the_way.write_text("no folder")
        fabric.add_later()
        found = said(fabric)
        assert (found["code"], found["taken"]) == (3, ["comet-2, added"])
        why = f"exit code 2: {in_the_way} cannot be used: File exists (fabric.data_dir)"
        assert found["nodes"] == {"comet-2": f"is not ready, {why}"}
        wait_until(lambda: "node given up node=comet-2" in fabric.log, "it is given up")
        code, words = zim(fabric, "start", "comet-2")
        assert (code, words) == (1, f"zim start: comet-2 is given up: {why}\n")
        client = ZimClient(fabric.tcp["comet-1"], "7")
        assert fabric.push({"to": {"users": ["7"]}, "body": 1})[0] == 200
        assert client.take(Op.PUSH).body == b"1"
        assert zim(fabric, "drain", "comet-2")[0] == 0  # out of the way of others
        assert said(fabric)["code"] == 0
        assert zim(fabric, "restart", "comet-1", "--yes")[0] == 0
        in_the_way.unlink()
        assert zim(fabric, "start", "comet-2")[0] == 0
        ZimClient(fabric.tcp["comet-2"], "7")
        assert "\nnode ready node=comet-2" not in fabric.log
        assert "node ready node=comet-2" in fabric.log
        process = fabric.process
        assert process is not None
        assert process.poll() is None


def test_one_of_another_machine_is_known_and_started_there() -> None:
    here: dict[str, Any] = {kind: {"host": "a"} for kind in ("router", "logic", "job", "comet")}
    with running(comets=2, later=["comet-2"], options=["--host", "a"], **here) as fabric:
        fabric.add_later()
        before, _, after = fabric.file.read_text().rpartition('host = "a"')
        fabric.file.write_text(f'{before}host = "b"{after}')
        assert said(fabric, "--host", "a") == {
            "code": 0,
            "taken": ["comet-2, added"],
            "waiting": [],
            "nodes": {},
            "believed": [],
        }
        assert fabric.pid("comet-2") == 0
        command = [sys.executable, "-m", "zim", "up", "--host", "b", str(fabric.file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as there:
            try:
                wait_until(lambda: is_listening(fabric.tcp["comet-2"]), "it listens")
                client = ZimClient(fabric.tcp["comet-2"], "7")
                assert fabric.push({"to": {"users": ["7"]}, "body": 1})[0] == 200
                assert client.take(Op.PUSH).body == b"1"
            finally:
                there.terminate()
                there.communicate()


def test_one_for_another_machine_needs_a_zim_up_that_knows_its_own() -> None:
    with running(comets=2, later=["comet-2"]) as fabric:
        fabric.add_later()
        text = fabric.file.read_text().replace("[[router]]", '[[router]]\nhost = "a"')
        for kind in ("logic", "job", "comet"):
            text = text.replace(f"[[{kind}]]", f'[[{kind}]]\nhost = "a"')
        before, _, after = text.rpartition('host = "a"')
        fabric.file.write_text(f'{before}host = "b"{after}')
        done = reload(fabric)
        assert done.returncode == 1
        assert "comet-2 runs on host b, and this zim up was started without --host" in done.stderr
        assert fabric.pid("comet-2") == 0


def test_a_node_that_starts_meanwhile_is_told_too() -> None:
    with running(comets=2, jobs=2, later=["comet-2"], has_admin=True) as fabric:
        client = ZimClient(fabric.tcp["comet-1"], "7", rooms=["a"])
        assert zim(fabric, "drain", "job-1")[0] == 0
        ask(control_path(fabric.file.parent / "var", None), "start", 10.0, node="job-1")
        wait_until(lambda: fabric.pid("job-1"), "it starts")
        fabric.kill("job-1", signal.SIGSTOP)  # with what was in force before
        fabric.add_later()
        assert said(fabric)["taken"] == ["comet-2, added"]
        fabric.kill("job-1", signal.SIGCONT)

        def is_told() -> bool:
            with suppress(OSError):
                return 'queue="comet-2"' in fabric.metrics("job-1")
            return False

        wait_until(is_told, "it is told, once it is ready")
        assert zim(fabric, "drain", "job-2")[0] == 0
        second = ZimClient(fabric.tcp["comet-2"], "8", rooms=["a"])
        assert fabric.push({"to": {"rooms": ["a"]}, "body": 1})[0] == 200
        assert [one.take(Op.PUSH).body for one in (client, second)] == [b"1", b"1"]
        missing = [one["missing"] for one in json.loads(zim(fabric, "status", "--json")[1])["nodes"]]
        assert not any(missing), missing
