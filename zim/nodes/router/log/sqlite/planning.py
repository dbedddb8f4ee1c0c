"""A batch → the rows to write, and what each record is told once they are committed. Pure."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from zim.nodes.router.log import Appended, NewRecord


class Standing(msgspec.Struct, frozen=True, gc=False):
    """Where a stream stands. id: its row; 0 if it has none yet."""

    id: int
    floor: int
    head: int


class StoredKey(NamedTuple):
    """Where the keyed push of an id is in a stream."""

    offset: int
    digest: bytes
    until_ms: int


class Ids(NamedTuple):
    """The first free ids."""

    stream: int
    push: int
    key: int


@dataclass(slots=True)
class Plan:
    """What a batch comes to. Rows are flat: one list of all their columns, as SQLite's parameters are.

    Attributes:
        answers: one for each record.
        standings: of the streams that move.
        ids: what stays free.
        time_ms: the newest log time.
    """

    ids: Ids
    answers: list[Appended] = field(default_factory=list)
    standings: dict[str, Standing] = field(default_factory=dict)
    time_ms: int = 0
    streams: list[Any] = field(default_factory=list)  # id, name, floor
    pushes: list[Any] = field(default_factory=list)  # id, push_id, op, time_ms, expires_ms, body
    shared: list[Any] = field(default_factory=list)  # push, how many records beyond the first
    records: list[Any] = field(default_factory=list)  # stream, offset, push, crc, only
    keys: list[Any] = field(default_factory=list)  # id, push_id, stream, offset, digest, until_ms


def record_checksum(content: int, stream: str, offset: int, only: str | None) -> int:
    """What is stored with a record, to notice that it, or its push, is not what was written."""
    return zlib.crc32(f"{offset} {stream} {only}".encode(), content)


def content_checksum(push_id: str, op: int, time_ms: int, expires_ms: int, body: bytes) -> int:
    """The part of it that all records of a push share."""
    return zlib.crc32(b"%d %d %d %s" % (op, time_ms, expires_ms, push_id.encode()), zlib.crc32(body))


def plan(
    batch: Sequence[NewRecord],
    known: Mapping[str, Standing],
    keys: Mapping[tuple[str, str], StoredKey],
    free: Ids,
    key_window_ms: int,
) -> Plan:
    """
    Args:
        batch: what is to be appended.
        known: where all its streams stand.
        keys: what is known of its keyed pushes, by push id and stream.
        free: ids.
        key_window_ms: for how long a key is known.
    """
    result = Plan(free)
    next_stream, next_push, next_key = free
    fresh: dict[tuple[str, str], StoredKey] = {}  # keys of this batch
    ids: dict[str, int] = {}
    heads: dict[str, int] = {}
    last: tuple[Any, ...] = ()
    push = extra = crc = 0
    pushes, records, answers = result.pushes, result.records, result.answers
    for stream, push_id, digest, op, body, time_ms, expires_ms, only in batch:
        if digest:
            key = fresh.get((push_id, stream)) or keys.get((push_id, stream))
            if key is not None and key.until_ms > time_ms:
                answers.append(Appended("duplicate" if key.digest == digest else "conflict", key.offset))
                continue
        head = heads.get(stream)
        if head is None:
            standing = known[stream]
            ids[stream], head = standing.id, standing.head
            if not standing.id:
                ids[stream] = next_stream
                result.streams += (next_stream, stream, 0)
                next_stream += 1
        head += 1
        heads[stream] = head
        content = (push_id, op, time_ms, expires_ms, body)
        if content == last:
            extra += 1
        else:
            if extra:
                result.shared += (push, extra)
            last, push, extra = content, next_push, 0
            next_push += 1
            crc = content_checksum(push_id, op, time_ms, expires_ms, body)
            pushes += (push, *content)
            result.time_ms = max(result.time_ms, time_ms)
        only_for = json.dumps(only) if only else None
        records += (ids[stream], head, push, record_checksum(crc, stream, head, only_for), only_for)
        answers.append(Appended("stored", head))
        if digest:
            fresh[push_id, stream] = key = StoredKey(head, digest, time_ms + key_window_ms)
            result.keys += (next_key, push_id, ids[stream], *key)
            next_key += 1
    if extra:
        result.shared += (push, extra)
    result.ids = Ids(next_stream, next_push, next_key)
    result.standings = {stream: Standing(ids[stream], known[stream].floor, head) for stream, head in heads.items()}
    return result
