"""Pushes under way to logic nodes: what is sent next, what again, and what became of each. No socket, no clock.

    waiting ──take──► sent ──answered──► settled
       ▲                │ unavailable, unknown, silence, a broken link
       └──── later ◄────┘ until its time is over

Every push keeps its key, so an attempt too many pushes nothing twice. One attempt of which nobody knows what became
makes the whole push unknown until another one succeeds: `PushUnavailable` is said only where surely nothing was kept.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from zim.client.errors import PushConflict, PushError, PushRefused, PushUnavailable, PushUnknown
from zim.client.pushes import Accepted
from zim.protocol.messages import Submit, Submitted

FIRST_WAIT_S, MAX_WAIT_S = 0.05, 1.0
MESSAGE_BYTES = 200  # what a push counts for beside its body

Outcome = Accepted | PushError


P = TypeVar("P")
"""Whoever wants to know what became of a push."""


@dataclass(slots=True, eq=False)
class PushJob(Generic[P]):
    """One push on its way.

    Attributes:
        handle: who wants to know.
        give_up_at: no new attempt after this instant.
        attempts: how many were made.
        node: where the last one went, -1 before.
        deadline: when that one counts as not answered.
        may_be_kept: an attempt ended of which nobody knows what became.
        why: why the last attempt failed; retry_after_s: when the node says that another one is worth it, 0 if it does
            not.
    """

    submit: Submit
    handle: P
    size: int
    give_up_at: float
    attempts: int = 0
    node: int = -1
    deadline: float = 0.0
    may_be_kept: bool = False
    why: str = "no logic node is connected"
    retry_after_s: float = 0.0


class Pipeline(Generic[P]):
    """The pushes of one publisher, and which node gets them.

    Attributes:
        node: the number of the node that is pushed to.
    """

    def __init__(self, n_nodes: int, answer_s: float) -> None:
        self.node = 0
        self._connected = [False] * n_nodes
        self._answer_s = answer_s
        self._waiting: deque[PushJob[P]] = deque()
        self._later: list[tuple[float, int, PushJob[P]]] = []
        self._sent: dict[int, PushJob[P]] = {}  # by the number of the request, oldest attempt first
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._later) + len(self._sent)

    @property
    def can_send(self) -> bool:
        """Something waits, and the node that is pushed to is connected."""
        return bool(self._waiting) and self._connected[self.node]

    def add(self, jobs: Iterable[PushJob[P]]) -> None:
        """New pushes, in the order in which they are to go."""
        self._waiting.extend(jobs)

    def take(self, max_bytes: int, now: float) -> list[Submit]:
        """What goes next, in one frame. From now on it counts as sent."""
        submits: list[Submit] = []
        size = 0
        while self._waiting:
            job = self._waiting[0]
            if submits and size + job.size > max_bytes:
                break
            self._waiting.popleft()
            size += job.size
            job.node, job.deadline, job.attempts = self.node, now + self._answer_s, job.attempts + 1
            self._sent[job.submit.req] = job
            submits.append(job.submit)
        return submits

    def untake(self, submits: list[Submit]) -> None:
        """They could not be sent after all."""
        jobs = [self._sent.pop(submit.req) for submit in submits]
        for job in jobs:
            job.attempts -= 1
        self._waiting.extendleft(reversed(jobs))

    def connected(self, node: int) -> None:
        """A node can be reached."""
        self._connected[node] = True
        if not self._connected[self.node]:
            self.node = node

    def lost(self, node: int, now: float) -> None:
        """The link to a node broke: what it has not answered goes to another one."""
        self._connected[node] = False
        self._move_on(node)
        again = [job for job in self._sent.values() if job.node == node]
        for job in again:
            del self._sent[job.submit.req]
            job.may_be_kept, job.why = True, "the link to the logic node broke before it answered"
        self._again(again, now)

    def answered(self, node: int, answers: Iterable[Submitted], now: float) -> list[tuple[PushJob[P], Outcome]]:
        """Answers of a node; gives what is settled by them."""
        settled: list[tuple[PushJob[P], Outcome]] = []
        for answer in answers:
            job = self._sent.get(answer.req)
            if job is None or (job.node != node and answer.status in ("unavailable", "unknown")):
                continue  # settled before; or an older attempt's, and the present one may do better
            del self._sent[answer.req]
            key, why = job.submit.key, answer.why
            if answer.status == "ok":
                settled.append((job, Accepted(answer.push_id)))
            elif answer.status == "conflict":
                text = why or "another push with this id has been accepted before"
                settled.append((job, PushConflict(text, id=key)))
            elif answer.status in ("invalid", "forbidden", "unauthorized"):
                settled.append((job, PushRefused(f"refused: {why or 'no reason given'}", id=key)))
            else:
                job.may_be_kept |= answer.status == "unknown"
                job.why = why or f"the logic node said {answer.status}"
                job.retry_after_s = answer.retry_ms / 1000
                wait_s = min(FIRST_WAIT_S * 2.0 ** min(job.attempts - 1, 10), MAX_WAIT_S)
                wait_s = max(wait_s, min(job.retry_after_s, max(0.0, job.give_up_at - now)))
                heapq.heappush(self._later, (now + wait_s, next(self._numbers), job))
        return settled

    def tick(self, now: float) -> list[tuple[PushJob[P], Outcome]]:
        """Time has passed: what was not answered is sent again; gives what is settled because its time is over."""
        silent = []
        for job in self._sent.values():
            if job.deadline > now:
                break
            silent.append(job)
        for job in silent:
            del self._sent[job.submit.req]
            job.may_be_kept, job.why, job.retry_after_s = True, f"no answer in {self._answer_s:g} s", 0.0
        if silent:
            self._move_on(silent[0].node)
        ready = []
        while self._later and self._later[0][0] <= now:
            ready.append(heapq.heappop(self._later)[2])
        self._again(silent + ready, now)
        settled: list[tuple[PushJob[P], Outcome]] = []
        while self._waiting and self._ends_at(self._waiting[0]) <= now:
            job = self._waiting.popleft()
            settled.append((job, _give_up(job)))
        return settled

    def next_at(self) -> float:
        """When `tick` has something to do; infinite if never."""
        found = [self._later[0][0]] if self._later else []
        if self._sent:
            found.append(next(iter(self._sent.values())).deadline)
        if self._waiting:
            found.append(self._ends_at(self._waiting[0]))
        return min(found, default=float("inf"))

    def end(self) -> list[tuple[PushJob[P], Outcome]]:
        """It is over; gives what became of all that is not settled."""
        for job in self._sent.values():
            job.may_be_kept = True
        jobs = [*self._sent.values(), *self._waiting, *(job for _, _, job in self._later)]
        self._sent.clear()
        self._waiting.clear()
        self._later.clear()
        for job in jobs:
            job.why = "the publisher was closed before it was answered"
        return [(job, _give_up(job)) for job in jobs]

    def _ends_at(self, job: PushJob[P]) -> float:
        """When one that waits is given up. The first attempt waits for a connection as long as one for an answer."""
        return job.give_up_at if job.attempts else job.give_up_at + self._answer_s

    def _move_on(self, node: int) -> None:
        """If this is the node that is pushed to, takes the next one that is connected."""
        if node == self.node:
            n_nodes = len(self._connected)
            others = [(node + step) % n_nodes for step in range(1, n_nodes)]
            self.node = next((other for other in others if self._connected[other]), node)

    def _again(self, jobs: list[PushJob[P]], now: float) -> None:
        """Puts these before all others, those whose time is over first: `tick` finds them there."""
        over = [job for job in jobs if job.give_up_at <= now]
        rest = [job for job in jobs if job.give_up_at > now]
        self._waiting.extendleft(reversed(rest))
        self._waiting.extendleft(reversed(over))


def _give_up(job: PushJob[P]) -> PushError:
    key = job.submit.key
    if job.may_be_kept:
        return PushUnknown(f"it is not known whether the push was accepted: {job.why}", id=key)
    return PushUnavailable(f"not accepted: {job.why}", id=key, retry_after_s=job.retry_after_s)
