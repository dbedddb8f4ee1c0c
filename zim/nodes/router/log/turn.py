"""Whose turn it is: one greenlet at a time, in the order in which they came."""

from __future__ import annotations

from collections import deque

from gevent.event import Event


class Turn:
    """A lock that is handed to whoever waits longest.

    gevent's own lets a greenlet that comes back at once take it again and again: under load, trimming would never come
    in between two appends.
    """

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: deque[Event] = deque()

    @property
    def load(self) -> int:
        """How many have it or wait for it."""
        return len(self._waiting) + self._is_taken

    def __enter__(self) -> None:
        """Switches: if another has it."""
        if not self._is_taken:
            self._is_taken = True
            return
        mine = Event()
        self._waiting.append(mine)
        try:
            mine.wait()
        except BaseException:
            if mine.is_set():
                self.__exit__()
            else:
                self._waiting.remove(mine)
            raise

    def __exit__(self, *_: object) -> None:
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._is_taken = False
