"""A link whose name cannot be resolved holds up no other one."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.harness import Client, free_ports, running, wait_until

NAME = "no-such-host.invalid"


def test_a_name_that_cannot_be_resolved_is_told_and_holds_up_nobody(tmp_path: Path) -> None:
    """The job cannot find comet-2: what it has for comet-1 goes there, and comet-2 fetches."""
    bind, tcp = free_ports(2)
    comet_2 = f"""
[[comet]]
id = 2
bind = "tcp://127.0.0.1:{bind}"
advertise = "tcp://{NAME}:{bind}"
tcp = "127.0.0.1:{tcp}"
"""
    with running(tmp_path, more=comet_2) as fabric:
        near, far = Client(fabric.tcp["comet-1"], "1"), Client(f"127.0.0.1:{tcp}", "2")
        for n in range(20):
            fabric.post("/1/push/all", b"%d" % n)
        for client in (near, far):
            assert [p.body for p in client.wait(20)] == [b"%d" % n for n in range(20)]
        told = f"job-1 WARNING a peer's name cannot be resolved peer=comet-2 host={NAME}"
        wait_until(lambda: told in fabric.log, "the log names it")
        assert fabric.log.count("cannot be resolved") == 1


def test_links_by_name(tmp_path: Path) -> None:
    """All links are by name, and one whose peer is killed is there again."""
    with running(tmp_path, links_by="localhost") as fabric:
        client = Client(fabric.tcp["comet-1"], "1")
        fabric.post("/1/push?uid=1", b"1")
        assert [p.body for p in client.wait(1)] == [b"1"]
        fabric.kill("job-1", signal.SIGKILL)
        fabric.post("/1/push?uid=1", b"2")
        assert [p.body for p in client.wait(2)] == [b"1", b"2"]
