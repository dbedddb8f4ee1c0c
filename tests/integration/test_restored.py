"""A backup comes back: offsets are given again, and nobody takes one message for another."""

from __future__ import annotations

import http.client
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tests.harness import Fabric, running, wait_until
from tests.pages import free_offset
from tests.programs import ROOT, started
from tests.zim_client import ZimClient


def zim(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "zim", *args], capture_output=True, text=True, check=False)


def test_a_restored_backup_is_another_history(tmp_path: Path) -> None:
    fabric, folder = Fabric(tmp_path), tmp_path / "var" / "router-1"
    restore = ("restored", "router-1", "--topology", str(fabric.file))
    assert "is not there" in zim(*restore).stderr
    fabric.start()
    try:
        for n in range(3):
            fabric.post("/1/push?uid=7", b"%d" % n)
        epoch = ZimClient(fabric.tcp["comet-1"], "7").starts["u:7"]["epoch"]
        running = zim(*restore)
        pid = fabric.pid("router-1")
        said = f"zim: router-1 runs (pid {pid}); stop it, or the `zim up` that restarts it\n"
        assert (running.returncode, running.stderr) == (1, said)
        fabric.stop()
        shutil.copytree(folder, tmp_path / "backup")
        fabric.start()
        fabric.post("/1/push?uid=7", b"3")
        fabric.stop()
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "backup", folder)
        done = zim(*restore)
        assert done.returncode == 0, done.stderr
        fabric.start()
        fabric.post("/1/push?uid=7", b"another")
        client = ZimClient(fabric.tcp["comet-1"], "7", resume={"u:7": (epoch, 4)})
        start = client.starts["u:7"]
        assert start == {"epoch": start["epoch"], "offset": 4, "recovered": False}
        assert start["epoch"] != epoch
        assert start["epoch"] in done.stdout
        assert int(client.auth["key"].rpartition("_")[2]) > 1 << 32  # no number that is forgotten is given again
    finally:
        fabric.stop()


def test_only_a_router_can_be_restored(tmp_path: Path) -> None:
    found = zim("restored", "comet-1", "--topology", str(Fabric(tmp_path).file))
    assert (found.returncode, "has no router comet-1; there are router-1" in found.stderr) == (1, True)


# ---------------------------------------------------------------- docs/how-to/backups.md


def blocks() -> list[str]:
    """What the page has one type, in this order."""
    page = (ROOT / "docs" / "how-to" / "backups.md").read_text()
    text = re.sub(r"^zim ", f"{sys.executable} -m zim ", page, flags=re.MULTILINE)
    return re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def sh(text: str, folder: Path) -> str:
    """Standard output of lines that must be right."""
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=False, cwd=folder)
    assert (done.returncode, done.stderr) == (0, ""), text
    return done.stdout


def test_the_backup_of_the_page_comes_back_in_a_second_fabric(tmp_path: Path) -> None:
    make, _, bring_back, read, _ = blocks()
    with running(tmp_path) as fabric:
        for body in (b"1", b"2"):
            fabric.post("/1/push?uid=7", body)
            said = sh(make, tmp_path)
        assert said.startswith("backup/router-1/log.db: 2 messages of 1 stream, ")
        fabric.post("/1/push?uid=7", b"3")
        offset = free_offset()
        *prepare, up = bring_back.replace("--offset 10000", f"--offset {offset}").splitlines()
        assert "router-1 goes on with epoch" in sh("\n".join(prepare), tmp_path)
        address, path = re.findall(r"http://([\d.:]+)([^']+)", read)[0]
        assert address == "127.0.0.1:17172"
        with started(shlex.split(up), tmp_path) as (process, out, err):
            wait_until(lambda: "is up" in out.read_text() or process.poll() is not None, "the second fabric is up")
            assert process.poll() is None, err.read_text()
            second = http.client.HTTPConnection("127.0.0.1", 7172 + offset)
            second.request("GET", path)
            found = json.loads(second.getresponse().read())
            second.close()
            process.terminate()
            wait_until(lambda: process.poll() is not None, "the second fabric has stopped")
        assert [message["body"] for message in found["messages"]] == [1, 2]
        assert fabric.get(path)["head"] == 3
