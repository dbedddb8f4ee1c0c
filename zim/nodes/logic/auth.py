"""Who a client is: the token handler. The default one is goim v1's, and believes everybody (goim `logic/auth.go`)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from zim.protocol.frame import VERSION

_INT64 = 1 << 63
_NUMBER = re.compile(rb"[+-]?[0-9]+", re.ASCII)


@dataclass(frozen=True)
class Identity:
    """Whom a token stands for.

    Attributes:
        uid: the user, canonical: the same user is always the same string.
        rooms: which the session is in from the start.
        may_join: other rooms that it may ask for; None for any.
    """

    uid: str
    rooms: tuple[str, ...] = ()
    may_join: tuple[str, ...] | None = ()


@dataclass(frozen=True)
class Denied:
    """The token is nobody's. why: for the client."""

    why: str


class GoimTokens:
    """A number is the uid and joins room 1. Anything else is uid 0 without a room for goim's clients, and nobody for
    zim's. Whoever asks may join any room."""

    def identify(self, token: bytes, version: int) -> Identity | Denied:
        """As Go's strconv.ParseInt(token, 10, 64) has it: `+7` and `007` are 7; spaces, `1_0`, `7.0` are no numbers.

        Args:
            version: of what the client speaks.
        """
        if len(token) <= 64 and _NUMBER.fullmatch(token) and -_INT64 <= int(token) < _INT64:
            return Identity(str(int(token)), ("1",), None)
        if version == VERSION:
            return Denied("the token is no number; a user's number is right, such as 7")
        return Identity("0", may_join=None)
