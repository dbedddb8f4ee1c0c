"""What each router is to do of a push, and the one answer that comes of it. Pure: no socket, no clock.

The answer is honest: ok means stored, unavailable means surely not stored, and whatever cannot be told is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import msgspec
from typing_extensions import override

from zim.fabric.push import Part, Published, Push, Status
from zim.fabric.sharding import Shards
from zim.nodes.calls import RETRY_S, Call
from zim.protocol.messages import Message, Publish, PublishReply

ATTEMPTS = 3
ANSWER_S = 2.0  # for one attempt; a router makes a publisher wait at most one second for a comet that is behind
GIVE_UP_S = 5.0  # over all attempts, and for a router that is away


def push_id_of(key: str) -> str:
    """The id of a push with a publisher's key: its hash."""
    return blake2b(key.encode(), digest_size=16).hexdigest()


def digest_of(push: Push) -> bytes:
    """What a push is, so that another one under the same key is noticed; b"" without a key."""
    if not push.key:
        return b""
    content = (push.op, push.ttl_s, sorted(push.only), sorted(push.streams), push.body)
    return blake2b(msgspec.msgpack.encode(content), digest_size=16).digest()


class Share(Call):
    """What one router is to do of one push, and what is known of it.

    Attributes:
        push, push_id, digest: of the whole.
        router, streams: whose share, and of which streams.
        term: the router's, as it was known at the first attempt.
        give_up_at: no attempt after that; monotonic seconds.
        number: of the attempt under way, from 1.
        may_be_stored: an attempt had no answer: from then on no "unavailable" is honest.
        status, why: see Part; final once it is over.
        offsets: of the streams, where the push is; none unless the status is "ok".
    """

    __slots__ = (
        "digest",
        "give_up_at",
        "may_be_stored",
        "number",
        "offsets",
        "push",
        "push_id",
        "router",
        "status",
        "streams",
        "term",
        "why",
    )

    def __init__(
        self, push: Push, push_id: str, digest: bytes, router: str, streams: list[str], now: float, term: int = 0
    ) -> None:
        super().__init__()
        self.push, self.push_id, self.digest = push, push_id, digest
        self.router, self.streams, self.term = router, streams, term
        self.give_up_at = now + GIVE_UP_S
        self.number = 1
        self.may_be_stored = False
        self.status: Status = "unavailable"
        self.offsets: Sequence[int] = ()
        self.why = ""

    @property
    def size(self) -> int:
        """In bytes, in every limit."""
        return len(self.push.body) + 64 * (len(self.streams) + len(self.push.only))

    @property
    def part(self) -> Part:
        """What became of it."""
        offsets = self.offsets if self.status == "ok" else [None] * len(self.streams)
        return Part(self.router, self.status, dict(zip(self.streams, offsets, strict=True)), self.why)

    def message(self, req: int) -> Publish:
        """What the router is asked."""
        p = self.push
        ttl_ms = max(1, int(p.ttl_s * 1000)) if p.ttl_s else 0
        return Publish(
            req, self.push_id, self.streams, p.op, p.body, self.number, self.term, self.digest, ttl_ms, p.only
        )

    @override
    def attempt(self, req: int, now: float) -> tuple[str, Message, int, float]:
        return self.router, self.message(req), self.size, now + ANSWER_S

    def on_answer(self, m: PublishReply, now: float) -> None:
        """The router has said what became of it."""
        match m.status:
            case "ok":
                self._end("ok", "", m.offsets)
            case "conflict":
                self._end("conflict", f"{self.router} knows the key of another push")
            case "unavailable":
                self._end("unavailable", f"{self.router} cannot take it now")
            case "unknown":
                self._end("unknown", f"{self.router} cannot tell whether it was stored")
            case "refused":
                self.give_up(f"{self.router} says that {self.streams[0]} is another's: the topologies differ")

    def on_silence(self, why: str, now: float) -> None:
        """An attempt went out, and nothing came back."""
        why = f"{self.router}: {why}"
        self.number, self.may_be_stored, self.why, self.again_at = self.number + 1, True, why, now
        if self.number > ATTEMPTS:
            self._end("unknown", why)
        elif now > self.give_up_at:
            self.give_up(why)

    def on_not_sent(self, now: float) -> None:
        """The router is away; it may be back before the time is up."""
        self.again_at = now + RETRY_S
        if now > self.give_up_at:
            self.give_up(f"{self.router} is away")

    def give_up(self, why: str) -> None:
        """There is no time for more. With a key it may have been stored through another logic, or earlier."""
        if not self.is_over:
            self._end("unknown" if self.digest else "unavailable", self.why or why)

    def _end(self, status: Status, why: str, offsets: Sequence[int] = ()) -> None:
        if status == "unavailable" and self.may_be_stored:  # it may yet arrive, by a link that was thought broken
            status, why = "unknown", f"an earlier attempt had no answer; then: {why}"
        self.is_over, self.status, self.why, self.offsets = True, status, why, offsets


def split(push: Push, push_id: str, shards: Shards, terms: Mapping[str, int], now: float) -> list[Share]:
    """A push's shares, one for each router that owns some of its streams. terms: of the routers, as far as known."""
    by_router: dict[str, list[str]] = {}
    for stream in push.streams:
        by_router.setdefault(shards.owner(stream), []).append(stream)
    digest = digest_of(push)
    return [
        Share(push, push_id, digest, router, streams, now, terms.get(router, 0))
        for router, streams in by_router.items()
    ]


def published(shares: Sequence[Share]) -> Published:
    """One answer for all shares of a push: never more than is known of all of them."""
    statuses = {share.status for share in shares}
    status: Status = "unknown"
    if "conflict" in statuses:
        status = "conflict"
    elif len(statuses) == 1:
        (status,) = statuses
    return Published(shares[0].push_id, status, [share.part for share in shares])
