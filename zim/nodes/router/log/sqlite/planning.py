"""A batch → the rows to write, and what each record is told once they are committed. Pure."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from zim.nodes.router.log import Appended, NewPush, repeated
from zim.nodes.router.log.keys import StoredKey, by_name
from zim.nodes.router.log.standings import StreamStanding


class Ids(NamedTuple):
    """The first free ids."""

    stream: int
    push: int
    key: int


@dataclass(slots=True)
class Plan:
    """What a batch comes to. Rows are flat: one list of all their columns, as SQLite's parameters are.

    Attributes:
        answers: one for each push.
        standings: of the streams that move.
        ids: what stays free.
        time_ms: the newest log time.
    """

    ids: Ids
    answers: list[Appended] = field(default_factory=list)
    standings: dict[str, StreamStanding] = field(default_factory=dict)
    time_ms: int = 0
    streams: list[Any] = field(default_factory=list)  # id, name, floor
    pushes: list[Any] = field(default_factory=list)  # id, push_id, op, time_ms, expires_ms, body, wall_ms
    shared: list[Any] = field(default_factory=list)  # push, how many records beyond the first
    records: list[Any] = field(default_factory=list)  # stream, offset, push, crc, only
    keys: list[Any] = field(default_factory=list)  # id, push_id, digest, time_ms, home_ms, offsets

    @property
    def size(self) -> int:
        """How many records it writes, or keys, if those are more: what trimming will have to let go."""
        return max(len(self.records) // 5, len(self.keys) // 6)


def record_checksum(content: int, stream: str, offset: int, only: str | None) -> int:
    """What is stored with a record, to notice that it, or its push, is not what was written."""
    return zlib.crc32(f"{offset} {stream} {only}".encode(), content)


def content_checksum(push_id: str, op: int, time_ms: int, expires_ms: int, body: bytes) -> int:
    """The part of it that all records of a push share."""
    return zlib.crc32(b"%d %d %d %s" % (op, time_ms, expires_ms, push_id.encode()), zlib.crc32(body))


def damage(
    stream: str,
    offset: int,
    crc: int,
    only: str | None,
    push_id: str | None,
    op: int | None,
    time_ms: int | None,
    expires_ms: int | None,
    body: bytes | None,
) -> str:
    """What is wrong with a record that was read, for people; "" if it is what was written. None: it has no push."""
    if push_id is None or op is None or time_ms is None or expires_ms is None or body is None:
        return "its content is missing"
    try:
        found = record_checksum(content_checksum(push_id, op, time_ms, expires_ms, body), stream, offset, only)
    except (TypeError, AttributeError):  # a column of another type: SQLite looks at none
        return "its content is not what was written"
    return "" if found == crc else "its checksum does not fit"


def plan(
    batch: Sequence[NewPush],
    known: Mapping[str, StreamStanding],
    keys: Mapping[str, StoredKey],
    free: Ids,
    key_window_ms: int,
) -> Plan:
    """
    Args:
        batch: what is to be appended.
        known: where all its streams stand.
        keys: what is stored of its keys, by key id.
        free: ids.
        key_window_ms: for how long a key is known.
    """
    result = Plan(free)
    next_stream, next_push, next_key = free
    fresh: dict[str, StoredKey] = {}  # keys of this batch
    ids: dict[str, int] = {}
    heads: dict[str, int] = {}
    pushes, records, answers = result.pushes, result.records, result.answers
    for push in batch:
        push_id, streams, op, body, time_ms, expires_ms, only, key, wall_ms = push
        key_id = push_id if key is None or not key.part else push.key_id
        if key is not None:
            found = fresh.get(key_id) or keys.get(key_id)
            if (answer := repeated(push, found, key_window_ms)) is not None:
                answers.append(answer)
                continue
        crc = content_checksum(push_id, op, time_ms, expires_ms, body)
        offsets = []
        for stream in streams:
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
            only_for = json.dumps(only[stream]) if stream in only else None
            records += (ids[stream], head, next_push, record_checksum(crc, stream, head, only_for), only_for)
            offsets.append(head)
        if offsets:
            pushes += (next_push, push_id, op, time_ms, expires_ms, body, wall_ms)
            if len(offsets) > 1:
                result.shared += (next_push, len(offsets) - 1)
            next_push += 1
        result.time_ms = max(result.time_ms, time_ms)
        home_ms = 0
        if key is not None:
            home_ms = key.home_ms or time_ms
            stored = fresh[key_id] = StoredKey(key.digest, time_ms, home_ms, by_name(streams, offsets))
            result.keys += (next_key, key_id, key.digest, time_ms, home_ms, str(stored.offsets))  # as JSON has it
            next_key += 1
        answers.append(Appended("stored", tuple(offsets), home_ms))
    result.ids = Ids(next_stream, next_push, next_key)
    result.standings = {
        stream: StreamStanding(ids[stream], known[stream].floor, head) for stream, head in heads.items()
    }
    return result
