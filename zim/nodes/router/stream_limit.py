"""How many pushes the stream of each recipient takes: `[limits] pushes_per_stream`. Pure: `now` is an argument."""

from __future__ import annotations

from collections.abc import Sequence

from zim.fabric.buckets import Buckets, Rate, renewed
from zim.fabric.refusals import Refusals

PER_STREAM = "pushes_per_stream"  # of [limits]


class StreamLimit:
    """One router's, which owns these streams: so nobody else counts.

    Attributes:
        refusals: pushes that were too many.
    """

    def __init__(self) -> None:
        self.refusals = Refusals((PER_STREAM,))
        self._buckets: Buckets[str] | None = None

    def follow(self, rate: Rate | None) -> None:
        """From now on this one; None: there is no limit. All streams begin anew with another rate."""
        self._buckets = renewed(self._buckets, rate)

    def over(self, streams: Sequence[str], now: float) -> tuple[int, float]:
        """Counts a push into all of these streams, or says why it is one too many, and then it is in none.

        Returns:
            Which of them has too much, from 1, and in how many seconds it has room. 0 if it is counted.
        """
        buckets = self._buckets
        if buckets is None:
            return 0, 0.0
        for at, stream in enumerate(streams, 1):
            if wait_s := buckets.wait_s(stream, 1.0, now):
                self.refusals.count(PER_STREAM, stream)
                return at, wait_s
        for stream in streams:
            buckets.take(stream, 1.0, now)
        return 0, 0.0
