"""How often somebody may do something: token buckets. Pure: `now` is an argument, in monotonic seconds.

A bucket holds `burst` tokens and gets `per_s` of them each second, until it is full. What is done takes its cost out of
it, or is not done. In any t seconds no more than burst + per_s · t is let through.

What is kept of a bucket is one number: when it will be full again. That is GCRA (ITU-T I.371), said of tokens.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)

MOST_KEYS = 100_000  # of one table: some 20 MB
SLOTS = 16  # see Buckets
FORGOTTEN = 4  # full buckets that are forgotten with each one that is asked: more than can come
_ROUNDING_S = 1e-9  # a sum of shares of a second is not a second to the last bit


class Rate(NamedTuple):
    """What a bucket gets and holds.

    Attributes:
        per_s: tokens a second, above 0.
        burst: tokens of a full one, at least 1.
    """

    per_s: float
    burst: float

    @property
    def fill_s(self) -> float:
        """How long an empty one takes to be full."""
        return self.burst / self.per_s

    def shared_by(self, n: int) -> Rate:
        """The part of one of n that count without each other."""
        return Rate(self.per_s / n, self.burst / n)

    def wait_s(self, full_at: float, cost: float, now: float) -> float:
        """How long until a bucket has so many tokens; 0 if it has.

        Args:
            full_at: when it will be full.
            cost: tokens. What costs more than it can hold never gets them; then this is how long it would take to owe
                no more than what is over.
        """
        wait_s = max(full_at, now) + (cost - self.burst) / self.per_s - now
        return wait_s if wait_s > _ROUNDING_S else 0.0

    def after(self, full_at: float, cost: float, now: float) -> float:
        """When a bucket will be full out of which so many tokens are taken now."""
        return max(full_at, now) + cost / self.per_s


class Bucket:
    """One bucket, full at first."""

    __slots__ = ("_full_at", "rate")

    def __init__(self, rate: Rate) -> None:
        self.rate, self._full_at = rate, 0.0

    def wait_s(self, cost: float, now: float) -> float:
        """How long until it has so many tokens; 0 if it has. See Rate."""
        return self.rate.wait_s(self._full_at, cost, now)

    def take(self, cost: float, now: float) -> None:
        """Takes tokens, whether they are there or not: what is missing is owed."""
        self._full_at = self.rate.after(self._full_at, cost, now)


class Buckets(Generic[K]):
    """A bucket for each key: an address, a user, a stream. A key that is not known has a full one.

    Every call is O(1). A full bucket is as good as one that is not known, so it is forgotten: each call forgets a few.

    There is room for `most` keys that are not full. When one more comes, the bucket that is nearest to being full goes,
    within a sixteenth of the time that filling takes. So:

    - Nobody is locked out: who comes always gets a bucket, and a full one.
    - Nobody resets a bucket of his own that owes much by coming with ever more keys that owe little: those go first.
      He would have to owe as much under `most` keys at once. To keep so many of them empty he must do `most` times what
      one may, and that is what so many keys may do anyway.

    Attributes:
        rate: of each of them.
        forced: how many had to go that were not full.
    """

    # A slot has the keys that will be full within the same sixteenth of the time that filling takes: so the nearest
    # one is found without looking at all of them. Slots are counted from the begin of the clock.

    def __init__(self, rate: Rate, most: int = MOST_KEYS) -> None:
        self.rate, self._most = rate, most
        self.forced = 0
        self._full_at: dict[K, float] = {}
        self._slots: dict[int, set[K]] = {}
        self._first = 0  # the lowest of them, if there is any
        self._slot_s = rate.fill_s / SLOTS

    def __len__(self) -> int:
        """How many are known."""
        return len(self._full_at)

    def wait_s(self, key: K, cost: float, now: float) -> float:
        """How long until its bucket has so many tokens; 0 if it has. See Rate."""
        return self.rate.wait_s(self._full_at.get(key, 0.0), cost, now)

    def take(self, key: K, cost: float, now: float) -> None:
        """Takes tokens, whether they are there or not: what is missing is owed."""
        full_at = self._full_at.get(key)
        if full_at is not None:
            self._leave(key, full_at)
        elif len(self._full_at) >= self._most:
            self._force()
        self._full_at[key] = full_at = self.rate.after(full_at or 0.0, cost, now)
        slot = self._slot(full_at)
        if not self._slots or slot < self._first:
            self._first = slot
        self._slots.setdefault(slot, set()).add(key)
        self._forget(now)

    def ask(self, key: K, cost: float, now: float) -> float:
        """Takes tokens if they are there, and gives 0; else takes none, and gives how long until they will be."""
        wait_s = self.wait_s(key, cost, now)
        if not wait_s:
            self.take(key, cost, now)
        return wait_s

    def _slot(self, full_at: float) -> int:
        return int(full_at / self._slot_s)

    def _leave(self, key: K, full_at: float) -> None:
        slot = self._slot(full_at)
        keys = self._slots[slot]
        keys.discard(key)
        if not keys:
            self._drop(slot)

    def _drop(self, slot: int) -> None:
        del self._slots[slot]
        if slot == self._first:
            self._first = min(self._slots, default=0)

    def _pop(self) -> None:
        """The next one to be full is forgotten."""
        keys = self._slots[self._first]
        del self._full_at[keys.pop()]
        if not keys:
            self._drop(self._first)

    def _force(self) -> None:
        self.forced += 1
        self._pop()

    def _forget(self, now: float) -> None:
        for _ in range(FORGOTTEN):
            if not self._slots or (self._first + 1) * self._slot_s > now:
                return
            self._pop()


def renewed(had: Buckets[K] | None, rate: Rate | None) -> Buckets[K] | None:
    """The buckets for a rate that may be another one: those that were there if it is not; None for no rate."""
    if rate is None:
        return None
    return had if had is not None and had.rate == rate else Buckets(rate)
