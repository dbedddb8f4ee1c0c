"""goim v1's token handler, which believes everybody (goim `logic/auth.go`): the default where nothing else is set."""

from __future__ import annotations

import re

from zim.fabric.grants import Denial, Grant
from zim.fabric.patterns import ANY

_INT64 = 1 << 63
_NUMBER = re.compile(rb"[+-]?[0-9]+", re.ASCII)


def identify(token: bytes, speaks_goim: bool) -> Grant | Denial:
    """A number is the user and joins room 1. Anything else is user 0 without a room for goim's clients, and nobody for
    zim's. Whoever asks may join any room, and read any.

    As Go's strconv.ParseInt(token, 10, 64) has it: `+7` and `007` are 7; spaces, `1_0`, `7.0` are no numbers.
    """
    if len(token) <= 64 and _NUMBER.fullmatch(token) and -_INT64 <= int(token) < _INT64:
        return Grant(str(int(token)), ("1",), ANY, ANY)
    if speaks_goim:
        return Grant("0", (), ANY, ANY)
    return Denial("refused", "the token is no number; a user's number is right, such as 7")
