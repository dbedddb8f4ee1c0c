"""One statement for the appends of several shards, each fenced on its own; and what became of one that is not known.

A commit inserts its position, the next number of its shard, if the shard's term is its own, and the position before is
there. Who loses a race for a number, or finds another term, has written nothing. So a number says what became of a
commit: `settle` takes it for itself, and if it cannot, the commit is there, or another owner is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, NamedTuple

from zim.errors import ZimError
from zim.net.fairness import give_way
from zim.nodes.router.log import Fenced, Lease, unavailable
from zim.nodes.router.log.postgresql.connecting import Connection
from zim.nodes.router.log.postgresql.packing import blobs, texts, wholes
from zim.nodes.router.log.postgresql.planning import BatchPlan
from zim.nodes.router.log.postgresql.schema import APPEND, ID_BITS, IS_REPLICATED, MARK, VOID
from zim.nodes.router.log.postgresql.small_writes import fenced

Outcome = Literal["stored", "fenced", "behind", "keys", "alone"]


class BehindError(ZimError):
    """The position before is not there: this server was deposed, or has lost commits."""


@dataclass(frozen=True)
class ShardClaim:
    """A batch that is to be written.

    Attributes:
        shard: its number.
        term: the owner's.
        number: of the position.
        may_be_alone: commits need no standby.
    """

    shard: int
    term: int
    number: int
    plan: BatchPlan
    may_be_alone: bool


class Position(NamedTuple):
    """A row of positions."""

    number: int
    term: int
    time_ms: int
    kind: int


# No EXISTS here: it may be planned as one look at all positions, and while somebody's transaction is open many of them
# are gone and still there.
_CLAIM = f"""
WITH seen AS MATERIALIZED (
    SELECT DISTINCT (get_byte(k, 0) << 8) + get_byte(k, 1) AS shard FROM unnest(%(unseen)s) AS k
    CROSS JOIN LATERAL (SELECT 1 FROM keys WHERE keys.key = k OFFSET 0) AS there
), asked AS MATERIALIZED (
    SELECT a.*, s.term IS NOT DISTINCT FROM a.term AS is_ours, a.may_be_alone <> 0 OR {IS_REPLICATED} AS is_safe,
        (SELECT p.number FROM positions AS p WHERE p.shard = a.shard AND p.number = a.number - 1 LIMIT 1)
            IS NOT NULL AS has_before
    FROM unnest(%(shards)s, %(terms)s, %(numbers)s, %(times)s, %(alone)s)
        AS a(shard, term, number, time_ms, may_be_alone)
    LEFT JOIN shards AS s ON s.shard = a.shard
), claimed AS (
    INSERT INTO positions (shard, number, term, time_ms, kind)
    SELECT a.shard, a.number, a.term, a.time_ms, {APPEND} FROM asked AS a
    WHERE a.is_ours AND a.is_safe AND a.has_before AND a.shard NOT IN (SELECT shard FROM seen)
    ON CONFLICT DO NOTHING RETURNING shard
)"""
_MINE = "ANY (ARRAY(SELECT shard FROM claimed))"
_STREAMS = f""", made AS (
    INSERT INTO streams (id, floor, name, epoch) SELECT n.id, 0, n.name, ''
    FROM unnest(%(stream_ids)s, %(stream_names)s) AS n(id, name) WHERE n.id >> {ID_BITS} = {_MINE}
)"""
_RECORDS = f""", recorded AS (
    INSERT INTO records (stream, "offset", push, time_ms, expires_ms, wall_ms, op, crc, push_id, only_for, body)
    SELECT * FROM unnest(%(streams)s, %(offsets)s, %(pushes)s, %(record_times)s, %(expiries)s, %(walls)s,
        %(ops)s::int[], %(crcs)s, %(push_ids)s, %(only_for)s, %(bodies)s)
        AS n(stream, "offset", push, time_ms, expires_ms, wall_ms, op, crc, push_id, only_for, body)
    WHERE n.push >> {ID_BITS} = {_MINE}
)"""
_BODIES = f""", shared AS (
    INSERT INTO bodies (push, body) SELECT * FROM unnest(%(shared)s, %(shared_bodies)s) AS n(push, body)
    WHERE n.push >> {ID_BITS} = {_MINE}
)"""
_KEYS = f""", keyed AS (
    INSERT INTO keys (number, time_ms, home_ms, key, digest, offsets)
    SELECT * FROM unnest(%(key_numbers)s, %(key_times)s, %(key_homes)s, %(keys)s, %(digests)s, %(key_offsets)s)
        AS n(number, time_ms, home_ms, key, digest, offsets)
    WHERE n.number >> {ID_BITS} = {_MINE}
    ON CONFLICT (key) DO UPDATE SET number = excluded.number, time_ms = excluded.time_ms, home_ms = excluded.home_ms,
        digest = excluded.digest, offsets = excluded.offsets
)"""
_SAY = """
SELECT a.shard, c.shard IS NOT NULL, a.is_ours, a.is_safe, a.has_before, a.shard IN (SELECT shard FROM seen)
FROM asked AS a LEFT JOIN claimed AS c ON c.shard = a.shard"""

_PARTS = {
    (has_streams, has_bodies, has_keys): (
        _CLAIM + _STREAMS * has_streams + _RECORDS + _BODIES * has_bodies + _KEYS * has_keys + _SAY
    ).encode()
    for has_streams in (False, True)
    for has_bodies in (False, True)
    for has_keys in (False, True)
}


def write(connection: Connection, claims: Sequence[ShardClaim]) -> dict[int, Outcome]:
    """Writes batches of different shards, in one commit. Switches: until it is on the standby.

    Returns:
        What became of each, by shard. Nothing but "stored" has written anything. "behind": the position before is not
        there, so this is no server that knows all; "keys": one of the unseen keys is there; "alone": there is no
        standby.
    """
    plans = [claim.plan for claim in claims]

    def all_of(name: str) -> list[Any]:
        give_way()  # each is packed then, and of many rows that takes a while
        if len(plans) == 1:
            found: list[Any] = getattr(plans[0], name)
            return found
        return list(chain.from_iterable(getattr(plan, name) for plan in plans))

    stream_ids, shared, keys = all_of("stream_ids"), all_of("shared"), all_of("keys")
    values: dict[str, Any] = {
        "unseen": blobs(all_of("unseen")),
        "shards": wholes([claim.shard for claim in claims]),
        "terms": wholes([claim.term for claim in claims]),
        "numbers": wholes([claim.number for claim in claims]),
        "times": wholes([claim.plan.time_ms for claim in claims]),
        "alone": wholes([int(claim.may_be_alone) for claim in claims]),
        "streams": wholes(all_of("streams")),
        "offsets": wholes(all_of("offsets")),
        "pushes": wholes(all_of("pushes")),
        "record_times": wholes(all_of("times")),
        "expiries": wholes(all_of("expiries")),
        "walls": wholes(all_of("walls")),
        "ops": wholes(all_of("ops")),
        "crcs": wholes(all_of("crcs")),
        "push_ids": blobs(all_of("push_ids")),
        "only_for": texts(all_of("only_for")),
        "bodies": blobs(all_of("bodies")),
    }
    if stream_ids:
        values |= {"stream_ids": wholes(stream_ids), "stream_names": texts(all_of("stream_names"))}
    if shared:
        values |= {"shared": wholes(shared), "shared_bodies": blobs(all_of("shared_bodies"))}
    if keys:
        values |= {
            "key_numbers": wholes(all_of("key_numbers")),
            "key_times": wholes(all_of("key_times")),
            "key_homes": wholes(all_of("key_homes")),
            "keys": blobs(keys),
            "digests": blobs(all_of("digests")),
            "key_offsets": texts(all_of("key_offsets")),
        }
    statement = _PARTS[bool(stream_ids), bool(shared), bool(keys)]
    rows = connection.execute(statement, values, prepare=True, binary=True).fetchall()
    return {shard: _outcome(*said) for shard, *said in rows}


def _outcome(is_claimed: bool, is_ours: bool, is_safe: bool, has_before: bool, has_keys: bool) -> Outcome:
    if is_claimed:
        return "stored"
    if not is_ours:
        return "fenced"
    if not has_before:
        return "behind"
    if not is_safe:
        return "alone"
    return "keys" if has_keys else "fenced"  # another has this number


_TAKE_NUMBER = """
    INSERT INTO positions (shard, number, term, time_ms, kind)
    SELECT s.shard, %(number)s, s.term, %(time_ms)s, %(kind)s FROM shards AS s
    WHERE s.shard = %(shard)s AND s.term = %(term)s
        AND (SELECT p.number FROM positions AS p WHERE p.shard = s.shard AND p.number = %(number)s - 1 LIMIT 1)
            IS NOT NULL
    ON CONFLICT DO NOTHING RETURNING number"""
_TERM = "SELECT term FROM shards WHERE shard = %s"
_LAST = "SELECT number, term, time_ms, kind FROM positions WHERE shard = %s ORDER BY number DESC LIMIT 1"
_AT = "SELECT number, term, time_ms, kind FROM positions WHERE shard = %s AND number = %s"


def take_number(connection: Connection, shard: int, term: int, number: int, time_ms: int, kind: int) -> bool:
    """Inserts a position. Whether it did: the term is the shard's, the number free, and the one before there."""
    values = {"shard": shard, "term": term, "number": number, "time_ms": time_ms, "kind": kind}
    return connection.execute(_TAKE_NUMBER, values).fetchone() is not None


def last_position(connection: Connection, shard: int) -> Position:
    """The newest one; there is one once a shard was owned."""
    row = connection.execute(_LAST, (shard,)).fetchone()
    return Position(0, 0, 0, MARK) if row is None else Position(*row)


def term_of(connection: Connection, shard: int) -> int:
    """The term of a shard."""
    row = connection.execute(_TERM, (shard,)).fetchone()
    return 0 if row is None else int(row[0])


def settle(connection: Connection, lease: Lease, shard: int, number: int, time_ms: int) -> tuple[bool, int]:
    """What became of a batch of this lease. May be asked again: what was said is said.

    Something is always committed, for what is read here may be on one machine alone.

    Returns:
        Whether it is stored, and the newest position.

    Raises:
        BehindError: the batch before is not there.
        Fenced: another owner has the shard, and it cannot be told any more.
        Unavailable: somebody else has moved; it is to be asked again.
    """
    if take_number(connection, shard, lease.term, number, time_ms, VOID):
        return False, number
    row = connection.execute(_AT, (shard, number)).fetchone()
    last = last_position(connection, shard)
    if row is None:
        if term_of(connection, shard) == lease.term:
            raise BehindError("this server does not know what was committed last")
        raise Fenced(f"{lease.shard} of term {lease.term} is another's, and what became of a batch is forgotten")
    at = Position(*row)
    is_stored = at.term == lease.term and at.kind == APPEND
    if last.term != lease.term:  # its owner has committed after it
        return is_stored, last.number
    if not take_number(connection, shard, lease.term, last.number + 1, last.time_ms, MARK):
        raise unavailable("the shard is being taken over")
    return is_stored, last.number + 1


def refusal(outcome: Outcome, lease: Lease) -> Exception:
    """The error of a batch that was surely not stored, but for its keys."""
    if outcome == "fenced":
        return fenced(lease)
    if outcome == "alone":
        return unavailable(
            "commits are not synchronously replicated: synchronous_standby_names is empty, and log.single_copy is false"
        )
    return unavailable("this server does not know what was committed last: it may be one that was deposed")
