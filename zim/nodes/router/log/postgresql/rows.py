"""The rows of routers and shards: beats, deaths, takeovers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zim.nodes.router.log import Fenced, Lease, unavailable
from zim.nodes.router.log.postgresql.connecting import Connection
from zim.nodes.router.log.postgresql.schema import IS_REPLICATED, TAKE
from zim.nodes.router.log.shared import Beat, Holding, Rows

_CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_ENTER = f"""
    INSERT INTO routers (router, run, number, time_ms, comets, is_dead)
    VALUES (%(router)s, {_CLOCK}, 0, 0, 0, false) ON CONFLICT (router) DO UPDATE
    SET run = greatest(routers.run + 1, excluded.run), number = 0, comets = 0, is_dead = false RETURNING run"""
_LOOK = f"""
    SELECT 1, router, run, number, time_ms, comets, is_dead FROM routers
    UNION ALL SELECT 2, name || ' ' || router, run, term, 0, 0, {IS_REPLICATED} FROM shards"""
# A statement does not see what it has changed, so our own row comes from there; none if somebody has just buried us.
_BEAT = f"""
    WITH ours AS (
        UPDATE routers SET number = number + 1, time_ms = %(time_ms)s, comets = %(comets)s
        WHERE router = %(router)s AND run = %(run)s AND NOT is_dead RETURNING *
    )
    SELECT 0, router, run, number, time_ms, comets, is_dead FROM ours
    UNION ALL {_LOOK.strip()}"""
_BURY = """
    UPDATE routers SET is_dead = true
    WHERE router = %(router)s AND run = %(run)s AND number = %(number)s AND NOT is_dead RETURNING run"""
_LEAVE = "UPDATE routers SET is_dead = true WHERE router = %(router)s AND run = %(run)s"
_OWN = f"""
    UPDATE shards SET router = %(to)s, run = %(to_run)s, term = greatest(term + 1, {_CLOCK})
    WHERE name = %(shard)s AND router = %(router)s AND run = %(run)s AND term = %(term)s
        AND EXISTS (SELECT 1 FROM routers AS r WHERE r.router = %(to)s AND r.run = %(to_run)s AND NOT r.is_dead)
    RETURNING shard, term"""
_SEIZE = f"UPDATE shards SET term = greatest(term + 1, {_CLOCK}) WHERE shard = %(shard)s RETURNING shard, term"
_RENEW = f"""
    UPDATE shards SET term = greatest(term + 1, {_CLOCK}), history = history + 1
    WHERE shard = %(shard)s AND term = %(term)s RETURNING shard, term"""
_RESTORED = f"""
    UPDATE shards SET term = greatest(term + 1, {_CLOCK}), history = history + 1, next_seq = next_seq + {1 << 32}
    WHERE name = %(name)s AND term = %(term)s RETURNING shard, term"""
_FIRST_POSITION = f"""
    INSERT INTO positions (shard, number, term, time_ms, kind)
    SELECT %(shard)s, coalesce(max(p.number), 0) + 1, %(term)s, coalesce(max(p.time_ms), 0), {TAKE} FROM (
        SELECT number, time_ms FROM positions WHERE shard = %(shard)s ORDER BY number DESC LIMIT 1
    ) AS p ON CONFLICT DO NOTHING RETURNING number"""
_RACES = 20  # a commit of the owner before came in between: there is one under way at most


def look(connection: Connection) -> Rows:
    """All rows, as of one moment."""
    return _standing(connection.execute(_LOOK.encode(), prepare=True).fetchall())[0]


def _standing(found: Sequence[Any]) -> tuple[Rows, bool]:
    """All rows, and whether commits are replicated. Of two rows of a router the first one counts."""
    beats: dict[str, Beat] = {}
    holdings: dict[str, Holding] = {}
    is_replicated = True
    for kind, name, *rest in found:
        if kind == 2:
            shard, _, owner = name.partition(" ")
            holdings[shard] = Holding(shard, owner, rest[0], rest[1])
            is_replicated = rest[-1]
        else:
            beats.setdefault(name, Beat(name, *rest))
    return Rows(beats, holdings), is_replicated


def enter(connection: Connection, router: str) -> int:
    """A new run of a router."""
    row = connection.execute(_ENTER, {"router": router}).fetchone()
    assert row is not None
    return int(row[0])


def beat(connection: Connection, router: str, run: int, time_ms: int, comets: int) -> tuple[Rows, bool]:
    """This run lives. All rows, and whether commits are replicated.

    Raises:
        Fenced: it was declared dead, or another run of that name has entered.
    """
    values = {"router": router, "run": run, "time_ms": time_ms, "comets": comets}
    found = connection.execute(_BEAT.encode(), values, prepare=True).fetchall()
    if not any(row[0] == 0 for row in found):
        raise Fenced(f"run {run} of {router} is dead")
    return _standing(sorted(found, key=lambda row: row[0]))


def bury(connection: Connection, seen: Beat) -> bool:
    """Declares a run dead, if its row is still as it was seen."""
    values = {"router": seen.router, "run": seen.run, "number": seen.number}
    return connection.execute(_BURY, values).fetchone() is not None


def leave(connection: Connection, router: str, run: int) -> None:
    """This run ends."""
    connection.execute(_LEAVE, {"router": router, "run": run})


def own(connection: Connection, holding: Holding, to: str, to_run: int) -> Lease | None:
    """Gives a shard to a run that lives, if its row is still as it was seen."""
    values = {**holding._asdict(), "to": to, "to_run": to_run}
    return _begin_term(connection, holding.shard, _OWN, values)


def seize(connection: Connection, shard: int, name: str) -> Lease:
    """A new term of a shard, whoever has it."""
    lease = _begin_term(connection, name, _SEIZE, {"shard": shard})
    if lease is None:
        raise unavailable(f"there is no shard {name}")
    return lease


def renew_history(connection: Connection, shard: int, lease: Lease) -> Lease | None:
    """Commits were lost: what comes now is another history, of a new term."""
    return _begin_term(connection, lease.shard, _RENEW, {"shard": shard, "term": lease.term})


def restored(connection: Connection) -> None:
    """What all shards get from now on is another history; session numbers jump past all that may have been given."""
    with connection.transaction():
        for name, holding in look(connection).holdings.items():
            if _begin_term(connection, name, _RESTORED, {"name": name, "term": holding.term}) is None:
                raise unavailable("a shard is being taken over")


def _begin_term(connection: Connection, name: str, statement: str, values: dict[str, Any]) -> Lease | None:
    """In one transaction: no append of the new term comes before the end of the old one is written."""
    with connection.transaction():
        row = connection.execute(statement.encode(), values).fetchone()
        if row is None:
            return None
        shard, term = row
        for _ in range(_RACES):
            if connection.execute(_FIRST_POSITION, {"shard": shard, "term": term}).fetchone() is not None:
                return Lease(name, term)
        raise unavailable("the owner before goes on committing")
