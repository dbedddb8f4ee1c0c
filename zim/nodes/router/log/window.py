"""The last seconds of a log, in its owners' time."""

from __future__ import annotations

from collections.abc import Sequence


class Window:
    """What was appended after a log time, or shortly before it. Log time may jump where another owner's clock goes on
    from there; how long that took nobody knows, so it counts for nothing.
    """

    def __init__(self, upto_ms: int, for_ms: int, takes: Sequence[int] = ()) -> None:
        """
        Args:
            upto_ms: log time; what is after it is in the window.
            for_ms: how much of the time before it is.
            takes: log times at which the owner changed, the newest first.
        """
        self._at_ms, self._left_ms = upto_ms, for_ms
        self._takes, self._next = takes, 0

    def has(self, time_ms: int) -> bool:
        """Whether an append is in it. To be asked from the newest on, until one is not: what waited for a comet may be
        some seconds older than what came before it.
        """
        takes = self._takes
        while self._next < len(takes) and time_ms <= takes[self._next]:
            self._at_ms = min(self._at_ms, takes[self._next])
            self._next += 1
        if time_ms < self._at_ms:
            self._left_ms -= self._at_ms - time_ms
            self._at_ms = time_ms
        return self._left_ms >= 0
