"""How tests open the log on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import gevent

from tests.unit.nodes.router.log.contract import KEY_WINDOW_S, NOW
from zim.nodes.router.log import Lease, Log, NewPush
from zim.nodes.router.log.sqlite import SqliteLog
from zim.nodes.router.log.sqlite.worker import InThread

T = TypeVar("T")

ROUTERS = ("router-1", "router-2")


def direct(job: Callable[[], T]) -> T:
    """No thread: the same calls, easier to follow."""
    return job()


def in_thread(job: Callable[[], T]) -> T:
    """As a router does it."""
    result: T = gevent.get_hub().threadpool.apply(job)
    return result


class Clock:
    """Monotonic seconds that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def opened(
    folder: Path,
    run: InThread = in_thread,
    *,
    routers: Sequence[str] = ROUTERS,
    ballast_bytes: int = 4096,
    clock: Callable[[], float] | None = None,
    factory: type[sqlite3.Connection] = sqlite3.Connection,
) -> SqliteLog:
    """The log of a folder."""
    return SqliteLog(
        folder,
        routers,
        run,
        key_window_s=KEY_WINDOW_S,
        ballast_bytes=ballast_bytes,
        monotonic=clock or Clock(),
        factory=factory,
    )


def acquired(log: Log) -> Lease:
    """A lease of it."""
    return log.acquire("router-1")


def told(stream: str, offset: int, size: int = 40) -> NewPush:
    """A record that says where it belongs, so that a reader can tell whether it stands there."""
    text = f"{stream} {offset} ".encode()
    return NewPush(f"{stream}/{offset}", [stream], offset, text.ljust(size, b"."), NOW + offset)


def check_told(log: Log, stream: str, size: int = 40) -> tuple[int, int]:
    """Reads all of a stream that `told` made. Returns its floor and head."""
    page = log.read(stream, 0, 1 << 30, 1 << 20, 1 << 30, 0)
    assert [r.offset for r in page.records] == list(range(page.floor + 1, page.head + 1))
    for record in page.records:
        expected = told(stream, record.offset, size)
        found = (record.push_id, record.op, record.body, record.time_ms)
        assert found == (expected.push_id, expected.op, expected.body, expected.time_ms)
    return page.floor, page.head
