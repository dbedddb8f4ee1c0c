"""Who a backend is, and what it may do: API keys and their scopes. One place checks, behind HTTP and ZeroMQ. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from typing import Literal, get_args

from zim.errors import ZimError
from zim.fabric.buckets import Rate
from zim.fabric.names import shown
from zim.fabric.patterns import ANY, matches
from zim.fabric.pauses import Pause, no_pause, paused

Scope = Literal["push", "read", "count", "kick", "ban", "operate", "metrics"]

SCOPES: tuple[Scope, ...] = get_args(Scope)
STREAM_SCOPES: tuple[Scope, ...] = ("push", "read", "count", "kick", "ban")  # those that are about streams

ALL = "all"  # no stream is called so
KEY_PREFIX = "zim_"  # of every key, so that one that was published by mistake can be found by machines
MAX_KEY_BYTES = 200  # longer ones are not looked at


NOT_KNOWN = "the API key is not known"


class Unauthorized(ZimError):
    """Nobody is known by this key, or none was shown."""


class Forbidden(ZimError):
    """A principal may not do this.

    Attributes:
        scope: that is missing.
        stream: where; "" for anywhere, ALL for all there are.
    """

    def __init__(self, principal: Principal, scope: Scope, stream: str = "") -> None:
        at = " for all streams" if stream == ALL else f" for {shown(stream)}" if stream else ""
        super().__init__(f"the API key {principal.id} has no scope {scope}{at}")
        self.scope, self.stream = scope, stream


@dataclass(frozen=True)
class ApiKey:
    """A backend's key, as the topology has it.

    Attributes:
        id: its principal; stays when the key is replaced.
        sha256: of each key that is valid, in hexadecimal; several during a rotation.
        scopes: what it may do, and patterns of the streams for which.
        pushes, bytes: how much it may push, over all logics; None for what `[limits]` says of all keys.
    """

    id: str
    sha256: tuple[str, ...]
    scopes: Mapping[Scope, tuple[str, ...]]
    pushes: Rate | None = None
    bytes: Rate | None = None


@dataclass(frozen=True)
class Principal:
    """Who a backend is.

    Attributes:
        id: of the API key; "" for whoever comes where no keys are.
        scopes: see ApiKey; None for all.
    """

    id: str
    scopes: Mapping[Scope, tuple[str, ...]] | None = None

    def require(self, scope: Scope, streams: Iterable[str] | None, pause: Pause = no_pause) -> None:
        """Checks that it may do something, to each of these streams.

        Args:
            streams: None for all there are.
            pause: is called between steps: there may be very many.

        Raises:
            Forbidden: it may not.
        """
        if self.scopes is None:
            return
        patterns = self.scopes.get(scope)
        if patterns is None:
            raise Forbidden(self, scope)
        if patterns == ANY:
            return
        if streams is None:
            raise Forbidden(self, scope, ALL)
        for stream in paused(streams, pause):
            if not matches(stream, patterns):
                raise Forbidden(self, scope, stream)


LOCAL = Principal("")
"""Whoever reaches an API that has no keys."""
NOBODY = Principal("", {})
"""Who may do nothing, and asks for nothing that needs a scope."""


class Principals:
    """Who is known by which key."""

    def __init__(self, keys: Sequence[ApiKey] = ()) -> None:
        self.know(keys)

    def know(self, keys: Sequence[ApiKey]) -> None:
        """From now on these keys, and no others."""
        self._known = [(digest.encode(), Principal(key.id, key.scopes)) for key in keys for digest in key.sha256]

    @property
    def needs_key(self) -> bool:
        """There are keys, so nobody is believed without one."""
        return bool(self._known)

    def find(self, key: str | None) -> Principal:
        """Who shows this key; None for none.

        How long it takes tells nothing of the keys that are known: all are compared, each in constant time.

        Raises:
            Unauthorized: nobody.
        """
        if not self._known:
            return LOCAL
        if not key:
            raise Unauthorized("an API key is needed: Authorization: Bearer zim_…")
        if len(key) > MAX_KEY_BYTES:
            raise Unauthorized(NOT_KNOWN)
        digest = sha256(key.encode("utf-8", "replace")).hexdigest().encode()
        found = None
        for known, principal in self._known:
            if compare_digest(known, digest):
                found = principal
        if found is None:
            raise Unauthorized(NOT_KNOWN)
        return found
