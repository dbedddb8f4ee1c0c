"""What the web layer is handed: the fabric as a backend sees it. The logic node implements it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from zim.protocol.frame import Op

Status = Literal["ok", "unavailable", "unknown", "conflict"]

OUTCOMES = ("delivered", "gone", "shed", "expired", "unknown")  # of sessions that are not pending


@dataclass(frozen=True, slots=True)
class Push:
    """What a backend asks for.

    Attributes:
        streams: canonical names, `u:7`, `r:1`, `*`; never twice the same, never none.
        body: the application's bytes.
        op: of the packet that clients get.
        key: the publisher's idempotency key; "" for none.
        ttl_s: for how long it is worth being handed out; 0 for ever.
        only: session keys, `7_12`. A user's stream that one of them belongs to is for these sessions alone.
    """

    streams: Sequence[str]
    body: bytes
    op: int = Op.PUSH
    key: str = ""
    ttl_s: float = 0.0
    only: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """One router's share of a push.

    Attributes:
        router: its name.
        status: see Published.
        streams: which of the push's streams it owns.
        offsets: of each, where the push is; none unless the status is "ok".
        why: for people, where the status is not "ok".
    """

    router: str
    status: Status
    streams: Sequence[str]
    offsets: Sequence[int] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """What became of one publish.

    Attributes:
        push_id: names this push at all six stops.
        status: "ok": kept. "unavailable": surely nothing was kept. "unknown": some of it may have been; ask again with
            a key. "conflict": the key was used for another content.
        parts: what became of it at each router.
        retry_after_s: when an "unavailable" push is worth another try.
    """

    push_id: str
    status: Status
    parts: Sequence[Part] = ()
    retry_after_s: int = 1


@dataclass(frozen=True)
class Counts:
    """Who is online.

    Attributes:
        rooms: sessions by room, without the `r:` of the stream's name.
        comets: sessions by the id of their comet.
        roomless: sessions in no room.
    """

    rooms: Mapping[str, int]
    comets: Mapping[int, int]
    roomless: int


@dataclass(frozen=True)
class Kept:
    """One message of a stream. time_ms: when it was kept, Unix time in milliseconds."""

    offset: int
    time_ms: int
    op: int
    body: bytes


@dataclass(frozen=True)
class History:
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
    messages: Sequence[Kept]


@dataclass(frozen=True)
class Unread:
    """What a user has not acknowledged.

    Attributes:
        unread: how many messages of the user's own stream, of those that are kept.
        acknowledged: the cursor: the last offset acknowledged; 0 for none.
        head: the stream's last offset.
        epoch: which history the offsets belong to.
    """

    unread: int
    acknowledged: int
    head: int
    epoch: str


@dataclass(frozen=True)
class Receipt:
    """What became of one push, counted in sessions: targeted is the sum of the six after it.

    Attributes:
        push_id: which.
        targeted: sessions that it was for when it was kept.
        delivered: the kernel took the last byte.
        gone: the connection, or its comet, was lost from sight before that.
        shed: the client was too slow.
        expired: its ttl was over.
        unknown: a router that crashed had not yet heard.
        pending: nobody knows yet.
        offline: users who had no session; they stand outside the sum.
        is_known: some router knows the push.
        hops_ms: "kept": from the router's taking it to its being on disk; "reported": from then to the last news of it.
        silent: routers that did not answer; what they know is not in the sums.
        forgotten: routers that kept it and crashed before they had stored its receipt.
    """

    push_id: str
    targeted: int = 0
    delivered: int = 0
    gone: int = 0
    shed: int = 0
    expired: int = 0
    unknown: int = 0
    pending: int = 0
    offline: int = 0
    is_known: bool = True
    hops_ms: Mapping[str, float] = field(default_factory=dict)
    silent: Sequence[str] = ()
    forgotten: Sequence[str] = ()


@dataclass(frozen=True)
class Totals:
    """What became of all pushes, counted as in Receipt; pending is counted by itself, so that the sum can be checked.

    Attributes:
        pushes: how many.
        silent: routers that did not answer; what they know is not in the sums.
    """

    pushes: int
    offline: int
    targeted: int
    delivered: int
    gone: int
    shed: int
    expired: int
    unknown: int
    pending: int
    silent: Sequence[str] = ()

    @property
    def is_balanced(self) -> bool:
        """Every session that was targeted is accounted for."""
        known = sum(getattr(self, name) for name in OUTCOMES)
        return not self.silent and self.targeted == known + self.pending


class Fabric(Protocol):
    """What a backend can ask for."""

    def publish(self, push: Push) -> Published:
        """Publish one body to streams.

        Never raises for faults of the fabric: they are in the answer.

        Switches.
        """

    def publish_many(self, pushes: Sequence[Push]) -> Sequence[Published]:
        """Publish many at once, cheaper than one by one. One answer for each, in their order.

        Switches.
        """

    def counts(self) -> Counts:
        """Count the sessions.

        Switches.

        Raises:
            zim.errors.Unavailable: a router did not answer.
        """

    def forget(self, comet_id: int) -> None:
        """Forget the sessions of a comet, known or not; one that lives registers them anew.

        Switches.

        Raises:
            zim.errors.Unavailable: a router did not answer.
        """

    def history(self, stream: str, after: int, limit: int) -> History:
        """A piece of a stream: at most `limit` messages after an offset, fewer where they get large.

        Switches.

        Raises:
            zim.errors.Unavailable: its router did not answer.
        """

    def unread(self, uid: str) -> Unread:
        """What a user has not acknowledged.

        Switches.

        Raises:
            zim.errors.Unavailable: the router did not answer.
        """

    def receipt(self, push_id: str, wait_s: float = 0.0) -> Receipt:
        """What became of a push, summed over all routers.

        Args:
            push_id: from Published.
            wait_s: how long to wait until nothing of it is pending.

        Switches.
        """

    def totals(self) -> Totals:
        """What became of all pushes, summed over all routers.

        Switches.
        """
