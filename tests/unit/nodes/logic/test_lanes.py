"""A publisher's order: in no stream does a push overtake one before it that may still come."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.fabric.limits import PUSHES
from zim.fabric.push import Push
from zim.net.batches import CUT_BYTES
from zim.nodes.logic import lanes
from zim.nodes.logic.lanes import Lane, Lanes
from zim.nodes.logic.shares import PART_STREAMS, Share, Splitter
from zim.protocol.publication import Outcome, Publication


def share(name: str, *streams: str, body: bytes = b"", home: Share | None = None, shard: str = "r") -> Share:
    return Share(shard, Publication(name, list(streams), 5, body), 0.0, home)


def lane(*shares: Share) -> Lane:
    found = Lane("r")
    for one in shares:
        found.put(one)
    return found


def names(shares: list[Share]) -> list[str]:
    return [one.push_id for one in shares]


def end(of: Lane, one: Share, status: Any = "ok") -> None:
    one.on_outcome(Outcome(0, status, (1,) * len(one.streams)), 0.0)
    of.ended(one)


def test_what_is_there_goes_as_one_message() -> None:
    found = lane(share("a", "u:1"), share("b", "u:1"), share("c", "u:2"))
    assert names(found.next()) == ["a", "b", "c"]
    assert found.next() == []


def test_the_parts_of_a_push_go_one_message_after_the_other_and_others_in_between() -> None:
    streams = [f"u:{n}" for n in range(6 * PART_STREAMS)]
    parts = Splitter(["r"], lambda _: False).split(Push(streams, b""), "a", 0.0)
    found = lane(*parts)
    first = found.next()
    assert 0 < len(first) < len(parts)
    assert sum(one.size for one in first) <= CUT_BYTES
    found.put(other := share("b", "r:1"))
    assert names(found.next()) == ["b"]
    for one in (*first, other):
        end(found, one)
    second = found.next()
    assert second == parts[len(first) : 2 * len(first)]
    for one in second:
        end(found, one, "unavailable")
    assert found.next() == parts[2 * len(first) :][: len(first)]


def test_what_shares_a_stream_waits_for_all_of_the_message_before() -> None:
    a, b = share("a", "u:1"), share("b", "u:1", "u:2")
    found = lane(a, b)
    assert names(found.next()) == ["a", "b"]
    c, d = share("c", "u:1"), share("d", "u:3")
    found.put(c)
    found.put(d)
    assert names(found.next()) == ["d"]
    end(found, a)
    assert found.next() == []
    end(found, b, "unavailable")
    assert names(found.next()) == ["c"]
    end(found, c)
    end(found, d)
    assert not found


def test_who_waits_lets_nobody_of_its_streams_pass() -> None:
    a = share("a", "u:1")
    found = lane(a)
    found.next()
    for one in (share("b", "u:1", "u:2"), share("c", "u:2", "u:3"), share("d", "u:3"), share("e", "u:4")):
        found.put(one)
    assert names(found.next()) == ["e"]
    end(found, a)
    assert names(found.next()) == ["b", "c", "d"]


def test_a_push_waits_in_its_place_for_the_home_of_its_key() -> None:
    home = share("k", shard="other")
    follower = share("k", "u:1", home=home)
    found = lane(follower, share("b", "u:1"), share("c", "u:2"))
    assert names(found.next()) == ["c"]
    home.on_outcome(Outcome(0, "ok", (), 5, 0), 0.0)
    found.release(follower)
    assert names(found.next()) == ["k", "b"]


def test_what_its_home_refuses_holds_up_nobody() -> None:
    home = share("k", shard="other")
    follower = share("k", "u:1", home=home)
    found = lane(follower, share("b", "u:1"))
    assert found.next() == []
    home.on_outcome(Outcome(0, "conflict"), 0.0)
    follower.follow(home)
    found.ended(follower)
    assert names(found.next()) == ["b"]


def test_a_message_is_bounded_and_the_rest_of_a_stream_waits_for_it() -> None:
    body = bytes(CUT_BYTES // 2)
    shares = [share("a", "u:1", body=body), share("b", "u:1", body=body), share("c", "u:1")]
    found = lane(*shares)
    assert names(found.next()) == ["a"]
    assert names(found.next()) == []
    end(found, shares[0])
    assert names(found.next()) == ["b", "c"]
    large = lane(share("d", "u:2", body=bytes(CUT_BYTES)), share("e", "u:3"))
    assert (names(large.next()), names(large.next())) == (["d"], ["e"])


def test_a_message_has_no_more_pushes_than_routers_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if what they count for in bytes leaves room for more."""
    monkeypatch.setattr(lanes, "CUT_BYTES", 1 << 40)
    found = lane(*(share(str(n), f"u:{n}") for n in range(PUSHES + 1)))
    assert [len(found.next()), len(found.next())] == [PUSHES, 1]


def test_many_that_wait_hold_up_nobody_else() -> None:
    """The home of their keys is away; the pushes behind them are for other streams."""
    home = share("k", shard="away")
    waiting = [share(f"k{n}", f"u:{n}", home=home) for n in range(20_000)]
    found = lane(*waiting, share("a", "r:1"), share("b", "r:1"), share("c", "u:7"))
    assert names(found.next()) == ["a", "b"]
    assert names(found.next()) == []


def test_who_was_given_up_while_it_waited_lets_the_next_one_go() -> None:
    a, b, c = share("a", "u:1"), share("b", "u:1", "u:2"), share("c", "u:2")
    found = lane(a)
    assert names(found.next()) == ["a"]
    found.put(b)
    found.put(c)
    b.give_up("late")
    found.ended(b)
    assert names(found.next()) == []
    end(found, a)
    assert names(found.next()) == ["c"]
    end(found, c)
    assert not found


def test_each_router_has_its_own() -> None:
    lanes = Lanes()
    touched = lanes.put([share("a", "u:1"), share("a", "u:2", shard="s"), share("b", "u:1")])
    assert [(one.shard, names(one.next())) for one in touched] == [("r", ["a", "b"]), ("s", ["a"])]
    assert lanes


def test_a_lane_is_in_use_until_all_of_it_is_over() -> None:
    """One answer may end several at once, before the lane is told of the first."""
    a, b, c = (share(name, "u:1") for name in "abc")
    found = lane(a, b)
    found.next()
    found.put(c)
    for one in (a, b):
        one.on_outcome(Outcome(0, "ok", (1,)), 0.0)
    for one in (a, b):
        found.ended(one)
        assert found
    assert names(found.next()) == ["c"]
    end(found, c)
    assert not found


def test_who_is_over_before_one_before_it_lets_nobody_pass() -> None:
    a, b, c = (share(name, "u:1") for name in "abc")
    found = lane(a, b)
    assert names(found.next()) == ["a", "b"]
    found.put(c)
    end(found, b)
    assert names(found.next()) == []
    end(found, a, "unknown")
    assert names(found.next()) == ["c"]


@given(
    st.lists(st.lists(st.sampled_from(["u:1", "u:2", "u:3"]), min_size=1, max_size=2, unique=True), max_size=30),
    st.data(),
)
def test_no_push_overtakes(pushes: list[list[str]], data: Any) -> None:
    found = Lane("r")
    under_way: list[Share] = []
    gone: list[Share] = []
    coming = [share(str(n), *streams) for n, streams in enumerate(pushes)]
    is_over: set[str] = set()
    while coming or under_way:
        if coming and (not under_way or data.draw(st.booleans())):
            found.put(coming.pop(0))
        else:
            one = data.draw(st.sampled_from(under_way))
            under_way.remove(one)
            is_over.add(one.push_id)
            end(found, one, data.draw(st.sampled_from(["ok", "unknown"])))
        train = found.next()
        for one in train:
            mine = set(one.streams)
            before = [s for s in gone if not mine.isdisjoint(s.streams)]
            assert all(int(s.push_id) < int(one.push_id) for s in before)
            assert all(s.push_id in is_over or s in train for s in before)
            gone.append(one)
        under_way += train
    assert len(gone) == len(pushes)
    assert not found
