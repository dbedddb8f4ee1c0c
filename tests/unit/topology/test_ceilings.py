"""`[limits]`, and what an API key may do instead: what is read, what is refused, and that it needs no restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.topology.test_file import problems_of, small, text_of
from tests.unit.topology.test_identity import API_KEY
from zim.errors import TopologyError
from zim.fabric.buckets import Rate
from zim.fabric.ceilings import NO_CEILINGS, Ceilings
from zim.topology import Topology, compare, parse

PATH = Path("/srv/zim/topology.toml")
RATES = [name for name in Ceilings.__dataclass_fields__ if name != "rooms_per_session"]
WHOLE = {"per_s": 100_000, "burst": 200_000}


def made(limits: dict[str, Any] | None = None, **tables: Any) -> Topology:
    return parse(text_of(small() | ({"limits": limits} if limits is not None else {}) | tables), PATH)


def problems(limits: Any, **tables: Any) -> list[str]:
    return problems_of(small() | {"limits": limits} | tables)


def test_without_them_there_are_none() -> None:
    assert made().limits == made({}).limits == NO_CEILINGS == Ceilings()
    assert made().comets[0].max_memory_bytes == 0


@pytest.mark.parametrize("name", RATES)
def test_each_is_read(name: str) -> None:
    assert getattr(made({name: WHOLE}).limits, name) == Rate(100_000, 200_000)
    assert getattr(made({name: {"per_s": 123_456.5}}).limits, name) == Rate(123_456.5, 123_456.5)


def test_what_is_left_out_of_a_burst_is_no_less_than_may_be() -> None:
    found = made({"logins_per_user": {"per_s": 0.1}, "bytes_per_connection": {"per_s": 10}}).limits
    assert (found.logins_per_user, found.bytes_per_connection) == (Rate(0.1, 1), Rate(10, 4_096))
    assert made({"rooms_per_session": 20}).limits.rooms_per_session == 20


def test_an_api_key_has_its_own() -> None:
    (key,) = made(api_key=[{**API_KEY, "pushes": {"per_s": 7}, "bytes": WHOLE}]).identity.api_keys
    assert (key.pushes, key.bytes) == (Rate(7, 7), Rate(100_000, 200_000))


WRONG: dict[str, tuple[Any, str]] = {
    "no table": (7, "limits: is 7; right is a table with pushes_per_key = { per_s = 100, burst = 500 }, say"),
    "unknown": ({"pushes": WHOLE}, "limits.pushes: is not a key; "),
    "a number": (
        {"pushes_per_key": 7},
        "limits.pushes_per_key: is 7; right is a table such as { per_s = 10, burst = 5",
    ),
    "no rate": (
        {"pushes_per_key": {"burst": 7}},
        "limits.pushes_per_key.per_s: is missing; right is a number, such as",
    ),
    "another": (
        {"pushes_per_key": {**WHOLE, "per_m": 1}},
        "limits.pushes_per_key.per_m: is not a key; did you mean per",
    ),
    "none": ({"pushes_per_key": {"per_s": 0}}, "limits.pushes_per_key.per_s: is 0; right is a number from 0.001 to 10"),
    "endless": ({"pushes_per_key": {"per_s": float("inf")}}, "limits.pushes_per_key.per_s: is inf; right is a number"),
    "text": ({"logins_per_user": {"per_s": "1/m"}}, 'limits.logins_per_user.per_s: is "1/m"; right is a number from'),
    "yes": ({"logins_per_user": {"per_s": True}}, "limits.logins_per_user.per_s: is true; right is a number from"),
    "no burst": (
        {"logins_per_user": {"per_s": 1, "burst": 0}},
        "limits.logins_per_user.burst: is 0; right is a number",
    ),
    "less than a read": (
        {"bytes_per_connection": {"per_s": 1, "burst": 100}},
        "limits.bytes_per_connection.burst: is 100; right is a number from 4096 to 1000000000000",
    ),
    "rooms": (
        {"rooms_per_session": 1_001},
        "limits.rooms_per_session: is 1001; right is a whole number from 1 to 1000",
    ),
    "less than a body": (
        {"bytes_per_key": {"per_s": 1, "burst": 100}},
        "limits.bytes_per_key.burst: is 100; right is at least 65536: a push may have max_body_bytes, 65536",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said(what: str) -> None:
    limits, said = WRONG[what]
    (problem,) = problems(limits)
    assert problem.startswith(said)


def test_each_logic_has_a_part_that_lets_something_through() -> None:
    """Else a limit of one push at a time would be none at all."""
    tables = small()
    two = {**tables["logic"][0], "id": 2, "http": "127.0.0.1:7182", "bind": "tcp://127.0.0.1:7180"}
    more: dict[str, Any] = {"logic": [tables["logic"][0], two]}
    limits = {"pushes_per_key": {"per_s": 1, "burst": 1}, "bytes_per_key": {"per_s": 9, "burst": 65_536}}
    assert problems(limits, **more) == [
        "limits.pushes_per_key.burst: is 1; right is at least 2, for each of 2 logics has its part of it",
        "limits.bytes_per_key.burst: is 65536; right is at least 131072: a push may have max_body_bytes, 65536, for "
        "each of 2 logics has its part of it",
    ]
    more["api_key"] = [{**API_KEY, "pushes": {"per_s": 1}}]
    assert problems({}, **more) == [
        "api_key[0].pushes.burst: is 1; right is at least 2, for each of 2 logics has its part of it"
    ]


@given(
    st.dictionaries(
        st.sampled_from([*RATES, "rooms_per_session", "x"]),
        st.recursive(
            st.one_of(
                st.none().map(lambda _: ""), st.booleans(), st.integers(), st.floats(), st.text("ab1.", max_size=5)
            ),
            lambda inner: st.dictionaries(st.sampled_from(["per_s", "burst", "x"]), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=4,
    )
)
def test_whatever_stands_there_is_read_or_refused_in_words(limits: dict[str, Any]) -> None:
    try:
        made(limits)
    except TopologyError as e:
        found = e.problems
    else:
        return
    for problem in found:
        assert problem.startswith("limits.")
        assert problem.isprintable()


@pytest.mark.parametrize("name", [*RATES, "rooms_per_session"])
def test_each_can_be_changed_without_a_restart(name: str) -> None:
    new = made({name: 7 if name == "rooms_per_session" else WHOLE})
    for old, other in ((made(), new), (new, made())):
        change = compare(old, other)
        assert (change.taken, change.waiting) == ((f"limits.{name}",), ())
        assert change.topology.limits == other.limits


def test_those_of_a_key_and_of_a_comet_too() -> None:
    old = made(api_key=[API_KEY])
    new = made(api_key=[{**API_KEY, "pushes": {"per_s": 7}}])
    assert compare(old, new).taken == ("api_key orders",)
    tables = small()
    tables["comet"][0]["max_memory_bytes"] = 1 << 30
    assert compare(made(), parse(text_of(tables), PATH)).taken == ("comet-1.max_memory_bytes",)
