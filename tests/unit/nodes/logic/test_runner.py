"""Logic's runner: every request is settled once, whatever routers, links and the time do."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.garbage import circles
from zim.errors import Unavailable, Unknown
from zim.fabric.grants import Denial, Grant
from zim.fabric.patterns import ANY
from zim.fabric.principals import LOCAL, Principal
from zim.fabric.push import Push
from zim.fabric.questions import OnlineCounts
from zim.fabric.sharding import Shards
from zim.nodes.calls import RETRY_S
from zim.nodes.effects import Audit, Effect, Note, Replies, Send
from zim.nodes.logic.desk import Desk
from zim.nodes.logic.runner import SUBMITTED_BYTES, LogicRunner, Settled
from zim.nodes.logic.shares import GIVE_UP_S, push_id_of
from zim.nodes.logic.trains import ANSWER_S, ATTEMPTS
from zim.nodes.placement import Placement
from zim.protocol.frame import VERSION
from zim.protocol.logins import Auth, Authed
from zim.protocol.messages import Answered, Ask, Publish, PublishReply, Submit, Submitted
from zim.protocol.publication import Outcome
from zim.topology.identity import Identity

ROUTERS = ["router-1", "router-2"]
EVERYWHERE = Push(["u:1", "u:2", "u:3", "r:1", "r:2", "*"], b"x")


def fresh(routers: list[str] = ROUTERS) -> LogicRunner:
    ids = itertools.count()
    return LogicRunner(
        Placement("logic-1", routers, routers),
        lambda _: False,
        Desk(Identity(), {}, lambda: "id"),
        1000,
        lambda: f"id{next(ids)}",
    )


def sends(effects: list[Effect]) -> list[tuple[str, Any]]:
    return [(e.peer, e.message) for e in effects if isinstance(e, Send)]


def settled(effects: list[Effect]) -> list[tuple[Any, Any]]:
    return [(e.ticket, e.outcome) for e in effects if isinstance(e, Settled)]


def ok(m: Publish, router: str, *at: int) -> PublishReply:
    """Its router has stored some of them, or all."""
    outcomes = [Outcome(n, "ok", (1,) * len(m.pushes[n].streams), 5, 0) for n in at or range(len(m.pushes))]
    return PublishReply(m.req, router, 7, outcomes)


def said(m: Publish, status: Any, term: int = 7) -> PublishReply:
    return PublishReply(m.req, "router-1", term, [Outcome(0, status)])


def test_a_push_is_settled_when_all_its_routers_have_answered() -> None:
    runner = fresh()
    (one, first), (two, second) = sends(runner.on_push("ticket", [EVERYWHERE], LOCAL, 0.0))
    assert {one, two} == set(ROUTERS)
    assert settled(runner.on_answers(one, [ok(first, one)], 0.1)) == []
    ((ticket, (published,)),) = settled(runner.on_answers(two, [ok(second, two)], 0.2))
    assert (ticket, published.status, published.push_id) == ("ticket", "ok", "id0")
    assert runner.answered["ok"] == 1
    assert runner.on_answers(two, [ok(second, two)], 0.3) == []  # twice
    assert runner.on_tick(1e6) == []


def test_no_pushes_are_settled_at_once() -> None:
    assert settled(fresh().on_push("ticket", [], LOCAL, 0.0)) == [("ticket", [])]


def test_a_silent_router_is_asked_again_with_the_same_push_until_it_is_unknown() -> None:
    runner, now = fresh(["router-1"]), 0.0
    ((_, m),) = sends(runner.on_push("ticket", [Push(["u:1"], b"x")], LOCAL, now))
    for attempt in range(2, ATTEMPTS + 1):
        now += ANSWER_S
        ((_, again),) = sends(runner.on_tick(now)) or sends(runner.on_tick(now))
        assert (again.pushes, again.attempt, again.term) == (m.pushes, attempt, m.term)
    ((_, (published,)),) = settled(runner.on_tick(now + ANSWER_S))
    assert published.status == "unknown"


def test_a_router_that_is_away_is_tried_until_the_time_is_up_and_then_it_is_surely_not_stored() -> None:
    runner, now = fresh(["router-1"]), 0.0
    effects = runner.on_push("ticket", [Push(["u:1"], b"x")], LOCAL, now)
    while now < GIVE_UP_S + 2 * RETRY_S and not settled(effects):
        effects = [e for _, m in sends(effects) for e in runner.on_not_sent([m.req], now)] or runner.on_tick(now)
        now += RETRY_S
    ((_, (published,)),) = settled(effects)
    assert (published.status, now > GIVE_UP_S) == ("unavailable", True)


def test_a_broken_link_may_have_carried_it() -> None:
    runner = fresh(["router-1"])
    ((_, m),) = sends(runner.on_push("ticket", [Push(["u:1"], b"x")], LOCAL, 0.0))
    assert runner.on_link("router-1", False, 0.1) == []
    ((_, again),) = sends(runner.on_tick(0.1))
    assert (again.pushes, again.attempt) == (m.pushes, 2)
    ((_, (published,)),) = settled(runner.on_answers("router-1", [said(again, "unavailable", 8)], 0.2))
    assert published.status == "unknown"


def test_the_term_of_the_first_attempt_stays_and_the_next_push_has_the_new_one() -> None:
    runner = fresh(["router-1"])
    ((_, m),) = sends(runner.on_push("ticket", [Push(["u:1"], b"x")], LOCAL, 0.0))
    assert m.term == 0
    runner.on_answers("router-1", [ok(m, "router-1")], 0.1)
    ((_, m),) = sends(runner.on_push("ticket", [Push(["u:1"], b"x")], LOCAL, 0.2))
    assert m.term == 7


def test_a_refused_stream_is_noted() -> None:
    runner = fresh(["router-1"])
    ((_, m),) = sends(runner.on_push("ticket", [Push(["u:1"], b"x")], LOCAL, 0.0))
    note, end = runner.on_answers("router-1", [said(m, "refused")], 0.1)
    assert isinstance(note, Note)
    assert "topologies differ" in note.event
    assert isinstance(end, Settled)


def ask(runner: LogicRunner, patience_s: float = 1.0, retry_s: float = 0.0) -> list[Effect]:
    return runner.on_question("ticket", ROUTERS, partial(Ask, question=OnlineCounts()), patience_s, retry_s, 0.0)


def test_each_router_has_its_answer_or_a_reason() -> None:
    runner = fresh()
    (one, m), (two, _) = sends(ask(runner))
    answer = Answered(m.req, one, {})
    assert runner.on_answers(one, [answer], 0.1) == []
    assert runner.on_tick(0.9) == []
    ((_, found),) = settled(runner.on_tick(1.0))
    assert found[one] is answer
    assert isinstance(found[two], Unknown)


def test_who_could_not_be_reached_is_tried_again_only_as_long_as_wanted() -> None:
    runner = fresh()
    reqs = [m.req for _, m in sends(ask(runner))]
    ((_, found),) = settled(runner.on_not_sent(reqs, 0.0))
    assert [type(error) for error in found.values()] == [Unavailable, Unavailable]
    reqs = [m.req for _, m in sends(ask(runner, 1.0, 0.5))]
    assert runner.on_not_sent(reqs, 0.1) == []
    assert len(sends(runner.on_tick(0.2))) == 2


def test_tokens_are_answered_at_once() -> None:
    runner = fresh()
    asked = [Auth(1, b"7", 1), Auth(2, b"x", 1), Auth(3, b"x", VERSION), Auth(4, b"007", VERSION)]
    (replies,) = runner.on_messages("comet-1", asked, 0.0, 0.0)
    assert isinstance(replies, Replies)
    seven, nobody, denied, seven_too = [m for _, m in replies.answers]
    assert (seven, nobody) == (Authed(1, Grant("7", ("1",), ANY, ANY)), Authed(2, Grant("0", (), ANY, ANY)))
    why = "the token is no number; a user's number is right, such as 7"
    assert denied == Authed(3, None, Denial("refused", why))
    assert seven_too == Authed(4, Grant("7", ("1",), ANY, ANY))
    assert (runner.desk.admitted, runner.desk.denied["refused"]) == (3, 1)


def test_submitted_pushes_are_answered_together_and_the_wrong_ones_named() -> None:
    runner = fresh(["router-1"])
    submits = [Submit(1, "", ["u:1"], 5, b"x"), Submit(2, "", ["no stream"], 5, b"x"), Submit(3, "", ["*"], 5, b"x")]
    effects = runner.on_submits("publisher", submits, LOCAL, 0.0)
    assert runner.waiting_bytes > 0
    ((_, m),) = sends(effects)
    assert runner.on_answers("router-1", [ok(m, "router-1", 1)], 0.1) == []
    (replies,) = runner.on_answers("router-1", [ok(m, "router-1", 0)], 0.1)
    assert isinstance(replies, Replies)
    answers: list[Any] = [m for _, m in replies.answers]
    assert [(m.req, m.status) for m in answers] == [(1, "ok"), (2, "invalid"), (3, "ok")]
    assert runner.waiting_bytes == 0
    assert runner._publishers == {}


def test_too_many_submitted_pushes_are_refused_and_counted() -> None:
    runner = fresh(["router-1"])
    large = Submit(1, "", ["u:1"], 5, b"x" * 900)
    runner.waiting_bytes = SUBMITTED_BYTES - 10
    (replies,) = runner.on_submits("publisher", [large], LOCAL, 0.0)
    assert isinstance(replies, Replies)
    ((_, m),) = replies.answers
    assert isinstance(m, Submitted)
    assert (m.status, runner.dropped) == ("unavailable", 1)


def test_pushes_of_one_publisher_wait_for_those_before_them_in_their_stream() -> None:
    runner = fresh(["router-1"])
    ((_, first),) = sends(runner.on_submits("p", [Submit(1, "", ["u:1"], 5, b"x")], LOCAL, 0.0))
    second = [Submit(2, "", ["u:1"], 5, b"x"), Submit(3, "", ["u:2"], 5, b"x")]
    ((_, other),) = sends(runner.on_submits("p", second, LOCAL, 0.0))
    assert [p.streams for p in other.pushes] == [["u:2"]]
    assert sends(runner.on_submits("q", [Submit(1, "", ["u:1"], 5, b"x")], LOCAL, 0.0))  # another publisher
    ((_, waited),) = sends(runner.on_answers("router-1", [ok(first, "router-1")], 0.1))
    assert [p.streams for p in waited.pushes] == [["u:1"]]


def test_a_push_that_waits_for_too_long_is_surely_not_stored() -> None:
    runner, now = fresh(["router-1"]), 0.0
    runner.on_submits("p", [Submit(1, "", ["u:1"], 5, b"x")], LOCAL, now)
    runner.on_submits("p", [Submit(2, "", ["u:1"], 5, b"x")], LOCAL, now)
    statuses: dict[int, str] = {}
    for _ in range(80):
        now += 0.1
        for effect in runner.on_tick(now):
            if isinstance(effect, Replies):
                statuses |= {m.req: m.status for _, m in effect.answers if isinstance(m, Submitted)}
    assert statuses == {1: "unknown", 2: "unavailable"}
    assert (runner.waiting_bytes, len(runner._waiting), runner._publishers) == (0, 0, {})


def test_a_push_with_a_key_begins_at_home_and_follows_its_word() -> None:
    for status in ("ok", "conflict"):
        runner = fresh()
        ((home, m),) = sends(runner.on_push("ticket", [Push(EVERYWHERE.streams, b"x", key="k")], LOCAL, 0.0))
        assert home == Shards(ROUTERS).home(push_id_of("k"))
        reply = ok(m, home) if status == "ok" else PublishReply(m.req, home, 7, [Outcome(0, "conflict")])
        effects = runner.on_answers(home, [reply], 0.1)
        if status == "conflict":
            ((_, (published,)),) = settled(effects)
        else:
            ((other, second),) = sends(effects)
            assert (other, second.pushes[0].home_ms) == (({*ROUTERS} - {home}).pop(), 5)
            ((_, (published,)),) = settled(runner.on_answers(other, [ok(second, other)], 0.2))
        assert published.status == status


def test_a_push_whose_home_is_silent_says_so() -> None:
    runner, now = fresh(), 0.0
    key = next(key for n in range(99) if Shards(ROUTERS).home(push_id_of(key := f"k{n}")) == "router-2")
    [stream] = [s for s in ("u:1", "u:2") if Shards(ROUTERS).of(s) == "router-1"][:1]
    runner.on_push("ticket", [Push([stream], b"x", key=key)], LOCAL, now)
    found: list[Any] = []
    while not found and now < 10:
        now += 0.1
        found = settled(runner.on_tick(now))
    ((_, (published,)),) = found
    [part] = published.parts
    assert (published.status, part.status) == ("unknown", "unknown")
    assert part.why == "router-2 has not answered, which knows what its key was used for"


def test_pushes_that_a_key_may_not_make_are_in_the_audit() -> None:
    who = Principal("beta", {"push": ("u:beta-*",)})
    pushes = [Push([f"u:{who}"], b"x") for who in ("beta-1", "acme-1", "acme-2")]
    [audit] = [effect for effect in fresh().on_push("ticket", pushes, who, 0.0) if isinstance(effect, Audit)]
    assert dict(audit.fields) == {"reason": "the API key beta has no scope push for 'u:acme-1'", "pushes": 2}


@given(st.lists(st.sampled_from(["answer", "lose", "break", "tick"]), max_size=30), st.randoms(use_true_random=False))
def test_every_push_is_settled_once(steps: list[str], random: Any) -> None:
    runner, now = fresh(), 0.0
    effects = runner.on_push("ticket", [EVERYWHERE, Push(["u:9"], b"y", key="k")], LOCAL, now)
    flying, ends = sends(effects), settled(effects)
    for step in [*steps, *["tick"] * 40]:
        effects = []
        if step == "tick":
            now += 0.5
            effects = runner.on_tick(now)
        elif step == "break":
            router = random.choice(ROUTERS)
            flying = [(at, m) for at, m in flying if at != router]
            effects = runner.on_link(router, False, now)
        elif flying:
            router, m = flying.pop(random.randrange(len(flying)))
            effects = (
                runner.on_not_sent([m.req], now) if step == "lose" else runner.on_answers(router, [ok(m, router)], now)
            )
        flying += sends(effects)
        ends += settled(effects)
    assert len(ends) == 1
    assert len(runner._calls) == 0


def test_what_is_over_leaves_no_circles() -> None:
    runner = fresh()

    def push(key: str) -> list[Effect]:
        todo = sends(runner.on_push("ticket", [Push(EVERYWHERE.streams, b"x", key=key)], LOCAL, 0.0))
        done: list[Effect] = []
        while todo:
            router, m = todo.pop()
            done += runner.on_answers(router, [ok(m, router)], 0.1)
            todo += sends(done)[len(todo) :] if key and len(done) == 1 else []
        return done

    def ask() -> list[Effect]:
        ((_, m),) = sends(
            runner.on_question("ticket", ROUTERS[:1], partial(Ask, question=OnlineCounts()), 1.0, 1.0, 0.0)
        )
        return runner.on_answers(ROUTERS[0], [Answered(m.req, ROUTERS[0], None)], 0.1)

    for once in (partial(push, ""), partial(push, "key"), ask):
        once()
        with circles() as left:
            assert settled(once())
        assert left == []
