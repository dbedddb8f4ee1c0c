"""Log time: what runs on it outlives a process: age, ttl, idempotency windows. Pure."""

from __future__ import annotations

from copy import copy

MOST_AHEAD_MS = 3_600_000  # that one start moves log time forward


class LogClock:
    """Milliseconds: the last stored time, carried on at each start and then by the monotonic clock.

    A start moves it on to the wall clock, but by an hour at most: what is deleted for its age stays deleted, so nothing
    rests on a wall clock that may be years ahead. It never goes back. People are told the wall clock.
    """

    def __init__(self, last_stored_ms: int, wall_s: float, now: float) -> None:
        """
        Args:
            last_stored_ms: the newest log time there is; 0 for a new log, or if it is not known yet.
            wall_s: the wall clock.
            now: the monotonic clock, at the same moment.
        """
        self.see(wall_s, now)
        self._offset_ms = self._wall_offset_ms
        self.start_from(last_stored_ms, now)

    def start_from(self, last_stored_ms: int, now: float) -> None:
        """What is stored is known only now. To be called before anything gets a log time."""
        if last_stored_ms:
            start_ms = max(last_stored_ms, min(self.wall_at(now), last_stored_ms + MOST_AHEAD_MS))
            self._offset_ms = start_ms - int(now * 1000)

    def at(self, now: float) -> int:
        """Log time at an instant of the monotonic clock."""
        return self._offset_ms + int(now * 1000)

    def go_on_from(self, stored_ms: int, now: float) -> None:
        """Somebody has stored a log time, which may be ahead of ours."""
        self._offset_ms = max(self._offset_ms, stored_ms - int(now * 1000))

    def of_shard(self, stored_ms: int, told_ms: int, now: float) -> LogClock:
        """That of a shard which is opened, for log time jumps only where the owner changes.

        Args:
            stored_ms: the newest log time in it.
            told_ms: the newest that any router has told. It may not be stored, so it goes an hour at most.
        """
        found = copy(self)
        found.go_on_from(stored_ms, now)
        found.go_on_from(min(told_ms, found.at(now) + MOST_AHEAD_MS), now)
        return found

    def see(self, wall_s: float, now: float) -> None:
        """The wall clock, looked at again: it may have been set."""
        self._wall_offset_ms = int(wall_s * 1000) - int(now * 1000)

    def wall_at(self, now: float) -> int:
        """The wall clock in ms, as it was seen last and carried on."""
        return self._wall_offset_ms + int(now * 1000)

    @property
    def ahead_ms(self) -> int:
        """How far log time is ahead of the wall clock; below 0 it is behind."""
        return self._offset_ms - self._wall_offset_ms
