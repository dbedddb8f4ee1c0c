"""Whether a router still answers its comet, which says every second that it lives. Pure: no socket, no clock."""

from __future__ import annotations

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

    def changes(self, n: int, now: float) -> bool:
        """Whether it has become silent, or is heard again. After a standstill of our own it is neither: the answers are
        there, and not read yet. n: of the last Renew.
        """
        was, self.is_silent = self.is_silent, now - self._at > SILENT_S and n - self._n > SILENT_RENEWS
        return self.is_silent != was

    def note(self, shard: str, router: str) -> Note:
        """What the log has of that."""
        fields = {"shard": shard, "router": router}
        if self.is_silent:
            return Note(WARNING, "a router does not answer", fields)
        return Note(INFO, "a router answers again", fields)
