"""Pushes that go as one message: each is over once, whatever the router and the link do."""

from __future__ import annotations

from typing import Any

import pytest

from zim.nodes.calls import RETRY_S
from zim.nodes.logic.shares import GIVE_UP_S, Share
from zim.nodes.logic.trains import ANSWER_S, ATTEMPTS, Train
from zim.nodes.remote_clock import RemoteClock
from zim.protocol.messages import PublishReply
from zim.protocol.publication import Outcome, Publication


def fresh(*names: str, now: float = 0.0, digest: bytes = b"") -> tuple[Train, list[Share]]:
    shares = [Share("router-1", Publication(name, ["u:1"], 5, b"x", digest), now) for name in names]
    return Train("router-1", shares, 7, RemoteClock()), shares


def asked(train: Train, req: int = 1, now: float = 0.0) -> Any:
    router, message, size, deadline = train.attempt(req, now)
    assert (router, deadline) == ("router-1", now + ANSWER_S)
    assert size == sum(push.size for push in message.pushes)  # type: ignore[attr-defined]
    return message


def reply(*outcomes: Outcome) -> PublishReply:
    return PublishReply(1, "router-1", 7, list(outcomes))


def test_one_message_carries_all_in_their_order() -> None:
    train, _ = fresh("a", "b")
    m = asked(train, 9)
    assert (m.req, m.attempt, m.term, [p.push_id for p in m.pushes]) == (9, 1, 7, ["a", "b"])


def test_each_is_over_when_it_is_answered_and_the_rest_is_asked_again() -> None:
    train, (a, b, c) = fresh("a", "b", "c")
    asked(train)
    train.on_answer(reply(Outcome(1, "ok", (5,)), Outcome(0, "conflict")), 0.1)
    assert (train.is_over, set(map(id, train.take_ended()))) == (False, {id(a), id(b)})
    train.on_silence("no answer in time", 2.0)
    assert train.again_at == 2.0
    m = asked(train, 2, 2.0)
    assert (m.attempt, m.term, [p.push_id for p in m.pushes]) == (2, 7, ["c"])
    train.on_answer(reply(Outcome(0, "unavailable")), 2.1)
    assert (train.is_over, train.take_ended()) == (True, [c])
    assert [s.status for s in (a, b, c)] == ["conflict", "ok", "unknown"]


def test_an_answer_to_what_was_not_asked_or_is_over_is_nothing() -> None:
    train, (a,) = fresh("a")
    asked(train)
    train.on_answer(reply(Outcome(1, "ok", (1,)), Outcome(-1, "ok", (1,)), Outcome(0, "ok", (3,))), 0.1)
    train.on_answer(reply(Outcome(0, "conflict")), 0.2)
    assert (a.status, a.offsets, train.take_ended()) == ("ok", (3,), [a])


def test_attempts_end() -> None:
    train, (a,) = fresh("a")
    for _ in range(ATTEMPTS):
        assert not train.is_over
        asked(train)
        train.on_silence("no answer in time", 1.0)
    assert (train.is_over, a.status, a.why) == (True, "unknown", "router-1: no answer in time")


def test_a_silence_at_the_end_is_the_end() -> None:
    train, (a,) = fresh("a")
    train.on_silence("no answer in time", GIVE_UP_S + 0.1)
    assert (train.is_over, a.status) == (True, "unknown")


@pytest.mark.parametrize(("digest", "status"), [(b"", "unavailable"), (b"d", "unknown")])
def test_a_router_that_is_away_is_tried_again_until_the_time_is_up(digest: bytes, status: str) -> None:
    train, (a,) = fresh("a", digest=digest)
    train.on_not_sent(1.0)
    assert (train.is_over, train.again_at) == (False, 1.0 + RETRY_S)
    train.on_not_sent(GIVE_UP_S + 0.1)
    assert (train.is_over, a.status, a.why) == (True, status, "router-1 is away")
