"""Appends to the log in a second, and what they cost the router: SQLite beside it, and PostgreSQL with its standby.

    python -m benchmarks.appends [--seconds 5] [--streams 10000] [--keys] [--shards 1]

Both engines are on this machine's disk, with all that they do to be safe (fsync, a synchronous standby), one commit
under way at a time, as a router has it. They take turns, so that what else the machine does is fair to both.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import gevent
from gevent import monkey

monkey.patch_all()

from tests.postgresql import cluster, place
from zim.nodes.router.log import Lease, Log, NewPush
from zim.nodes.router.log.keys import KeyUse
from zim.nodes.router.log.postgresql import PostgresLog, make
from zim.nodes.router.log.sqlite import SqliteLog

BATCHES = (1, 64, 1_000)
BODY = b"x" * 100
KEY_WINDOW_S = 86_400.0
TURNS = 4

Owned = tuple[Log, Lease]


class Measured(NamedTuple):
    """appends: in a second. cpu_us: of the router's process for each. p50_ms, p99_ms: of a commit."""

    appends: float
    cpu_us: float
    p50_ms: float
    p99_ms: float


@contextmanager
def sqlite() -> Iterator[list[Owned]]:
    """The log of one router."""
    folder = Path(tempfile.mkdtemp(prefix="zim-appends-", dir="."))
    in_thread = gevent.get_hub().threadpool.apply
    log = SqliteLog(folder, ["router-1"], in_thread, key_window_s=KEY_WINDOW_S, ballast_bytes=0)
    try:
        yield [(log, log.acquire("router-1"))]
    finally:
        log.close()
        shutil.rmtree(folder)


@contextmanager
def postgresql(shards: int) -> Iterator[list[Owned]]:
    """Shards of one router, whose commits wait for a standby."""
    safe = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "256MB"}
    with cluster(standby=True, **safe) as (primary, second):
        assert second is not None
        primary.execute("CREATE DATABASE zim")
        where = place(primary, second, database="zim", shards=shards, single_copy=False)
        make(where, "appends")
        shared = PostgresLog(where, "appends", KEY_WINDOW_S, 3_600.0)
        run = shared.enter("router-1")
        owned: list[Owned] = []
        for holding in shared.look().holdings.values():
            lease = shared.take(holding, "router-1", run)
            assert lease is not None
            owned.append((shared.open(lease).log, lease))
        yield owned
        shared.close()


class Load:
    """What is appended."""

    def __init__(self, streams: int, has_keys: bool) -> None:
        self._random = random.Random(1)
        self._streams, self._has_keys = streams, has_keys
        self._count = 0

    def batch(self, size: int, of: int) -> list[NewPush]:
        """Pushes to streams of a shard, in real form: ids are 32 hexadecimal digits."""
        now_ms = time.time_ns() // 1_000_000
        found = []
        for _ in range(size):
            self._count += 1
            stream = f"u:{of}-{self._random.randrange(self._streams)}"
            key = KeyUse(b"d" * 32) if self._has_keys else None
            found.append(NewPush(f"{self._count:032x}", [stream], 5, BODY, now_ms, key=key, wall_ms=now_ms))
        return found


def measure(owned: Sequence[Owned], load: Load, size: int, seconds: float) -> Measured:
    """All shards at once, each with one append under way."""
    took: list[float] = []
    preparing = 0.0  # seconds of CPU, that are not the log's
    end = time.monotonic() + seconds

    def append(at: int) -> None:
        nonlocal preparing
        log, lease = owned[at]
        while time.monotonic() < end:
            before = time.process_time()
            prepared = [load.batch(size, at) for _ in range(max(1, 256 // size))]
            preparing += time.process_time() - before
            for batch in prepared:
                began = time.monotonic()
                log.append(lease, batch)
                took.append(time.monotonic() - began)

    before = time.process_time()
    gevent.joinall([gevent.spawn(append, at) for at in range(len(owned))], raise_error=True)
    spent = time.process_time() - before - preparing
    took.sort()
    appends = len(took) * size
    wall = sum(took) / len(owned)
    middle, slow = took[len(took) // 2], took[len(took) * 99 // 100]
    return Measured(appends / wall, spent / appends * 1e6, middle * 1e3, slow * 1e3)


def _middle(found: Sequence[Measured]) -> Measured:
    """By appends a second."""
    return sorted(found)[len(found) // 2]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--shards", type=int, default=1, help="of the router on PostgreSQL")
    parser.add_argument("--keys", action="store_true", help="each push has a key")
    options = parser.parse_args()
    load = Load(options.streams, options.keys)
    with sqlite() as beside, postgresql(options.shards) as shared:
        print(
            f"{'batch':>6} {'engine':12} {'appends/s':>10} {'us of CPU':>10} {'p50 ms':>8} {'p99 ms':>8} {'ratio':>6}"
        )
        for size in BATCHES:
            for owned in (beside, shared):
                measure(owned, load, size, options.seconds / 3)  # streams are made, plans are
            turns = [[measure(owned, load, size, options.seconds) for owned in (beside, shared)] for _ in range(TURNS)]
            ours, theirs = (_middle(column) for column in zip(*turns, strict=True))
            for name, found in (("SQLite", ours), ("PostgreSQL", theirs)):
                ratio = f"{found.appends / ours.appends:6.2f}"
                numbers = f"{found.appends:10.0f} {found.cpu_us:10.1f} {found.p50_ms:8.2f} {found.p99_ms:8.2f}"
                print(f"{size:6} {name:12} {numbers} {ratio}", flush=True)


if __name__ == "__main__":
    main()
