"""How tests open the log on PostgreSQL: one cluster for a process of tests, a database for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count

from tests.postgresql import Postgres, cluster, place
from tests.unit.nodes.router.log.contract import KEY_WINDOW_S
from zim.nodes.router.log.postgresql import PostgresLog, make
from zim.nodes.router.log.postgresql.shard_log import ShardLog
from zim.topology import LogPlace

FABRIC = "demo"
RECEIPTS_S = 80.0

_stack = ExitStack()
_made: list[Postgres] = []
_numbers = count(1)


def server() -> Postgres:
    """The cluster of this process of tests. Skips the test where there is no PostgreSQL."""
    if not _made:
        primary, _ = _stack.enter_context(cluster())
        _made.append(primary)
        primary.execute("CREATE DATABASE pattern")
        make(place(primary, database="pattern"), FABRIC)
    return _made[0]


def stop() -> None:
    """Ends it, if there is one."""
    _stack.close()
    _made.clear()


@contextmanager
def database(shards: int = 2) -> Iterator[LogPlace]:
    """A log of its own, empty."""
    primary, name = server(), f"test_{next(_numbers)}"
    primary.execute(f"CREATE DATABASE {name} TEMPLATE pattern" if shards == 2 else f"CREATE DATABASE {name}")
    found = place(primary, database=name, shards=shards)
    if shards != 2:
        make(found, FABRIC)
    try:
        yield found
    finally:
        primary.execute(f"DROP DATABASE {name} WITH (FORCE)")


def opened(where: LogPlace) -> PostgresLog:
    """As a router opens it."""
    return PostgresLog(where, FABRIC, KEY_WINDOW_S, RECEIPTS_S)


class Alone:
    """One process that has one shard.

    Attributes:
        shared: its log. log: that of the shard.
    """

    def __init__(self, where: LogPlace, shard: str = "shard-1") -> None:
        self.shared = opened(where)
        self.log: ShardLog = self.shared.shard_log(shard)
        self.log.load(None)

    def close(self) -> None:
        self.log.close()
        self.shared.close()
