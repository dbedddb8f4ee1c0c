"""How a log that routers share is, for people."""

from __future__ import annotations

from typing import NamedTuple

from zim.nodes.router.log.shared import Rows


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
        sees_others: it may be told of standbys, and of others' transactions.
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
    sees_others: bool
    standbys: list[StandbyServer]
    oldest_s: float
    oldest_by: str
    tables: list[TableSize]
    standing: Rows
