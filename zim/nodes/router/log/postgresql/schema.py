"""The tables, how they are made, and whether those that are there are ours.

Nothing is updated that every commit would update: while somebody's transaction is open, versions of a row that are past
stay, and each look at it reads them all. So a commit only inserts.

positions   one row for each commit of a shard, numbered without gaps: who inserts a number first has it. This is the
            fence, and it tells what became of a commit. A new term begins with a row of its own, which stays for ever,
            as does the row that voids a batch; others go once there are later ones.
shards      who owns what; its term is looked at by every append
routers     beats
streams     names, floors, epochs. A head is the last record's offset, or the floor if there is none
records     one for each stream of a push; has the body if the push has one stream
bodies      of pushes with several streams
keys        of publishers

Ids have the shard in their upper bits: so each shard counts its own, and its rows are together in an index.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import NamedTuple

from zim.errors import NodeError
from zim.nodes.router.log.postgresql.connecting import SCHEMA, Connection

FORMAT = 1
LEAST_VERSION = 13
ID_BITS = 48  # of a shard's own count
APPEND, TAKE, VOID, MARK = range(4)  # kinds of positions
SLOTS = 10  # tables of receipts, one after the other in time

_CHURNING = "autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0"
_TABLES = f"""
CREATE TABLE meta (
    one boolean PRIMARY KEY CHECK (one), format int NOT NULL, fabric text NOT NULL, shards int NOT NULL,
    copying text NOT NULL DEFAULT ''
);
CREATE TABLE shards (
    shard bigint PRIMARY KEY, name text NOT NULL UNIQUE, epoch text NOT NULL, history int NOT NULL DEFAULT 0,
    router text NOT NULL DEFAULT '', run bigint NOT NULL DEFAULT 0, term bigint NOT NULL DEFAULT 0,
    next_seq bigint NOT NULL DEFAULT 1
) WITH (fillfactor = 20);
CREATE TABLE routers (
    router text PRIMARY KEY, run bigint NOT NULL, number bigint NOT NULL, time_ms bigint NOT NULL,
    comets bigint NOT NULL, is_dead boolean NOT NULL
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
CREATE TABLE positions (
    shard bigint NOT NULL, number bigint NOT NULL, term bigint NOT NULL, time_ms bigint NOT NULL, kind int NOT NULL,
    PRIMARY KEY (shard, number)
) WITH ({_CHURNING});
CREATE TABLE streams (
    id bigint PRIMARY KEY, floor bigint NOT NULL, name text COLLATE "C" NOT NULL UNIQUE, epoch text NOT NULL
) WITH (fillfactor = 80);
CREATE TABLE records (
    stream bigint NOT NULL, "offset" bigint NOT NULL, push bigint NOT NULL, time_ms bigint NOT NULL,
    expires_ms bigint NOT NULL, wall_ms bigint NOT NULL, op int NOT NULL, crc bigint NOT NULL, push_id bytea NOT NULL,
    only_for text NOT NULL, body bytea, PRIMARY KEY (stream, "offset")
) WITH ({_CHURNING});
CREATE INDEX records_in_order ON records (push);
CREATE TABLE bodies (push bigint PRIMARY KEY, body bytea NOT NULL) WITH ({_CHURNING});
CREATE TABLE keys (
    number bigint PRIMARY KEY, time_ms bigint NOT NULL, home_ms bigint NOT NULL, key bytea NOT NULL UNIQUE,
    digest bytea NOT NULL, offsets text NOT NULL
) WITH ({_CHURNING});
CREATE TABLE cursors (stream bigint PRIMARY KEY, "offset" bigint NOT NULL) WITH (fillfactor = 70);
CREATE TABLE bans (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, shard bigint NOT NULL, "user" text NOT NULL,
    device text NOT NULL, network text NOT NULL, reason text NOT NULL, by text NOT NULL, made_ms bigint NOT NULL,
    ends_ms bigint NOT NULL, UNIQUE (shard, "user", device, network)
);
CREATE TABLE receipt_totals (
    shard bigint PRIMARY KEY, newest_ms bigint NOT NULL, written bigint NOT NULL, totals bigint[] NOT NULL
) WITH (fillfactor = 20);
CREATE TABLE receipt_slots (slot int PRIMARY KEY, began_ms bigint NOT NULL);
"""
_SLOT = """
CREATE TABLE receipts_{slot} (
    shard bigint NOT NULL, push_id bytea NOT NULL, written bigint NOT NULL, run bigint NOT NULL, receipt bytea NOT NULL
);
CREATE INDEX receipts_{slot}_by_push ON receipts_{slot} (push_id);
"""

# From a format to the next one: what is to be run.
MIGRATIONS: dict[int, str] = {}


class LogMeta(NamedTuple):
    """A log that is there.

    Attributes:
        format: of its tables.
        fabric: whose it is.
        shards: how many it has.
        copying: what is being copied into it; "" for nothing.
    """

    format: int
    fabric: str
    shards: int
    copying: str


def look(connection: Connection) -> LogMeta | None:
    """The log of a database; None if it has none.

    Raises:
        NodeError: it is half made.
    """
    tables = connection.execute(
        "SELECT count(*), count(*) FILTER (WHERE tablename = 'meta') FROM pg_tables WHERE schemaname = %s", (SCHEMA,)
    ).fetchone()
    assert tables is not None
    if not tables[0]:
        return None
    row = connection.execute("SELECT format, fabric, shards, copying FROM meta").fetchone() if tables[1] else None
    if row is None:
        raise NodeError(
            f"the schema {SCHEMA} of this database is half a log: drop it (DROP SCHEMA {SCHEMA} CASCADE) and make a "
            f"new one with zim log init, or restore the database from a backup"
        )
    return LogMeta(*row)


def check_server(connection: Connection) -> None:
    """
    Raises:
        NodeError: it is too old, or the database keeps texts otherwise than as UTF-8.
    """
    if connection.info.server_version < LEAST_VERSION * 10_000:
        raise NodeError(f"the server is PostgreSQL {connection.info.server_version // 10_000}; right is 13 or newer")
    encoding = connection.execute("SELECT current_setting('server_encoding')").fetchone()
    if encoding != ("UTF8",):
        raise NodeError(
            f"the database has the encoding {encoding and encoding[0]}; right is UTF8: CREATE DATABASE … ENCODING "
            f"'UTF8' TEMPLATE template0"
        )


def make(connection: Connection, fabric: str, shards: Sequence[str]) -> None:
    """Makes the log, all of it or nothing.

    Raises:
        NodeError: there is one.
    """
    check_server(connection)
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(1819044218)")  # two at once
        there = look(connection)
        if there is not None:
            raise NodeError(
                f"there is a log already, of the fabric {there.fabric}, with {there.shards} shards; nothing was changed"
            )
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        for statement in _TABLES.split(";\n"):
            if statement.strip():
                connection.execute(statement.encode())
        for slot in range(SLOTS):
            for statement in _SLOT.format(slot=slot).split(";\n"):
                if statement.strip():
                    connection.execute(statement.encode())
            connection.execute("INSERT INTO receipt_slots VALUES (%s, 0)", (slot,))
        for shard, name in enumerate(shards, 1):
            connection.execute(
                "INSERT INTO shards (shard, name, epoch) VALUES (%s, %s, %s)", (shard, name, secrets.token_hex(8))
            )
        connection.execute(
            "INSERT INTO meta (one, format, fabric, shards) VALUES (true, %s, %s, %s)", (FORMAT, fabric, len(shards))
        )


def migrate(connection: Connection, fabric: str) -> tuple[int, int]:
    """Brings an older log to this format, all of it or nothing.

    Returns:
        The format that it had, and the one that it has.

    Raises:
        NodeError: there is none, it is newer, or of another fabric.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(1819044218)")
        there = look(connection)
        if there is None:
            raise no_log()
        _refuse_foreign(there, fabric)
        for older in range(there.format, FORMAT):
            for statement in MIGRATIONS[older].split(";\n"):
                if statement.strip():
                    connection.execute(statement.encode())
        connection.execute("UPDATE meta SET format = %s", (FORMAT,))
        return there.format, FORMAT


def check(there: LogMeta | None, fabric: str, shards: int, *, may_be_copying: bool = False) -> None:
    """
    Args:
        may_be_copying: who asks is the one that copies.

    Raises:
        NodeError: this zim, with this topology, cannot use the log. Says why, and what to do.
    """
    if there is None:
        raise no_log()
    _refuse_foreign(there, fabric)
    if there.format < FORMAT:
        raise NodeError(
            f"the log has format {there.format}, and this zim writes format {FORMAT}: stop all routers, then zim log "
            f"migrate"
        )
    if there.shards != shards:
        raise NodeError(
            f"the log was made with {there.shards} shards, and the topology says {shards}: right is log.shards = "
            f"{there.shards}, for each stream is in one of them, and would be looked for in another"
        )
    if there.copying and not may_be_copying:
        raise NodeError(
            f"the log is half a copy of {there.copying}: run that zim log copy again until it says that all is there"
        )


def no_log() -> NodeError:
    """The error of a database without a log."""
    return NodeError("this database has no log: zim log init makes it")


def _refuse_foreign(there: LogMeta, fabric: str) -> None:
    if there.fabric != fabric:
        raise NodeError(
            f"the log is of the fabric {there.fabric}, and the topology's is {fabric}: right is another database for "
            f"each fabric, or fabric.name = {there.fabric}"
        )
    if there.format > FORMAT:
        raise NodeError(
            f"the log has format {there.format}, and this zim knows format {FORMAT}: start the zim that wrote it"
        )


# An empty list is no standby; synchronous_commit is ours. Commits wait for names that no standby has, and rightly so.
IS_REPLICATED = "current_setting('synchronous_standby_names') <> ''"


def is_replicated(connection: Connection) -> bool:
    """Whether a commit waits for a standby."""
    row = connection.execute(f"SELECT {IS_REPLICATED}".encode()).fetchone()
    return row is not None and bool(row[0])
