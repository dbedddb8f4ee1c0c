"""Receipts in the engine, for as long as the topology keeps them: they move with their shard.

Nobody waits for their commit, nor for a standby. In a ring of tables, each for a part of that time: a new part begins
by emptying the oldest one, so nothing is ever deleted row by row. Rows are never changed: the newest one counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg
from typing_extensions import override

from zim.errors import Unavailable, ZimError
from zim.fabric.tally import COUNTS, Tally
from zim.net.fairness import give_way
from zim.nodes.router.log import Lease
from zim.nodes.router.log.postgresql.connecting import Connection
from zim.nodes.router.log.postgresql.packing import blobs, pack_id, wholes
from zim.nodes.router.log.postgresql.process import Process
from zim.nodes.router.log.postgresql.schema import SLOTS
from zim.nodes.router.log.postgresql.small_writes import fenced
from zim.nodes.router.log.receipts import Before, ReceiptStore, RouterReceipt

LOCKED_S = 5.0  # until the next attempt to empty a table that somebody reads
SEGMENTS = SLOTS - 2  # of what is kept: one more is being written, and one emptied

_Row = tuple[int, int, int, int, int, int, list[str], list[int]]
_ROW = msgspec.json.Decoder(_Row)


class PostgresReceipts(ReceiptStore):
    """The receipts of one shard, as its owner has them."""

    def __init__(self, process: Process, shard: int, lease: Lease, keep_s: float) -> None:
        """Switches.

        Args:
            shard: its number.
            lease: what owners before it left pending is unknown.
            keep_s: how long receipts are kept.

        Raises:
            Unavailable: the engine does not tell what is there.
        """
        self._process, self._shard, self._lease = process, shard, lease
        self._segment_ms = max(1, int(keep_s * 1000) // SEGMENTS)
        self._slot, self._slot_ends_ms = 0, 0
        row = process.pool.read(lambda c: c.execute(_TOTALS, (shard,)).fetchone())
        self.newest_ms, self._written, totals = row or (0, 0, [0] * (3 + len(COUNTS)))
        offline, pushes, self._serial, *counts = totals
        tally = Tally(*counts)
        left = tally.give_up()
        self.before = Before(tally, offline, pushes, self._serial, left)

    @override
    def write(self, receipts: Sequence[RouterReceipt], tally: Tally, offline: int, pushes: int, now_ms: int) -> None:
        """Switches."""
        rows: list[bytes] = []
        for r in receipts:
            times_ms = r.accepted_ms, r.kept_ms, r.reported_ms
            row = (r.serial, *times_ms, r.offline, r.open_rows, list(r.unserved), list(r.tally.counts))
            rows.append(msgspec.json.encode(row))
            give_way()
        self._serial = max([self._serial, *(r.serial for r in receipts)])
        newest_ms = max([self.newest_ms, *(r.kept_ms for r in receipts)])
        self._written += 1
        values: dict[str, Any] = {
            "shard": self._shard,
            "run": self._lease.term,
            "written": self._written,
            "newest_ms": newest_ms,
            "totals": wholes([offline, pushes, self._serial, *tally.counts]),
            "ids": blobs([pack_id(r.push_id) for r in receipts]),
            "rows": blobs(rows),
        }

        def job(c: Connection) -> None:
            if now_ms >= self._slot_ends_ms:
                self._find_slot(c, now_ms)
            if c.execute(_WRITE[self._slot], values, prepare=True).fetchone() is None:
                raise fenced(self._lease)

        try:
            self._process.receipts.write(job)
        except ZimError as e:
            raise Unavailable("the receipts", str(e)) from None
        self.newest_ms = newest_ms

    def _find_slot(self, connection: Connection, now_ms: int) -> None:
        """The table that is written to now. Whoever comes first when its time is over empties the next one."""
        row = connection.execute(_SLOT).fetchone()
        slot, began_ms = row or (0, 0)
        process = self._process
        if now_ms >= began_ms + self._segment_ms:
            if process.monotonic() < process.ring_waits_until:
                self._slot = slot
                return
            try:
                self._begin_slot(connection, (slot + 1) % SLOTS, began_ms, now_ms)
            except psycopg.errors.LockNotAvailable:
                self._slot, process.ring_waits_until = slot, process.monotonic() + LOCKED_S
                return
            row = connection.execute(_SLOT).fetchone()
            slot, began_ms = row or (slot, now_ms)
        self._slot, self._slot_ends_ms = slot, began_ms + self._segment_ms

    def _begin_slot(self, connection: Connection, slot: int, before_ms: int, now_ms: int) -> None:
        """Unless another has. Does not wait for who reads the table, a pg_dump for instance: readers would wait
        behind us."""
        with connection.transaction():
            connection.execute(_LOCK_LIMIT)
            if connection.execute(_BEGIN_SLOT, (now_ms, slot, before_ms)).fetchone() is not None:
                connection.execute(f"TRUNCATE receipts_{slot}".encode())

    @override
    def find(self, push_id: str) -> list[RouterReceipt]:
        """Switches."""
        values = {"shard": self._shard, "push_id": pack_id(push_id)}
        try:
            rows = self._process.pool.read(lambda c: c.execute(_FIND, values, prepare=True, binary=True).fetchall())
        except ZimError as e:
            raise Unavailable("the receipts", str(e)) from None
        found: dict[int, RouterReceipt] = {}
        for _, run, row in rows:
            serial, accepted_ms, kept_ms, reported_ms, offline, open_rows, names, counts = _ROW.decode(row)
            if serial in found:
                continue  # an older state of it
            tally = Tally(*counts)
            if run != self._lease.term:
                tally.give_up()
            times_ms = accepted_ms, kept_ms, reported_ms
            found[serial] = RouterReceipt(push_id, serial, *times_ms, tally, offline, open_rows, names or ())
        return sorted(found.values(), key=lambda receipt: receipt.serial)

    @override
    def close(self) -> None:
        """The connections are the process's."""


_TOTALS = "SELECT newest_ms, written, totals FROM receipt_totals WHERE shard = %s"
_SLOT = "SELECT slot, began_ms FROM receipt_slots ORDER BY began_ms DESC, slot LIMIT 1"
_LOCK_LIMIT = "SET LOCAL lock_timeout = '50ms'"
_BEGIN_SLOT = "UPDATE receipt_slots SET began_ms = %s WHERE slot = %s AND began_ms <= %s RETURNING slot"
_WRITE = [
    f"""
    WITH mine AS (
        SELECT 1 FROM shards WHERE shards.shard = %(shard)s AND term = %(run)s
    ), written AS (
        INSERT INTO receipts_{slot} (shard, push_id, written, run, receipt)
        SELECT %(shard)s, n.push_id, %(written)s, %(run)s, n.receipt
        FROM mine, unnest(%(ids)s, %(rows)s) AS n(push_id, receipt)
    )
    INSERT INTO receipt_totals (shard, newest_ms, written, totals)
    SELECT %(shard)s, %(newest_ms)s, %(written)s, %(totals)s FROM mine ON CONFLICT (shard) DO UPDATE
    SET newest_ms = excluded.newest_ms, written = excluded.written, totals = excluded.totals RETURNING 1""".encode()
    for slot in range(SLOTS)
]
_FIND = (
    " UNION ALL ".join(
        f"SELECT written, run, receipt FROM receipts_{slot} WHERE push_id = %(push_id)s AND shard = %(shard)s"
        for slot in range(SLOTS)
    )
    + " ORDER BY written DESC"
).encode()
