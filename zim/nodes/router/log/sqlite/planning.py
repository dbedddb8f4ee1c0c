"""A batch → the rows to write, and what each record is told once they are committed. Pure."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from zim.nodes.router.log import Appended, NewRecord


class Standing(NamedTuple):
    """Where a stream stands. id: its row; 0 if it has none yet."""

    id: int
    floor: int
    head: int


class Key(NamedTuple):
    """Where the keyed push of an id is in a stream."""

    offset: int
    digest: bytes
    until_ms: int


@dataclass(slots=True)
class Plan:
    """What a batch comes to. Rows are flat: one list of all their columns, as SQLite's parameters are.

    Attributes:
        answers: one for each record.
        standings: of the streams that move.
        next_stream, next_push: the first ids that stay free.
        time_ms: the newest log time.
    """

    next_stream: int
    next_push: int
    answers: list[Appended] = field(default_factory=list)
    standings: dict[str, Standing] = field(default_factory=dict)
    time_ms: int = 0
    streams: list[Any] = field(default_factory=list)  # id, name, floor
    pushes: list[Any] = field(default_factory=list)  # id, push_id, op, time_ms, expires_ms, crc, body
    shared: list[Any] = field(default_factory=list)  # push, how many records beyond the first
    records: list[Any] = field(default_factory=list)  # stream, offset, push, only
    keys: list[Any] = field(default_factory=list)  # push_id, stream, offset, digest, until_ms


def checksum(push_id: str, op: int, time_ms: int, expires_ms: int, body: bytes) -> int:
    """What is stored with a push, to notice that it changed on the disk."""
    return zlib.crc32(b"%d %d %d %s" % (op, time_ms, expires_ms, push_id.encode()), zlib.crc32(body))


def plan(
    batch: Sequence[NewRecord],
    known: Mapping[str, Standing],
    keys: Mapping[tuple[str, str], Key],
    next_stream: int,
    next_push: int,
    key_window_ms: int,
) -> Plan:
    """
    Args:
        batch: what is to be appended.
        known: where all its streams stand.
        keys: what is known of its keyed pushes, by push id and stream.
        next_stream, next_push: the first free ids.
        key_window_ms: for how long a key is known.
    """
    result = Plan(next_stream, next_push)
    fresh: dict[tuple[str, str], Key] = {}  # keys of this batch
    ids: dict[str, int] = {}
    heads: dict[str, int] = {}
    last: tuple[Any, ...] = ()
    push = extra = 0
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
                ids[stream] = result.next_stream
                result.streams += (result.next_stream, stream, 0)
                result.next_stream += 1
        head += 1
        heads[stream] = head
        content = (push_id, op, time_ms, expires_ms, body)
        if content == last:
            extra += 1
        else:
            if extra:
                result.shared += (push, extra)
            last, push, extra = content, result.next_push, 0
            result.next_push += 1
            crc = checksum(push_id, op, time_ms, expires_ms, body)
            pushes += (push, push_id, op, time_ms, expires_ms, crc, body)
            result.time_ms = max(result.time_ms, time_ms)
        records += (ids[stream], head, push, json.dumps(only) if only else None)
        answers.append(Appended("stored", head))
        if digest:
            fresh[push_id, stream] = key = Key(head, digest, time_ms + key_window_ms)
            result.keys += (push_id, ids[stream], *key)
    if extra:
        result.shared += (push, extra)
    result.standings = {stream: Standing(ids[stream], known[stream].floor, head) for stream, head in heads.items()}
    return result
