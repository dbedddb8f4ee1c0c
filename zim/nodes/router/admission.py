"""A push on its way into the log, and what is known of it afterwards. Pure: no socket, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from zim.fabric.audience import audiences
from zim.fabric.limits import OFFSET
from zim.nodes.router.feed import Feed
from zim.nodes.router.log import NewPush
from zim.nodes.router.log.keys import KeyUse
from zim.protocol.fields import Item
from zim.protocol.publication import Publication

_FOR_ALL: Mapping[str, tuple[str, ...]] = {}

Peer = TypeVar("Peer")  # whatever names the sender of a request; it is only handed back


@dataclass(slots=True)
class Admission(Generic[Peer]):
    """A push on its way into the log.

    Attributes:
        push: as it came.
        askers: who is to be answered, to which request, and to which push of it.
        size: in bytes, in every limit.
        deadline: of waiting for a comet that is behind; monotonic.
        time_ms: log time; wall_ms: the wall clock, for people.
        feeds: counted as behind by its size, until it is in the log.
        over: see Outcome; retry_s: when that stream has room again.
    """

    push: Publication
    askers: list[tuple[Peer, int, int]]
    size: int
    deadline: float
    time_ms: int
    wall_ms: int
    feeds: Sequence[Feed] = ()
    over: int = 0
    retry_s: float = 0.0

    @property
    def expires_ms(self) -> int:
        """Log time at which it is not worth being handed out any more; 0 for never."""
        ttl_ms, expires_ms = self.push.ttl_ms, self.push.expires_ms
        return min(self.time_ms + ttl_ms, expires_ms or OFFSET) if ttl_ms else 0


class Known(NamedTuple):
    """What is remembered of a push that is in the log. Atoms only, so that the garbage collector looks at it once."""

    digest: bytes
    streams: tuple[str, ...]
    offsets: tuple[int, ...]
    home_ms: int

    def is_same(self, push: Publication) -> bool:
        """Whether it is this push, or a repeat of it."""
        is_use = not push.home_ms or push.home_ms == self.home_ms
        return is_use and self.digest == push.digest and self.streams == tuple(push.streams)


class Stored(NamedTuple):
    """What a push has put into the log.

    Attributes:
        push: what came of its publisher.
        items: stream and offset of each new record.
        time_ms, expires_ms: log time.
    """

    push: Publication
    items: list[Item]
    time_ms: int
    expires_ms: int


def is_same(one: Publication, other: Publication) -> bool:
    """Whether they are the same push."""
    return (one.digest, one.home_ms, one.streams) == (other.digest, other.home_ms, other.streams)


def new_push(admission: Admission[Any]) -> NewPush:
    """What the log is to append for a push."""
    p = admission.push
    key = KeyUse(p.digest, p.home_ms, p.age_ms, p.is_fresh, p.is_live_only, p.part) if p.digest else None
    only = {stream: tuple(to.keys) for stream, to in audiences(p.only).items()} if p.only else _FOR_ALL
    times_ms = admission.time_ms, admission.expires_ms
    return NewPush(p.push_id, p.streams, p.op, p.body, *times_ms, only, key, admission.wall_ms)
