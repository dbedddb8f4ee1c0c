"""What people do with a log that routers share: make it, migrate it, look at it, copy logs into it.

This module chooses the engine, as `durable` does for routers. Every call switches.
"""

from __future__ import annotations

from typing import Protocol

from zim.errors import NodeError
from zim.nodes.router.log.shared import WhereShared
from zim.nodes.router.log.shared_state import SharedState


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
