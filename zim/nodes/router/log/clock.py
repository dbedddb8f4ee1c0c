"""Log time: what runs on it outlives a process: age, ttl, idempotency windows. Pure."""

from __future__ import annotations


class LogClock:
    """Milliseconds: at start the larger of wall clock and last stored, then carried on by the monotonic clock.

    So it never goes back, and a wall clock that is set while the router runs changes nothing.
    """

    def __init__(self, last_stored_ms: int, wall_s: float, now: float) -> None:
        """
        Args:
            last_stored_ms: the newest log time there is.
            wall_s: the wall clock.
            now: the monotonic clock, at the same moment.
        """
        self._offset_ms = max(last_stored_ms, int(wall_s * 1000)) - int(now * 1000)

    def at(self, now: float) -> int:
        """Log time at an instant of the monotonic clock."""
        return self._offset_ms + int(now * 1000)
