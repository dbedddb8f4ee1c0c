"""Where a client connects next."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.client.address import comet_address
from zim.client.itinerary import HASTY, MOST_S, Itinerary, SentElsewhere, is_as_good, sent_on

A, B, C = "127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:8082"
LONG_S = 60.0


def itinerary(*addresses: str) -> Itinerary:
    return Itinerary([comet_address(text) for text in addresses])


def send_on(found: Itinerary, here: str, *to: str, stayed_s: float = LONG_S) -> float | None:
    return found.send_on(comet_address(here), SentElsewhere("", 0.5, to), stayed_s)


def test_addresses_come_in_turn() -> None:
    found = itinerary(A, B)
    assert [str(found.next()) for _ in range(5)] == [A, B, A, B, A]


def test_one_goes_where_it_is_sent_and_on_from_there() -> None:
    found = itinerary(A, B, C)
    assert str(found.next()) == A
    assert send_on(found, A, C) == 0.5
    assert [str(found.next()) for _ in range(3)] == [C, A, B]


def test_the_first_one_that_is_known_is_taken() -> None:
    found = itinerary(A, B, C)
    found.next()
    send_on(found, A, "127.0.0.1:9999", "no address", B, C)
    assert str(found.next()) == B


def test_an_application_that_names_several_stays_among_them_and_does_not_stay_here() -> None:
    found = itinerary(A, B)
    found.next()
    send_on(found, A, "127.0.0.1:9999")
    assert str(found.next()) == B
    found.next()  # A
    found.next()
    send_on(found, A)  # as if it had been there for long
    assert str(found.next()) == B


def test_one_that_knows_a_single_one_goes_where_it_is_sent_once() -> None:
    found = itinerary(A)
    found.next()
    send_on(found, A, B)
    assert [str(found.next()) for _ in range(2)] == [B, A]
    send_on(found, A)
    assert str(found.next()) == A


@pytest.mark.parametrize(
    ("here", "to", "may"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8081", True),
        ("127.0.0.1:8080", "push-2.example.com:8080", True),
        ("push.example.com:8080", "127.0.0.1:8081", False),
        ("push.example.com:8080", "localhost:8081", False),
        ("push.example.com:8080", "tls://push-2.example.com:8443", True),
        ("tls://push.example.com:8443", "push-2.example.com:8080", False),
        ("wss://push.example.com", "ws://push-2.example.com:80", False),
        ("wss://push.example.com", "wss://push-2.example.com", True),
        ("ws://push.example.com:80", "push-2.example.com:8080", False),
    ],
)
def test_nobody_is_sent_to_where_it_is_worse(here: str, to: str, may: bool) -> None:
    assert is_as_good(comet_address(to), comet_address(here)) is may
    found = itinerary(here)
    found.next()
    send_on(found, here, to)
    assert (str(found.next()) == to) is may


def test_one_that_is_sent_round_and_round_waits_as_after_any_lost_connection() -> None:
    found = itinerary(A, B)
    found.next()
    waits = [send_on(found, A, B, stayed_s=0.0) for _ in range(HASTY + 2)]
    assert waits == [0.5] * HASTY + [None] * 2
    assert send_on(found, A, B) == 0.5


@pytest.mark.parametrize(
    ("said", "after_s", "to"),
    [
        ({"code": 4002, "after_s": 0.2, "to": [B, 7, C]}, 0.2, [B, C]),
        ({"code": 4000, "after_s": 1e9}, MOST_S, []),
        ({"code": 4002, "after_s": -1, "to": B}, 0.0, []),
        ({"code": 4002, "after_s": True}, 0.0, []),
        ({"code": 4002, "after_s": float("inf")}, 0.0, []),
    ],
)
def test_what_the_server_says(said: Any, after_s: float, to: list[str]) -> None:
    found = sent_on("drained", said)
    assert found is not None
    assert (found.after_s, found.to, str(found)) == (after_s, to, "sent on by the server: drained")


@pytest.mark.parametrize(
    "said", [{"code": 4200, "after_s": 1}, {"code": 4002}, [], 7, None, {"code": "4002", "after_s": 1}]
)
def test_what_sends_nobody_on(said: Any) -> None:
    assert sent_on("", said) is None


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda of: st.lists(of) | st.dictionaries(st.text(), of),
)


@given(
    st.fixed_dictionaries(
        {"code": st.just(4002), "after_s": anything, "to": anything | st.lists(st.text() | st.sampled_from([A, B, C]))}
    )
)
def test_whatever_it_says_a_client_goes_somewhere(said: Any) -> None:
    found = itinerary(A, B)
    error = sent_on("", json.loads(json.dumps(said)))
    assert error is not None
    after_s = found.send_on(found.next(), error, LONG_S)
    assert after_s is not None
    assert 0 <= after_s <= MOST_S
    assert str(found.next()) in (A, B)
