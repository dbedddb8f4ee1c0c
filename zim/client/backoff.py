"""How long to wait before connecting again."""

import random


class Backoff:
    """Delays that double, with jitter, so that clients which one crash cut off do not all return at once.

    The n-th delay (from 0) is drawn evenly from the upper half of `first_s · 2^(n+1)`, but at most `cap_s` and never
    below `first_s`: 0.2-0.4 s, 0.4-0.8 s, … 5-10 s.
    """

    def __init__(self, first_s: float = 0.2, cap_s: float = 10.0, rng: random.Random | None = None) -> None:
        self.first_s = first_s
        self.cap_s = cap_s
        self._rng = rng or random.Random()
        self._count = 0

    def next_s(self) -> float:
        """The next delay in seconds."""
        # Beyond 2^64 a float only grows for nothing; after a month of retries it would overflow.
        high = min(self.cap_s, self.first_s * 2.0 ** min(self._count + 1, 64))
        self._count += 1
        return self._rng.uniform(max(high / 2, min(self.first_s, high)), high)

    def reset(self) -> None:
        """Starts anew with the first delay."""
        self._count = 0
