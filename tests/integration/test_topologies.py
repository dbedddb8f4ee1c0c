"""Nodes with topologies that differ: nothing is stored, told or counted in the wrong place."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.harness import free_ports, running, wait_until
from zim.fabric.sharding import Shards

USER = next(str(n) for n in range(100) if Shards(["router-1", "router-2"]).of(f"u:{n}") == "router-2")


def ask(url: str, body: Any = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as e:
        return e.code, json.load(e)


def test_a_logic_that_knows_fewer_routers(tmp_path: Path) -> None:
    with running(tmp_path, routers=2) as fabric:
        right, (bind, http, publish) = f"http://{fabric.http['logic-1']}", free_ports(3)
        assert ask(f"{right}/api/push", {"to": {"users": [USER]}, "body": 1})[0] == 200
        text = fabric.file.read_text()
        text = re.sub(r"\[\[router\]\]\nid = 2\n(?:\w.*\n)*", "", text)
        text = text.replace("[[logic]]\nid = 1", "[[logic]]\nid = 2")
        text = text.replace(fabric.binds["logic-1"], f"tcp://127.0.0.1:{bind}")
        text = text.replace(fabric.http["logic-1"], f"127.0.0.1:{http}")
        text = text.replace(fabric.publish["logic-1"], f"tcp://127.0.0.1:{publish}")
        other = tmp_path / "other.toml"
        other.write_text(text)
        wrong, log = f"http://127.0.0.1:{http}", tmp_path / "other.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "zim", "node", "logic-2", "--topology", str(other)], stdout=out, stderr=out
            )
        try:
            wait_until(lambda: "ready" in log.read_text(), "logic-2 is ready")
            why = f"u:{USER} is another's: the topologies differ"
            for path in (f"streams/u:{USER}", f"users/{USER}/unread"):
                status, problem = ask(f"{wrong}/api/{path}")
                assert (status, why in problem["detail"]) == (503, True), problem
            status, problem = ask(f"{wrong}/api/push", {"to": {"users": [USER]}, "body": 2})
            assert (status, why in json.dumps(problem)) == (503, True), problem
            assert "a router refuses a stream: the topologies differ" in fabric.log
            status, stream = ask(f"{right}/api/streams/u:{USER}")
            assert [m["body"] for m in stream["messages"]] == [1]
        finally:
            process.kill()
            process.wait()
