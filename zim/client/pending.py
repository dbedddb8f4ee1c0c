"""The handle of a push that is under way."""

from __future__ import annotations

import threading

from zim.client.errors import PushError
from zim.client.pushes import Accepted


class PendingPush:
    """A push on its way.

    Attributes:
        id: its idempotency key.
    """

    __slots__ = ("_event", "_lock", "_outcome", "id")

    def __init__(self, id: str, lock: threading.Lock) -> None:
        self.id = id
        self._lock = lock
        self._event: threading.Event | None = None
        self._outcome: Accepted | PushError | None = None

    def done(self) -> bool:
        """Whether it is known what became of it."""
        return self._outcome is not None

    def outcome(self, timeout_s: float | None = None) -> Accepted | PushError:
        """What became of it: the error is returned, not raised.

        Raises:
            TimeoutError: that was not known in time. The push goes on.
        """
        if self._outcome is None:
            with self._lock:
                if self._outcome is None and self._event is None:
                    self._event = threading.Event()
            if self._event is not None:
                self._event.wait(timeout_s)
        if self._outcome is None:
            raise TimeoutError(f"it is not known after {timeout_s:g} s what became of the push")
        return self._outcome

    def result(self, timeout_s: float | None = None) -> Accepted:
        """Waits until it is accepted.

        Raises:
            PushRefused: the push itself is wrong. PushConflict: its id belongs to another push.
            PushUnavailable: surely not accepted.
            PushUnknown: nobody knows; pushing again with the same id does not push twice.
            TimeoutError: nothing of this was known in time. The push goes on.
        """
        outcome = self.outcome(timeout_s)
        if isinstance(outcome, PushError):
            raise outcome
        return outcome

    def settle(self, outcome: Accepted | PushError) -> None:
        """Says what became of it. The publisher calls it, holding the lock."""
        self._outcome = outcome
        if self._event is not None:
            self._event.set()
