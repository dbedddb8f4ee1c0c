"""What became of pushes, counted in sessions. Pure.

Always in balance: targeted = delivered + gone + shed + expired + unknown + pending.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """Sessions, by what became of them. What is in none of the last five is pending.

    Attributes:
        targeted: all of them.
        delivered: the kernel took the last byte.
        gone: the connection, or its comet, was lost from sight before that.
        shed: the client was too slow.
        expired: the push's ttl was over.
        unknown: a router that crashed had not yet heard.
    """

    targeted: int = 0
    delivered: int = 0
    gone: int = 0
    shed: int = 0
    expired: int = 0
    unknown: int = 0

    @property
    def pending(self) -> int:
        """Nobody knows yet."""
        return self.targeted - self.delivered - self.gone - self.shed - self.expired - self.unknown
