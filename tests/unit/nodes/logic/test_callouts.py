"""What the application is asked: each question once, so many at a time, and not at all while it does not answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from zim.nodes.effects import Effect, Note
from zim.nodes.logic import callouts
from zim.nodes.logic.callouts import FAILURES, MOST_OPEN_S, OPEN_S, Caller, CallOut, NoAnswer, Reply

URL = "https://app.example.com/zim/connect"
TIMEOUT_S = 2.0
LATE = "no answer within 2 s"
OPEN = "silence: the circuit is open"
BUSY = "silence: too many questions wait"


class Asker:
    """Who asks.

    Attributes:
        caller: asked questions; most: how many of them at once.
        under_way: requests that have not ended, by number.
        told: answers, by ticket, in order.
        notes: of the log.
    """

    def __init__(self, most: int = 2) -> None:
        self.caller: Caller[str] = Caller("connect", URL, TIMEOUT_S, most, None, _read, _silence, _age)
        self.most = most
        self.under_way: dict[int, CallOut] = {}
        self.told: list[tuple[Any, str]] = []
        self.notes: list[Note] = []

    def ask(self, key: str, ticket: Any = None, now: float = 0.0) -> str | None:
        """The answer, if it is there at once."""
        out: list[Effect] = []
        found = self.caller.ask(key, key.encode(), ticket, now, out)
        self._take(out)
        return found

    def reply(self, number: int, reply: Reply | str, now: float = 0.0) -> None:
        del self.under_way[number]
        out: list[Effect] = []
        self.told += self.caller.on_reply(number, reply, now, out)
        self._take(out)

    def answer(self, number: int, text: str, now: float = 0.0) -> None:
        """With 200. text: "yes", or "yes 60" if it holds for a minute."""
        self.reply(number, Reply(200, text.encode()), now)

    def tick(self, now: float) -> None:
        self.told += self.caller.on_tick(now)

    def fail(self, count: int, now: float = 0.0) -> None:
        """So many questions, one after the other, are not answered."""
        for _ in range(count):
            assert self.ask("fails", "fails", now) is None
            self.reply(max(self.under_way), LATE, now)

    def _take(self, out: list[Effect]) -> None:
        for effect in out:
            if isinstance(effect, CallOut):
                assert effect.number not in self.under_way
                self.under_way[effect.number] = effect
            else:
                assert isinstance(effect, Note)
                self.notes.append(effect)

    @property
    def bodies(self) -> list[bytes]:
        """Of all requests under way."""
        return [request.body for request in self.under_way.values()]


def _read(reply: Reply) -> tuple[str, float]:
    if reply.status != 200:
        raise NoAnswer(f"it answers with status {reply.status}")
    text, _, holds_s = reply.body.decode().partition(" ")
    return text, float(holds_s or 0)


def _silence(why: str) -> str:
    return f"silence: {why}"


def _age(answer: str, seconds: float) -> str:
    return f"{answer}, {seconds:g} s ago"


def test_a_question_is_a_request_and_its_answer_goes_to_who_asked() -> None:
    asker = Asker()
    assert asker.ask("7", "ticket") is None
    assert list(asker.under_way.values()) == [CallOut(asker.caller, 1, URL, b"7", TIMEOUT_S, None)]
    assert asker.caller.waiting == 1
    asker.answer(1, "yes")
    assert asker.told == [("ticket", "yes")]
    assert asker.caller.waiting == 0
    assert asker.caller.results == {"answered": 1, "cached": 0, "failed": 0, "not_asked": 0}


def test_the_same_question_is_asked_once_however_many_wait_for_it() -> None:
    asker = Asker()
    for ticket in range(100):
        assert asker.ask("7", ticket) is None
    assert asker.bodies == [b"7"]
    asker.answer(1, "yes")
    assert asker.told == [(ticket, "yes") for ticket in range(100)]
    assert asker.ask("7", "later") is None
    assert asker.bodies == [b"7"]


def test_so_many_requests_are_under_way_and_the_others_wait_their_turn() -> None:
    asker = Asker(most=2)
    for key in "abcde":
        asker.ask(key, key)
    assert asker.bodies == [b"a", b"b"]
    assert asker.caller.waiting == 5
    asker.ask("d", "d too")
    asker.answer(2, "yes")
    assert asker.bodies == [b"a", b"c"]
    for number in (1, 3, 4, 5):
        asker.answer(number, "yes")
    assert [ticket for ticket, _ in asker.told] == ["b", "a", "c", "d", "d too", "e"]


def test_who_waits_for_longer_than_an_answer_may_take_is_told_so() -> None:
    asker = Asker(most=1)
    asker.ask("a", "a", 0.0)
    asker.ask("b", "b", 0.5)
    asker.ask("c", "c", 1.0)
    asker.ask("b", "b too", 2.0)
    asker.tick(2.5)
    assert asker.told == []
    asker.tick(2.6)
    assert asker.told == [("b", BUSY), ("b too", BUSY)]
    asker.answer(1, "yes", 2.7)
    assert asker.bodies == [b"c"]
    assert asker.caller.results["not_asked"] == 1


def test_when_very_many_wait_who_comes_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callouts, "WAITING", 2)
    asker = Asker(most=1)
    assert [asker.ask(key, key) for key in "abcd"] == [None, None, None, BUSY]
    assert asker.ask("b", "b too") is None  # it is asked anyway
    asker.answer(1, "yes")
    assert asker.ask("d", "d") is None


# ---------------------------------------------------------------- what is kept


def test_an_answer_is_kept_for_as_long_as_it_says_and_grows_old() -> None:
    asker = Asker()
    asker.ask("7", "first", 10.0)
    asker.answer(1, "yes 60", 11.0)
    assert asker.told == [("first", "yes")]
    assert [asker.ask("7", "again", now) for now in (11.0, 41.0, 70.9)] == [
        "yes, 0 s ago",
        "yes, 30 s ago",
        "yes, 59.9 s ago",
    ]
    assert asker.bodies == []
    assert asker.ask("7", "too late", 71.0) is None
    assert asker.bodies == [b"7"]
    assert asker.caller.results["cached"] == 3


@pytest.mark.parametrize("reply", [Reply(200, b"yes 0"), Reply(200, b"yes -1"), Reply(500, b"yes 60"), LATE])
def test_what_does_not_hold_is_not_kept(reply: Reply | str) -> None:
    asker = Asker()
    asker.ask("7")
    asker.reply(1, reply)
    assert asker.ask("7") is None


def test_another_question_has_another_answer() -> None:
    asker = Asker()
    asker.ask("7")
    asker.answer(1, "yes 60")
    assert asker.ask("8") is None


def test_of_very_many_answers_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callouts, "CACHED", 2)
    asker = Asker()
    for number, key in enumerate("abc", 1):
        asker.ask(key)
        asker.answer(number, "yes 60")
    assert [asker.ask(key) for key in "bc"] == ["yes, 0 s ago"] * 2
    assert asker.ask("a") is None


def test_what_is_kept_is_given_while_the_application_is_away() -> None:
    asker = Asker()
    asker.ask("7")
    asker.answer(1, "yes 60")
    asker.fail(FAILURES)
    assert asker.ask("7", now=0.5) == "yes, 0.5 s ago"


# ---------------------------------------------------------------- an application that does not answer


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (LATE, LATE),
        ("connection refused", "connection refused"),
        (Reply(500, b"yes"), "it answers with status 500"),
        (Reply(302, b""), "it answers with status 302"),
    ],
)
def test_no_answer_is_told_to_who_waits_and_to_the_log(reply: Reply | str, why: str) -> None:
    asker = Asker()
    asker.ask("7", "a")
    asker.ask("7", "b")
    asker.reply(1, reply)
    assert asker.told == [("a", f"silence: {why}"), ("b", f"silence: {why}")]
    [note] = asker.notes
    assert (note.event, note.fields) == ("callout failed", {"callout": "connect", "reason": why})
    assert asker.caller.results["failed"] == 1


def test_after_some_failures_in_a_row_nobody_is_asked_for_a_while() -> None:
    asker = Asker()
    asker.fail(FAILURES - 1)
    assert not asker.caller.is_open
    asker.fail(1)
    assert asker.caller.is_open
    assert asker.notes[-1].event == "callout does not answer, nobody is asked for a while"
    assert asker.notes[-1].fields["closed_for_s"] == OPEN_S
    assert [asker.ask(key, now=OPEN_S - 0.01) for key in ("7", "8")] == [OPEN, OPEN]
    assert asker.bodies == []


def test_failures_that_are_not_in_a_row_open_nothing() -> None:
    asker = Asker()
    for number in range(3):
        asker.fail(FAILURES - 1)
        asker.ask("7", now=float(number))
        asker.answer(max(asker.under_way), "yes")
    assert not asker.caller.is_open


def test_then_one_tries_and_the_others_are_told_at_once_until_it_has_an_answer() -> None:
    asker = Asker(most=8)
    asker.fail(FAILURES)
    asker.told.clear()
    assert asker.ask("7", "probe", OPEN_S) is None
    assert asker.ask("7", "too", OPEN_S) is None  # the same question
    assert asker.ask("8", "other", OPEN_S) == OPEN
    assert asker.bodies == [b"7"]
    asker.answer(FAILURES + 1, "yes", OPEN_S + 1)
    assert asker.told == [("probe", "yes"), ("too", "yes")]
    assert not asker.caller.is_open
    assert asker.notes[-1].event == "callout answered again"
    for key in "abc":
        asker.ask(key, now=OPEN_S + 1)
    assert asker.bodies == [b"a", b"b", b"c"]


def test_a_try_that_fails_has_it_closed_for_longer_and_longer() -> None:
    asker = Asker()
    asker.fail(FAILURES)
    now, closed = 0.0, []
    for _ in range(8):
        closed.append(asker.notes[-1].fields["closed_for_s"])
        assert asker.ask("7", now=now + closed[-1] - 0.01) == OPEN
        now += closed[-1]
        asker.fail(1, now)
    assert closed == [1, 2, 4, 8, 16, MOST_OPEN_S, MOST_OPEN_S, MOST_OPEN_S]
    asker.ask("7", now=now + MOST_OPEN_S)
    asker.answer(max(asker.under_way), "yes", now + MOST_OPEN_S)
    asker.fail(FAILURES, now + MOST_OPEN_S)
    assert asker.notes[-1].fields["closed_for_s"] == OPEN_S


def test_who_waits_for_a_turn_when_it_opens_is_told_at_once() -> None:
    asker = Asker(most=1)
    asker.fail(FAILURES - 1)
    asker.told.clear()
    for key in "abc":
        asker.ask(key, key)
    asker.reply(FAILURES, LATE)
    assert asker.told == [("a", f"silence: {LATE}"), ("b", OPEN), ("c", OPEN)]
    assert asker.caller.waiting == 0


def test_what_was_under_way_when_it_opened_does_not_have_it_closed_for_longer() -> None:
    """All requests of one bad moment fail together. That is one failure of the application, and not sixty."""
    asker = Asker(most=64)
    for number in range(64):
        asker.ask(str(number), number)
    for number in range(1, 65):
        asker.reply(number, LATE, now=2.0)
    opened = [note for note in asker.notes if "closed_for_s" in note.fields]
    assert [note.fields["closed_for_s"] for note in opened] == [OPEN_S]
    assert asker.ask("7", now=2.0 + OPEN_S) is None


def test_nobody_is_left_to_wait_for_what_was_under_way_when_it_opened() -> None:
    asker = Asker(most=64)
    for number in range(FAILURES + 1):
        asker.ask(str(number), number)
    for number in range(1, FAILURES + 1):
        asker.reply(number, LATE)
    assert asker.bodies == [str(FAILURES).encode()]
    found = asker.ask("7", "ticket", OPEN_S)
    assert found == OPEN or b"7" in asker.bodies


def test_an_answer_to_what_was_under_way_when_it_opened_closes_it() -> None:
    asker = Asker(most=64)
    for number in range(FAILURES + 1):
        asker.ask(str(number), number)
    for number in range(1, FAILURES + 1):
        asker.reply(number, LATE)
    asker.answer(FAILURES + 1, "yes", 0.5)
    assert not asker.caller.is_open
    assert asker.ask("7", now=0.5) is None


# ---------------------------------------------------------------- whatever happens


class AnyOrder(RuleBasedStateMachine):
    """Questions, answers, failures and time, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.asker = Asker(most=3)
        self.now = 0.0
        self.tickets = 0
        self.answered: list[int] = []
        self.until = 0.0  # when it may be tried again

    def _look(self, before: set[int]) -> None:
        """After every step."""
        begun = set(self.asker.under_way) - before
        if self.asker.caller.is_open:
            assert len(begun) <= 1
            assert not begun or self.now >= self.until
        for note in self.asker.notes:
            if "closed_for_s" in note.fields:
                self.until = self.now + note.fields["closed_for_s"]
        self.asker.notes.clear()
        self.answered += [ticket for ticket, _ in self.asker.told]
        self.asker.told.clear()

    @rule(key=st.sampled_from("abcdef"))
    def ask(self, key: str) -> None:
        before = set(self.asker.under_way)
        self.tickets += 1
        if self.asker.ask(key, self.tickets, self.now) is not None:
            self.answered.append(self.tickets)
        self._look(before)

    @precondition(lambda self: self.asker.under_way)
    @rule(
        data=st.data(),
        reply=st.sampled_from([Reply(200, b"yes"), Reply(200, b"yes 5"), Reply(200, b"yes 60"), Reply(500, b""), LATE]),
    )
    def a_request_ends(self, data: st.DataObject, reply: Reply | str) -> None:
        before = set(self.asker.under_way)
        self.asker.reply(data.draw(st.sampled_from(sorted(before))), reply, self.now)
        self._look(before)

    @precondition(lambda self: self.asker.under_way)
    @rule()
    def all_requests_fail(self) -> None:
        for number in sorted(self.asker.under_way):
            before = set(self.asker.under_way)
            self.asker.reply(number, LATE, self.now)
            self._look(before)

    @rule(seconds=st.sampled_from([0.02, 0.5, 1.0, 2.5, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        before = set(self.asker.under_way)
        self.asker.tick(self.now)
        assert set(self.asker.under_way) == before
        self._look(before)

    @invariant()
    def not_too_many_requests_are_under_way(self) -> None:
        assert len(self.asker.under_way) <= self.asker.most
        assert len(set(self.asker.bodies)) == len(self.asker.bodies)

    @invariant()
    def nobody_is_answered_twice(self) -> None:
        assert len(set(self.answered)) == len(self.answered)

    @invariant()
    def who_is_not_answered_waits_for_something(self) -> None:
        assert (self.tickets > len(self.answered)) == (self.asker.caller.waiting > 0)

    def teardown(self) -> None:
        """Each request ends, sooner or later. Then everybody has an answer, and nobody waits."""
        while self.asker.under_way:
            self.a_request_ends_at_last()
        self.asker.tick(self.now + TIMEOUT_S + 1)
        self._look(set())
        assert sorted(self.answered) == list(range(1, self.tickets + 1))
        assert self.asker.caller.waiting == 0

    def a_request_ends_at_last(self) -> None:
        before = set(self.asker.under_way)
        self.asker.reply(min(before), Reply(200, b"yes"), self.now)
        self._look(before)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=100, stateful_step_count=40)
