"""What a logic asks a router for one push, and what it hears. Publish and PublishReply carry many of them."""

from __future__ import annotations

from typing import Literal

import msgspec

from zim.protocol.fields import Int32, Keys, Moment, Number, Offsets, Streams, Ttl

ENTRY_BYTES, ITEM_BYTES = 200, 40  # what an entry and each of its items cost beside the body, in memory and on the wire
STREAM_BYTES = 200  # what a push costs for each of its streams, until it is in the log


def part_id(push_id: str, part: int) -> str:
    """What names a part of a push; the first has the push's own name."""
    return f"{push_id}.{part}" if part else push_id


class Publication(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One router's share of a push, or a part of it if that is large.

    digest: what the whole push is, if it has a key; the next four: see `KeyUse`. ttl_ms: what is left of it when it
    goes, 0 for ever; expires_ms: when that is over, if logic knows the router's log time. only: see Entry. part: in
    this shard, from 0, of so many parts.
    """

    push_id: str
    streams: Streams
    op: Int32
    body: bytes
    digest: bytes = b""
    home_ms: Moment = 0
    age_ms: Moment = 0
    is_fresh: bool = False
    is_live_only: bool = False
    ttl_ms: Ttl = 0
    expires_ms: Moment = 0
    only: Keys = ()
    part: Number = 0
    parts: Number = 1

    @property
    def key_id(self) -> str:
        """What it is known by, and its key is stored under."""
        return part_id(self.push_id, self.part)

    @property
    def size(self) -> int:
        """What it counts for in every limit, in bytes."""
        return ENTRY_BYTES + len(self.body) + STREAM_BYTES * (len(self.streams) + len(self.only))


class Outcome(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What became of one of them: ok, unavailable (surely not stored), unknown, conflict (the key has another push), or
    refused (another router's stream).

    at: which one. offsets: of each stream, if ok; 0 where it is not known. home_ms and the next: at its key's home.
    over, retry_ms: it is unavailable because of `[limits] pushes_per_stream`: which of its streams has too much, from
    1, and when there is room again; 0 where it is not so.
    """

    at: Number
    status: Literal["ok", "unavailable", "unknown", "conflict", "refused"]
    offsets: Offsets = ()
    home_ms: Moment = 0
    age_ms: Moment = 0
    is_fresh: bool = False
    over: Number = 0
    retry_ms: Number = 0
