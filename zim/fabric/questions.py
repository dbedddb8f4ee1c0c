"""What a fabric can be asked: each question with the type of its answer, who is asked, and how answers become one.

A new question needs its class here and its name in AnyQuestion, an answer in `zim.nodes.router.answering`, and a row in
`zim.web.api`. Nothing between the two has to know it. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Generic, TypeVar, get_args

import msgspec
from msgspec import Meta
from typing_extensions import override

from zim.fabric.answers import (
    Counts,
    Forgotten,
    InRoom,
    KeptBan,
    KeptBans,
    Ledger,
    Lifted,
    Located,
    Reached,
    Receipt,
    RoomSizes,
    Unread,
)
from zim.fabric.bans import Banned, Name, Reason
from zim.fabric.limits import BAN_S, LARGEST, RECEIPT_NAMES, ROOMS
from zim.fabric.principals import Scope
from zim.fabric.streams import room_stream, user_stream
from zim.fabric.tally import sum_accounts

A = TypeVar("A")


class Question(msgspec.Struct, Generic[A], frozen=True, array_like=True, tag=str.lower):
    """A question. Every router that is asked gives an A, and all of them together make one.

    Attributes:
        names_silent: a router that does not answer soon is named in the answer. Otherwise there is none without it.
        is_order: it changes something, so a missing answer does not mean that nothing was done.
        scope: what whoever asks must have, for `about`.
    """

    names_silent: ClassVar[bool] = False
    is_order: ClassVar[bool] = False
    scope: ClassVar[Scope]

    def asked_at(self) -> str:
        """The stream whose owner is asked; "" for every router."""
        return ""

    def about(self) -> Sequence[str] | None:
        """The streams that it is about; None for all there are."""
        return None

    def merge(self, answers: Mapping[str, A], silent: Sequence[str]) -> A:
        """One answer of several. This is for questions that only one router is asked.

        Args:
            answers: by router. There is one at least, or the question names those that are silent.
            silent: routers that did not answer; none unless the question names them.
        """
        (answer,) = answers.values()
        return answer

    @classmethod
    def answer_type(cls) -> Any:
        """What A is."""
        return get_args(cls.__orig_bases__[0])[0]  # type: ignore[attr-defined]


class UserQuestion(Question[A], frozen=True):
    """A question about a user: the owner of the user's own stream has the answer."""

    uid: str

    @override
    def asked_at(self) -> str:
        return user_stream(self.uid)

    @override
    def about(self) -> Sequence[str]:
        return (user_stream(self.uid),)


class UserSessions(UserQuestion[Located], frozen=True):
    """Whether a user is online: the sessions, at which comets, in which rooms."""

    scope: ClassVar[Scope] = "count"


class UnreadCount(UserQuestion[Unread], frozen=True):
    """How many messages of a user's own stream are not acknowledged."""

    scope: ClassVar[Scope] = "read"


class OnlineCounts(Question[Counts], frozen=True):
    """How many sessions there are, by room and by comet."""

    scope: ClassVar[Scope] = "count"

    @override
    def merge(self, answers: Mapping[str, Counts], silent: Sequence[str]) -> Counts:
        found = answers.values()
        return Counts(_sum(c.rooms for c in found), _sum(c.comets for c in found), sum(c.roomless for c in found))


class RoomCount(Question[InRoom], frozen=True):
    """How many are in a room: sessions, and users.

    The owner of a user's stream knows the user's sessions with their rooms. So every router is asked, and as each user
    has one owner the numbers add up.
    """

    scope: ClassVar[Scope] = "count"
    room: str

    @override
    def about(self) -> Sequence[str]:
        return (room_stream(self.room),)

    @override
    def merge(self, answers: Mapping[str, InRoom], silent: Sequence[str]) -> InRoom:
        found = answers.values()
        return InRoom(self.room, sum(part.sessions for part in found), sum(part.users for part in found))


class LargestRooms(Question[RoomSizes], frozen=True):
    """The largest rooms. Each router knows the sizes of those that it owns."""

    scope: ClassVar[Scope] = "count"
    limit: Annotated[int, Meta(ge=1, le=LARGEST)]

    @override
    def merge(self, answers: Mapping[str, RoomSizes], silent: Sequence[str]) -> RoomSizes:
        found = [size for part in answers.values() for size in part.rooms]
        return RoomSizes(sorted(found, key=lambda size: (-size.sessions, size.room))[: self.limit])


class PushReceipt(Question[Receipt], frozen=True):
    """What became of a push."""

    names_silent: ClassVar[bool] = True
    scope: ClassVar[Scope] = "push"
    push_id: str

    @override
    def about(self) -> Sequence[str]:
        return ()

    @override
    def merge(self, answers: Mapping[str, Receipt], silent: Sequence[str]) -> Receipt:
        hops_ms: dict[str, float] = {}
        for receipt in answers.values():
            for hop, ms in receipt.hops_ms.items():
                hops_ms[hop] = max(ms, hops_ms.get(hop, ms))
        forgotten = [router for receipt in answers.values() for router in receipt.forgotten]
        offline = [user for receipt in answers.values() for user in receipt.offline_users][:RECEIPT_NAMES]
        rooms = [room for receipt in answers.values() for room in receipt.empty_rooms]
        return Receipt(
            self.push_id,
            **sum_accounts(answers.values()),
            silent=list(silent),
            hops_ms=hops_ms,
            forgotten=forgotten,
            offline_users=offline,
            empty_rooms=rooms[: RECEIPT_NAMES - len(offline)],
            awaited=sum(receipt.awaited for receipt in answers.values()),
        )


class WholeLedger(Question[Ledger], frozen=True):
    """What became of all pushes, and whether every session is accounted for."""

    names_silent: ClassVar[bool] = True
    scope: ClassVar[Scope] = "count"

    @override
    def about(self) -> Sequence[str]:
        return ()

    @override
    def merge(self, answers: Mapping[str, Ledger], silent: Sequence[str]) -> Ledger:
        found = answers.values()
        return Ledger.of(sum(part.pushes for part in found), sum_accounts(found), silent)


class ForgetComet(Question[Forgotten], frozen=True):
    """Forget the sessions of a comet, known or not. One that lives registers them anew."""

    is_order: ClassVar[bool] = True
    scope: ClassVar[Scope] = "operate"
    comet: str

    @override
    def merge(self, answers: Mapping[str, Forgotten], silent: Sequence[str]) -> Forgotten:
        return Forgotten(sum(part.sessions for part in answers.values()))


class KickUser(UserQuestion[Reached], frozen=True):
    """Close sessions of a user.

    Attributes:
        device: only those of this class; "" for all. seq: only the one of this number; 0 for all.
        returns: they may come back.
    """

    is_order: ClassVar[bool] = True
    scope: ClassVar[Scope] = "kick"
    device: Name = ""
    seq: Annotated[int, Meta(ge=0)] = 0
    reason: Reason = ""
    returns: bool = False


class KickRoom(Question[Reached], frozen=True):
    """Close the sessions that are in a room, or send them out of it.

    Attributes:
        is_out_of_fabric: close them.
        returns: they may come back; of a room who may join it can.
    """

    is_order: ClassVar[bool] = True
    scope: ClassVar[Scope] = "kick"
    room: Name
    is_out_of_fabric: bool = False
    reason: Reason = ""
    returns: bool = False

    @override
    def about(self) -> Sequence[str]:
        return (room_stream(self.room),)

    @override
    def merge(self, answers: Mapping[str, Reached], silent: Sequence[str]) -> Reached:
        return Reached(sum(part.sessions for part in answers.values()))


class MoveUser(UserQuestion[Reached], frozen=True):
    """Let all sessions of a user join and leave rooms, whatever their tokens say."""

    is_order: ClassVar[bool] = True
    scope: ClassVar[Scope] = "kick"
    join: Annotated[tuple[Name, ...], Meta(max_length=ROOMS)] = ()
    leave: Annotated[tuple[Name, ...], Meta(max_length=ROOMS)] = ()
    reason: Reason = ""

    @override
    def about(self) -> Sequence[str]:
        return (user_stream(self.uid), *map(room_stream, self.join), *map(room_stream, self.leave))


class _BanQuestion(Question[A], frozen=True):
    banned: Banned

    def __post_init__(self) -> None:
        """Raises: ValueError: it is about nobody, or about a user and a network."""
        if bool(self.banned.user) == bool(self.banned.network):
            raise ValueError("one of user and network")

    @override
    def asked_at(self) -> str:
        return self.banned.stream

    @override
    def about(self) -> Sequence[str] | None:
        return (self.banned.stream,) if self.banned.user else None


class BanWho(_BanQuestion[KeptBan], frozen=True):
    """Let nobody in who is meant, and close their sessions.

    Attributes:
        by: the principal.
        for_s: how long; 0 for ever.
    """

    is_order: ClassVar[bool] = True
    scope: ClassVar[Scope] = "ban"
    reason: Reason = ""
    by: str = ""
    for_s: Annotated[float, Meta(ge=0, le=BAN_S)] = 0.0


class LiftBan(_BanQuestion[Lifted], frozen=True):
    """Let them in again."""

    is_order: ClassVar[bool] = True
    scope: ClassVar[Scope] = "ban"


class BanList(Question[KeptBans], frozen=True):
    """Who is banned: the newest bans."""

    scope: ClassVar[Scope] = "ban"
    limit: Annotated[int, Meta(ge=1, le=LARGEST)]

    @override
    def merge(self, answers: Mapping[str, KeptBans], silent: Sequence[str]) -> KeptBans:
        found = [ban for part in answers.values() for ban in part.bans]
        newest = sorted(found, key=lambda ban: -ban.time)[: self.limit]
        return KeptBans(newest, sum(part.total for part in answers.values()))


AnyQuestion = (
    UserSessions
    | UnreadCount
    | OnlineCounts
    | RoomCount
    | LargestRooms
    | PushReceipt
    | WholeLedger
    | ForgetComet
    | KickUser
    | KickRoom
    | MoveUser
    | BanWho
    | LiftBan
    | BanList
)


def _sum(found: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for numbers in found:
        total.update(numbers)
    return dict(total)
