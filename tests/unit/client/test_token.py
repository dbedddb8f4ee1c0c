"""Where a client's tokens come from, and when the next one is shown."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zim.client import ClientError
from zim.client.token import AGAIN_S, AT, TokenSource

MOMENTS = st.integers(min_value=-(10**400), max_value=10**400) | st.floats()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """It stands at 100 s, until a test sets it."""

    def set_to(now: float) -> None:
        monkeypatch.setattr(time, "monotonic", lambda: now)

    set_to(100.0)
    return set_to


@pytest.mark.parametrize("token", ["7", "", "eyJhbGciOi.J9.A", 7, 0, -7])
def test_a_token_that_is_given_is_the_only_one(token: str | int) -> None:
    source = TokenSource(token)
    assert source.is_fixed
    assert [source.take() for _ in range(2)] == [token, token]
    source.on_expires(60)
    assert source.next_at is None


def test_a_function_is_asked_each_time() -> None:
    tokens: Iterator[str | int] = iter(["a", 7, "b"])
    source = TokenSource(lambda: next(tokens))
    assert not source.is_fixed
    assert [source.take() for _ in range(3)] == ["a", 7, "b"]


def test_the_same_token_again_is_not_shown_again_at_once(clock: Callable[[float], None]) -> None:
    tokens: Iterator[str | int] = iter(["old", "old", "new"])
    source = TokenSource(lambda: next(tokens))
    due = []
    for _ in range(3):
        source.take()
        source.on_expires(0)
        due.append(source.next_at)
    assert due == [100.1, 100.0 + AGAIN_S, 100.1]


def test_a_function_is_not_asked_before_its_token_is_needed() -> None:
    def never() -> str:
        raise AssertionError("too early")

    TokenSource(never).on_expires(60)


@pytest.mark.parametrize(
    ("token", "kind"),
    [(None, "NoneType"), (True, "bool"), (7.5, "float"), (b"7", "bytes"), (["7"], "list"), ({}, "dict")],
)
def test_what_is_no_token_is_refused_at_once_or_when_it_is_made(token: Any, kind: str) -> None:
    with pytest.raises(ClientError, match=f"a token is a string, a number, or a function .* not {kind}"):
        TokenSource(token)
    source = TokenSource(lambda: token)
    with pytest.raises(ClientError, match=f"not {kind}"):
        source.take()


def test_a_function_that_fails_says_why() -> None:
    def fails() -> str:
        raise OSError("the application is away")

    with pytest.raises(ClientError, match="no token: OSError: the application is away") as caught:
        TokenSource(fails).take()
    assert isinstance(caught.value.__cause__, OSError)


def test_a_function_that_ends_the_program_does() -> None:
    def ends() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TokenSource(ends).take()


@pytest.mark.parametrize(("expires_s", "seconds"), [(60, 60 * AT), (60.0, 60 * AT), (0.001, 0.1), (0, 0.1), (-5, 0.1)])
def test_another_token_is_shown_before_the_first_one_ends(
    clock: Callable[[float], None], expires_s: float, seconds: float
) -> None:
    source = TokenSource(lambda: "7")
    assert source.next_at is None
    source.on_expires(expires_s)
    assert source.next_at == 100.0 + seconds
    clock(200.0)
    source.on_expires(expires_s)
    assert source.next_at == 200.0 + seconds


@pytest.mark.parametrize("expires_s", [None, "60", True, False, [60], {"a": 1}])
def test_what_is_no_number_of_seconds_is_no_end(clock: Callable[[float], None], expires_s: object) -> None:
    source = TokenSource(lambda: "7")
    source.on_expires(60)
    source.on_expires(expires_s)
    assert source.next_at is None


def test_what_did_not_work_is_tried_again(clock: Callable[[float], None]) -> None:
    source = TokenSource(lambda: "7")
    source.again()
    assert source.next_at == 100.0 + AGAIN_S


@given(MOMENTS | st.none() | st.booleans() | st.text())
@example(float("nan"))
@example(float("inf"))
@example(10**400)
@example(json.loads("1e999"))
def test_whatever_the_fabric_says_the_next_token_is_shown_some_time_or_never(expires_s: Any) -> None:
    source = TokenSource(lambda: "7")
    before = time.monotonic()
    source.on_expires(expires_s)
    assert source.next_at is None or source.next_at > before
