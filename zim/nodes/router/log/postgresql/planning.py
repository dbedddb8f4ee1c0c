"""A batch → the rows to write, and what each push is told once they are committed. Pure."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from zim.nodes.router.log import Appended, NewPush, repeated
from zim.nodes.router.log.keys import StoredKey, by_name
from zim.nodes.router.log.postgresql.packing import pack_id
from zim.nodes.router.log.standings import StreamStanding


class NextIds(NamedTuple):
    """The first free ones of a shard."""

    stream: int
    push: int
    key: int


@dataclass(slots=True)
class BatchPlan:
    """What a batch comes to: columns of rows.

    Attributes:
        free: ids that stay free.
        answers: one for each push.
        standings: of the streams that move.
        time_ms: the newest log time.
        unseen: keys of which it is not known whether they are stored: if one is, the plan is void.
    """

    free: NextIds
    answers: list[Appended] = field(default_factory=list)
    standings: dict[str, StreamStanding] = field(default_factory=dict)
    time_ms: int = 0
    unseen: list[bytes] = field(default_factory=list)
    stream_ids: list[int] = field(default_factory=list)
    stream_names: list[str] = field(default_factory=list)
    streams: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    pushes: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    expiries: list[int] = field(default_factory=list)
    walls: list[int] = field(default_factory=list)
    ops: list[int] = field(default_factory=list)
    crcs: list[int] = field(default_factory=list)
    push_ids: list[bytes] = field(default_factory=list)
    only_for: list[str] = field(default_factory=list)
    bodies: list[bytes | None] = field(default_factory=list)
    shared: list[int] = field(default_factory=list)
    shared_bodies: list[bytes] = field(default_factory=list)
    key_numbers: list[int] = field(default_factory=list)
    key_times: list[int] = field(default_factory=list)
    key_homes: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    key_offsets: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """How many records it writes, or keys, if those are more: what trimming will have to let go."""
        return max(len(self.streams), len(self.keys))

    @property
    def bytes(self) -> int:
        """About what it takes on the wire."""
        bodies = sum(len(body) for body in self.bodies if body) + sum(map(len, self.shared_bodies))
        return bodies + 100 * len(self.streams) + 100 * len(self.keys)


def stored_key(shard: int, key_id: str) -> bytes:
    """A key as it is stored: each shard has its own."""
    return shard.to_bytes(2, "big") + key_id.encode()


def content_crc(push_id: bytes, op: int, time_ms: int, expires_ms: int, body: bytes) -> int:
    """The part of a checksum that all records of a push share."""
    return zlib.crc32(b"%d %d %d %s" % (op, time_ms, expires_ms, push_id), zlib.crc32(body))


def record_crc(content: int, stream: str, offset: int, only: str) -> int:
    """What is stored with a record, to notice that it is not what was written."""
    return zlib.crc32(f"{offset} {stream} {only}".encode(), content)


def plan(
    batch: Sequence[NewPush],
    shard: int,
    known: Mapping[str, StreamStanding],
    keys: Mapping[str, StoredKey] | None,
    free: NextIds,
    key_window_ms: int,
) -> BatchPlan:
    """
    Args:
        batch: what is to be appended.
        shard: its number.
        known: where all its streams stand.
        keys: what is stored of its keys, by key id; None if that is not known, and hoped to be nothing.
        free: ids.
        key_window_ms: for how long a key is known.
    """
    result = BatchPlan(free)
    _, next_push, next_key = free
    fresh: dict[str, StoredKey] = {}  # keys of this batch
    ids: dict[str, int] = {}
    heads: dict[str, int] = {}
    rows: list[tuple[Any, ...]] = []
    put, answers, stored = rows.append, result.answers, keys or {}
    for push in batch:
        push_id, streams, op, body, time_ms, expires_ms, only, key, wall_ms = push
        key_id = push_id if key is None or not key.part else push.key_id
        if key is not None:
            found = fresh.get(key_id) or stored.get(key_id)
            if (answer := repeated(push, found, key_window_ms)) is not None:
                answers.append(answer)
                continue
        packed = pack_id(push_id)
        crc = content_crc(packed, op, time_ms, expires_ms, body)
        offsets = []
        inline = body if len(streams) == 1 else None
        for stream in streams:
            head = heads.get(stream)
            if head is None:
                head, ids[stream] = known[stream].head, known[stream].id or _put_stream(result, stream)
            head += 1
            heads[stream] = head
            only_for = json.dumps(only[stream]) if stream in only else ""
            checksum = record_crc(crc, stream, head, only_for)
            put((ids[stream], head, next_push, time_ms, expires_ms, wall_ms, op, checksum, packed, only_for, inline))
            offsets.append(head)
        if offsets:
            if inline is None:
                result.shared.append(next_push)
                result.shared_bodies.append(body)
            next_push += 1
        result.time_ms = max(result.time_ms, time_ms)
        home_ms = 0
        if key is not None:
            home_ms = key.home_ms or time_ms
            found = StoredKey(key.digest, time_ms, home_ms, by_name(streams, offsets))
            if key_id in fresh:
                _drop_key(result, stored_key(shard, key_id))  # it was another push's, before
            fresh[key_id] = found
            _put_key(result, next_key, stored_key(shard, key_id), found)
            next_key += 1
        answers.append(Appended("stored", tuple(offsets), home_ms))
    if keys is None:
        asked = {push.key_id for push in batch if push.key is not None}
        result.unseen = [stored_key(shard, key_id) for key_id in asked]
    _put_rows(result, rows)
    result.free = NextIds(free.stream + len(result.stream_ids), next_push, next_key)
    result.standings = {
        stream: StreamStanding(ids[stream], known[stream].floor, head, known[stream].epoch)
        for stream, head in heads.items()
    }
    return result


def _put_rows(result: BatchPlan, rows: Sequence[tuple[Any, ...]]) -> None:
    if rows:
        (
            result.streams, result.offsets, result.pushes, result.times, result.expiries, result.walls, result.ops,
            result.crcs, result.push_ids, result.only_for, result.bodies,
        ) = map(list, zip(*rows, strict=True))  # fmt: skip


def _put_stream(result: BatchPlan, stream: str) -> int:
    number = result.free.stream + len(result.stream_ids)
    result.stream_ids.append(number)
    result.stream_names.append(stream)
    return number


def _put_key(result: BatchPlan, number: int, key: bytes, stored: StoredKey) -> None:
    result.key_numbers.append(number)
    result.key_times.append(stored.time_ms)
    result.key_homes.append(stored.home_ms)
    result.keys.append(key)
    result.digests.append(stored.digest)
    result.key_offsets.append(str(stored.offsets))  # as JSON has it


def _drop_key(result: BatchPlan, key: bytes) -> None:
    """One statement cannot write the same key twice."""
    at = result.keys.index(key)
    for column in (
        result.key_numbers, result.key_times, result.key_homes, result.keys, result.digests, result.key_offsets,
    ):  # fmt: skip
        del column[at]
