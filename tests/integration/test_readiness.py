"""Who can do a part of its work is ready, and says what is missing: of several machines one may be off."""

from __future__ import annotations

import http.client
import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Fabric, running, wait_until


def on_two_machines(folder: Path, there: set[str]) -> Fabric:
    """All nodes are on machine a, which is started, but for those that are on b, which is off."""
    fabric = Fabric(folder, routers=2, has_admin=True, options=("--host", "a"))
    text = fabric.file.read_text()
    for name, bind in fabric.binds.items():
        text = text.replace(f'bind = "{bind}"', f'bind = "{bind}"\nhost = "{"b" if name in there else "a"}"')
    fabric.file.write_text(text)
    return fabric


def readyz(address: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("there", "logic", "comet", "router"),
    [
        ({"router-2"}, 200, 200, 200),
        ({"router-1", "router-2"}, 503, 503, 0),
        ({"logic-1"}, 0, 503, 200),
        ({"job-1"}, 200, 200, 503),
    ],
    ids=["a router is away", "both routers", "the logic", "the job"],
)
def test_what_is_away_is_named_and_a_part_of_the_work_is_enough(
    tmp_path: Path, there: set[str], logic: int, comet: int, router: int
) -> None:
    fabric = on_two_machines(tmp_path, there)
    try:
        fabric.start()
        for name, status in (("logic-1", logic), ("comet-1", comet), ("router-1", router)):
            if not status:
                continue
            addresses = [fabric.admin[name], *([fabric.http[name]] if name.startswith("logic") else [])]
            for address in addresses:
                wait_until(lambda a=address, s=status: readyz(a)[0] == s, f"{name} is {status}")  # type: ignore[misc]
                told = readyz(address)[1]
                assert told["status"] == ("ok" if status == 200 else "not ready")
                named = {found[0] for text in told.get("missing", []) if (found := re.findall(r"\w+-\d", text))}
                assert named <= there
                if status != 200 or (name != "router-1" and there & {"router-1", "router-2"}):
                    assert named
    finally:
        fabric.stop()


def test_a_router_whose_log_is_gone_accepts_nothing_and_says_so(tmp_path: Path) -> None:
    with running(tmp_path, has_admin=True) as fabric:
        log = tmp_path / "var" / "router-1" / "log.db"
        assert fabric.post("/1/push?uid=7", b"1")["ret"] == 1
        log.rename(tmp_path / "moved")
        assert status_of(fabric.http["logic-1"]) == 503
        (text,) = readyz(fabric.admin["router-1"])[1]["missing"]
        assert re.fullmatch(r"pushes are refused: .*log\.db was moved or deleted .*", text)
        (tmp_path / "moved").rename(log)
        assert status_of(fabric.http["logic-1"]) == 200
        assert readyz(fabric.admin["router-1"]) == (200, {"status": "ok"})
        assert fabric.get("/api/streams/u%3A7")["head"] == 2


def status_of(address: str) -> int:
    """Of a push to user 7."""
    connection = http.client.HTTPConnection(address, timeout=20)
    try:
        connection.request("POST", "/1/push?uid=7", b"1")
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_router_that_stands_still_is_named_by_the_comet_and_in_its_log(tmp_path: Path) -> None:
    with running(tmp_path, routers=2, has_admin=True) as fabric:
        comet = fabric.admin["comet-1"]
        wait_until(lambda: readyz(comet) == (200, {"status": "ok"}), "it is registered")
        fabric.kill("router-2", signal.SIGSTOP)
        named = ["not registered with router-2: it does not answer"]
        wait_until(lambda: readyz(comet) == (200, {"status": "ok", "missing": named}), "it is named")
        fabric.kill("router-2", signal.SIGCONT)
        wait_until(lambda: readyz(comet) == (200, {"status": "ok"}), "it answers again")
        for line in ("a router does not answer", "a router answers again"):
            wait_until(lambda said=line: f"{said} shard=router-2 router=router-2" in fabric.log, "the log has it")  # type: ignore[misc]
