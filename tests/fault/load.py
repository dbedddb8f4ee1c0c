"""A load that checks itself: subscribers who note what they get, a publisher who notes what was accepted."""

from __future__ import annotations

import http.client
import itertools
import json
from collections import Counter

import gevent

from tests.harness import Client, Fabric, wait_until


class Subscriber:
    """One client in room 1, who may lose its comet."""

    def __init__(self, fabric: Fabric, comet: str, uid: int, is_ws: bool) -> None:
        self.comet, self.uid = comet, uid
        self.client = Client((fabric.ws if is_ws else fabric.tcp)[comet], str(uid), is_ws)

    @property
    def numbers(self) -> list[int]:
        """The numbers of the pushes that came, in the order in which they came."""
        return [json.loads(body)["n"] for body in self.client.bodies]


class Publisher:
    """Pushes numbered messages to room 1, through every logic in turn, one at a time.

    Attributes:
        accepted: the numbers to which HTTP answered success.
        answers: how often each HTTP status came; 0 for a connection that broke.
    """

    def __init__(self, fabric: Fabric, rate: float) -> None:
        self.accepted: list[int] = []
        self.answers: Counter[int] = Counter()
        self._fabric, self._pause_s = fabric, 1 / rate
        self._is_stopping = False
        self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        logics = itertools.cycle(self._fabric.http)
        for n in itertools.count(1):
            if self._is_stopping:
                return
            try:
                status, answer = self._fabric.request("POST", "/1/push/room?rid=1", json.dumps({"n": n}), next(logics))
            except (OSError, http.client.HTTPException):
                status, answer = 0, None
            self.answers[status] += 1
            if status == 200:
                assert answer == {"ret": 1}
                self.accepted.append(n)
            gevent.sleep(self._pause_s)

    def push_more(self, count: int) -> None:
        """Waits until that many more are accepted."""
        target = len(self.accepted) + count
        wait_until(lambda: len(self.accepted) >= target, f"{count} more pushes are accepted: {self.answers}")

    def stop(self) -> list[int]:
        """Ends it; returns what was accepted."""
        self._is_stopping = True
        self._greenlet.join()
        return self.accepted


def subscribe(fabric: Fabric, count: int) -> list[Subscriber]:
    """That many subscribers: over all comets, half of them WebSocket."""
    comets = list(fabric.tcp)
    jobs = [
        gevent.spawn(Subscriber, fabric, comets[i % len(comets)], 1000 + i, i // len(comets) % 2 == 1)
        for i in range(count)
    ]
    gevent.joinall(jobs, raise_error=True)
    return [job.get() for job in jobs]


def check(subscribers: list[Subscriber], accepted: list[int]) -> None:
    """Every one of them has all that was accepted, in order, nothing twice. What got no answer may have come too."""
    last = accepted[-1]
    for s in subscribers:
        wait_until(lambda s=s: last in s.numbers, f"user {s.uid} on {s.comet} gets {last}")  # type: ignore[misc]
    must = set(accepted)
    for s in subscribers:
        got = s.numbers
        assert got == sorted(set(got)), f"user {s.uid} on {s.comet}: repeated or out of order: {got}"
        missing = must - set(got)
        assert not missing, f"user {s.uid} on {s.comet} misses {sorted(missing)}"
