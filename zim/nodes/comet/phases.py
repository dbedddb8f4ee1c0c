"""A connection's life as a table: which packets and which events are legal when, and what comes after them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from zim.protocol.endings import Ending
from zim.protocol.errors import WireError


class Phase(Enum):
    """Where a connection is in its life.

    Attributes:
        is_over: nothing is written any more, and nothing taken from its client.
    """

    HANDSHAKE = "its client has not said who it is", False
    AUTHENTICATING = "a logic is asked who it is", False
    JOINING = "it is known, and on its way into its streams", False
    OPEN = "it has its auth reply, and gets what is pushed", False
    CLOSING = "the last words are on their way, or waited for by the client", True
    CLOSED = "its socket is closed", True

    def __init__(self, meaning: str, is_over: bool) -> None:
        self.meaning, self.is_over = meaning, is_over


class Cause(Enum):
    """What happens to a connection."""

    AUTH = "its client sends an auth packet"
    PACKET = "its client sends another one"
    IDENTIFIED = "a logic has said who it is"
    OPENED = "its auth reply goes out"
    CLOSE = "it is to close, with or without a word"
    HANG_UP = "its socket is closed"


_ENDS: Mapping[Cause, Phase] = {Cause.CLOSE: Phase.CLOSING, Cause.HANG_UP: Phase.CLOSED}

# What comes next. What stays where it is is legal and changes nothing. What is None breaks the wire, see BROKEN. What
# is left out cannot be: nothing is read from a client while others are asked about it.
NEXT: Mapping[Phase, Mapping[Cause, Phase | None]] = {
    Phase.HANDSHAKE: {Cause.AUTH: Phase.AUTHENTICATING, Cause.PACKET: None, **_ENDS},
    Phase.AUTHENTICATING: {Cause.IDENTIFIED: Phase.JOINING, **_ENDS},
    Phase.JOINING: {Cause.OPENED: Phase.OPEN, **_ENDS},
    Phase.OPEN: {Cause.AUTH: None, Cause.PACKET: Phase.OPEN, **_ENDS},
    # What was under way when it closed comes to nothing.
    Phase.CLOSING: {**dict.fromkeys(Cause, Phase.CLOSING), Cause.HANG_UP: Phase.CLOSED},
    Phase.CLOSED: dict.fromkeys(Cause, Phase.CLOSED),
}

BROKEN: Mapping[Phase, str] = {Phase.HANDSHAKE: "the first packet must be auth", Phase.OPEN: "operation not known"}

# Why a connection ends on which nothing has come for too long.
SILENT: Mapping[Phase, Ending] = {
    Phase.HANDSHAKE: Ending.MUTE,
    Phase.AUTHENTICATING: Ending.LATE,  # its login may be as good as it can be: logics are away
    Phase.JOINING: Ending.LATE,
    Phase.OPEN: Ending.SILENT,
}


def after(phase: Phase, cause: Cause) -> Phase:
    """The phase that follows.

    Raises:
        WireError: a client may not say that here.
        LookupError: it cannot happen here, so it is our own mistake.
    """
    found = NEXT[phase][cause]
    if found is None:
        raise WireError(BROKEN[phase], ending=Ending.OPERATION)
    return found
