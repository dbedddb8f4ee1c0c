"""Whether a router still answers its comet, which says every second that it lives. Pure: no socket, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zim.nodes.effects import INFO, WARNING, Note

SILENT_S, SILENT_RENEWS = 2.5, 2  # without an answer, and so many Renews: a lease is over


class Hearing:
    """Of one shard's owner.

    Attributes:
        is_silent: it has not answered for so long that it will have given us up.
    """

    def __init__(self) -> None:
        self.is_silent = False
        self._n, self._at = 0, 0.0

    def heard(self, n: int, now: float) -> None:
        """It has answered Renew n, or a registration began after that one."""
        self._n, self._at = max(self._n, n), now

    def look(self, n: int, now: float, fields: Mapping[str, Any]) -> list[Note]:
        """A line of the log, if it has become silent or is heard again. After a standstill of our own it is neither:
        the answers are there, and not read yet.

        Args:
            n: of the last Renew.
        """
        is_silent = now - self._at > SILENT_S and n - self._n > SILENT_RENEWS
        if is_silent == self.is_silent:
            return []
        self.is_silent = is_silent
        if is_silent:
            return [Note(WARNING, "a router does not answer", fields)]
        return [Note(INFO, "a router answers again", fields)]
