"""A router that is killed, or an engine, loses nothing that was acknowledged."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from tests.postgresql import cluster, place
from tests.unit.nodes.router.log.postgresql_support import FABRIC, database, opened
from tests.unit.nodes.router.log.sqlite_support import check_told
from zim.nodes.router.log.postgresql import make
from zim.topology import LogPlace

MODULE = "tests.unit.nodes.router.log.postgresql_appender"


def appender(where: LogPlace, seed: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", MODULE, where.url, str(seed)], stdout=subprocess.PIPE, text=True)


def acknowledged(lines: list[str], acks: dict[str, int]) -> None:
    for line in lines:
        words = line.split()
        if len(words) == 3 and line.endswith("\n"):
            acks[words[1]] = max(acks.get(words[1], 0), int(words[2]))


def check(where: LogPlace, acks: dict[str, int]) -> None:
    """As the next owner finds it."""
    shared = opened(where)
    run = shared.enter("router-2")
    for name in shared.shards:
        lease = shared.take(shared.look().holdings[name], "router-2", run)
        assert lease is not None
        log = shared.open(lease).log
        _, head = check_told(log, f"r:{name}")
        assert head >= acks.get(f"r:{name}", 0)
    shared.close()


@pytest.mark.slow
def test_what_was_acknowledged_outlives_the_routers_kill_9() -> None:
    rng, acks = random.Random(7), dict[str, int]()
    with database() as where:
        for seed in range(4):
            with appender(where, seed) as process:
                assert process.stdout is not None
                lines = [process.stdout.readline() for _ in range(rng.randrange(5, 500))]
                process.kill()
                lines += process.stdout.readlines()
            acknowledged(lines, acks)
            check(where, acks)
    assert sum(acks.values()) > 100


@pytest.mark.slow
def test_what_was_acknowledged_outlives_the_engines_kill_9() -> None:
    """All its processes at once, as if the machine was switched off; and it starts again on what is on its disk."""
    rng, acks = random.Random(9), dict[str, int]()
    with cluster(fsync="on", full_page_writes="on") as (primary, _):
        primary.execute("CREATE DATABASE zim")
        where = place(primary, database="zim")
        make(where, FABRIC)
        for seed in range(3):
            with appender(where, seed) as process:
                assert process.stdout is not None
                lines = [process.stdout.readline() for _ in range(rng.randrange(5, 300))]
                primary.kill()
                process.kill()
                lines += process.stdout.readlines()
            acknowledged(lines, acks)
            primary.start()
            check(where, acks)
    assert sum(acks.values()) > 100
