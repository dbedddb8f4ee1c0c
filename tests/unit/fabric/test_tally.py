"""Counts of sessions always balance."""

from __future__ import annotations

from dataclasses import fields, replace

from hypothesis import given
from hypothesis import strategies as st

from zim.fabric.answers import Ledger, Receipt
from zim.fabric.tally import COUNTS, Account, Tally, account, sum_accounts

COUNT = st.integers(0, 9)
TALLIES = st.builds(Tally, *[COUNT] * 6)


def test_every_count_has_its_name() -> None:
    assert tuple(field.name for field in fields(Tally)) == COUNTS
    assert Account.__struct_fields__[:6] == COUNTS


@given(TALLIES, TALLIES)
def test_sums(one: Tally, other: Tally) -> None:
    both = one + other
    assert both.counts == tuple(a + b for a, b in zip(one.counts, other.counts, strict=True))
    assert both.pending == one.pending + other.pending
    assert both - other == one
    assert both.targeted == sum(both.outcomes.values()) + both.pending


@given(TALLIES)
def test_what_is_given_up_is_unknown(tally: Tally) -> None:
    before = replace(tally)
    assert tally.give_up() == before.pending
    assert (tally.pending, tally.unknown) == (0, before.unknown + before.pending)
    assert replace(tally, unknown=before.unknown) == before


@given(st.lists(st.tuples(TALLIES, COUNT), max_size=4))
def test_accounts_add_up_as_their_tallies_do(parts: list[tuple[Tally, int]]) -> None:
    receipts = [Receipt.of("p", tally, offline, {}, []) for tally, offline in parts]
    total = sum((tally for tally, _ in parts), Tally())
    assert sum_accounts(receipts) == account(total, sum(offline for _, offline in parts))
    assert all(receipt.is_balanced for receipt in receipts)


@given(TALLIES, COUNT, st.lists(st.sampled_from(["router-1", "router-2"]), max_size=1))
def test_a_ledger_balances_if_every_session_is_accounted_for(tally: Tally, pending: int, silent: list[str]) -> None:
    ledger = Ledger.of(1, account(tally, 0, pending), silent)
    assert ledger.outcomes == tally.outcomes
    assert ledger.balanced == ledger.is_balanced == (pending == tally.pending and not silent)
