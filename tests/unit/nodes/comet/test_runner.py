"""A comet's runner: one logic after the other is asked who a client is."""

from __future__ import annotations

from typing import Any

from zim.fabric.grants import Grant
from zim.nodes.comet.effects import Told
from zim.nodes.comet.runner import ANSWER_S, CometRunner
from zim.nodes.effects import Effect, Note, Send
from zim.nodes.placement import Placement
from zim.protocol.logins import Auth, Authed
from zim.protocol.messages import Renew

LOGICS = ["logic-1", "logic-2"]
TIMEOUT_S = 5.0


def fresh() -> CometRunner:
    return CometRunner("comet-1", 1, Placement("comet-1", ["router-1"], ["router-1"]), LOGICS, 1 << 20, TIMEOUT_S)


def asked(effects: list[Effect]) -> tuple[str, Auth]:
    (send,) = [e for e in effects if isinstance(e, Send)]
    assert isinstance(send.message, Auth)
    return send.peer, send.message


def test_clients_are_spread_over_the_logics() -> None:
    runner = fresh()
    assert {asked(runner.on_question(n, Auth(0, b"7", 3), 0.0))[0] for n in range(2)} == set(LOGICS)


def test_who_is_identified_is_told_to_the_one_who_asked() -> None:
    runner = fresh()
    _, m = asked(runner.on_question("ticket", Auth(0, b"7", 3), 0.0))
    who = Authed(m.req, Grant("7"))
    assert runner.on_told([who], 0.1) == [Told("ticket", who)]
    assert runner.on_told([who], 0.2) == []


def test_a_logic_that_is_silent_dead_or_away_is_followed_by_the_next_one() -> None:
    ways: list[Any] = [
        lambda runner, peer, m: runner.on_tick(ANSWER_S),
        lambda runner, peer, m: runner.on_logic_gone(peer, ANSWER_S),
        lambda runner, peer, m: runner.on_not_sent([m.req], ANSWER_S),
    ]
    for way in ways:
        runner = fresh()
        first, m = asked(runner.on_question("ticket", Auth(0, b"7", 3), 0.0))
        effects = [*way(runner, first, m), *runner.on_tick(ANSWER_S)]
        second, again = asked(effects)
        assert (second != first, again.token) == (True, b"7")
        late = Authed(m.req, Grant("7"))  # of one that was given up
        assert runner.on_told([late], ANSWER_S) == []


def test_when_nobody_answers_that_is_said_in_the_end() -> None:
    runner, now, found = fresh(), 0.0, list[Effect]()
    effects = runner.on_question("ticket", Auth(0, b"7", 3), now)
    while not found and now < 3 * TIMEOUT_S:
        now += 0.1
        effects = runner.on_tick(now)
        found = [e for e in effects if isinstance(e, Told)]
    assert found == [Told("ticket", None)]
    assert TIMEOUT_S <= now <= TIMEOUT_S + 2 * ANSWER_S
    assert any(isinstance(e, Note) for e in effects)


def test_routers_that_are_not_there_are_told_nothing() -> None:
    runner = fresh()
    assert runner.on_tick(10.0) == []
    runner.on_link("router-1", True)
    (send,) = runner.on_tick(20.0)
    assert isinstance(send, Send)
    assert isinstance(send.message, Renew)
    runner.on_link("router-1", False)
    assert runner.on_tick(30.0) == []
