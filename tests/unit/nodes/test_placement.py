"""Which router has which shard, as one comet or logic hears of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zim.nodes.effects import Send
from zim.nodes.placement import ASK_S, LOST_S, Placement
from zim.protocol.placing import AskOwned, Moved, Owned

ROUTERS, SHARDS = ["router-1", "router-2"], ["shard-1", "shard-2"]


def fresh() -> Placement:
    return Placement("comet-1", ROUTERS, SHARDS)


def owned(router: str, n: int, *shards: tuple[str, int], run: int = 1) -> Owned:
    return Owned(router, run, n, list(shards))


def test_with_the_embedded_log_a_router_has_the_shard_of_its_name_for_ever() -> None:
    placement = Placement("comet-1", ROUTERS, ROUTERS)
    assert [placement.router_of(router) for router in ROUTERS] == ROUTERS
    assert placement.on_moved(Moved(1, "router-1", "router-1", 9)) == []
    assert placement.on_owned(owned("router-2", 1, ("router-1", 9))) == []
    placement.on_link("router-1", True)
    assert placement.due(0.0) == []
    assert [placement.is_there(router) for router in ROUTERS] == [True, False]


def test_a_router_says_which_shards_it_owns() -> None:
    placement = fresh()
    assert placement.router_of("shard-1") == ""
    assert placement.on_owned(owned("router-1", 1, ("shard-1", 5), ("shard-2", 5))) == SHARDS
    assert placement.on_owned(owned("router-1", 1, ("shard-1", 5), ("shard-2", 5))) == []
    assert placement.at("router-1") == SHARDS
    assert placement.on_owned(owned("router-1", 2, ("shard-1", 5))) == ["shard-2"]
    assert placement.router_of("shard-2") == ""


def test_the_highest_term_is_right() -> None:
    placement = fresh()
    placement.on_owned(owned("router-1", 1, ("shard-1", 5)))
    assert placement.on_owned(owned("router-2", 1, ("shard-1", 7))) == ["shard-1"]
    assert placement.on_owned(owned("router-1", 2, ("shard-1", 5))) == []
    assert (placement.router_of("shard-1"), placement.terms["shard-1"]) == ("router-2", 7)
    assert placement.on_owned(owned("router-1", 3, ("shard-9", 9))) == []


def test_what_a_router_has_said_before_is_passed_over() -> None:
    placement = fresh()
    placement.on_owned(owned("router-1", 3))
    assert placement.on_owned(owned("router-1", 2, ("shard-1", 5))) == []
    assert placement.on_owned(owned("router-1", 1, ("shard-1", 5), run=2)) == ["shard-1"]
    assert placement.on_owned(owned("router-1", 9, run=1)) == []


def test_who_does_not_own_it_is_not_asked_again() -> None:
    placement = fresh()
    placement.on_owned(owned("router-1", 1, ("shard-1", 5)))
    assert placement.on_moved(Moved(1, "router-2", "shard-1", 4)) == []
    assert placement.on_moved(Moved(1, "router-1", "shard-1", 5)) == ["shard-1"]
    assert placement.on_moved(Moved(1, "router-1", "shard-9", 5)) == []
    assert placement.router_of("shard-1") == ""
    assert placement.on_owned(owned("router-1", 1, ("shard-1", 5))) == ["shard-1"]  # it was on its way there


def test_those_who_are_there_are_asked_once_a_second_and_when_somebody_comes() -> None:
    placement = fresh()
    assert placement.due(0.0) == []
    placement.on_link("router-2", True)
    assert placement.due(0.1) == [Send("router-2", AskOwned("comet-1"))]
    assert placement.due(0.1 + ASK_S / 2) == []
    placement.on_link("router-1", True)
    assert [ask.peer for ask in placement.due(0.1 + ASK_S / 2)] == ROUTERS
    placement.on_link("router-1", True)  # that is no news
    assert placement.due(0.1 + ASK_S) == []


def test_without_an_owner_for_long_any_term_is_right() -> None:
    placement = fresh()
    placement.on_link("router-1", True)
    placement.on_owned(owned("router-1", 1, ("shard-1", 5)))
    placement.on_owned(owned("router-1", 2))
    placement.due(0.0)
    assert placement.on_owned(owned("router-2", 1, ("shard-1", 4))) == []
    placement.due(LOST_S + 0.1)
    assert placement.on_owned(owned("router-2", 2, ("shard-1", 4))) == ["shard-1"]


SAYINGS = st.lists(
    st.builds(
        Owned,
        st.sampled_from(ROUTERS),
        st.integers(1, 2),
        st.integers(1, 4),
        st.lists(st.tuples(st.sampled_from(SHARDS), st.integers(1, 4)), max_size=2, unique_by=lambda s: s[0]),
    )
)


@given(SAYINGS)
def test_terms_only_rise(said: list[Owned]) -> None:
    placement = fresh()
    for m in said:
        before = dict(placement.terms)
        placement.on_owned(m)
        assert all(placement.terms[shard] >= before[shard] for shard in SHARDS)
