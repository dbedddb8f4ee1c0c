"""What a comet asks a logic about a client, and what it hears: who it is, which rooms it may be in."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from zim.fabric.grants import Denial, Grant
from zim.fabric.limits import ROOMS
from zim.protocol.fields import Number
from zim.protocol.message import Message


class Auth(Message, frozen=True):
    """comet → logic: who is this? version: of what its client speaks; address: of the client; device: as it says;
    anonymous: without a token it may be somebody without a name; is_refresh: its client is here already."""

    req: Number
    token: bytes
    version: Number
    address: str = ""
    device: str = ""
    anonymous: bool = False
    is_refresh: bool = False


class Authed(Message, frozen=True):
    """logic → comet: who it is, and what it may; or why it is nobody. One of the two is there."""

    req: Number
    grant: Grant | None = None
    denial: Denial | None = None


class AskJoin(Message, frozen=True):
    """comet → logic: which of these rooms may a user's session be in? For grants that ask."""

    req: Number
    user: str
    device: str
    rooms: Annotated[tuple[str, ...], Meta(max_length=ROOMS)]


class MayJoin(Message, frozen=True):
    """logic → comet: those that it may be in. reason: why not in the others, for the client; is_told: the application
    has said so. Else nothing is known of the others."""

    req: Number
    rooms: Annotated[tuple[str, ...], Meta(max_length=ROOMS)]
    reason: str = ""
    is_told: bool = True
