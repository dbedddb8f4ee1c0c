"""Log time: what runs on it outlives a process: age, ttl, idempotency windows. Pure."""

from __future__ import annotations

from collections.abc import Callable


class LogClock:
    """Milliseconds: at start the larger of wall clock and last stored, then carried on by the monotonic clock.

    So it never goes back, and a wall clock that is set while the router runs changes nothing.
    """

    def __init__(self, last_stored_ms: int, wall_s: float, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._offset_ms = max(last_stored_ms, int(wall_s * 1000)) - int(monotonic() * 1000)

    def now_ms(self) -> int:
        """Log time."""
        return self._offset_ms + int(self._monotonic() * 1000)
