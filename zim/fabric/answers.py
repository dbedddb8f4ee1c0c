"""What a fabric answers to questions: the values of the domain, which are the documents of the HTTP API as well.

A router answers with the same types as the whole fabric; `zim.fabric.questions` says how several become one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from zim.fabric.limits import LARGEST, RECEIPT_NAMES, ROOMS
from zim.fabric.streams import is_user_stream, room_of, user_of
from zim.fabric.tally import Account, Tally, account

_HOPS = "kept: from the router's taking it to its being on disk; reported: from then to the last news of it"
_OFFLINE_USERS = f"the names of these users; with empty_rooms {RECEIPT_NAMES} names at most"
_EMPTY_ROOMS = "rooms in which nobody was"
_AWAITED = "reports of comets that are still to come: targeted may grow by them"
_FORGOTTEN = "routers that kept it and crashed before they had stored its receipt"
_LEFT_OUT = "sessions that are there and not shown: they are too many, or in too many rooms"


class Place(msgspec.Struct, frozen=True):
    """One session: at which comet, its key `uid_seq`, its rooms."""

    comet: str
    key: str
    rooms: Annotated[tuple[str, ...], Meta(max_length=2 * ROOMS)]


class Located(msgspec.Struct, frozen=True):
    """A user's sessions."""

    user: str
    online: bool
    sessions: list[Place]
    left_out: Annotated[int, Meta(description=_LEFT_OUT)]


class InRoom(msgspec.Struct, frozen=True):
    """Who is in a room."""

    room: str
    sessions: int
    users: Annotated[int, Meta(description="whose sessions these are: a user is counted once")]


class RoomSize(msgspec.Struct, frozen=True):
    """How many sessions are in a room."""

    room: str
    sessions: int


class RoomSizes(msgspec.Struct, frozen=True):
    """Rooms with somebody in them, the largest first; of equal ones the name decides."""

    rooms: Annotated[list[RoomSize], Meta(max_length=LARGEST)]


class Counts(msgspec.Struct, frozen=True):
    """Who is online.

    Attributes:
        rooms: sessions by room, without the `r:` of the stream's name.
        comets: sessions by the name of their comet.
        roomless: sessions in no room.
    """

    rooms: dict[str, int]
    comets: dict[str, int]
    roomless: int


class Forgotten(msgspec.Struct, frozen=True):
    """A comet's sessions are forgotten. sessions: how many they were."""

    sessions: int


class Unread(msgspec.Struct, frozen=True):
    """What a user has not acknowledged."""

    stream: str
    epoch: str
    head: int
    acknowledged: Annotated[int, Meta(description="the last offset acknowledged; 0 for none")]
    unread: Annotated[int, Meta(description="messages behind it that are kept")]


class PushAccount(Account, frozen=True):
    """Of one push."""

    push_id: str = msgspec.field(name="id")


class Receipt(PushAccount, frozen=True, kw_only=True):
    """What became of one push, counted in sessions: targeted is the sum of delivered, gone, shed, expired, unknown and
    pending. `offline` counts users without a session, and stands outside."""

    hops_ms: Annotated[dict[str, float], Meta(description=_HOPS)]
    forgotten: Annotated[list[str], Meta(description=_FORGOTTEN)]
    offline_users: Annotated[list[str], Meta(description=_OFFLINE_USERS)]
    awaited: Annotated[int, Meta(description=_AWAITED)] = 0
    empty_rooms: Annotated[list[str], Meta(description=_EMPTY_ROOMS)] = msgspec.field(default_factory=list)

    @staticmethod
    def of(
        push_id: str,
        tally: Tally,
        offline: int,
        hops_ms: dict[str, float],
        forgotten: list[str],
        unserved: Sequence[str] = (),
        awaited: int = 0,
    ) -> Receipt:
        """A receipt of one router. unserved: streams of users and rooms that nobody was there for."""
        return Receipt(
            push_id,
            **account(tally, offline),
            silent=[],
            hops_ms=hops_ms,
            forgotten=forgotten,
            offline_users=[user_of(stream) for stream in unserved if is_user_stream(stream)],
            empty_rooms=[room_of(stream) for stream in unserved if not is_user_stream(stream)],
            awaited=awaited,
        )

    @property
    def is_final(self) -> bool:
        """As far as the routers that answered know, nothing of it will change."""
        return not (self.pending or self.awaited)

    @property
    def is_known(self) -> bool:
        """Some router has kept the push."""
        return "kept" in self.hops_ms


class Ledger(Account, frozen=True):
    """What became of all pushes, counted as in Receipt; pending is counted by itself, not as what is left."""

    pushes: int
    balanced: Annotated[bool, Meta(description="every router answered, and every session is accounted for")]

    @staticmethod
    def of(pushes: int, numbers: dict[str, int], silent: Sequence[str] = ()) -> Ledger:
        """A ledger of these numbers, see `account` and `sum_accounts`."""
        found = Ledger(pushes, False, **numbers, silent=list(silent))
        return msgspec.structs.replace(found, balanced=found.is_balanced)


@dataclass(frozen=True, slots=True)
class KeptMessage:
    """One message of a stream. time_ms: when it was kept, Unix time in milliseconds."""

    offset: int
    time_ms: int
    op: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a stream.

    Attributes:
        stream: its canonical name.
        epoch: which history the offsets belong to.
        first: the first offset that is kept; head + 1 if none is.
        head: the last offset; 0 before the first message.
        messages: in order. Those that have expired are left out.
    """

    stream: str
    epoch: str
    first: int
    head: int
    messages: Sequence[KeptMessage]


class Reached(msgspec.Struct, frozen=True):
    """How many sessions an order is for. Their comets obey within a second."""

    sessions: int


class KeptBan(msgspec.Struct, frozen=True, omit_defaults=True):
    """A ban that is in force."""

    time: Annotated[int, Meta(description="when it was made: Unix time in milliseconds")]
    user: str = ""
    device: str = ""
    address: str = ""
    reason: str = ""
    by: Annotated[str, Meta(description="the id of the API key")] = ""
    left_s: Annotated[float | None, Meta(description="how long it is still in force; not there if for ever")] = None
    sessions: Annotated[int, Meta(description="that it has closed at once, as far as that is known")] = 0
    is_kept: Annotated[bool, Meta(description="false: there are too many")] = True


class KeptBans(msgspec.Struct, frozen=True):
    """Bans, the newest first."""

    bans: Annotated[list[KeptBan], Meta(max_length=LARGEST)]
    total: Annotated[int, Meta(description="how many there are")]


class Lifted(msgspec.Struct, frozen=True):
    """A ban that is over."""

    was_banned: bool
