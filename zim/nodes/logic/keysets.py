"""The keys of one issuer as a logic knows them: those that the topology names, or a set that is fetched from a URL.

The last good set stays while its server is away. A token of a key that is not known lets the set be fetched at once,
but not again within COOL_DOWN_S, however many such tokens come. Pure: no socket, no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from zim.identity.keys import Key, KeyProblem, read_jwks
from zim.topology.identity import Issuer

REFRESH_S = 300.0  # between two fetches when all is well
COOL_DOWN_S = 10.0  # between two fetches that tokens ask for
RETRY_S, MOST_RETRY_S = 1.0, 60.0  # after a fetch that failed: longer and longer
UNKNOWN = 1_000  # names of keys that are remembered as unknown, until the next fetch
KID_BYTES = 255  # of a key's name
NAMELESS = 4  # keys that a token without a name is tried with


class KeySet:
    """See the module.

    Attributes:
        issuer: whose.
        keys: of it, as far as they are known.
        is_fetching: a fetch is under way.
        fetched_at: when the last good one ended; None if none ever did. Monotonic seconds.
        results: how fetches ended, "ok" and "failed".
        why: the last one failed, for people; "" if it did not.
    """

    def __init__(self, issuer: Issuer, fixed: Sequence[Key] = ()) -> None:
        self.issuer, self.keys = issuer, tuple(fixed)
        self.is_fetching = False
        self.fetched_at: float | None = None
        self.results = {"ok": 0, "failed": 0}
        self.why = ""
        self._due_at = -1.0
        self._cool_until = 0.0
        self._failures = 0
        self._is_old = False  # what is being fetched: it is wanted anew
        self._unknown: set[str] = set()

    def go_on_as(self, issuer: Issuer) -> bool:
        """The topology was read anew. Whether what was fetched is still right; else this set is over.

        It is fetched once more, soon: a key may have been taken out of it because somebody has stolen it.
        """
        was = self.issuer
        is_same = bool(was.jwks) and replace(was, jwks=issuer.jwks, ca=issuer.ca, algorithms=issuer.algorithms) == was
        if is_same:
            self.issuer, self._due_at, self._is_old = issuer, -1.0, self.is_fetching
        return is_same

    def must_fetch(self, now: float) -> bool:
        """A fetch is due; it is taken as begun."""
        if not self.issuer.jwks or self.is_fetching or now < self._due_at:
            return False
        self._begin(now)
        return True

    def fetch_for(self, kid: str, now: float) -> bool:
        """A token names a key that is not here. Whether a fetch may help that is under way, or begins now."""
        if not self.issuer.jwks or kid in self._unknown:
            return False
        if not self.is_fetching and now >= self._cool_until:
            self._due_at = now
        return self.is_fetching or self._due_at <= now

    def _begin(self, now: float) -> None:
        self.is_fetching = True
        self._cool_until = now + COOL_DOWN_S

    def on_fetched(self, document: bytes | None, why: str, now: float) -> None:
        """A fetch has ended. document: what came; None if nothing did, and why."""
        self.is_fetching = False
        if document is not None:
            try:
                self.keys = tuple(read_jwks(document, self.issuer.algorithms))
            except KeyProblem as e:
                document, why = None, f"what it answers {e}"
        self.why = why if document is None else ""
        if document is None:
            self.results["failed"] += 1
            self._due_at = now + min(RETRY_S * 2 ** min(self._failures, 10), MOST_RETRY_S)
            self._failures += 1
            return
        self.results["ok"] += 1
        self._failures, self.fetched_at = 0, now
        self._due_at = now if self._is_old else now + REFRESH_S
        self._is_old = False
        self._unknown.clear()

    def is_known_as_unknown(self, kid: str) -> bool:
        """It was looked for, and is not there."""
        return kid in self._unknown

    def remember_unknown(self, kid: str) -> None:
        """It is not in the set that has just been fetched."""
        if len(self._unknown) < UNKNOWN:
            self._unknown.add(kid)

    def candidates(self, kid: str) -> Sequence[Key]:
        """The keys that may have signed a token that names one; none if it is not here. Keys that the topology names
        have no name, so each is tried; so is each of few, if the token names none."""
        if not self.issuer.jwks:
            return self.keys
        if not kid:
            return self.keys if len(self.keys) <= NAMELESS else ()
        return [key for key in self.keys if key.kid == kid]
