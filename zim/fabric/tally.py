"""What became of pushes, counted in sessions. Pure.

Always in balance: targeted = delivered + gone + shed + expired + unknown + pending.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated

import msgspec
from msgspec import Meta

REPORTED = ("delivered", "gone", "shed", "expired")  # what comets tell of
OUTCOMES = (*REPORTED, "unknown")  # of sessions that are not pending
COUNTS = ("targeted", *OUTCOMES)  # the fields of a Tally, in their order

_counts_of: Callable[[object], tuple[int, ...]] = attrgetter(*COUNTS)
_SILENT = "routers that did not answer; what they know is not in the sums"


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

    @property
    def outcomes(self) -> dict[str, int]:
        """The last five, by their names."""
        return {name: getattr(self, name) for name in OUTCOMES}

    @property
    def counts(self) -> tuple[int, ...]:
        """All six, in their order."""
        return _counts_of(self)

    def give_up(self) -> int:
        """What is pending is unknown from now on; gives how many that are."""
        pending = self.pending
        self.unknown += pending
        return pending

    def __add__(self, other: Tally) -> Tally:
        return Tally(*map(int.__add__, self.counts, other.counts))

    def __sub__(self, other: Tally) -> Tally:
        return Tally(*map(int.__sub__, self.counts, other.counts))


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A tally as it is told: what is pending has a number of its own, so that the sum can be checked."""

    targeted: int
    delivered: int
    gone: int
    shed: int
    expired: int
    unknown: int
    pending: int
    offline: Annotated[int, Meta(description="users who had no session; outside the sum")]
    silent: Annotated[list[str], Meta(description=_SILENT)]

    @property
    def outcomes(self) -> dict[str, int]:
        """Sessions that are not pending, by what became of them."""
        return {name: getattr(self, name) for name in OUTCOMES}

    @property
    def is_balanced(self) -> bool:
        """Every router has answered, and every session that was targeted is accounted for."""
        return not self.silent and self.targeted == sum(self.outcomes.values()) + self.pending


_SUMMED = (*COUNTS, "pending", "offline")


def sum_accounts(accounts: Iterable[Account]) -> dict[str, int]:
    """The numbers of several routers' accounts as one."""
    found = list(accounts)
    return {name: sum(getattr(account, name) for account in found) for name in _SUMMED}


def account(tally: Tally, offline: int, pending: int | None = None) -> dict[str, int]:
    """The numbers of an account.

    Args:
        offline: users who had no session.
        pending: as it was counted by itself; None: what the tally leaves.
    """
    numbers = dict(zip(COUNTS, tally.counts, strict=True))
    return {**numbers, "pending": tally.pending if pending is None else pending, "offline": offline}
