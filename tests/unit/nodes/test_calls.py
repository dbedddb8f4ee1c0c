"""Requests under way: each is answered once, or known to be silent, or known not to have left."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from zim.fabric.grants import Grant
from zim.nodes.calls import Call, Calls
from zim.nodes.effects import Send
from zim.protocol.logins import Auth, Authed
from zim.protocol.message import Message

ANSWER_S = 1.0
PAUSE_S = 0.5


class Question(Call):
    """Asks one of two peers in turn, three times at most; notes what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[int] = []
        self.heard: list[str] = []

    def attempt(self, req: int, now: float) -> tuple[str, Message, int, float]:
        assert not self.is_over
        assert now >= self.again_at
        assert len(self.sent) == len(self.heard), "two attempts at once"
        self.sent.append(req)
        return f"logic-{len(self.sent) % 2}", Auth(req, b"7", 1), 64, now + ANSWER_S

    def on_answer(self, m: Any, now: float) -> None:
        self.heard.append("answer")
        self.is_over = True

    def on_silence(self, why: str, now: float) -> None:
        self._again("silence", now)

    def on_not_sent(self, now: float) -> None:
        self._again("not sent", now)

    def _again(self, what: str, now: float) -> None:
        self.heard.append(what)
        self.is_over, self.again_at = len(self.sent) == 3, now + PAUSE_S


class Machine(RuleBasedStateMachine):
    """Answers, losses, broken links and time in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = Calls()
        self.now = 0.0
        self.questions: list[Question] = []
        self.flying: dict[int, str] = {}

    def _sent(self, effects: list[Any]) -> None:
        for effect in effects:
            assert isinstance(effect, Send)
            assert isinstance(effect.message, Auth)
            self.flying[effect.message.req] = effect.peer

    @rule()
    def begin(self) -> None:
        self.questions.append(Question())
        self._sent(self.calls.begin(self.questions[-1], self.now))

    @rule(index=st.integers(0, 50))
    def answer(self, index: int) -> None:
        if self.flying:
            req = list(self.flying)[index % len(self.flying)]
            del self.flying[req]
            self.calls.on_answer(Authed(req, Grant("7")), self.now)

    @rule(index=st.integers(0, 50))
    def lose(self, index: int) -> None:
        if self.flying:
            req = list(self.flying)[index % len(self.flying)]
            del self.flying[req]
            self.calls.on_not_sent(req, self.now)

    @rule(peer=st.sampled_from(["logic-0", "logic-1"]))
    def break_link(self, peer: str) -> None:
        self.calls.on_gone(peer, self.now)
        self.flying = {req: at for req, at in self.flying.items() if at != peer}

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.1]))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        due, silent = self.calls.on_tick(self.now)
        assert all(isinstance(call, Question) for call in silent)
        self._sent(due)

    @rule()
    def a_stranger_answers(self) -> None:
        assert self.calls.on_answer(Authed(1 << 40, Grant("7")), self.now) is None

    @invariant()
    def each_is_under_way_or_over(self) -> None:
        open_ = [q for q in self.questions if not q.is_over]
        assert len(self.calls) == len(open_)
        for q in self.questions:
            assert len(q.sent) - len(q.heard) in (0, 1)
            assert "answer" not in q.heard[:-1]

    def teardown(self) -> None:
        """In the end each one is over, whatever becomes of the rest."""
        for _ in range(10):
            self.tick(1.1)
        assert all(q.is_over for q in self.questions)
        assert len(self.calls) == 0
        assert self.calls._deadlines == []


Machine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestCalls = Machine.TestCase
