"""What a shard writes beside its records: session numbers, bans, cursors. Each only with the newest term."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from zim.fabric.bans import Ban, Banned
from zim.nodes.router.log import Fenced, Lease
from zim.nodes.router.log.postgresql.connecting import Connection
from zim.nodes.router.log.postgresql.packing import wholes

_HOLD = b"SELECT 1 FROM shards WHERE shard = %(shard)s AND term = %(term)s FOR SHARE"
_SEQS = b"""
    UPDATE shards SET next_seq = next_seq + %(count)s WHERE shard = %(shard)s AND term = %(term)s
    RETURNING next_seq - %(count)s"""
_LIFT = b'DELETE FROM bans WHERE shard = %s AND "user" = %s AND device = %s AND network = %s'
_BAN = b"""
    INSERT INTO bans (shard, "user", device, network, reason, by, made_ms, ends_ms)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"""
_MOVE = b"""
    WITH mine AS (
        SELECT 1 FROM shards WHERE shard = %(shard)s AND term = %(term)s
    ), moved AS (
        INSERT INTO cursors (stream, "offset")
        SELECT n.stream, n.at FROM mine, unnest(%(ids)s, %(offsets)s) AS n(stream, at)
        ON CONFLICT (stream) DO UPDATE SET "offset" = greatest(cursors."offset", excluded."offset")
        RETURNING stream, "offset"
    )
    SELECT moved.* FROM mine LEFT JOIN moved ON true"""


def fenced(lease: Lease) -> Fenced:
    """The error of who is not the owner any more."""
    return Fenced(f"{lease.shard} of term {lease.term} is another's")


def hold(connection: Connection, lease: Lease, shard: int) -> None:
    """The shard stays ours until the transaction ends.

    Raises:
        Fenced: it is another's.
    """
    values = {"shard": shard, "term": lease.term}
    if connection.execute(_HOLD, values, prepare=True).fetchone() is None:
        raise fenced(lease)


def reserve_seqs(connection: Connection, lease: Lease, shard: int, count: int) -> int:
    """The first of so many session numbers. Raises: Fenced."""
    values = {"shard": shard, "term": lease.term, "count": count}
    row = connection.execute(_SEQS, values, prepare=True).fetchone()
    if row is None:
        raise fenced(lease)
    return int(row[0])


def ban(connection: Connection, lease: Lease, shard: int, bans: Sequence[Ban], lifted: Sequence[Banned]) -> None:
    """Keeps bans, and lets go of others. Raises: Fenced."""
    gone = [msgspec.structs.astuple(banned) for banned in [*(ban.banned for ban in bans), *lifted]]
    with connection.transaction():
        hold(connection, lease, shard)
        for one in gone:
            connection.execute(_LIFT, (shard, *one))
        for ban in bans:
            named = msgspec.structs.astuple(ban.banned)
            connection.execute(_BAN, (shard, *named, ban.reason, ban.by, ban.made_ms, ban.ends_ms))


def move_cursors(
    connection: Connection, lease: Lease, shard: int, ids: Sequence[int], offsets: Sequence[int]
) -> dict[int, int]:
    """Moves streams' cursors forward. Returns where they are, by id. Raises: Fenced."""
    values = {"shard": shard, "term": lease.term, "ids": wholes(ids), "offsets": wholes(offsets)}
    found = connection.execute(_MOVE, values, prepare=True, binary=True).fetchall()
    if not found:
        raise fenced(lease)
    return {stream: at for stream, at in found if stream is not None}
