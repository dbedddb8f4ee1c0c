"""What is asked of the application over HTTP: so many requests at once, each answer cached for as long as it says.

The same question is asked once, however many wait for it. When the application does not answer several times in a row
the circuit opens: for a while nobody is asked, and who comes is told to try again at once. Then one tries. Pure.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from zim.nodes.effects import ERROR, INFO, Effect, Note

WAITING = 10_000  # questions that wait for their turn; above it who asks is told to try again
CACHED = 10_000  # answers
FAILURES = 5  # in a row, that open the circuit
OPEN_S, MOST_OPEN_S = 1.0, 30.0  # for which it is open: longer and longer

A = TypeVar("A")


class CallOut(Effect, frozen=True):
    """POST this JSON to a URL; the answer is handed to `on_reply` of whoever wants it.

    Attributes:
        caller: who wants it; number: names the question.
    """

    caller: Any
    number: int
    url: str
    body: bytes
    timeout_s: float
    ca: Path | None


class Reply(NamedTuple):
    """An HTTP answer."""

    status: int
    body: bytes


class NoAnswer(Exception):
    """What came is no answer to the question. Its text is for the log."""


class _Question(NamedTuple):
    key: Hashable
    body: bytes
    since: float


class Caller(Generic[A]):
    """One thing that the application is asked.

    Attributes:
        name: of it.
        results: how questions ended: "cached" and "answered", "failed", "not_asked".
        is_open: the circuit is.
    """

    def __init__(
        self,
        name: str,
        url: str,
        timeout_s: float,
        most: int,
        ca: Path | None,
        read: Callable[[Reply], tuple[A, float]],
        silence: Callable[[str], A],
        age: Callable[[A, float], A],
    ) -> None:
        """
        Args:
            most: requests under way at once.
            ca: of the URL's server; see Issuer.
            read: the answer in a reply, and for how many seconds it holds; or raises NoAnswer.
            silence: the answer where there is none. Its argument is for the log.
            age: an answer that was given so many seconds ago.
        """
        self.name, self._url, self._timeout_s, self._most, self._ca = name, url, timeout_s, most, ca
        self._read, self._silence, self._age = read, silence, age
        self.results = dict.fromkeys(("answered", "cached", "failed", "not_asked"), 0)
        self._cache: OrderedDict[Hashable, tuple[float, float, A]] = OrderedDict()
        self._waiters: dict[Hashable, list[Any]] = {}
        self._queue: deque[_Question] = deque()
        self._asked: dict[int, _Question] = {}
        self._number = 0
        self._failures = self._openings = 0
        self._open_until = 0.0
        self._probe = 0  # the number of the one request that tries, while the circuit is open

    @property
    def is_open(self) -> bool:
        """Nobody is asked, but for a try now and then."""
        return self._failures >= FAILURES

    @property
    def waiting(self) -> int:
        """Questions that are asked, or wait for their turn."""
        return len(self._asked) + len(self._queue)

    def ask(self, key: Hashable, body: bytes, ticket: Any, now: float, out: list[Effect]) -> A | None:
        """The answer, if it is known at once; else it comes later, for this ticket.

        Args:
            key: the same for the same question.
            out: takes what is to be done.
        """
        cached = self._cache.get(key)
        if cached is not None:
            at, until, answer = cached
            if now < until:
                self.results["cached"] += 1
                return self._age(answer, now - at)
            del self._cache[key]
        if (waiters := self._waiters.get(key)) is not None:
            waiters.append(ticket)
            return None
        if self.is_open and (self._probe or now < self._open_until):
            self.results["not_asked"] += 1
            return self._silence("the circuit is open")
        if len(self._queue) >= WAITING:
            self.results["not_asked"] += 1
            return self._silence("too many questions wait")
        self._waiters[key] = [ticket]
        self._queue.append(_Question(key, body, now))
        self._begin(out)
        return None

    def _begin(self, out: list[Effect]) -> None:
        while self._queue and (not self._probe if self.is_open else len(self._asked) < self._most):
            question = self._queue.popleft()
            self._number += 1
            self._asked[self._number] = question
            self._probe = self._number if self.is_open else 0
            out.append(CallOut(self, self._number, self._url, question.body, self._timeout_s, self._ca))

    def on_reply(self, number: int, reply: Reply | str, now: float, out: list[Effect]) -> list[tuple[Any, A]]:
        """A request has ended. reply: what came, or why nothing did. Returns who gets which answer."""
        question = self._asked.pop(number)
        counts = not self.is_open or number == self._probe  # others were under way when it opened
        if number == self._probe:
            self._probe = 0
        why = reply if isinstance(reply, str) else ""
        answer: A | None = None
        if not isinstance(reply, str):
            try:
                answer, holds_s = self._read(reply)
            except NoAnswer as e:
                why = str(e)
            else:
                self._keep(question.key, answer, holds_s, now)
        if answer is None:
            self._failed(why, now, out, counts)
            answer = self._silence(why)
        else:
            self.results["answered"] += 1
            if self.is_open:
                out.append(Note(INFO, "callout answered again", {"callout": self.name}))
            self._failures = self._openings = 0
        told = [(ticket, answer) for ticket in self._waiters.pop(question.key)]
        if self.is_open:
            told += self._give_up(self._queue, "the circuit is open")
        self._begin(out)
        return told

    def _keep(self, key: Hashable, answer: A, holds_s: float, now: float) -> None:
        if holds_s > 0:
            self._cache[key] = (now, now + holds_s, answer)
            if len(self._cache) > CACHED:
                self._cache.popitem(last=False)

    def _failed(self, why: str, now: float, out: list[Effect], counts: bool) -> None:
        self.results["failed"] += 1
        if not counts:
            return
        self._failures += 1
        if self.is_open:
            seconds = min(OPEN_S * 2**self._openings, MOST_OPEN_S)
            self._openings = min(self._openings + 1, 10)
            self._open_until = now + seconds
            fields = {"callout": self.name, "reason": why, "failures": self._failures, "closed_for_s": seconds}
            out.append(Note(ERROR, "callout does not answer, nobody is asked for a while", fields))
        else:
            out.append(Note(ERROR, "callout failed", {"callout": self.name, "reason": why}))

    def on_tick(self, now: float) -> list[tuple[Any, A]]:
        """Questions that have waited for their turn for too long."""
        late: deque[_Question] = deque()
        while self._queue and now - self._queue[0].since > self._timeout_s:
            late.append(self._queue.popleft())
        return self._give_up(late, "too many questions wait") if late else []

    def _give_up(self, questions: deque[_Question], why: str) -> list[tuple[Any, A]]:
        told: list[tuple[Any, A]] = []
        while questions:
            self.results["not_asked"] += 1
            answer = self._silence(why)
            told += [(ticket, answer) for ticket in self._waiters.pop(questions.popleft().key)]
        return told
