"""A comet that is being drained: at which pace clients go, to whom, and when it ends."""

from __future__ import annotations

import pytest

from tests.unit.nodes.comet.comets import Comet
from tests.wires import GOIM_TCP
from zim.nodes.comet.draining import BURST_S, SETTLE_S, Draining, DrainPlan
from zim.nodes.comet.effects import SendOn
from zim.nodes.effects import Drained, Effect, Note
from zim.protocol.messages import Changes


def leave(comet: Comet, effects: list[Effect]) -> list[SendOn]:
    """What the edge does: who is sent on is closed."""
    sent = [effect for effect in effects if isinstance(effect, SendOn)]
    for effect in sent:
        comet.do(comet.hub.leave(effect.session, comet.now))
    return sent


def step(comet: Comet, draining: Draining, seconds: float) -> list[Effect]:
    comet.now += seconds
    return draining.step(comet.hub, comet.now)


def finish(comet: Comet, draining: Draining, most_s: float = SETTLE_S - 0.2) -> list[Effect]:
    """Time passes, and routers answer, until it is over."""
    found: list[Effect] = []
    for _ in range(round(most_s / 0.1)):
        comet.tick(0.1)
        found += draining.step(comet.hub, comet.now)
        if draining.is_over:
            break
    return found


def test_clients_go_at_a_pace_also_after_a_standstill() -> None:
    comet = Comet()
    for n in range(100):
        comet.enter(str(n))
    draining = Draining(DrainPlan(40.0), comet.now)
    assert step(comet, draining, 0.0) == []
    assert len(leave(comet, step(comet, draining, 0.1))) == 4
    assert len(leave(comet, step(comet, draining, 0.1))) == 4
    assert len(leave(comet, step(comet, draining, 60.0))) == 40 * BURST_S
    assert step(comet, draining, 0.0) == []
    assert (len(comet.hub.sessions), draining.sent) == (100 - 18, 18)


def test_they_come_one_after_the_other() -> None:
    comet = Comet()
    for n in range(3):
        comet.enter(str(n))
    sent = leave(comet, step(comet, Draining(DrainPlan(100.0), 0.0), 1.0))
    assert [effect.after_s for effect in sent] == [0.0, 0.01, 0.02]


def test_each_other_comet_gets_its_share() -> None:
    comet = Comet()
    for n in range(60):
        comet.enter(str(n))
    draining = Draining(DrainPlan(1000.0, {"comet-2": 40, "comet-3": 20, "comet-4": 0}), 0.0)
    sent = leave(comet, step(comet, draining, 1.0))
    to = [effect.to for effect in sent]
    assert (to.count("comet-2"), to.count("comet-3"), len(to)) == (40, 20, 60)
    assert to[:3].count("comet-2") == 2  # spread over the time, too


def test_who_is_on_its_way_in_is_waited_for() -> None:
    comet = Comet()
    guest = comet.guest(GOIM_TCP)
    comet.do(comet.hub.join(guest, "3", [], 0.0))
    draining = Draining(DrainPlan(100.0), 0.0)
    assert step(comet, draining, 1.0) == []
    comet.settle()
    assert [effect.session for effect in leave(comet, step(comet, draining, 1.0))] == [guest]


def test_it_ends_once_routers_know_that_all_are_gone_and_what_became_of_all_pushes() -> None:
    comet = Comet()
    guest = comet.enter()
    comet.router.hears_results = False
    comet.push("u:3", body="one")
    draining = Draining(DrainPlan(100.0), comet.now)
    leave(comet, step(comet, draining, 1.0))
    assert guest.bodies == ["one"]
    assert step(comet, draining, 0.1) == []  # it has not said that the session is gone
    assert finish(comet, draining, 1.0) == []  # nobody has heard what became of the push
    comet.router.hears_results = True
    assert finish(comet, draining) == [Drained()]
    assert step(comet, draining, 0.1) == []


def test_what_was_made_before_the_router_knew_that_all_are_gone_is_reported_too() -> None:
    comet = Comet()
    comet.enter()
    draining = Draining(DrainPlan(100.0), comet.now)
    leave(comet, step(comet, draining, 1.0))
    comet.router.publish("u:3", body="late")
    pipe, comet.router.pipe = comet.router.pipe, []  # a job has it
    for seconds in (0.11, 0.11, 0.01, 0.01):  # it is told of it, and does not miss it long enough to fetch it
        comet.now += seconds
        comet.do(comet.hub.on_tick(comet.now, 1 << 20))
        comet.hear()
        assert step(comet, draining, 0.0) == []
    assert comet.hub.links["router-1"].made == 1
    comet.router.pipe = pipe
    comet.settle()
    assert finish(comet, draining) == [Drained()]
    assert (comet.router.results[1].targeted, comet.router.results[1].delivered) == (0, 0)


def test_pushes_that_come_for_nobody_hold_up_nothing() -> None:
    comet = Comet()
    comet.enter()
    comet.router.hears_results = True
    draining = Draining(DrainPlan(100.0), comet.now)
    leave(comet, step(comet, draining, 1.0))
    found: list[Effect] = []
    for n in range(20):
        comet.push("*", body=f"all {n}")
        comet.tick(0.05)
        comet.push("*", body=f"more {n}")
        found += step(comet, draining, 0.0)
    assert found == [Drained()]


def test_a_router_that_registers_it_anew_meanwhile_must_hear_it_all_again() -> None:
    comet = Comet()
    comet.enter()
    draining = Draining(DrainPlan(100.0), comet.now)
    leave(comet, step(comet, draining, 1.0))
    comet.router.publish("u:3", body="late")
    comet.router.pipe = []  # it never comes
    for _ in range(3):
        comet.now += 0.11
        comet.do(comet.hub.on_tick(comet.now, 1 << 20))
        comet.hear()
        assert step(comet, draining, 0.0) == []
    comet.router.n = 0
    comet.restart_router(comet.router)  # which knows nothing of that entry
    assert finish(comet, draining, 2.0) == [Drained()]


def test_that_a_session_is_gone_must_be_heard_not_only_what_became_of_pushes() -> None:
    comet = Comet()
    comet.enter()
    draining = Draining(DrainPlan(100.0), comet.now)
    leave(comet, step(comet, draining, 1.0))
    for _ in range(10):
        comet.now += 0.1
        comet.do(comet.hub.on_tick(comet.now, 1 << 20))
        comet.router.inbox = [m for m in comet.router.inbox if not isinstance(m, Changes)]  # they get lost
        comet.hear()
        assert step(comet, draining, 0.0) == []
    assert finish(comet, draining, 1.5) == [Drained()]


@pytest.mark.parametrize("is_away", [True, False])
def test_a_router_that_is_away_is_not_waited_for_for_ever(is_away: bool) -> None:
    comet = Comet(routers=2)
    comet.enter()
    draining = Draining(DrainPlan(100.0), comet.now)
    leave(comet, step(comet, draining, 1.0))
    for router in comet.routers.values():
        router.is_away = is_away
    found = finish(comet, draining)
    assert draining.is_over is not is_away
    found += step(comet, draining, 1.0)
    assert draining.is_over
    assert [type(one) for one in found] == [*([Note] if is_away else []), Drained]


def test_nobody_is_there_at_all() -> None:
    comet = Comet()
    assert finish(comet, Draining(DrainPlan(1.0), comet.now)) == [Drained()]
