"""What people do with the log: make it, migrate it, look at it. Everything here switches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from zim.nodes.router.log.postgresql import rows, schema
from zim.nodes.router.log.postgresql.connecting import SCHEMA, Connection, PostgresServer, ServerLine
from zim.nodes.router.log.postgresql.copying import copy
from zim.nodes.router.log.shared import WhereShared
from zim.nodes.router.log.shared_state import SharedState, StandbyServer, TableSize

__all__ = ["copy", "describe", "make", "migrate", "restored"]

T = TypeVar("T")

LIMIT_S = 600.0  # a migration may take long

_SERVER = "SELECT version(), coalesce(host(inet_server_addr()), 'a Unix socket'), inet_server_port()"
_WAITS_FOR = "SELECT current_setting('synchronous_standby_names')"
_SEES_OTHERS = "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')"
_STANDBYS = "SELECT application_name, sync_state FROM pg_stat_replication WHERE state = 'streaming' ORDER BY 1"
_OLDEST = """
    SELECT extract(epoch FROM clock_timestamp() - xact_start)::float8, coalesce(usename, '') || ' ' || application_name
    FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid() AND datname = current_database()
    ORDER BY xact_start LIMIT 1"""
_TABLES = """
    SELECT regexp_replace(relname, '_[0-9]+$', '') AS name, sum(pg_total_relation_size(relid))::bigint,
        sum(n_live_tup)::bigint, sum(n_dead_tup)::bigint
    FROM pg_stat_user_tables WHERE schemaname = %s GROUP BY 1 ORDER BY 2 DESC, 1"""


def with_log(place: WhereShared, job: Callable[[Connection], T]) -> T:
    """A job on a connection of its own.

    Raises:
        Unavailable: the engine cannot be reached. Unknown: nor can it be told what was done.
    """
    line = ServerLine(PostgresServer(place, name="zim log"), LIMIT_S)
    try:
        return line.write(job)
    finally:
        line.close()


def make(place: WhereShared, fabric: str) -> None:
    """Makes the log of a fabric, all of it or nothing.

    Raises:
        NodeError: there is one. Unavailable: the engine cannot be reached.
    """
    with_log(place, lambda c: schema.make(c, fabric, place.names))


def migrate(place: WhereShared, fabric: str) -> tuple[int, int]:
    """Brings an older log to the newest format. Returns the old and the new one.

    Raises:
        NodeError: there is none, it is newer, or of another fabric. Unavailable: the engine cannot be reached.
    """
    return with_log(place, lambda c: schema.migrate(c, fabric))


def restored(place: WhereShared, fabric: str) -> None:
    """The database has come out of a backup: all shards begin another history. Owners before are fenced.

    Raises:
        NodeError: there is no log, or of another fabric. Unavailable: the engine cannot be reached.
    """

    def job(connection: Connection) -> None:
        schema.check(schema.look(connection), fabric, len(place.names))
        rows.restored(connection)

    with_log(place, job)


def describe(place: WhereShared) -> SharedState:
    """How it is.

    Raises:
        NodeError: there is none, or half of one. Unavailable: the engine cannot be reached.
    """
    return with_log(place, _describe)


def _describe(connection: Connection) -> SharedState:
    def all_of(statement: str, *values: Any) -> list[Any]:
        return connection.execute(statement.encode(), values).fetchall()

    there = schema.look(connection)
    if there is None:
        raise schema.no_log()
    ((version, host, port),) = all_of(_SERVER)
    ((waits_for,),) = all_of(_WAITS_FOR)
    ((sees_others,),) = all_of(_SEES_OTHERS)
    ((oldest_s, oldest_by),) = all_of(_OLDEST) or [(0.0, "")]
    return SharedState(
        there.format,
        schema.FORMAT,
        there.fabric,
        there.copying,
        f"{' '.join(version.split()[:2])} at {host}" + (f":{port}" if port else ""),
        waits_for,
        sees_others,
        [StandbyServer(name, state in ("sync", "quorum")) for name, state in all_of(_STANDBYS)],
        oldest_s or 0.0,
        oldest_by.strip(),
        [TableSize(*row) for row in all_of(_TABLES, SCHEMA)],
        rows.look(connection),
    )
