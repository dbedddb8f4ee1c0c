"""Requests under way: who was asked what, who has answered, whom to ask again. The one such loop of zim. Pure.

A `Call` is one request until it is over: it says whom to ask and with which message, and decides what an answer, a
silence or a peer that is away mean for it. `Calls` numbers the attempts, matches the answers, and keeps the time. Who
is asked may be a node, or a shard: then it is whoever owns that now.
"""

from __future__ import annotations

import heapq
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from zim.nodes.effects import Effect, Send
from zim.protocol.message import Message

RETRY_S = 0.02  # until a peer that could not be reached is tried again


class Call(ABC):
    """One request, until it is over.

    Attributes:
        is_over: nothing more is to be asked.
        again_at: when the next attempt is due; monotonic seconds.
    """

    __slots__ = ("again_at", "is_over")

    def __init__(self) -> None:
        self.is_over = False
        self.again_at = 0.0

    @abstractmethod
    def attempt(self, req: int, now: float) -> tuple[str, Message, int, float]:
        """The next attempt.

        Args:
            req: its number.

        Returns:
            Who is asked, the message, its size in bytes, and the deadline of its answer.
        """

    @abstractmethod
    def on_answer(self, m: Any, now: float) -> None:
        """The peer has answered. Unless the request is over now, the rest of the answer is waited for."""

    @abstractmethod
    def on_silence(self, why: str, now: float) -> None:
        """An attempt went out and will not be answered. The peer may have acted upon it. why: without its name."""

    @abstractmethod
    def on_not_sent(self, now: float) -> None:
        """An attempt never left: nobody can have acted upon it."""


class _Attempt(NamedTuple):
    """asked: a node, or a shard; peer: the node."""

    call: Call
    asked: str
    peer: str


def _itself(node: str) -> str:
    return node


class Calls:
    """All requests of one node that are under way."""

    def __init__(self, peer_of: Callable[[str], str] = _itself) -> None:
        """
        Args:
            peer_of: the node for who is asked; "" if nobody is known.
        """
        self._peer_of = peer_of
        self._reqs = itertools.count(1)
        self._waiting: dict[int, _Attempt] = {}
        self._nowhere: list[int] = []  # attempts for which nobody is known
        self._deadlines: list[tuple[float, int]] = []  # a heap, of attempts; some of them are answered
        self._later: list[tuple[float, int, Call]] = []  # a heap, of requests that are to be tried again

    def __len__(self) -> int:
        return len(self._waiting) + len(self._later)

    def begin(self, call: Call, now: float) -> list[Effect]:
        """The first attempt of a request, or the next one."""
        req = next(self._reqs)
        asked, message, size, deadline = call.attempt(req, now)
        peer = self._peer_of(asked)
        self._waiting[req] = _Attempt(call, asked, peer)
        if not peer:
            self._nowhere.append(req)
            return []
        heapq.heappush(self._deadlines, (deadline, req))
        return [Send(peer, message, size)]

    def on_answer(self, m: Any, now: float) -> Call | None:
        """An answer has come, to all that was asked or to a part. Returns whose it is; None if nobody waits for it."""
        attempt = self._waiting.get(m.req)
        if attempt is None:
            return None
        attempt.call.on_answer(m, now)
        if attempt.call.is_over:
            del self._waiting[m.req]
        return attempt.call

    def on_not_sent(self, req: int, now: float) -> Call | None:
        """An attempt never left. Returns whose it was."""
        attempt = self._waiting.pop(req, None)
        if attempt is None:
            return None
        attempt.call.on_not_sent(now)
        self._schedule(attempt.call)
        return attempt.call

    def on_gone(self, peer: str, now: float) -> list[Call]:
        """The link to a peer has broken: what was asked will not be answered. Returns whose that was."""
        lost = [req for req, attempt in self._waiting.items() if attempt.peer == peer]
        return [self._silent(req, "the connection broke", now) for req in lost]

    def on_moved(self, shard: str, now: float) -> list[Call]:
        """Another node owns a shard: who owned it answers no more. Returns whose questions that were."""
        here = "", self._peer_of(shard)
        lost = [req for req, attempt in self._waiting.items() if attempt.asked == shard and attempt.peer not in here]
        return [self._silent(req, "another router has taken over", now) for req in lost]

    def on_tick(self, now: float) -> tuple[list[Effect], list[Call]]:
        """Time has passed. Returns attempts that are due, and whose attempts were not answered in time, or not made."""
        nowhere, self._nowhere = self._nowhere, []
        silent = [call for req in nowhere if (call := self.on_not_sent(req, now)) is not None]
        while self._deadlines and self._deadlines[0][0] <= now:
            _, req = heapq.heappop(self._deadlines)
            if req in self._waiting:
                silent.append(self._silent(req, "no answer in time", now))
        due: list[Effect] = []
        while self._later and self._later[0][0] <= now:
            due += self.begin(heapq.heappop(self._later)[2], now)
        return due, silent

    def _silent(self, req: int, why: str, now: float) -> Call:
        call = self._waiting.pop(req).call
        call.on_silence(why, now)
        self._schedule(call)
        return call

    def _schedule(self, call: Call) -> None:
        if not call.is_over:
            heapq.heappush(self._later, (call.again_at, next(self._reqs), call))
