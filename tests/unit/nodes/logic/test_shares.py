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
from zim.nodes.calls import RETRY_S
from zim.nodes.logic.shares import ATTEMPTS, GIVE_UP_S, Share, digest_of, published, push_id_of, split
from zim.protocol.messages import PublishReply

PUSH = Push(["u:1", "r:2"], b"x", key="k")


def fresh(digest: bytes = b"") -> Share:
    return Share(PUSH, "id", digest, "router-1", ["u:1"], 0.0)


def share(status: Any, digest: bytes = b"") -> Share:
    found = fresh(digest)
    found.on_answer(PublishReply(1, "router-1", 7, status, [3] if status == "ok" else []), 0.0)
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
        (["ok", "conflict"], "conflict"),
        (["unavailable", "unknown", "conflict", "ok"], "conflict"),
    ],
)
def test_the_status_of_all_shares(statuses: list[Status], status: Status) -> None:
    for order in itertools.permutations(statuses):
        answer = published([share(s) for s in order])
        assert answer.status == status
        assert [part.status for part in answer.parts] == list(order)
        assert [part.streams for part in answer.parts] == [{"u:1": 3 if s == "ok" else None} for s in order]


def test_after_an_attempt_without_an_answer_unavailable_would_be_a_lie() -> None:
    found = fresh()
    found.on_silence("no answer from router-1", 1.0)
    assert not found.is_over
    found.on_answer(PublishReply(1, "router-1", 7, "unavailable"), 1.0)
    assert (found.status, found.is_over) == ("unknown", True)
    assert found.why == "an earlier attempt had no answer; then: router-1 cannot take it now"


def test_with_a_key_too_for_an_attempt_may_yet_arrive() -> None:
    found = fresh(b"d")
    found.on_silence("no answer from router-1", 1.0)
    found.on_answer(PublishReply(1, "router-1", 7, "unavailable"), 1.0)
    assert found.status == "unknown"


def test_after_an_attempt_without_an_answer_ok_is_still_ok() -> None:
    found = fresh()
    found.on_silence("no answer from router-1", 1.0)
    found.on_answer(PublishReply(1, "router-1", 7, "ok", [4]), 1.0)
    assert (found.status, found.why, found.offsets) == ("ok", "", [4])


def test_attempts_end() -> None:
    found = fresh()
    for _ in range(ATTEMPTS):
        assert not found.is_over
        found.on_silence("no answer in time", 1.0)
    assert (found.status, found.why) == ("unknown", "router-1: no answer in time")


@pytest.mark.parametrize(
    ("attempts", "digest", "status"),
    [(0, b"", "unavailable"), (1, b"", "unknown"), (0, b"d", "unknown"), (1, b"d", "unknown")],
)
def test_there_is_no_time_for_more(attempts: int, digest: bytes, status: str) -> None:
    """With a key nobody has looked for it: it may be stored through another logic."""
    found = fresh(digest)
    for _ in range(attempts):
        found.on_silence("no answer from router-1", 1.0)
    found.give_up("router-1 is away")
    assert found.status == status
    assert "router-1" in found.why


def test_what_is_over_is_not_given_up() -> None:
    found = share("ok")
    found.give_up("router-1 is away")
    assert (found.status, found.why) == ("ok", "")


@pytest.mark.parametrize(("digest", "status"), [(b"", "unavailable"), (b"d", "unknown")])
def test_a_stream_that_is_refused_is_not_stored_here(digest: bytes, status: str) -> None:
    found = share("refused", digest)
    assert found.status == status
    assert "topologies differ" in found.why


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


@given(st.lists(st.integers(0, 30).map("u:{}".format), min_size=1, max_size=20, unique=True), st.integers(1, 4))
def test_each_stream_is_in_the_share_of_its_router(streams: list[str], routers: int) -> None:
    names = [f"router-{n}" for n in range(routers)]
    shares = split(Push(streams, b""), "id", Shards(names), {"router-1": 7}, 0.0)
    assert sorted(s for share in shares for s in share.streams) == sorted(streams)
    assert {share.push_id for share in shares} == {"id"}
    for found in shares:
        assert {Shards(names).owner(stream) for stream in found.streams} == {found.router}
        assert found.term == (7 if found.router == "router-1" else 0)


def test_a_router_that_is_away_is_tried_again_until_the_time_is_up() -> None:
    found = fresh()
    found.on_not_sent(1.0)
    assert (found.is_over, found.again_at) == (False, 1.0 + RETRY_S)
    found.on_not_sent(GIVE_UP_S + 0.1)
    assert (found.is_over, found.status) == (True, "unavailable")


def test_a_silence_at_the_end_is_the_end() -> None:
    found = fresh()
    found.on_silence("no answer in time", GIVE_UP_S + 0.1)
    assert (found.is_over, found.status) == (True, "unknown")


@pytest.mark.parametrize(("ttl_s", "ttl_ms"), [(0.0, 0), (0.0001, 1), (1.5, 1500)])
def test_a_ttl_is_never_rounded_to_for_ever(ttl_s: float, ttl_ms: int) -> None:
    found = Share(replace(PUSH, ttl_s=ttl_s, only=("1_2",)), "id", b"d", "router-1", ["u:1"], 0.0, term=4)
    found.number = 2
    m = found.message(9)
    assert m.ttl_ms == ttl_ms
    assert (m.req, m.push_id, m.streams, m.attempt, m.term, m.digest, m.only) == (
        9,
        "id",
        ["u:1"],
        2,
        4,
        b"d",
        ("1_2",),
    )
