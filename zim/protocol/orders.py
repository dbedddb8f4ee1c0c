"""What a router orders a comet to do with sessions. Orders are numbered from 1 in each registration, repeated until the
comet has said, with Renew, that it has obeyed them, and obeyed once, in their order."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Literal

from msgspec import Meta

from zim.fabric.bans import NETWORK_CHARS, Reason
from zim.fabric.limits import ORDERS, ROOMS
from zim.protocol.fields import Number, Run
from zim.protocol.message import Message

Why = Literal["banned", "kicked", "sent away", "replaced", "too many"]
_Rooms = Annotated[tuple[str, ...], Meta(max_length=ROOMS)]


class Expel(Message, frozen=True):
    """An order: close a session. why: decides whether its client comes back; reason: for it."""

    n: Number
    conn: Number
    why: Why
    reason: Reason


class Move(Message, frozen=True):
    """An order: a session joins and leaves rooms, whatever its token says. reason: why it leaves, for its client."""

    n: Number
    conn: Number
    join: _Rooms
    leave: _Rooms
    reason: Reason


class Bar(Message, frozen=True):
    """An order: nobody of a network may come in. reason: for its clients."""

    n: Number
    network: Annotated[str, Meta(max_length=NETWORK_CHARS)]
    reason: Reason

    def __post_init__(self) -> None:
        """Raises: ValueError: it is no network."""
        ip_network(self.network)


class Unbar(Message, frozen=True):
    """An order: a network may come in again; "" for all of them."""

    n: Number
    network: Annotated[str, Meta(max_length=NETWORK_CHARS)]

    def __post_init__(self) -> None:
        """Raises: ValueError: it is no network."""
        if self.network:
            ip_network(self.network)


Order = Expel | Move | Bar | Unbar


class Orders(Message, frozen=True):
    """router → comet: orders, from the first on that it has not obeyed. begin: see Entry."""

    shard: str
    term: Run
    inc: Run
    begin: Number
    orders: Annotated[list[Order], Meta(max_length=ORDERS)]
