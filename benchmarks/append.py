"""How fast the router's log takes appends, on this disk, under gevent.

    python -m benchmarks.append [--folder DIR] [--seconds S] [--runs N]

A lone append is set against a bare fdatasync of the same disk in the same run. Then publishers append as fast as they
are answered, through the batches that the router uses. Prints medians over the runs.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
from gevent.event import AsyncResult
from rich.console import Console
from rich.table import Table

from benchmarks.report import percentile
from zim.fabric.retention import Retention, Rule
from zim.net.batches import Batches
from zim.nodes.router.log import Lease, NewPush
from zim.nodes.router.log.keys import KeyUse
from zim.nodes.router.log.sqlite import SqliteLog

BODY = b"x" * 100
IDLE_APPENDS = 500
TICK_S = 0.1
TRIM_BUDGET = 4_000


@dataclass
class Load:
    """Publishers, and what is special about them."""

    name: str
    publishers: int
    has_keys: bool = False
    streams: int = 10_000
    kept: int = 1_000_000  # of each stream: above the number that a run makes, nothing is trimmed
    spin_share: float = 0.0  # how much of its time the hub is busy with something else


LOADS = (
    Load("64 publishers", 64),
    Load("1,000 publishers", 1_000),
    Load("64, a key on each push", 64, has_keys=True),
    Load("1,000, a key on each push", 1_000, has_keys=True),
    Load("64, and as many trimmed", 64, streams=1_000, kept=10),
    Load("1,000, and as many trimmed", 1_000, streams=1_000, kept=10),
    Load("64, on a hub that is half busy", 64, spin_share=0.5),
    Load("1,000, on a hub that is half busy", 1_000, spin_share=0.5),
)


@dataclass
class Result:
    """One run of one load."""

    per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    batch: float
    wal_mb: float
    trimmed: int


@dataclass
class Bench:
    """One log and its owner."""

    log: SqliteLog
    lease: Lease
    folder: Path
    queue: Batches[tuple[NewPush, AsyncResult[None]]] = field(default_factory=lambda: Batches(64 << 20))
    waits: list[float] = field(default_factory=list)
    batches: int = 0
    trimmed: int = 0
    wal_bytes: int = 0

    def commit(self) -> None:
        """What gathers while one commit runs is the next one, as in the router."""
        while batch := self.queue.begin():
            self.log.append(self.lease, [push for push, _ in batch])
            self.queue.end()
            self.batches += 1
            for _, answer in batch:
                answer.set(None)

    def publish(self, stream: str, digest: bytes) -> None:
        """One push; waits until it is on disk."""
        key = KeyUse(digest) if digest else None
        push = NewPush(secrets.token_hex(16), [stream], 5, BODY, int(time.time() * 1000), key=key)
        answer: AsyncResult[None] = AsyncResult()
        started = time.perf_counter()
        self.queue.put((push, answer), len(BODY) + 200)
        if not self.queue.is_busy:
            gevent.spawn(self.commit)
        answer.get()
        self.waits.append(time.perf_counter() - started)

    def publisher(self, load: Load, until: float, seed: int) -> None:
        """One push after the other."""
        rng = random.Random(seed)
        digest = b"d" * 16 if load.has_keys else b""
        while time.perf_counter() < until:
            self.publish(f"u:{rng.randrange(load.streams)}", digest)

    def tick(self, load: Load) -> None:
        """Trims, as the router does."""
        rule = Rule(load.kept, 86_400)
        retention = Retention(rule, rule, rule)
        while True:
            gevent.sleep(TICK_S)
            now = int(time.time() * 1000)
            self.trimmed += self.log.trim(self.lease, retention, now, now, TRIM_BUDGET).records
            self.wal_bytes = max(self.wal_bytes, (self.folder / "log.db-wal").stat().st_size)

    def spin(self, share: float) -> None:
        """Uses a share of the processor, as the rest of a router would."""
        while True:
            until = time.perf_counter() + 0.002 * share
            while time.perf_counter() < until:
                pass
            gevent.sleep(0.002 * (1 - share))


def made(folder: Path) -> Bench:
    """A bench with an empty log."""
    log = SqliteLog(
        folder, ["router-1"], gevent.get_hub().threadpool.apply, key_window_s=86_400.0, ballast_bytes=32 << 20
    )
    lease = log.acquire("router-1")
    return Bench(log, lease, folder)


def under_load(base: Path, load: Load, seconds: float) -> Result:
    """Publishers append as fast as they are answered."""
    with tempfile.TemporaryDirectory(dir=base) as folder:
        bench = made(Path(folder))
        around: list[gevent.Greenlet[..., Any]] = [gevent.spawn(bench.tick, load)]
        if load.spin_share:
            around.append(gevent.spawn(bench.spin, load.spin_share))
        started = time.perf_counter()
        until = started + seconds
        gevent.joinall(
            [gevent.spawn(bench.publisher, load, until, i) for i in range(load.publishers)], raise_error=True
        )
        took = time.perf_counter() - started
        gevent.killall(around)
        bench.log.close()
        waits = [wait * 1000 for wait in bench.waits]
        return Result(
            len(waits) / took,
            percentile(waits, 0.5),
            percentile(waits, 0.99),
            max(waits),
            len(waits) / bench.batches,
            bench.wal_bytes / (1 << 20),
            bench.trimmed,
        )


def idle(base: Path) -> tuple[float, float, float]:
    """Milliseconds, medians: a lone append; an fdatasync after a write of a WAL's size, there and in a thread."""
    pool = gevent.get_hub().threadpool
    with tempfile.TemporaryDirectory(dir=base) as name:
        folder = Path(name)
        bench = made(folder)
        file = os.open(folder / "bare", os.O_RDWR | os.O_CREAT)
        os.pwrite(file, b"\0" * (4 << 20), 0)
        os.fsync(file)

        def bare(at: int) -> None:
            os.pwrite(file, b"x" * (4 * 4120), at)
            os.fdatasync(file)

        appends, bares, hops = [], [], []
        for i in range(IDLE_APPENDS):
            at = i * 8192 % (4 << 20)
            started = time.perf_counter()
            bare(at)
            bares.append(time.perf_counter() - started)
            started = time.perf_counter()
            pool.apply(bare, (at,))
            hops.append(time.perf_counter() - started)
            push = NewPush(secrets.token_hex(16), [f"u:{i % 100}"], 5, BODY, int(time.time() * 1000))
            started = time.perf_counter()
            bench.log.append(bench.lease, [push])
            appends.append(time.perf_counter() - started)
        os.close(file)
        bench.log.close()
    half = IDLE_APPENDS // 2  # the first ones make the streams
    return (
        statistics.median(appends[half:]) * 1000,
        statistics.median(bares[half:]) * 1000,
        statistics.median(hops[half:]) * 1000,
    )


def show(alone: list[tuple[float, float, float]], results: dict[str, list[Result]]) -> None:
    """Prints medians."""
    console = Console()
    lone, bare, hop = (statistics.median(values) for values in zip(*alone, strict=True))
    console.print(f"a lone append {lone:.2f} ms; a bare fdatasync {bare:.2f} ms, in a thread {hop:.2f} ms")
    table = Table("load", "appends/s", "p50 ms", "p99 ms", "max ms", "a batch", "WAL MB", "trimmed")
    for name, runs in results.items():

        def median(of: str, runs: list[Result] = runs) -> float:
            return float(statistics.median(getattr(run, of) for run in runs))

        table.add_row(
            name,
            f"{median('per_s'):,.0f}",
            *(f"{median(of):,.1f}" for of in ("p50_ms", "p99_ms", "max_ms")),
            f"{median('batch'):,.0f}",
            f"{median('wal_mb'):,.0f}",
            f"{median('trimmed'):,.0f}",
        )
    console.print(table)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.append", description="How fast the log takes appends.")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to measure")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    alone: list[tuple[float, float, float]] = []
    results: dict[str, list[Result]] = {load.name: [] for load in LOADS}
    for _ in range(args.runs):
        alone.append(idle(args.folder))
        for load in LOADS:
            results[load.name].append(under_load(args.folder, load, args.seconds))
    show(alone, results)


if __name__ == "__main__":
    main()
