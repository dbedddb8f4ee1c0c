"""The slow way by which trimming finds what may go: a sweep over all streams, some at a time. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from zim.nodes.router.log.standings import Overfull

SWEPT_AT_ONCE = 500  # streams looked at in one step of the sweep
SWEEP_MS = 10_000  # from the start of a sweep to the next one's, at least


@dataclass(slots=True)
class Sweep:
    """How far the sweep of a shard is. An engine adds the step.

    Attributes:
        due: streams found, to be looked at closely, and how many of their records may go.
        at: the id of the last stream that was looked at; 0 between two sweeps.
        started_ms: log time.
    """

    due: dict[str, int] = field(default_factory=dict)
    at: int = 0
    started_ms: int = -SWEEP_MS

    def is_resting(self, now_ms: int) -> bool:
        """Whether the last one is through, and the next one has time."""
        return not self.at and now_ms - self.started_ms < SWEEP_MS

    def go_on(self, made: int, overfull: Overfull, step: Callable[[], None]) -> None:
        """Some steps: over more streams than were made since the last ones, so that it has an end. Switches if `step`
        does."""
        for _ in range(1 + 2 * max(0, made) // SWEPT_AT_ONCE):
            step()
            if not self.at:
                break
        for stream in self.due:
            overfull.drop(stream)

    def backlog(self, overfull: Overfull) -> int:
        """How many records may go, of which it is known."""
        due = list(self.due.items())  # a step may go on in a thread
        return overfull.records + sum(records for name, records in due if name not in overfull)

    def take(self, overfull: Overfull, most: int, before_ms: int, *, sweep_first: bool) -> dict[str, int]:
        """Some streams to look at, which have about so many records too many: more would be looked at in vain."""
        taken = {} if sweep_first and self.due else overfull.take(most, before_ms)
        if not taken:
            for name, records in self.due.items():
                if most <= 0:
                    break
                taken[name] = records
                most -= records
            for name in taken:
                del self.due[name]
        return taken
