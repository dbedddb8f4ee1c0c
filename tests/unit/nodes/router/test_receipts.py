"""The ledger balances, whatever comets say and in whatever order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from zim.fabric.limits import RECEIPT_NAMES
from zim.fabric.tally import Tally
from zim.nodes.router.feed import Feed
from zim.nodes.router.log.receipts import RouterReceipt
from zim.nodes.router.receipts import PushRow, RouterLedger
from zim.protocol.messages import Result

SESSIONS = st.integers(0, 5)
ANY = st.integers(-2, 6)


def ledger(
    tally: Tally | None = None, offline: int = 0, pushes: int = 0, serial: int = 0, left: int = 0
) -> RouterLedger:
    return RouterLedger(tally or Tally(), offline, pushes, serial, left)


def feed(number: int = 1) -> Feed:
    return Feed(f"comet-{number}", 1, 1, 0, 0, 0.0)


class LedgerMachine(RuleBasedStateMachine):
    """Pushes to several comets, what these say, the ends of their leases, the store's turns, new runs."""

    feeds = Bundle("feeds")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = ledger()
        self.alive: list[Feed] = []
        self.rows: list[tuple[RouterReceipt, PushRow]] = []  # of this run
        self.offline = self.pushes = 0

    @rule(target=feeds)
    def begin(self) -> Feed:
        self.alive.append(feed(len(self.alive) + 1))
        return self.alive[-1]

    @rule(targeted=st.lists(SESSIONS, max_size=4), offline=SESSIONS)
    def push(self, targeted: list[int], offline: int) -> None:
        self.pushes += 1
        self.offline += offline
        receipt = self.ledger.open(f"p{self.pushes % 3}", 1, 2)
        if offline:
            self.ledger.count_unserved(receipt, ["u:1"] * offline)
        for at, sessions in zip(self.alive, targeted, strict=False):
            at.made += 1
            at.rows[at.made] = row = PushRow(self.ledger, receipt, sessions)
            self.rows.append((receipt, row))

    @rule(at=feeds, data=st.data(), targeted=ANY, delivered=ANY, gone=ANY, shed=ANY, expired=ANY)
    def report(
        self, at: Feed, data: st.DataObject, targeted: int, delivered: int, gone: int, shed: int, expired: int
    ) -> None:
        n = data.draw(st.integers(0, at.made + 1))
        at.report([Result(n, targeted, delivered, gone, shed, expired)], 3)

    @rule(at=consumes(feeds))
    def lose(self, at: Feed) -> None:
        at.end()
        if at in self.alive:
            self.alive.remove(at)

    @rule()
    def store(self) -> None:
        changed = self.ledger.take_changed()
        self.ledger.stored(changed)
        assert not self.ledger.take_changed()

    @rule(target=feeds)
    def start_anew(self) -> object:
        """A router that comes back has what its store had."""
        left = self.ledger.tally.pending
        tally = replace(self.ledger.tally, unknown=self.ledger.tally.unknown + left)
        self.ledger = ledger(tally, self.offline, self.pushes, self.pushes, left)
        self.alive, self.rows = [], []
        assert self.ledger.this_run().tally == Tally(targeted=left, unknown=left)
        return multiple()

    @invariant()
    def it_balances(self) -> None:
        pending = sum(row.pending for at in self.alive for row in at.rows.values())
        assert self.ledger.tally.targeted == sum(self.ledger.tally.outcomes.values()) + pending
        run = self.ledger.this_run()
        assert run.tally.targeted == sum(run.tally.outcomes.values()) + pending
        assert (self.ledger.pushes, self.ledger.offline) == (self.pushes, self.offline)

    @invariant()
    def each_receipt_is_the_sum_of_its_rows(self) -> None:
        for receipt in {id(receipt): receipt for receipt, _ in self.rows}.values():
            mine = [row for of, row in self.rows if of is receipt]
            for name in ("targeted", "delivered", "gone", "shed", "expired"):
                assert getattr(receipt.tally, name) == sum(getattr(row, name) for row in mine)
            assert receipt.tally.pending == sum(row.pending for row in mine)

    @invariant()
    def what_may_change_is_found(self) -> None:
        opened = {id(row) for at in self.alive for row in at.rows.values()}
        for receipt, row in self.rows:
            if id(row) in opened:
                assert receipt.open_rows > 0
                assert receipt in self.ledger.find(receipt.push_id)


TestLedger = pytest.mark.slow(LedgerMachine.TestCase)


@given(SESSIONS, SESSIONS)
def test_a_row_that_is_closed_ignores_what_comes_late(targeted: int, late: int) -> None:
    book, at = ledger(), feed()
    receipt = book.open("p", 1, 2)
    at.rows[1] = PushRow(book, receipt, targeted)
    at.report([Result(1, targeted, targeted, 0, 0, 0)], 3)
    assert (at.rows, receipt.open_rows) == ({}, 0)
    at.report([Result(1, late, 0, late, 0, 0)], 4)
    at.end()
    assert book.tally == Tally(targeted=targeted, delivered=targeted)
    assert receipt.reported_ms == 3


def test_a_later_report_replaces_an_earlier_one() -> None:
    book, at = ledger(), feed()
    at.rows[1] = PushRow(book, book.open("p", 1, 2), 5)
    at.report([Result(1, 4, 1, 1, 0, 0)], 3)
    assert book.tally == Tally(targeted=4, delivered=1, gone=1)
    at.report([Result(1, 4, 2, 1, 1, 0)], 4)
    assert book.tally == Tally(targeted=4, delivered=2, gone=1, shed=1)


def test_a_report_that_counts_no_sessions_is_passed_over() -> None:
    book, at = ledger(), feed()
    at.rows[1] = PushRow(book, book.open("p", 1, 2), 2)
    at.report([Result(1, 2, 3, 0, 0, 0), Result(1, 2, -1, 0, 0, 0)], 3)
    assert book.tally == Tally(targeted=2)


def test_a_receipt_is_forgotten_when_it_is_stored_and_cannot_change() -> None:
    book, at = ledger(), feed()
    receipt = book.open("p", 1, 2)
    at.rows[1] = PushRow(book, receipt, 1)
    book.stored(book.take_changed())
    assert book.find("p") == [receipt]
    at.report([Result(1, 1, 1, 0, 0, 0)], 3)
    changed = book.take_changed()
    assert (changed, book.find("p")) == ([receipt], [receipt])
    book.stored(changed)
    assert book.find("p") == []


def test_what_the_store_does_not_take_goes_with_the_next_and_the_oldest_go_where_it_is_too_much() -> None:
    book = ledger()
    receipts = [book.open(str(number), 1, 2) for number in range(3)]
    under_way = book.take_changed()
    newer = book.open("new", 1, 2)
    book.count_unserved(receipts[2], ["u:1"])
    assert book.put_back(under_way, 4) == 0
    assert book.find("0") == [receipts[0]]
    assert book.take_changed() == [*receipts, newer]
    assert book.put_back([*receipts, newer], 2) == 2
    assert book.find("0") == book.find("1") == []
    assert book.take_changed() == [receipts[2], newer]


def test_what_changes_while_it_is_stored_is_stored_again() -> None:
    book = ledger()
    receipt = book.open("p", 1, 2)
    under_way = book.take_changed()
    book.count_unserved(receipt, ["u:1"])
    book.stored(under_way)
    assert (book.find("p"), book.take_changed()) == ([receipt], [receipt])


def test_it_names_some_of_whom_nobody_was_there_for_and_a_full_disk_costs_the_names() -> None:
    ledger = RouterLedger(Tally(), 0, 0, 0)
    first, later = (ledger.open("p", 1, 2, is_first=is_first) for is_first in (True, False))
    ledger.count_unserved(first, ["u:a", "r:lobby"])
    ledger.count_unserved(first, [f"u:{n}" for n in range(2 * RECEIPT_NAMES)])
    ledger.count_unserved(later, ["u:b", "r:1"])
    assert list(first.unserved) == ["u:a", "r:lobby", *(f"u:{n}" for n in range(RECEIPT_NAMES - 2))]
    assert (list(later.unserved), first.offline, later.offline) == ([], 2 * RECEIPT_NAMES + 1, 1)
    ledger.put_back(ledger.take_changed(), 10)
    assert (list(first.unserved), first.offline) == ([], 2 * RECEIPT_NAMES + 1)
