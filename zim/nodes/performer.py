"""Performs what a runner wants, in order. What every driver has in common, on real sockets or simulated ones. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable

from zim.nodes.effects import Effect


class Performer(ABC):
    """An effect that fails at once may make the runner want more. That waits for its turn: no code runs again inside
    itself."""

    def __init__(self) -> None:
        self._due: deque[Effect] = deque()
        self._is_performing = False

    def perform(self, effects: Iterable[Effect]) -> None:
        """Does what a runner wants, in order. Does not switch."""
        self._due.extend(effects)
        if self._is_performing or not self._due:
            return
        self._is_performing = True
        try:
            while self._due:
                self.perform_one(self._due.popleft())
        finally:
            self._is_performing = False

    @abstractmethod
    def perform_one(self, effect: Effect) -> None:
        """Does one thing. Must not switch."""
