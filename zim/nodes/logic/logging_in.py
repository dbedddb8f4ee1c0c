"""How often a user may log in: `[limits] logins_per_user`. Pure: `now` is an argument.

Each logic counts for itself. Comets ask one logic after the other, so a part of the limit would refuse users who are
within it; as it is a user may come as many times more often as there are logics, at most.
"""

from __future__ import annotations

from zim.fabric.buckets import Buckets, Rate, renewed
from zim.fabric.grants import ANONYMOUS, Denial, Grant
from zim.fabric.refusals import Refusals

PER_USER = "logins_per_user"  # of [limits]
NOBODY = "0"  # of goim's handler: all who show no number


class LoginLimit:
    """One logic's.

    Attributes:
        refusals: logins that were too many.
    """

    def __init__(self) -> None:
        self.refusals = Refusals((PER_USER,))
        self._buckets: Buckets[str] | None = None

    def follow(self, rate: Rate | None) -> None:
        """From now on this one; None: there is no limit. All users begin anew with another rate."""
        self._buckets = renewed(self._buckets, rate)

    def look(self, grant: Grant, is_known: bool, now: float) -> Grant | Denial:
        """The grant of a login, if it is not one too many.

        Args:
            is_known: its user is who the token says. Those whom nobody knows share a name, or have one each: what
                limits them is `connects_per_address`.
        """
        user = grant.user
        if self._buckets is None or user.startswith(ANONYMOUS) or (user == NOBODY and not is_known):
            return grant
        wait_s = self._buckets.ask(user, 1.0, now)
        if not wait_s:
            return grant
        self.refusals.count(PER_USER, user)
        return Denial("try_again", f"come back in {max(1.0, wait_s):.0f} s", f"user {user}", int(wait_s * 1000) + 1)
