"""What every store of receipts must do. A module of each engine inherits it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from zim.fabric.tally import Tally
from zim.nodes.router.log.receipts import ReceiptStore, RouterReceipt
from zim.nodes.router.receipts import RouterLedger


def receipt(push_id: str = "aa", serial: int = 1, delivered: int = 0, open_rows: int = 1) -> RouterReceipt:
    return RouterReceipt(push_id, serial, 10, 12, 20, Tally(targeted=3, delivered=delivered), 1, open_rows, ["u:7"])


def write(store: ReceiptStore, *receipts: RouterReceipt, now_ms: int = 1_000) -> None:
    tally = Tally(sum(r.tally.targeted for r in receipts), sum(r.tally.delivered for r in receipts))
    store.write(receipts, tally, 5, len(receipts), now_ms)


def keep(store: ReceiptStore, ledger: RouterLedger, now_ms: int) -> None:
    """As a router does it from time to time."""
    changed = ledger.take_changed()
    store.write(changed, ledger.tally, ledger.offline, ledger.pushes, now_ms)
    ledger.stored(changed)


class ReceiptsContract(ABC):
    """See the module."""

    @abstractmethod
    def open(self, run: int) -> ReceiptStore:
        """The same content, in a new run; the store before it is closed."""

    def test_what_is_written_is_found(self) -> None:
        known = [receipt(), receipt(serial=2), receipt("no hex", 3)]
        store = self.open(1)
        assert store.before == (Tally(), 0, 0, 0, 0)
        assert store.newest_ms == 0
        write(store, *known)
        assert store.find("aa") == [known[0], known[1]]
        assert store.find("no hex") == [known[2]]
        assert store.find("bb") == []
        store.close()

    def test_what_changes_later_changes_nothing_that_is_stored(self) -> None:
        store, one = self.open(1), receipt()
        write(store, one)
        one.tally.delivered = 3
        assert [r.tally.delivered for r in store.find("aa")] == [0]
        write(store, one)
        assert [r.tally.delivered for r in store.find("aa")] == [3]
        (found,) = store.find("aa")
        found.tally.gone = 3
        assert [r.tally.gone for r in store.find("aa")] == [0]
        store.close()

    def test_a_restart_turns_pending_into_unknown(self) -> None:
        store = self.open(1)
        write(store, receipt(delivered=1), receipt("bb", 2, delivered=3, open_rows=0))
        assert store.before.left == 0
        store.close()
        store = self.open(2)
        assert store.before == (Tally(targeted=6, delivered=4, unknown=2), 5, 2, 2, 2)
        assert store.newest_ms == 12
        (one,), (two,) = store.find("aa"), store.find("bb")
        assert one.tally == Tally(targeted=3, delivered=1, unknown=2)
        assert two.tally == Tally(targeted=3, delivered=3)
        store.close()  # a run that ends before it had anything to write changes nothing
        store = self.open(3)
        assert store.before == (Tally(targeted=6, delivered=4, unknown=2), 5, 2, 2, 2)
        store.close()

    def test_serials_go_on_over_runs(self) -> None:
        store = self.open(1)
        ledger = RouterLedger(*store.before)
        first = ledger.open("aa", 1, 2)
        keep(store, ledger, 1_000)
        store.close()
        store = self.open(2)
        ledger = RouterLedger(*store.before)
        second = ledger.open("aa", 3, 4)
        keep(store, ledger, 2_000)
        assert [r.serial for r in store.find("aa")] == [first.serial, second.serial]
        assert store.before.pushes == 1
        assert ledger.pushes == 2
        store.close()
