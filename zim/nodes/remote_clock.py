"""What another node's log time is, as two bounds around our own clock. Pure.

The other one has read its clock between our question and its answer. So each answer bounds how far the two clocks are
apart, and all of them together bound it to the fastest way there and back (Cristian, "Probabilistic clock
synchronization", 1989). Monotonic clocks of two machines drift, so old bounds widen.
"""

from __future__ import annotations

DRIFT = 2e-4  # of one clock against the other: more than quartz has


class RemoteClock:
    """Log time of one router, as far as we know.

    Attributes:
        term: the run of the router that it is known of; a later one may have moved log time on.
    """

    def __init__(self) -> None:
        self.term = 0
        self._low_ms, self._high_ms = 0.0, 0.0  # of what is to be added to ours
        self._at: float | None = None

    def heard(self, term: int, asked_at: float, now: float, their_ms: int) -> None:
        """An answer has come. One of an earlier run is passed over.

        Args:
            asked_at: when we asked; monotonic seconds of our clock, as now.
            their_ms: log time when it was given, in whole ms.
        """
        if term < self.term:
            return
        low, high = their_ms - now * 1000, their_ms + 1 - asked_at * 1000
        if self._at is not None and term == self.term:
            drift_ms = (now - self._at) * 1000 * DRIFT
            low, high = max(low, self._low_ms - drift_ms), min(high, self._high_ms + drift_ms)
            if low > high:  # it has jumped
                low, high = their_ms - now * 1000, their_ms + 1 - asked_at * 1000
        self.term, self._low_ms, self._high_ms, self._at = term, low, high, now

    def is_over(self, expires_ms: int, now: float) -> bool:
        """Whether a moment of its log time may have come. Not before anything is known."""
        return self._at is not None and now >= self.until(expires_ms)

    def until(self, expires_ms: int) -> float:
        """The first instant of our clock at which that moment may have come; for ever before anything is known."""
        return (expires_ms - self._high_ms) / 1000 if self._at is not None else float("inf")

    def at_least(self, at: float) -> int | None:
        """Its log time at an instant of our clock, or less; nothing before anything is known."""
        return int(at * 1000 + self._low_ms) if self._at is not None else None
