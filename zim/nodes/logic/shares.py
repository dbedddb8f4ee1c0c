"""What each shard is to do of a push, and the one answer that comes of it. Pure: no socket, no clock.

The answer is honest: ok means stored, unavailable means surely not stored, and whatever cannot be told is unknown.

A push with a publisher's key begins at the home of the key: a shard that alone knows what the key was used for. The
others are asked once home has said yes; see `zim.nodes.router.log.keys`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from itertools import repeat
from typing import Any

import msgspec

from zim.fabric.audience import audiences
from zim.fabric.pauses import Pause, no_pause, paused
from zim.fabric.push import Part, Published, Push, Refusal, Status
from zim.fabric.sharding import Shards
from zim.nodes.remote_clock import RemoteClock
from zim.protocol.publication import Outcome, Publication

GIVE_UP_S = 5.0  # over all attempts, and for a router that is away
PART_S = 0.05  # on top of it, for each part of the push that goes before
PER_STREAM = "pushes_per_stream"  # of [limits]
SURELY_NOT: tuple[Status, ...] = ("unavailable", "limited")  # stored
PART_STREAMS = 500  # a push to more streams of one shard is cut: one commit of all would hold up everybody else's


def push_id_of(key: str, principal: str = "") -> str:
    """The id of a push with a publisher's key: its hash. Each principal has keys of its own."""
    owned = blake2b(principal.encode(), digest_size=16).digest() if principal else b""
    return blake2b(key.encode(), digest_size=16, key=owned).hexdigest()


def digest_of(push: Push, by_name: Sequence[str] = (), part_streams: int = PART_STREAMS) -> bytes:
    """What a push is, so that another one under the same key is noticed; b"" without a key.

    Args:
        by_name: its streams, if they are sorted already.
        part_streams: see Splitter: with other parts it is another push for the logs.
    """
    if not push.key:
        return b""
    by_name = by_name or sorted(push.streams)
    content = [push.op, push.ttl_s, sorted(push.only), by_name, push.body]
    if len(by_name) > part_streams:
        content.append(part_streams)
    return blake2b(msgspec.msgpack.encode(content), digest_size=16).digest()


class Share:
    """What one shard is to do of one push, and what is known of it.

    Attributes:
        shard, streams: whose share, and of which streams.
        push_id: see Published; is_keyed: its publisher has given a key.
        home: the share of the home of its key, if that is another; followers: those that it is home for.
        give_up_at: no attempt begins after that; monotonic seconds.
        may_be_stored: an attempt had no answer: from then on no "unavailable" is honest.
        status, why: see Part; final once it is over.
        offsets: of the streams, where the push is; none unless the status is "ok".
        refusal: which limit it is about, if it is "limited".
        is_begun: its shard was asked.
        lane, group: where it stands in its publisher's order, and who waits for it.
        part: what became of it, once it is over.
        has_ended: its lane was told that it is over.
        before: what it shares with those of the lane that it must wait for: streams, and the push that it is a part of.
        waits_for, after: how many shares of the lane it must wait for still, and which wait for it; see Lane.
    """

    __slots__ = (
        "_asked_at",
        "_home_at",
        "_home_ms",
        "_is_fresh",
        "_message",
        "_publication",
        "_with_it",
        "after",
        "before",
        "followers",
        "give_up_at",
        "group",
        "has_ended",
        "home",
        "is_begun",
        "is_keyed",
        "is_over",
        "lane",
        "may_be_stored",
        "offsets",
        "part",
        "push_id",
        "refusal",
        "shard",
        "size",
        "status",
        "streams",
        "waits_for",
        "why",
    )

    def __init__(self, shard: str, publication: Publication, now: float, home: Share | None = None) -> None:
        """
        Args:
            publication: what its router is asked, but for what home says. The parts of a push in one shard go one after
                the other, with those of other publishers in between.
        """
        self.shard, self.home = shard, home
        self._publication: Publication | None = publication  # until it is over
        self.push_id, self.streams, self.size = publication.push_id, publication.streams, publication.size
        self.is_keyed = bool(publication.digest)
        self._asked_at, self.give_up_at = now, now + GIVE_UP_S + PART_S * publication.part
        self.before = publication.streams
        if publication.parts > 1:
            self.before = [*self.before, f"part of {publication.push_id}"]
        self.followers: list[Share] = []
        if home is not None:
            home.followers.append(self)
        self._home_ms, self._home_at, self._is_fresh = 0, 0.0, False
        self.is_begun = self.is_over = self.has_ended = self.may_be_stored = False
        self.status: Status = "unavailable"
        self.offsets: Sequence[int] = ()
        self.refusal: Refusal | None = None
        self.why = ""
        self.group: Any = None
        self.lane: Any = None
        self.after: list[Share] = []
        self.waits_for = self._message = self._with_it = 0

    @property
    def waits_for_whom(self) -> str:
        """Why it was not begun, for people."""
        if self.home is not None and not self.home.is_over:
            return f"{self.home.shard} has not answered, which knows what its key was used for"
        return "what its publisher sent before it has not come to an end"

    def is_free_in(self, message: int) -> bool:
        """One more of those that it must wait for is in a message; whether all of them are in that one."""
        if self._message != message:
            self._message, self._with_it = message, 0
        self._with_it += 1
        return self._with_it == self.waits_for

    @property
    def is_ready(self) -> bool:
        """Its router may be asked."""
        return self.home is None or self.home.status == "ok"

    def publication(self, now: float, clock: RemoteClock | None = None) -> Publication:
        """What the router is asked now. clock: its log time, if that is known."""
        home, found = self.home, self._publication
        assert found is not None
        if found.ttl_ms:
            until = self._asked_at + found.ttl_ms / 1000
            expires_ms = clock.at_least(until) if clock is not None else None
            left_ms = max(1, round((until - now) * 1000))
            found = msgspec.structs.replace(found, ttl_ms=left_ms, expires_ms=max(0, expires_ms or 0))
        if home is not None:
            age_ms = int((now - home._home_at) * 1000)
            home_ms, is_fresh = home._home_ms, home._is_fresh
            found = msgspec.structs.replace(found, home_ms=home_ms, age_ms=age_ms, is_fresh=is_fresh)
        return found

    def on_outcome(self, m: Outcome, now: float) -> None:
        """The router has said what became of it."""
        match m.status:
            case "ok":
                self._home_ms, self._home_at, self._is_fresh = m.home_ms, now - m.age_ms / 1000, m.is_fresh
                self._end("ok", "", m.offsets)
            case "conflict":
                self._end("conflict", f"{self.shard} knows the key of another push")
            case "unavailable" if 0 < m.over <= len(self.streams):
                self.refusal = Refusal(PER_STREAM, m.retry_ms / 1000, self.streams[m.over - 1])
                self._end("limited", self.refusal.why)
            case "unavailable":
                self._end("unavailable", f"{self.shard} cannot take it now")
            case "unknown":
                self._end("unknown", f"{self.shard} cannot tell whether it was stored")
            case "refused":
                what = self.streams[0] if self.streams else "its key"
                self.give_up(f"{self.shard} says that {what} is another's: the topologies differ")

    def on_silence(self, why: str) -> None:
        """The router was asked, and nothing came back."""
        self.may_be_stored, self.why = True, why

    def give_up(self, why: str) -> None:
        """There is no time for more. With a key it may have been stored through another logic, or earlier."""
        is_unsure = self.is_keyed or self.may_be_stored
        self._end("unknown" if is_unsure else "unavailable", self.why or why)

    def follow(self, home: Share) -> None:
        """Home has not said yes, so its router is not asked."""
        self.refusal = home.refusal
        self._end(home.status, home.why)

    def _end(self, status: Status, why: str, offsets: Sequence[int] = ()) -> None:
        if status in SURELY_NOT and self.may_be_stored:  # it may yet arrive, by a link that was thought broken
            status, why = "unknown", f"an earlier attempt had no answer; then: {why}"
        self.is_over, self.status, self.why, self.offsets = True, status, why, offsets
        known: Iterable[int] = offsets if len(offsets) == len(self.streams) else repeat(0)
        at = {stream: offset or None for stream, offset in zip(self.streams, known, strict=False)}
        self.part = Part(self.shard, status, at, why)
        self._publication = None


class Splitter:
    """Makes shares of pushes."""

    def __init__(
        self, names: Sequence[str], is_live_only: Callable[[str], bool], part_streams: int = PART_STREAMS
    ) -> None:
        """
        Args:
            names: of all shards.
            is_live_only: whether a stream is.
            part_streams: of one shard; a share of more is cut.
        """
        self._shards, self._is_live_only, self._part_streams = Shards(names), is_live_only, part_streams

    def split(self, push: Push, push_id: str, now: float, pause: Pause = no_pause) -> list[Share]:
        """A push's shares: of each shard that has some of its streams, or is the home of its key. Home comes first.

        Args:
            pause: is called between steps.
        """
        shards, size = self._shards, self._part_streams
        home = shards.home(push_id) if push.key else ""
        is_large = len(push.streams) > size
        by_name = sorted(push.streams) if is_large or push.key else push.streams
        streams = list(by_name if is_large else push.streams)  # a repeat must be cut in the same places
        digest = digest_of(push, by_name, size)
        is_live_only = bool(digest) and all(map(self._is_live_only, streams))
        ttl_ms = max(1, int(push.ttl_s * 1000)) if push.ttl_s else 0
        whole = Publication(
            push_id, streams, push.op, push.body, digest, is_live_only=is_live_only, ttl_ms=ttl_ms, only=push.only
        )
        if len(streams) == 1 and home in ("", shard := shards.of(streams[0])):  # as nearly all are
            return [Share(shard, whole, now)]
        by_shard: dict[str, list[str]] = {home: []} if home else {}
        for stream in paused(streams, pause):
            by_shard.setdefault(shards.of(stream), []).append(stream)
        parts = [
            (shard, part, len(starts), mine[start : start + size])
            for shard, mine in by_shard.items()
            for starts in [range(0, len(mine) or 1, size)]
            for part, start in enumerate(starts)
        ]
        to = audiences(push.only) if len(parts) > 1 else {}
        shares: list[Share] = []
        for shard, part, n_parts, mine in parts:
            if part:
                pause()
            only = tuple(key for s in mine if s in to for key in to[s].keys) if to else push.only
            piece = msgspec.structs.replace(whole, streams=mine, only=only, part=part, parts=n_parts)
            shares.append(Share(shard, piece, now, shares[0] if home and shares else None))
        return shares


def published(shares: Sequence[Share]) -> Published:
    """One answer for all shares of a push: never more than is known of all of them."""
    statuses = {share.status for share in shares}
    refusal = max((s.refusal for s in shares if s.refusal is not None), key=lambda r: r.wait_s, default=None)
    if "limited" in statuses:
        statuses = {share.status for share in shares if share.streams}  # the home of its key may know the key
        if len(statuses) > 1 and statuses <= set(SURELY_NOT):
            statuses = {"unavailable"}
    status: Status = statuses.pop() if len(statuses) == 1 else "unknown"
    parts = [share.part for share in shares if share.streams]
    if refusal is None or status not in SURELY_NOT:
        return Published(shares[0].push_id, status, parts)
    return Published(shares[0].push_id, status, parts, refusal.retry_after_s, "", refusal)
