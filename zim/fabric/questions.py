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

from zim.fabric.answers import Counts, Forgotten, InRoom, Ledger, Located, Receipt, RoomSizes, Unread
from zim.fabric.limits import LARGEST, OFFLINE_USERS
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
        offline = [user for receipt in answers.values() for user in receipt.offline_users]
        return Receipt(
            self.push_id,
            **sum_accounts(answers.values()),
            silent=list(silent),
            hops_ms=hops_ms,
            forgotten=forgotten,
            offline_users=offline[:OFFLINE_USERS],
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


AnyQuestion = (
    UserSessions | UnreadCount | OnlineCounts | RoomCount | LargestRooms | PushReceipt | WholeLedger | ForgetComet
)


def _sum(found: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for numbers in found:
        total.update(numbers)
    return dict(total)
