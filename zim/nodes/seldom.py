"""Lines of the log that somebody could make many of: each is written once, then with its number now and then. Pure."""

from __future__ import annotations

EVERY_S = 10.0
MOST = 1_000  # things; then all begins anew


class Seldom:
    """How often the same has happened, and when that is due to be said."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[float, int]] = {}  # when, and how often since

    def times(self, what: str, now: float) -> int:
        """It has happened again. How often since it was said last, if it is to be said now; else 0.

        Args:
            now: monotonic seconds.
        """
        said_at, times = self._said.get(what, (now - EVERY_S, 0))
        if now - said_at < EVERY_S:
            self._said[what] = said_at, times + 1
            return 0
        if len(self._said) >= MOST:
            self._said.clear()
        self._said[what] = now, 0
        return times + 1
