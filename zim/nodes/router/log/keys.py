"""What a publisher's key means to one log. Pure.

A key has one home, a log that alone tells whether another push was sent under it. The logs of other routers are asked
after home's yes, and with the time at which home stored the key: by that they tell a repeat from a later use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

KEY_BYTES = 300  # what a key counts for in memory, beside the offsets under it
OFFSET_BYTES = 40

Seen = Literal["duplicate", "conflict", "unknown"]


class KeyUse(NamedTuple):
    """The key of a push that is to be appended.

    Attributes:
        digest: what the whole push is, its recipients too.
        home_ms: log time of the key's home, when it stored the key; 0 for home itself.
        age_ms: for how long home has had it.
        is_fresh: home has stored it just now, and nobody can have sent it here before.
        is_live_only: all streams of the whole push are; then nothing of it is on a disk, and the key is not either.
        part: of the push, if it was cut: each part has a key of its own.
    """

    digest: bytes
    home_ms: int = 0
    age_ms: int = 0
    is_fresh: bool = False
    is_live_only: bool = False
    part: int = 0


class StoredKey(NamedTuple):
    """A key that is in a log.

    Attributes:
        digest: see KeyUse.
        time_ms: log time.
        home_ms: see KeyUse; the same as time_ms at home.
        offsets: of the push's streams here, in the order of their names.
    """

    digest: bytes
    time_ms: int
    home_ms: int
    offsets: Sequence[int]

    @property
    def size(self) -> int:
        """In bytes, in every limit."""
        return KEY_BYTES + OFFSET_BYTES * len(self.offsets)


def seen(key: KeyUse, found: StoredKey | None, now_ms: int, window_ms: int, is_lasting: bool) -> Seen | None:
    """What a push with a key is; nothing if it is new.

    Args:
        found: what the log has of the key.
        now_ms: log time.
        window_ms: how long a key is known.
        is_lasting: the log knows the keys of its earlier runs.
    """
    if not key.home_ms or key.is_live_only:  # home may have forgotten a key that it had in memory
        if found is not None and found.time_ms + window_ms > now_ms:
            return "duplicate" if found.digest == key.digest else "conflict"
        if not key.home_ms:
            return None
    elif found is not None and found.home_ms >= key.home_ms:  # above it is a use before the last one
        return "duplicate" if (found.home_ms, found.digest) == (key.home_ms, key.digest) else "conflict"
    is_new = key.age_ms < window_ms if is_lasting else key.is_fresh
    return None if is_new else "unknown"  # it may have been here


def by_name(streams: Sequence[str], offsets: Sequence[int]) -> list[int]:
    """The offsets in the order of the streams' names: a repeat may have its streams in another order."""
    if len(streams) == 1:
        return list(offsets)
    return [offset for _, offset in sorted(zip(streams, offsets, strict=True))]


def as_asked(streams: Sequence[str], offsets: Sequence[int]) -> tuple[int, ...]:
    """Offsets that `by_name` ordered, in the order of these streams; 0 where there is none."""
    if len(streams) == 1:
        return tuple(offsets) or (0,)
    found = dict(zip(sorted(streams), offsets, strict=False))
    return tuple(found.get(stream, 0) for stream in streams)


def kept_ms(window_ms: int) -> int:
    """How long a log keeps keys whose home may be another: longer, for the clock there may be another, too."""
    return window_ms + min(window_ms, 3_600_000)
