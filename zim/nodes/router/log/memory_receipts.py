"""Receipts in memory, over a content that outlives their router. For simulations. Pure: no I/O, no switch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from typing_extensions import override

from zim.fabric.tally import Tally
from zim.nodes.router.log.receipts import Before, ReceiptStore, RouterReceipt


@dataclass
class ReceiptBook:
    """The content. receipts: by push id and serial, with the run that wrote them last."""

    receipts: dict[str, dict[int, tuple[int, RouterReceipt]]] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    offline: int = 0
    pushes: int = 0
    serial: int = 0


class MemoryReceipts(ReceiptStore):
    """The receipts of a ReceiptBook."""

    def __init__(self, book: ReceiptBook, run: int) -> None:
        """
        Args:
            run: the router's term: what earlier runs left pending is unknown.
        """
        self._book, self._run = book, run
        tally = replace(book.tally)
        left = tally.give_up()
        self.before = Before(tally, book.offline, book.pushes, book.serial, left)
        kept = [receipt.kept_ms for mine in book.receipts.values() for _, receipt in mine.values()]
        self.newest_ms = max(kept, default=0)

    @override
    def write(self, receipts: Sequence[RouterReceipt], tally: Tally, offline: int, pushes: int, now_ms: int) -> None:
        book = self._book
        for receipt in receipts:
            book.receipts.setdefault(receipt.push_id, {})[receipt.serial] = self._run, _copy(receipt)
            book.serial = max(book.serial, receipt.serial)
        book.tally, book.offline, book.pushes = replace(tally), offline, pushes

    @override
    def find(self, push_id: str) -> list[RouterReceipt]:
        found = []
        for run, receipt in self._book.receipts.get(push_id, {}).values():
            found.append(_copy(receipt))
            if run != self._run:
                found[-1].tally.give_up()
        return found

    @override
    def close(self) -> None:
        """There is nothing to give back."""


def _copy(receipt: RouterReceipt) -> RouterReceipt:
    return replace(receipt, tally=replace(receipt.tally))
