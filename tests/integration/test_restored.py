"""A backup comes back: offsets are given again, and nobody takes one message for another."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.harness import Fabric
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
        assert (running.returncode, "runs on" in running.stderr) == (1, True)
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
