"""How often somebody did more than a limit allows: for metrics, and gathered for the log. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Gathered(NamedTuple):
    """What was refused since one asked last.

    Attributes:
        limit: its name in the topology.
        times: how often.
        last: whom, the last time.
    """

    limit: str
    times: int
    last: str


class Refusals:
    """Counts of some limits.

    Attributes:
        by_limit: since the start.
    """

    def __init__(self, limits: Iterable[str]) -> None:
        self.by_limit = dict.fromkeys(limits, 0)
        self._fresh: dict[str, Gathered] = {}

    def count(self, limit: str, whom: str) -> None:
        """One more."""
        self.by_limit[limit] += 1
        before = self._fresh.get(limit)
        self._fresh[limit] = Gathered(limit, 1 if before is None else before.times + 1, whom)

    def news(self) -> list[Gathered]:
        """All since the last time."""
        fresh, self._fresh = self._fresh, {}
        return list(fresh.values())
