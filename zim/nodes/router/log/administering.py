"""What people do with a log that routers share: make it, migrate it, look at it, copy logs into it.

This module chooses the engine, as `durable` does for routers. Every call switches.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from zim.errors import NodeError
from zim.nodes.router.log.shared import Standing, WhereShared


class StandbyServer(NamedTuple):
    """One that follows. is_waited_for: commits wait for it."""

    name: str
    is_waited_for: bool


class TableSize(NamedTuple):
    """A table, its indexes with it. live, dead: about how many rows there are, and how many that are gone."""

    name: str
    bytes: int
    live: int
    dead: int


class SharedState(NamedTuple):
    """How a shared log is.

    Attributes:
        format, newest_format: that it has, and that this zim writes.
        fabric: whose it is.
        copying: what is being copied into it; "" for nothing.
        server: the engine's version and address.
        waits_for: what commits wait for, as the engine is told; "" for nothing.
        standbys: that follow now.
        oldest_s: for how long the oldest transaction is open, and who has it: rows that are gone stay as long.
        standing: who owns what.
    """

    format: int
    newest_format: int
    fabric: str
    copying: str
    server: str
    waits_for: str
    standbys: list[StandbyServer]
    oldest_s: float
    oldest_by: str
    tables: list[TableSize]
    standing: Standing


class Engine(Protocol):
    """What an engine can be asked to do. Raises: NodeError, Unavailable."""

    def make(self, place: WhereShared, fabric: str) -> None:
        """Makes a log, all of it or nothing."""

    def migrate(self, place: WhereShared, fabric: str) -> tuple[int, int]:
        """Brings an older log to the newest format. Returns the old and the new one."""

    def describe(self, place: WhereShared) -> SharedState:
        """How it is."""


def engine() -> Engine:
    """The only one that there is.

    Raises:
        NodeError: what it needs is not installed.
    """
    try:
        from zim.nodes.router.log.postgresql import administering as found
    except ImportError as e:
        raise NodeError(f"[log] needs psycopg, which is not here ({e}): pip install 'zim[postgresql]'") from None
    return found
