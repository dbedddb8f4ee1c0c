"""What people do with a log that routers share: make it, migrate it, look at it, copy logs into it.

This module chooses the engine, as `durable` does for routers. Every call switches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from zim.errors import NodeError
from zim.nodes.router.log.copying import CopyReport, Progress, SourceLog
from zim.nodes.router.log.shared import WhereShared
from zim.nodes.router.log.shared_state import SharedState
from zim.nodes.router.log.sqlite import SqliteSource


class Engine(Protocol):
    """What an engine can be asked to do. Raises: NodeError, Unavailable."""

    def make(self, place: WhereShared, fabric: str) -> None:
        """Makes a log, all of it or nothing."""

    def migrate(self, place: WhereShared, fabric: str) -> tuple[int, int]:
        """Brings an older log to the newest format. Returns the old and the new one."""

    def restored(self, place: WhereShared, fabric: str) -> None:
        """The log has come out of a backup: all its streams begin another history."""

    def describe(self, place: WhereShared) -> SharedState:
        """How it is."""

    def copy(
        self, place: WhereShared, fabric: str, sources: Sequence[SourceLog], what: str, progress: Progress
    ) -> CopyReport:
        """Copies logs of routers that stand still into an empty log, or goes on where that was broken off.

        Args:
            what: names the sources.
        """


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


@contextmanager
def embedded_logs(folders: Mapping[str, Path]) -> Iterator[list[SourceLog]]:
    """The logs of routers that stand still, by name. Whoever calls holds the locks of their folders.

    Raises:
        NodeError: one of them cannot be used; says why, and what to do.
    """
    with ExitStack() as stack:
        sources: list[SourceLog] = []
        for name, folder in folders.items():
            source = SqliteSource(name, folder, list(folders))
            stack.callback(source.close)
            sources.append(source)
        yield sources
