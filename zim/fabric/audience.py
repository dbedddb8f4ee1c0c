"""Whom a push is for. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from zim.fabric.streams import user_of_key, user_stream


class Audience(NamedTuple):
    """Those of a stream's subscribers that a message is for.

    Attributes:
        keys: of their sessions, in order; if it is empty, all of them.
    """

    keys: Mapping[str, None]


ALL = Audience({})
_NONE_NARROWED: Mapping[str, Audience] = {}


def audience(keys: Sequence[str]) -> Audience:
    """That of these session keys; of none, all."""
    return Audience(dict.fromkeys(keys)) if keys else ALL


def audiences(only: Sequence[str]) -> Mapping[str, Audience]:
    """A push's audience in each stream where it is not for all: those of the users whose session keys it names."""
    if not only:
        return _NONE_NARROWED
    keys: dict[str, dict[str, None]] = {}
    for key in only:
        keys.setdefault(user_stream(user_of_key(key)), {})[key] = None
    return {stream: Audience(named) for stream, named in keys.items()}
