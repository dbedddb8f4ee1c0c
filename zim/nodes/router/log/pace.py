"""How much trimming lets go at once: so that it is faster than appends, in steps no longer than theirs. Pure."""

from __future__ import annotations

from dataclasses import dataclass

AT_ONCE = 128  # records that go in one transaction, at least: appends wait for it
MOST_AT_ONCE = 2_048  # at most, unless one append wrote half as many


@dataclass(slots=True)
class Pace:
    """How many records one transaction takes: twice what appends have written since the one before.

    Attributes:
        owed: records, or keys if there were more, that appends have written and trimming has not matched.
        largest: that one append wrote meanwhile. A step twice as long matches it, though others come in between.
    """

    owed: int = 0
    largest: int = 0

    def wrote(self, records: int) -> None:
        """An append wrote so many."""
        self.owed += records
        self.largest = max(self.largest, records)

    def step(self) -> int:
        """How many may go now."""
        most = max(AT_ONCE, min(2 * self.owed, max(MOST_AT_ONCE, 2 * self.largest)))
        self.owed = max(0, self.owed - most // 2)
        if not self.owed:
            self.largest = 0
        return most
