"""What became of pushes: a row for each entry, a receipt for each push, a ledger over all. Pure: no socket, no clock.

Counted in sessions, and always in balance: targeted = delivered + gone + shed + expired + unknown + pending.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from zim.fabric.limits import RECEIPT_NAMES
from zim.fabric.streams import is_user_stream
from zim.fabric.tally import Tally
from zim.nodes.router.log.receipts import RouterReceipt
from zim.protocol.messages import Result


class PushRow:
    """What became of one push at one comet."""

    __slots__ = ("_ledger", "_receipt", "delivered", "expired", "gone", "shed", "targeted")

    def __init__(self, ledger: RouterLedger, receipt: RouterReceipt, targeted: int) -> None:
        self._ledger, self._receipt, self.targeted = ledger, receipt, targeted
        self.delivered = self.gone = self.shed = self.expired = 0
        receipt.open_rows += 1
        for tally in (ledger.tally, receipt.tally):
            tally.targeted += targeted

    @property
    def pending(self) -> int:
        """Sessions of which nothing is known yet."""
        return self.targeted - self.delivered - self.gone - self.shed - self.expired

    def report(self, r: Result, now_ms: int) -> bool:
        """What the comet found, in absolute numbers. Returns whether the row is closed: nothing of it will change."""
        if min(r.delivered, r.gone, r.shed, r.expired, r.targeted - r.delivered - r.gone - r.shed - r.expired) < 0:
            return False  # no count of sessions
        for tally in (self._ledger.tally, self._receipt.tally):
            tally.targeted += r.targeted - self.targeted
            tally.delivered += r.delivered - self.delivered
            tally.gone += r.gone - self.gone
            tally.shed += r.shed - self.shed
            tally.expired += r.expired - self.expired
        self.targeted, self.delivered, self.gone = r.targeted, r.delivered, r.gone
        self.shed, self.expired = r.shed, r.expired
        self._receipt.reported_ms = now_ms
        if not self.pending:
            self._receipt.open_rows -= 1
        self._ledger.changed(self._receipt)
        return not self.pending

    def lose(self) -> None:
        """Its comet is gone, and with it whatever it had to say: the row is closed."""
        pending = self.pending
        for tally in (self._ledger.tally, self._receipt.tally):
            tally.gone += pending
        self.gone += pending
        self._receipt.open_rows -= 1
        self._ledger.changed(self._receipt)


class Totals(NamedTuple):
    """What is known of many pushes.

    Attributes:
        tally: over all of them.
        offline: users without a session.
        pushes: how many.
    """

    tally: Tally
    offline: int
    pushes: int


class RouterLedger:
    """All receipts of one router that may still change, or are not in its store yet.

    Attributes:
        tally: over all pushes ever.
        offline: users without a session, over all pushes ever.
        pushes: how many.
    """

    def __init__(self, tally: Tally, offline: int, pushes: int, serial: int, left: int = 0) -> None:
        """
        Args:
            tally, offline, pushes: what was before this run; nothing of it is pending.
            serial: of the last receipt before.
            left: how many sessions, unknown since, were pending when the last run ended.
        """
        self.tally, self.offline, self.pushes = tally, offline, pushes
        self._before, self._left = Totals(replace(tally), offline, pushes), left
        self._serial = serial
        self._receipts: dict[str, list[RouterReceipt]] = {}
        self._changed: dict[int, RouterReceipt] = {}

    def this_run(self) -> Totals:
        """What this run has to account for: its own pushes, and what the last one left to it. In balance, too."""
        tally = self.tally - self._before.tally + Tally(targeted=self._left, unknown=self._left)
        return Totals(tally, self.offline - self._before.offline, self.pushes - self._before.pushes)

    def open(self, push_id: str, accepted_ms: int, kept_ms: int, is_first: bool = True) -> RouterReceipt:
        """The receipt of a push, or of a part of one, that is in the log now. is_first: it is not a later part."""
        self._serial += 1
        self.pushes += is_first
        names = RECEIPT_NAMES if is_first else 0  # the receipt of a push to very many has hundreds of parts
        receipt = RouterReceipt(push_id, self._serial, accepted_ms, kept_ms, names_left=names)
        self._receipts.setdefault(push_id, []).append(receipt)
        self._changed[receipt.serial] = receipt
        return receipt

    def count_unserved(self, receipt: RouterReceipt, streams: Sequence[str]) -> None:
        """Nobody was there for these of its streams: users without a session, and rooms with nobody in them."""
        if receipt.names_left:
            named = streams[: receipt.names_left]
            receipt.unserved = (*receipt.unserved, *named)
            receipt.names_left -= len(named)
        users = sum(map(is_user_stream, streams))
        receipt.offline += users
        self.offline += users
        self.changed(receipt)

    def changed(self, receipt: RouterReceipt) -> None:
        """It is to be stored (again)."""
        self._changed[receipt.serial] = receipt

    def take_changed(self) -> list[RouterReceipt]:
        """What is to be stored. What cannot change any more is forgotten here, once `stored` says that it is."""
        changed, self._changed = list(self._changed.values()), {}
        return changed

    def stored(self, receipts: Sequence[RouterReceipt]) -> None:
        """These are in the store."""
        for receipt in receipts:
            if receipt.open_rows or receipt.serial in self._changed:
                continue
            mine = self._receipts.get(receipt.push_id)
            if mine is not None and receipt in mine:
                mine.remove(receipt)
                if not mine:
                    del self._receipts[receipt.push_id]

    def put_back(self, receipts: Sequence[RouterReceipt], most: int) -> int:
        """The store did not take these: they go with the next ones, without names. Returns how many of the oldest are
        given up, so that no more than `most` wait.
        """
        for receipt in receipts:
            receipt.unserved = ()
        waiting = {receipt.serial: receipt for receipt in receipts} | self._changed
        lost = list(waiting.values())[: max(0, len(waiting) - most)]
        for receipt in lost:
            del waiting[receipt.serial]
        self._changed = waiting
        self.stored(lost)
        return len(lost)

    def find(self, push_id: str) -> list[RouterReceipt]:
        """The receipts of a push that are in memory."""
        return self._receipts.get(push_id, [])
