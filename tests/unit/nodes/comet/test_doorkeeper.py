"""Who is let in by the address alone, and how much clients may send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.fabric.buckets import Rate
from zim.fabric.ceilings import NO_CEILINGS, Ceilings
from zim.fabric.refusals import Gathered
from zim.nodes.comet.doorkeeper import BELOW, Doorkeeper, TurnedAway, place_of
from zim.nodes.comet.gate import first_rooms
from zim.nodes.comet.inflow import PATIENCE, PAUSE_S, Inflow


def doorkeeper(address: Rate | None = None, network: Rate | None = None, memory: int = 0) -> Doorkeeper:
    found = Doorkeeper()
    found.follow(Ceilings(connects_per_address=address, connects_per_network=network), memory)
    return found


def test_an_address_and_its_network() -> None:
    door = doorkeeper(Rate(0.1, 2), Rate(0.1, 3))
    assert [door.look("192.0.2.1", 0.0) for _ in range(2)] == [None, None]
    assert door.look("192.0.2.1", 0.0) == TurnedAway("connects_per_address", 429, 10)
    assert door.look("192.0.2.2", 0.0) is None  # what was refused has cost its network nothing
    assert door.look("192.0.2.3", 0.0) == TurnedAway("connects_per_network", 429, 10)
    assert door.look("192.0.3.1", 0.0) is None
    assert door.look("192.0.2.1", 10.0) is None
    assert door.refusals.by_limit == {"connects_per_address": 1, "connects_per_network": 1, "max_memory_bytes": 0}
    assert door.refusals.news() == [
        Gathered("connects_per_address", 1, "192.0.2.1"),
        Gathered("connects_per_network", 1, "192.0.2.3"),
    ]
    assert door.refusals.news() == []


def test_who_has_a_whole_network_is_one_in_ipv6() -> None:
    """A /64 has more addresses than any table: none of them is kept once its network has too much."""
    door = doorkeeper(Rate(0.1, 2), Rate(0.1, 3))
    found = [door.look(f"2001:db8::{n:x}", 0.0) for n in range(100)]
    assert sum(each is None for each in found) == 3
    assert door._addresses is not None
    assert len(door._addresses) == 3
    assert door.look("2001:db8:0:1::1", 0.0) is None


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.7", b"\xc0\0\2"),
        ("::ffff:192.0.2.7", b"\xc0\0\2"),
        ("2001:db8::7", b"\x20\1\x0d\xb8\0\0\0\0"),
        ("fe80::7%eth0", b"\xfe\x80\0\0\0\0\0\0"),
        ("no address", b"no address"),
        ("", b""),
    ],
)
def test_networks(host: str, network: bytes) -> None:
    address, found = place_of(host)
    assert found == network
    assert address.startswith(network)


@given(st.one_of(st.text(max_size=30), st.ip_addresses().map(str)))
def test_whatever_an_address_is_it_has_a_place(host: str) -> None:
    address, network = place_of(host)
    assert address.startswith(network)


def test_memory_has_to_fall_before_anybody_comes_in_again() -> None:
    door = doorkeeper(memory=1000)
    assert [door.see_memory(used) for used in (999, 1000, 999, int(1000 * BELOW), 1001)] == [False, True] + [False] * 3
    assert door.look("192.0.2.1", 0.0) == TurnedAway("max_memory_bytes", 503, 10)
    assert door.see_memory(int(1000 * BELOW) - 1)
    assert door.look("192.0.2.1", 0.0) is None
    door.see_memory(2000)
    door.follow(NO_CEILINGS, 0)
    assert door.look("192.0.2.1", 0.0) is None
    assert not door.see_memory(1 << 60)


def test_the_same_rates_forget_nobody() -> None:
    door = doorkeeper(Rate(0.1, 1))
    assert door.look("192.0.2.1", 0.0) is None
    door.follow(Ceilings(connects_per_address=Rate(0.1, 1)), 5)
    assert door.look("192.0.2.1", 0.0) is not None
    door.follow(Ceilings(connects_per_address=Rate(0.1, 2)), 5)
    assert door.look("192.0.2.1", 0.0) is None


# ---------------------------------------------------------------- what clients send


def inflow(packets: Rate | None = None, size: Rate | None = None) -> Inflow:
    found = Inflow()
    found.follow(Ceilings(packets_per_connection=packets, bytes_per_connection=size))
    return found


def test_who_is_within_never_waits_and_nothing_is_kept_of_it() -> None:
    found = inflow(Rate(10, 20), Rate(1_000, 10_000))
    for n in range(100):
        found.came(n % 7, 1, 50, n / 2)
        assert found.pause_s(n % 7, "a", n / 2) == 0
    assert found._packets is not None
    assert len(found._packets) <= 7
    assert not found._strikes


@pytest.mark.parametrize("limit", ["packets_per_connection", "bytes_per_connection"])
def test_who_goes_on_being_over_it_is_closed_after_ten_pauses(limit: str) -> None:
    found = inflow(Rate(10, 20)) if limit.startswith("packets") else inflow(None, Rate(10, 20))
    now = pauses = 0.0
    while not found.goes_on(1):
        found.came(1, 15, 15, now)
        if wait_s := found.pause_s(1, "192.0.2.1:7", now):
            pauses += 1
            now += wait_s
    assert pauses == PATIENCE + 1
    assert found.refusals.by_limit[limit] == pauses
    assert not found.goes_on(2)
    found.forget(1)
    assert not found.goes_on(1)


def test_who_is_over_it_now_and_then_stays() -> None:
    found = inflow(Rate(10, 20))
    now = 0.0
    for _ in range(100):
        found.came(1, 20, 0, now)
        found.came(1, 5, 0, now)
        assert found.pause_s(1, "a", now) == PAUSE_S
        assert found.pause_s(1, "a", now + PAUSE_S) == 0
        assert not found.goes_on(1)
        now += 2 * PAUSE_S + 1


def test_one_read_costs_no_more_than_a_bucket_holds() -> None:
    """Else many packets in one read would be owed for minutes."""
    found = inflow(Rate(1, 2))
    found.came(1, 250, 4_096, 0.0)
    found.came(1, 250, 4_096, 0.0)
    assert found.pause_s(1, "a", 1.9) > 0
    assert found.pause_s(1, "a", 2.1) == 0


def test_without_a_limit_it_is_off() -> None:
    found = inflow()
    assert not found.is_on
    found.forget(1)
    found.came(1, 1_000, 1_000, 0.0)
    assert found.pause_s(1, "a", 0.0) == 0
    assert found._strikes == {}


# ---------------------------------------------------------------- rooms


@given(
    st.lists(st.sampled_from("abcdef"), max_size=8),
    st.lists(st.sampled_from("abcdef"), max_size=4, unique=True),
    st.integers(1, 6),
)
def test_the_first_rooms_that_one_may_be_in(wanted: list[str], had: list[str], most: int) -> None:
    found = first_rooms(wanted, had, most)
    assert len(set(had) | set(found)) <= max(most, len(had))
    assert [room for room in wanted if room in had] == [room for room in found if room in had]
    refused = set(wanted) - set(found)
    assert not refused or len(set(had) | set(found)) >= most
