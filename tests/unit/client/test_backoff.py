"""Back-off and addresses."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.client import AddressError, Backoff
from zim.client.address import split_address


@given(st.integers())
def test_delays_grow_from_first_to_cap(seed: int) -> None:
    backoff = Backoff(0.2, 10.0, random.Random(seed))
    delays = [backoff.next_s() for _ in range(12)]
    assert 0.2 <= delays[0] <= 0.4
    assert 0.4 <= delays[1] <= 0.8
    assert all(before <= after for before, after in pairwise(delays[:5]))
    assert all(5.0 <= delay <= 10.0 for delay in delays[6:])
    backoff.reset()
    assert backoff.next_s() <= 0.4


def test_two_clients_do_not_wait_equally_long() -> None:
    assert len({Backoff().next_s() for _ in range(20)}) > 10


def test_a_thousand_attempts() -> None:
    backoff = Backoff(1.0, 1.0)
    assert {backoff.next_s() for _ in range(2000)} == {1.0}


@pytest.mark.parametrize(
    ("text", "pair"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("a.example:65535", ("a.example", 65535)), ("[::1]:1", ("::1", 1))],
)
def test_addresses(text: str, pair: tuple[str, int]) -> None:
    assert split_address(text) == pair


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        ":80",
        "x:",
        "x:0",
        "x:65536",
        "x:-1",
        "::1:80",
        "x:8o",
        "x:٣",
        "http://x:80",
        "x:" + "9" * 5000,
        "x" * 64 + ":1",
        "a..b:1",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(AddressError, match=r"host:port|1 to 63"):
        split_address(text)
