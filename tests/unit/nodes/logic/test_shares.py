"""One answer for a push, however many routers it went to: honest, and as bad as the worst of them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.fabric.push import Push, Status
from zim.fabric.sharding import Shards
from zim.nodes.logic.shares import GIVE_UP_S, PART_STREAMS, Share, Splitter, digest_of, published, push_id_of
from zim.protocol.publication import Outcome, Publication

PUSH = Push(["u:1", "r:2"], b"x", key="k")


def fresh(digest: bytes = b"", home: Share | None = None) -> Share:
    return Share("router-1", Publication("id", ["u:1"], 5, b"x", digest), 0.0, home)


def share(status: Any, digest: bytes = b"") -> Share:
    found = fresh(digest)
    found.on_outcome(Outcome(0, status, (3,) if status == "ok" else ()), 0.0)
    assert found.is_over
    return found


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        (["ok"], "ok"),
        (["ok", "ok"], "ok"),
        (["unavailable", "unavailable"], "unavailable"),
        (["unknown"], "unknown"),
        (["conflict"], "conflict"),
        (["ok", "unavailable"], "unknown"),
        (["ok", "unknown"], "unknown"),
        (["unavailable", "unknown"], "unknown"),
        (["ok", "conflict"], "unknown"),
        (["conflict", "conflict"], "conflict"),
    ],
)
def test_the_status_of_all_shares(statuses: list[Status], status: Status) -> None:
    for order in itertools.permutations(statuses):
        answer = published([share(s) for s in order])
        assert answer.status == status
        assert [part.status for part in answer.parts] == list(order)
        assert [part.streams for part in answer.parts] == [{"u:1": 3 if s == "ok" else None} for s in order]


@pytest.mark.parametrize("digest", [b"", b"d"])
def test_after_an_attempt_without_an_answer_unavailable_would_be_a_lie(digest: bytes) -> None:
    found = fresh(digest)
    found.on_silence("no answer from router-1")
    assert not found.is_over
    found.on_outcome(Outcome(0, "unavailable"), 1.0)
    assert (found.status, found.is_over) == ("unknown", True)
    assert found.why == "an earlier attempt had no answer; then: router-1 cannot take it now"


def test_after_an_attempt_without_an_answer_ok_is_still_ok() -> None:
    found = fresh()
    found.on_silence("no answer from router-1")
    found.on_outcome(Outcome(0, "ok", (4,)), 1.0)
    assert (found.status, found.why, found.part.streams) == ("ok", "", {"u:1": 4})


def test_an_offset_that_is_not_known_is_none() -> None:
    found = fresh()
    found.on_outcome(Outcome(0, "ok", (0,)), 1.0)
    assert (found.status, found.part.streams) == ("ok", {"u:1": None})


@pytest.mark.parametrize(
    ("is_asked", "digest", "status"),
    [(False, b"", "unavailable"), (True, b"", "unknown"), (False, b"d", "unknown"), (True, b"d", "unknown")],
)
def test_there_is_no_time_for_more(is_asked: bool, digest: bytes, status: str) -> None:
    """With a key nobody has looked for it: it may be stored through another logic."""
    found = fresh(digest)
    if is_asked:
        found.on_silence("no answer from router-1")
    found.give_up("router-1 is away")
    assert found.status == status
    assert "router-1" in found.why


@pytest.mark.parametrize(("digest", "status"), [(b"", "unavailable"), (b"d", "unknown")])
def test_a_stream_that_is_refused_is_not_stored_here(digest: bytes, status: str) -> None:
    found = share("refused", digest)
    assert found.status == status
    assert "topologies differ" in found.why


# -- keys


def test_a_key_names_the_push() -> None:
    assert push_id_of("k") == push_id_of("k") != push_id_of("l")
    assert {len(push_id_of(key)) for key in ("k", "\ud7ff" * 300)} == {32}
    assert digest_of(replace(PUSH, key="")) == b""


@pytest.mark.parametrize(
    "other",
    [
        replace(PUSH, body=b"y"),
        replace(PUSH, op=100),
        replace(PUSH, ttl_s=1.0),
        replace(PUSH, only=("1_2",)),
        replace(PUSH, streams=["u:1"]),
        replace(PUSH, streams=["u:1", "r:2", "*"]),
    ],
)
def test_another_content_has_another_digest(other: Push) -> None:
    assert digest_of(other) != digest_of(PUSH)


def test_the_order_of_recipients_is_no_content() -> None:
    assert digest_of(replace(PUSH, streams=["r:2", "u:1"])) == digest_of(PUSH)
    keys = replace(PUSH, only=("1_2", "1_3"))
    assert digest_of(keys) == digest_of(replace(keys, only=("1_3", "1_2")))


def test_who_follows_home_says_when_home_stored_the_key() -> None:
    home = fresh(b"d")
    follower = fresh(b"d", home)
    assert (home.is_ready, follower.is_ready, home.followers) == (True, False, [follower])
    assert home.publication(12.0).home_ms == 0
    home.on_outcome(Outcome(0, "ok", (), 5_000, 300, True), 10.0)
    assert follower.is_ready
    asked = follower.publication(12.0)
    assert (asked.home_ms, asked.age_ms, asked.is_fresh, asked.digest) == (5_000, 2_300, True, b"d")


@pytest.mark.parametrize("status", ["conflict", "unavailable", "unknown"])
def test_what_home_refuses_is_sent_to_nobody_else(status: Status) -> None:
    home = share(status, b"d")
    follower = fresh(b"d", home)
    assert not follower.is_ready
    follower.follow(home)
    assert (follower.is_over, follower.status, follower.why) == (True, status, home.why)
    assert published([home, follower]).status == status


# -- splitting


@given(
    st.lists(st.integers(0, 30).map("u:{}".format), min_size=1, max_size=20, unique=True),
    st.integers(1, 4),
    st.sampled_from(["", "key"]),
)
def test_each_stream_is_in_the_share_of_its_router(streams: list[str], routers: int, key: str) -> None:
    names = [f"router-{n}" for n in range(routers)]
    shares = Splitter(names, lambda _: False).split(Push(streams, b"", key=key), "id", 0.0)
    assert sorted(s for share in shares for s in share.streams) == sorted(streams)
    assert {share.push_id for share in shares} == {"id"}
    for found in shares:
        assert {Shards(names).of(stream) for stream in found.streams} <= {found.shard}
        assert found.give_up_at == GIVE_UP_S
    if key:
        home, *others = shares
        assert (home.shard, home.home, home.followers) == (Shards(names).home("id"), None, others)
        assert all(share.home is home for share in others)
    else:
        assert all(share.home is None and share.streams for share in shares)
    for found in shares:
        found.give_up("so")
    assert sorted(s for part in published(shares).parts for s in part.streams) == sorted(streams)


@pytest.mark.parametrize("routers", [1, 2])
@pytest.mark.parametrize("key", ["", "k"])
def test_a_push_to_many_is_cut_in_the_same_places_whatever_the_order(routers: int, key: str) -> None:
    names = [f"router-{n}" for n in range(1, routers + 1)]
    push = Push([f"u:{n}" for n in range(2 * PART_STREAMS * routers + 7)], b"x", key=key, only=("3_1", "4_1"))
    shares, again = (
        Splitter(names, lambda _: False).split(replace(push, streams=streams), "id", 0.0)
        for streams in (push.streams, push.streams[::-1])
    )
    asked = [share.publication(0.0) for share in shares]
    assert asked == [share.publication(0.0) for share in again]
    assert max(len(p.streams) for p in asked) == PART_STREAMS
    assert sorted(s for p in asked for s in p.streams) == sorted(push.streams)
    assert sorted(key for p in asked for key in p.only) == ["3_1", "4_1"]
    for router in names:
        parts = [p.part for share, p in zip(shares, asked, strict=True) if share.shard == router]
        assert parts == list(range(len(parts)))
    assert len({p.key_id for p in asked}) == max(p.part for p in asked) + 1
    home, *others = shares
    assert all(share.home is (home if key else None) for share in others)


def test_a_push_that_is_cut_is_not_the_same_as_one_that_an_older_zim_has_not_cut() -> None:
    push = Push([f"u:{n}" for n in range(10)], b"x", key="k")
    assert digest_of(push, part_streams=9) != digest_of(push) == digest_of(push, part_streams=10)


def test_each_router_is_told_the_session_keys_of_its_own_streams() -> None:
    names = ["router-1", "router-2"]
    keys = tuple(f"{n}_1" for n in range(20))
    push = Push([f"u:{n}" for n in range(20)], b"", only=keys)
    shares = Splitter(names, lambda _: False).split(push, "id", 0.0)
    asked = [share.publication(0.0) for share in shares]
    assert sorted(key for p in asked for key in p.only) == sorted(keys)
    assert all({f"u:{key.split('_')[0]}" for key in p.only} == set(p.streams) for p in asked)


@pytest.mark.parametrize(
    ("streams", "key", "is_live_only"),
    [(["r:a"], "k", True), (["r:a", "u:1"], "k", False), (["u:1"], "k", False), (["r:a"], "", False)],
)
def test_a_key_whose_streams_are_all_live_only(streams: list[str], key: str, is_live_only: bool) -> None:
    splitter = Splitter(["router-1"], lambda stream: stream == "r:a")
    (found,) = splitter.split(Push(streams, b"", key=key), "id", 0.0)
    assert found.publication(0.0).is_live_only is is_live_only


@pytest.mark.parametrize(("ttl_s", "ttl_ms"), [(0.0, 0), (0.0001, 1), (1.5, 1500)])
def test_a_ttl_is_never_rounded_to_for_ever(ttl_s: float, ttl_ms: int) -> None:
    push = replace(PUSH, streams=["u:1"], ttl_s=ttl_s, only=("1_2",))
    (found,) = Splitter(["router-1"], lambda _: False).split(push, "id", 0.0)
    m = found.publication(0.0)
    assert (m.push_id, m.streams, m.digest, m.ttl_ms, m.only) == ("id", ["u:1"], digest_of(push), ttl_ms, ("1_2",))
