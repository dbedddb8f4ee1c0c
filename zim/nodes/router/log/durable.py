"""What a router keeps on its disk. This module chooses the engines; nobody above it knows which they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zim.errors import NodeError
from zim.nodes.router.log.shared import Durable, SharedLog, WhereShared
from zim.nodes.router.log.sqlite import InThread, SqliteLog, SqliteReceipts, back_up, begin_epoch

__all__ = ["Durable", "back_up", "begin_epoch", "open_durable", "open_shared"]


def open_durable(
    folder: Path,
    owner: str,
    routers: Sequence[str],
    in_thread: InThread,
    *,
    key_window_s: float,
    ballast_bytes: int,
    receipts_s: float,
) -> Durable:
    """Opens what is in a router's folder, or makes it. The router owns it from now on. Blocks.

    Args:
        folder: whoever calls holds its lock.
        owner: the router's name.
        routers: see SqliteLog, as for key_window_s and ballast_bytes.
        in_thread: runs a job in a thread, and blocks the calling greenlet only.
        receipts_s: how long receipts are kept.

    Raises:
        NodeError: it cannot be used; says why, and what to do.
    """
    log = SqliteLog(folder, routers, in_thread, key_window_s=key_window_s, ballast_bytes=ballast_bytes)
    lease = log.acquire(owner)
    return Durable(log, lease, SqliteReceipts(folder, lease.term, receipts_s, in_thread))


def open_shared(place: WhereShared, fabric: str, key_window_s: float, receipts_s: float) -> SharedLog:
    """Opens the log that all routers share. Switches.

    Args:
        place: what the topology says.
        fabric: its name.
        key_window_s: for how long a publisher's key is known.
        receipts_s: how long receipts are kept.

    Raises:
        NodeError: it cannot be used; says why, and what to do. NotNow: it does not answer.
    """
    try:
        from zim.nodes.router.log.postgresql import PostgresLog
    except ImportError as e:
        raise NodeError(f"[log] needs psycopg, which is not here ({e}): pip install 'zim[postgresql]'") from None
    return PostgresLog(place, fabric, key_window_s, receipts_s)
