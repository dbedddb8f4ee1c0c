"""A logic knows the log time of the routers that are there."""

from __future__ import annotations

from typing import Any

from zim.fabric.principals import LOCAL
from zim.fabric.push import Push
from zim.fabric.sharding import Shards
from zim.nodes.effects import Effect, Send
from zim.nodes.logic.clocks import ASK_S
from zim.nodes.logic.desk import Desk
from zim.nodes.logic.runner import LogicRunner
from zim.nodes.logic.trains import ANSWER_S
from zim.nodes.placement import Placement
from zim.protocol.messages import AskTime, LogTime, Publish
from zim.topology.identity import Identity

ROUTERS = ["router-1", "router-2"]
STREAM = next(f"u:{uid}" for uid in range(100) if Shards(ROUTERS).of(f"u:{uid}") == "router-1")


def fresh() -> LogicRunner:
    return LogicRunner(
        Placement("logic-1", ROUTERS, ROUTERS), lambda _: False, Desk(Identity(), {}, lambda: "id"), 1000, lambda: "id"
    )


def questions(effects: list[Effect]) -> dict[str, AskTime]:
    return {e.peer: e.message for e in effects if isinstance(e, Send) and isinstance(e.message, AskTime)}


def pushed(effects: list[Effect]) -> Any:
    (message,) = [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, Publish)]
    return message.pushes[0]


def test_routers_that_are_there_are_asked_at_once_and_every_second() -> None:
    runner = fresh()
    assert runner.on_tick(1.0) == []
    runner.on_link("router-1", True, 1.01)
    asked = questions(runner.on_tick(1.02))
    assert list(asked) == ["router-1"]
    assert runner.on_tick(1.03) == []
    runner.on_answers("router-1", [LogTime(asked["router-1"].req, "router-1", 7, 5_000)], 1.04)
    runner.on_link("router-2", True, 1.05)
    assert set(questions(runner.on_tick(1.06))) == set(ROUTERS)
    runner.on_link("router-1", False, 1.07)
    assert set(questions(runner.on_tick(1.08 + ASK_S))) == {"router-2"}


PUSH = Push([STREAM], b"x", ttl_s=0.5)


def test_before_log_time_is_known_a_ttl_is_what_is_left_of_it() -> None:
    runner = fresh()
    first = pushed(runner.on_push("ticket", [PUSH], LOCAL, 0.9))
    assert (first.ttl_ms, first.expires_ms) == (500, 0)
    again = pushed(runner.on_tick(0.9 + ANSWER_S) + runner.on_tick(0.9 + ANSWER_S))
    assert (again.ttl_ms, again.expires_ms) == (1, 0)


def test_a_ttl_becomes_a_moment_of_the_routers_log_time() -> None:
    runner = fresh()
    runner.on_link("router-1", True, 1.0)
    asked = questions(runner.on_tick(1.0))
    runner.on_answers("router-1", [LogTime(asked["router-1"].req, "router-1", 7, 5_000)], 1.002)
    second = pushed(runner.on_push("ticket", [PUSH], LOCAL, 2.0))
    assert (second.ttl_ms, second.expires_ms) == (500, 5_000 + 1_498)  # 5,000 at 1.002 at the latest
    again = pushed(runner.on_tick(2.0 + ANSWER_S) + runner.on_tick(2.0 + ANSWER_S))
    assert (again.ttl_ms, again.expires_ms) == (1, second.expires_ms)  # it is over


def test_a_silence_is_made_good_by_the_next_question() -> None:
    runner = fresh()
    runner.on_link("router-1", True, 1.0)
    assert questions(runner.on_tick(1.0))
    assert questions(runner.on_tick(1.0 + ASK_S))
    late = runner.on_answers("router-1", [LogTime(1, "router-1", 7, 5_000)], 2.5)
    assert late == []
