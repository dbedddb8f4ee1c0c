"""How much each API key may push: `[limits] pushes_per_key` and `bytes_per_key`, or the key's own. Pure.

Logics count without each other, so each lets through its part alone: all of them together never too much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zim.fabric.buckets import Bucket, Rate
from zim.fabric.ceilings import Ceilings
from zim.fabric.principals import ApiKey
from zim.fabric.push import Refusal
from zim.fabric.refusals import Refusals

PUSHES, BYTES = "pushes_per_key", "bytes_per_key"

_Pair = tuple[Bucket | None, Bucket | None]  # of pushes, and of bytes


class Quotas:
    """One logic's.

    Attributes:
        refusals: pushes that were too many, by limit.
    """

    def __init__(self) -> None:
        self.refusals = Refusals((PUSHES, BYTES))
        self._of: dict[str, _Pair] = {}
        self._rates: Mapping[str, tuple[Rate | None, Rate | None]] = {}

    def follow(self, limits: Ceilings, keys: Sequence[ApiKey], logics: int) -> None:
        """From now on these. A key whose rate is another one begins anew.

        Args:
            keys: without any, whoever comes is one principal, "".
            logics: how many there are.
        """
        general = limits.pushes_per_key, limits.bytes_per_key
        self._rates = {key.id: (key.pushes or general[0], key.bytes or general[1]) for key in keys} or {"": general}
        before, self._of = self._of, {}
        for who, rates in self._rates.items():
            had = before.get(who, (None, None))
            pair = tuple(_bucket(bucket, rate, logics) for bucket, rate in zip(had, rates, strict=True))
            if pair != (None, None):
                self._of[who] = pair[0], pair[1]

    def ask(self, who: str, size: int, now: float) -> Refusal | None:
        """Counts a push, or says why it is one too many; then it is not counted.

        Args:
            who: id of the principal.
            size: bytes of its body.
        """
        if not self._of or (found := self._of.get(who)) is None:
            return None
        pushes, of_bytes = found
        if pushes is not None and (wait_s := pushes.wait_s(1.0, now)):
            return self._refuse(PUSHES, who, wait_s)
        if of_bytes is not None:
            cost = min(float(size), of_bytes.rate.burst)  # a larger one than that takes all there is
            if wait_s := of_bytes.wait_s(cost, now):
                return self._refuse(BYTES, who, wait_s)
            of_bytes.take(cost, now)
        if pushes is not None:
            pushes.take(1.0, now)
        return None

    def _refuse(self, limit: str, who: str, wait_s: float) -> Refusal:
        self.refusals.count(limit, who)
        return Refusal(limit, wait_s)


def _bucket(had: Bucket | None, rate: Rate | None, logics: int) -> Bucket | None:
    if rate is None:
        return None
    mine = rate.shared_by(logics)
    return had if had is not None and had.rate == mine else Bucket(mine)
