"""Receipts beside the log: what every engine that keeps them must do. Nobody waits for them.

They may lose the last second in a crash, never a message. One contract suite,
tests/unit/nodes/router/log/receipts_contract.py, holds all engines to this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from zim.fabric.tally import Tally


@dataclass(slots=True)
class RouterReceipt:
    """What became of one push at one router.

    Attributes:
        push_id, serial: which; a push that is completed later, under the same key, has a receipt for each part.
        accepted_ms: log time at which the router took it.
        kept_ms, reported_ms: log time of its commit, and of the last news of it.
        tally: over all its rows.
        offline: users who had no session.
        open_rows: that may still change.
        unserved: the first streams that nobody was there for, of users and of rooms; names_left: how many more may be
            there. It is not stored.
    """

    push_id: str
    serial: int
    accepted_ms: int
    kept_ms: int
    reported_ms: int = 0
    tally: Tally = field(default_factory=Tally)
    offline: int = 0
    open_rows: int = 0
    unserved: Sequence[str] = ()
    names_left: int = 0


class Before(NamedTuple):
    """What was before this run of a router.

    Attributes:
        tally: of all pushes ever. What was pending is unknown now.
        offline: users without a session, over all pushes ever.
        pushes: how many there were.
        serial: of the last receipt.
        left: how many sessions were pending when the last run ended.
    """

    tally: Tally
    offline: int = 0
    pushes: int = 0
    serial: int = 0
    left: int = 0


class ReceiptStore(Protocol):
    """Receipts, for as long as they are kept. A call blocks only the calling greenlet.

    Attributes:
        before: see Before.
        newest_ms: log time of the newest push whose receipt is there; 0 if none is.
    """

    before: Before
    newest_ms: int

    def write(self, receipts: Sequence[RouterReceipt], tally: Tally, offline: int, pushes: int, now_ms: int) -> None:
        """Stores receipts as they are now, and the totals over all.

        Args:
            now_ms: log time.

        Raises:
            Unavailable: the disk does not take them.
        """

    def find(self, push_id: str) -> list[RouterReceipt]:
        """The receipts of a push. What an earlier run left pending is unknown.

        Raises:
            Unavailable: the disk does not tell.
        """

    def close(self) -> None:
        """Gives back what it holds."""
