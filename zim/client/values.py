"""What a listener tells. All of it frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Position = tuple[str, int]
"""Epoch and offset: which history of a stream, and the last message of it that one has."""


@dataclass(frozen=True, slots=True)
class Message:
    """What was pushed.

    Attributes:
        stream: `u:7` for a user, `r:1` for a room, `*` for everybody; "" where goim v1 is spoken, which has no
            streams.
        offset: its number in the stream, from 1; 0 with goim. Numbers may be left out: what is for other sessions
            only, or has expired, is passed over.
        epoch: which history of the stream the offset belongs to; "" with goim.
        op: 5, unless the publisher named another.
        body: the application's bytes. Over WebSocket they are the JSON that the frame carried: a body that is not
            JSON has become a JSON string on its way, an empty one `{}`.
    """

    stream: str
    offset: int
    epoch: str
    op: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Gap:
    """The messages `from_` to `to` (inclusive) of a stream will not come.

    Attributes:
        epoch: of the messages that come next; the first of them is `to` + 1.
        reason: "trimmed" (they are not kept any more) or "epoch" (this is another history, and what one had of the
            old one is void).
    """

    stream: str
    from_: int
    to: int
    reason: str
    epoch: str


@dataclass(frozen=True, slots=True)
class NotRecovered:
    """What came after `had` in a stream cannot be had any more.

    With the same epoch in `had` and `now`, and a higher offset in `now`, the messages after the one offset up to the
    other (inclusive) are gone. Else nobody can tell how many they were.

    Attributes:
        had: what one had of it; None for a user's stream that was to go on from what the user has acknowledged.
        now: messages come from the one after this position on.
    """

    stream: str
    had: Position | None
    now: Position


@dataclass(frozen=True, slots=True)
class NotJoined:
    """A stream's messages do not come.

    Attributes:
        reason: the fabric's, for a person. With "not joined, retrying" it is joined later without being asked again.
    """

    stream: str
    reason: str


Event = Message | Gap | NotRecovered | NotJoined
StateName = Literal["connecting", "connected", "unreachable", "refused", "disconnected"]


@dataclass(frozen=True, slots=True)
class State:
    """What became of the connection.

    Attributes:
        name: "connecting", "connected", "unreachable" (it could not be made), "refused" (the fabric ended it before
            it answered the login), or "disconnected" (it was lost). After the last three the listener tries again.
            It tries no more if a certificate could not be verified and there is no other address: the iteration raises.
        address: of the comet.
        reason: why it could not be made, was refused or lost; for a person.
        retry_s: after how many seconds it tries again; 0 if it does not.
    """

    name: StateName
    address: str
    reason: str = ""
    retry_s: float = 0.0
