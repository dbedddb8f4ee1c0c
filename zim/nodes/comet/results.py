"""What became of entries, counted in sessions, and told to the router until it has heard. Pure: no socket, no clock."""

from __future__ import annotations

from zim.fabric.limits import RESULTS
from zim.protocol.messages import Result

RENEWS = 8  # of which it is remembered what they said: an answer comes before that, or not at all


class Row:
    """What became of one entry so far; what is in none of the four yet is pending."""

    __slots__ = ("_reports", "delivered", "expired", "gone", "n", "shed", "targeted", "version")

    def __init__(self, reports: Reports, n: int) -> None:
        self._reports, self.n = reports, n
        self.targeted = self.delivered = self.gone = self.shed = self.expired = 0
        self.version = 0

    def changed(self) -> None:
        """Its numbers are to be told (again)."""
        self.version += 1
        self._reports.waiting[self.n] = self

    def expire(self, sessions: int) -> None:
        """So many pending ones will not get it any more: it would come too late."""
        self.expired += sessions
        self._reports.settled["expired"] += sessions
        self.changed()

    def settle(self, outcome: str) -> None:
        """One pending session is "delivered", "gone", "shed" or "expired"."""
        setattr(self, outcome, getattr(self, outcome) + 1)
        self._reports.settled[outcome] += 1
        self.changed()


class Reports:
    """The rows of one registration at one router.

    Attributes:
        waiting: rows that the router is not known to have heard as they are, by entry.
        settled: see Link.
    """

    def __init__(self, settled: dict[str, int]) -> None:
        self.settled = settled
        self.waiting: dict[int, Row] = {}
        self._said: dict[int, list[tuple[Row, int]]] = {}  # by Renew: rows, and which version of them

    def say(self, renew: int) -> list[Result]:
        """The results that go with a Renew."""
        if not self.waiting:
            return []
        rows = [row for row, _ in zip(self.waiting.values(), range(RESULTS), strict=False)]
        self._said[renew] = [(row, row.version) for row in rows]
        while len(self._said) > RENEWS:
            del self._said[next(iter(self._said))]
        return [Result(r.n, r.targeted, r.delivered, r.gone, r.shed, r.expired) for r in rows]

    def heard(self, renew: int) -> None:
        """The router has answered a Renew: what went with it is known there."""
        for row, version in self._said.pop(renew, ()):
            if row.version == version:
                self.waiting.pop(row.n, None)
