"""What is copied from the logs of routers that stand still into a log that they share: what a source must tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from zim.fabric.bans import Ban
from zim.fabric.sharding import Shards

PART_STREAMS = 500  # see zim.nodes.logic.shares: a push to more streams of one shard has a key for each part


class SourceStream(NamedTuple):
    """A stream. id: its row, in the order of which streams are told. cursor: 0 where nothing was acknowledged."""

    id: int
    name: str
    floor: int
    head: int
    cursor: int


class SourceRecord(NamedTuple):
    """A record.

    Attributes:
        push: numbers its push among all of this source.
        only: for whom, as JSON; "" for all.
        is_shared: the push has records in other streams of this source.
        others: see NewPush.
    """

    offset: int
    push: int
    push_id: str
    op: int
    time_ms: int
    expires_ms: int
    wall_ms: int
    only: str
    body: bytes
    is_shared: bool


class SourceKey(NamedTuple):
    """A key.

    Attributes:
        id: its row, in the order of which keys are told.
        offsets: by stream; None if some of them were let go.
        others: see StoredKey.
    """

    id: int
    key_id: str
    digest: bytes
    time_ms: int
    home_ms: int
    offsets: Mapping[str, int] | None

    @property
    def push_id(self) -> str:
        """Of the push whose part it is."""
        return self.key_id.partition(".")[0]


class SourceLog(Protocol):
    """The log of a router that stands still. A call blocks.

    Attributes:
        name: of the router.
        epoch: of all its streams.
        time_ms: the newest log time. next_seq: the first session number that nobody has. records: how many there are.
    """

    name: str
    epoch: str
    time_ms: int
    next_seq: int
    records: int

    def streams(self, after: int, most: int) -> list[SourceStream]:
        """Streams above an id."""

    def read(self, stream: SourceStream, after: int, most: int) -> list[SourceRecord]:
        """Records of a stream above an offset, some 8 MB at most, and at least one if there is one.

        Raises:
            Damaged: one of them is not what was written.
        """

    def keys(self, after: int, most: int) -> list[SourceKey]:
        """Keys above an id."""

    def key(self, key_id: str) -> SourceKey | None:
        """One key."""

    def bans(self) -> list[Ban]:
        """All that are kept, in the order in which they came."""


class CopyReport(NamedTuple):
    """What a copy has. skipped: records that an earlier attempt had copied."""

    streams: int
    records: int
    skipped: int
    keys: int
    bans: int


Progress = Callable[[str, int, int], None]
"""What is being done, how much of it is done, and how much there is."""


class HomedKey(NamedTuple):
    """A key as a shard is to have it. offsets: in the order of the streams' names; none if they are not known."""

    shard: str
    key_id: str
    digest: bytes
    time_ms: int
    home_ms: int
    offsets: list[int]


def homed(found: Sequence[SourceKey], shards: Shards) -> list[HomedKey]:
    """Where a key is to be, whose streams were in other shards before.

    Its home must have it, and each shard that has a stream of its push: all that a repeat is asked for.

    Args:
        found: what the sources have of one push under one key, one of each part.
    """
    push_id = found[0].push_id
    home_ms = max(key.home_ms for key in found)
    found = [key for key in found if key.home_ms == home_ms]  # a use before the last one counts for nothing
    time_ms, digest = max(key.time_ms for key in found), found[0].digest
    by_shard: dict[str, dict[str, int]] = {shards.home(push_id): {}}
    is_whole = all(key.offsets is not None for key in found)
    for key in found:
        for stream, offset in (key.offsets or {}).items():
            by_shard.setdefault(shards.of(stream), {})[stream] = offset
    if not is_whole:  # any shard may have had one of them
        by_shard = {shard: by_shard.get(shard, {}) for shard in shards.names}
    parts_before = len({key.key_id for key in found})
    result: list[HomedKey] = []
    for shard, offsets in by_shard.items():
        parts = max(1, -(-len(offsets) // PART_STREAMS), 1 if is_whole else parts_before)
        told = [offset for _, offset in sorted(offsets.items())] if parts == 1 and is_whole else []
        for part in range(parts):
            key_id = f"{push_id}.{part}" if part else push_id
            result.append(HomedKey(shard, key_id, digest, time_ms, home_ms, told))
    return result
