"""What logic asks of routers: who is asked, who is silent, and what is said where one does not answer."""

from __future__ import annotations

import itertools
from typing import Any, cast

import gevent
import msgspec
import pytest
from gevent.event import AsyncResult

from tests.garbage import circles
from zim.errors import Unavailable, Unknown
from zim.fabric.answers import Counts, Forgotten, Ledger, Receipt, Unread
from zim.fabric.principals import LOCAL
from zim.fabric.questions import ForgetComet, OnlineCounts, UnreadCount, WholeLedger
from zim.fabric.sharding import Shards
from zim.fabric.tally import Tally, account
from zim.nodes.effects import Effect, Send
from zim.nodes.logic.desk import Desk
from zim.nodes.logic.fabric import RouterFabric
from zim.nodes.logic.runner import LogicRunner, Settled
from zim.nodes.performer import Performer
from zim.nodes.placement import Placement
from zim.protocol.message import Message
from zim.protocol.messages import Answered, Ask, Read, Record, Records
from zim.topology.identity import Identity

NAMES = ["router-1", "router-2", "router-3"]
LEDGER = Ledger.of(1, account(Tally(2, 2), 0))
SILENT, AWAY = object(), object()  # it does not answer; it cannot be reached


class Router:
    """A router that answers as it is told.

    Attributes:
        asked: what it was, but for the number of the request.
    """

    def __init__(self, name: str, answers: list[Any]) -> None:
        self.name, self.answers = name, answers
        self.asked: list[Any] = []


class Driver(Performer):
    """Performs what logic's runner wants. Routers answer at once, and time flies when nobody does."""

    def __init__(self, routers: list[Router]) -> None:
        super().__init__()
        self.routers = {router.name: router for router in routers}
        self.runner = LogicRunner(
            Placement("logic-1", list(self.routers), list(self.routers)),
            lambda _: False,
            Desk(Identity(), {}, lambda: "id"),
            1 << 20,
            lambda: "id",
        )
        self.now = 0.0

    def perform_one(self, effect: Effect) -> None:
        match effect:
            case Send(peer=peer, message=message):
                self._answer(self.routers[peer], message)
            case Settled(ticket=AsyncResult() as ticket, outcome=outcome):
                ticket.set(outcome)
            case _:
                raise AssertionError(effect)

    def _tick(self) -> None:
        self.now += 1.0
        self.perform(self.runner.on_tick(self.now))

    def _answer(self, router: Router, m: Any) -> None:
        router.asked.append(msgspec.structs.replace(m, req=0))
        answer = router.answers.pop(0) if len(router.answers) > 1 else router.answers[0]
        self.now += 0.1
        if answer is SILENT:
            self.perform(self.runner.on_link(router.name, False, self.now))
        elif answer is AWAY:
            self.perform(self.runner.on_not_sent([m.req], self.now))
            gevent.spawn(self._tick)
        elif isinstance(answer, Message):
            self.perform(
                self.runner.on_answers(router.name, [msgspec.structs.replace(cast(Any, answer), req=m.req)], self.now)
            )
        else:
            self.perform(self.runner.on_answers(router.name, [Answered(m.req, router.name, answer)], self.now))


def fabric_of(*answers: Any) -> tuple[RouterFabric, list[Router]]:
    """A fabric of as many routers, each of which answers so; a list is of answers one after the other."""
    routers = [Router(n, a if isinstance(a, list) else [a]) for n, a in zip(NAMES, answers, strict=False)]
    driver = Driver(routers)
    return RouterFabric([r.name for r in routers], driver.runner, driver.perform), routers


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    instants = itertools.count()
    monkeypatch.setattr("zim.nodes.logic.fabric.time.monotonic", lambda: next(instants) / 1e6)


def plain(struct: Any) -> Any:
    """An answer as it comes off the wire."""
    return msgspec.to_builtins(struct)


def test_every_router_is_asked_and_the_answers_are_one() -> None:
    counts = [Counts({"a": n}, {f"comet-{n}": 1}, n) for n in (1, 2, 3)]
    fabric, routers = fabric_of(*map(plain, counts))
    assert fabric.ask(OnlineCounts(), LOCAL) == Counts({"a": 6}, {"comet-1": 1, "comet-2": 1, "comet-3": 1}, 6)
    assert [router.asked for router in routers] == [[Ask(router.name, 0, OnlineCounts())] for router in routers]


def test_a_piece_of_history_is_of_one_epoch() -> None:
    """A live-only stream's router is started anew between two pages."""
    one, other = (
        Records(0, "router-1", "r:1", epoch, 0, 9, [Record(n, "p", 5, b"%d" % n)], n)
        for epoch, n in (("live-1", 1), ("live-2", 2))
    )
    fabric, _ = fabric_of([one, other])
    piece = fabric.history("r:1", 0, 10, LOCAL)
    assert (piece.epoch, [m.body for m in piece.messages]) == ("live-1", [b"1"])


def test_only_the_owner_of_a_stream_is_asked() -> None:
    unread = Unread("u:7", "e", 3, 1, 2)
    fabric, routers = fabric_of(*[plain(unread)] * 3)
    assert fabric.ask(UnreadCount("7"), LOCAL) == unread
    assert [r.name for r in routers if r.asked] == [Shards(NAMES).of("u:7")]


def test_a_silent_router_is_named_at_once_where_the_question_says_so() -> None:
    for error in (SILENT, AWAY):
        fabric, _ = fabric_of(plain(LEDGER), error)
        found = fabric.ask(WholeLedger(), LOCAL)
        assert (found.pushes, found.silent, found.balanced) == (1, ["router-2"], False)


def test_without_a_router_there_are_no_counts() -> None:
    fabric, _ = fabric_of(plain(Counts({}, {}, 0)), SILENT)
    with pytest.raises(Unavailable, match="router-2: the connection broke"):
        fabric.ask(OnlineCounts(), LOCAL)


def test_an_order_without_an_answer_may_have_been_carried_out() -> None:
    fabric, _ = fabric_of(plain(Forgotten(1)), SILENT)
    with pytest.raises(Unknown, match="router-2: the connection broke"):
        fabric.ask(ForgetComet("comet-1"), LOCAL)
    fabric, _ = fabric_of(plain(Forgotten(1)), AWAY)
    with pytest.raises(Unknown, match="away"):  # by the others
        fabric.ask(ForgetComet("comet-1"), LOCAL)
    fabric, _ = fabric_of(AWAY, AWAY)
    with pytest.raises(Unavailable, match="away"):
        fabric.ask(ForgetComet("comet-1"), LOCAL)


def test_what_could_not_be_sent_is_tried_again() -> None:
    fabric, routers = fabric_of(plain(Forgotten(1)), [AWAY, AWAY, plain(Forgotten(2))])
    assert fabric.ask(ForgetComet("comet-1"), LOCAL) == Forgotten(3)
    assert len(routers[1].asked) == 3


def test_an_answer_that_is_none_is_as_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    fabric, _ = fabric_of(plain(LEDGER), {"pushes": "many"})
    assert fabric.ask(WholeLedger(), LOCAL).silent == ["router-2"]
    fabric, _ = fabric_of(plain(Counts({}, {}, 0)), {"rooms": 7})
    with pytest.raises(Unavailable, match="router-2: its answer is not understood"):
        fabric.ask(OnlineCounts(), LOCAL)
    assert [record.message for record in caplog.records] == ["answer not understood"] * 2


def test_a_receipt_is_asked_for_until_nothing_is_pending() -> None:
    pending, settled = (plain(Receipt.of("p", Tally(1, n), 0, {"kept": 1.0}, [])) for n in (0, 1))
    fabric, routers = fabric_of([pending, pending, settled])
    assert fabric.receipt("p", LOCAL).pending == 1
    assert fabric.receipt("p", LOCAL, 5.0).delivered == 1
    assert len(routers[0].asked) == 3


def test_history_is_read_page_by_page_and_its_silence_is_unavailable() -> None:
    pages = [Records(0, "router-1", "*", "e", 0, 2, [Record(n, "p", 5, b"x", n)], n) for n in (1, 2)]
    fabric, routers = fabric_of([*pages, SILENT])
    piece = fabric.history("*", 0, 10, LOCAL)
    assert ([m.offset for m in piece.messages], piece.first, piece.head) == ([1, 2], 1, 2)
    assert [(m.after, m.limit) for m in routers[0].asked if isinstance(m, Read)] == [(0, 10), (1, 9)]
    with pytest.raises(Unavailable):
        fabric.history("*", 0, 10, LOCAL)


def test_a_silent_router_leaves_no_circles() -> None:
    fabric, _ = fabric_of(plain(LEDGER), SILENT)
    fabric.ask(WholeLedger(), LOCAL)
    with circles() as left:
        fabric.ask(WholeLedger(), LOCAL)
    assert left == []


def test_who_says_that_a_stream_is_anothers_is_not_taken_for_an_empty_one() -> None:
    fabric, _ = fabric_of(*[None] * 3)
    with pytest.raises(Unavailable, match="says that u:7 is another's: the topologies differ"):
        fabric.ask(UnreadCount("7"), LOCAL)
    fabric, _ = fabric_of(*[Records(0, "router-1", "u:7", "", 0, 0, [], 0)] * 3)
    with pytest.raises(Unavailable, match="says that u:7 is another's: the topologies differ"):
        fabric.history("u:7", 0, 10, LOCAL)
