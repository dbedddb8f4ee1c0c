"""A log that several routers share, on PostgreSQL: what one process has of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from typing_extensions import override

from zim.errors import NotNow, Unavailable
from zim.nodes.router.log import Lease
from zim.nodes.router.log.postgresql import rows, schema
from zim.nodes.router.log.postgresql.connecting import Connection, PostgresServer
from zim.nodes.router.log.postgresql.process import Process
from zim.nodes.router.log.postgresql.receipts import PostgresReceipts
from zim.nodes.router.log.postgresql.shard_log import ShardLog
from zim.nodes.router.log.shared import Beat, Durable, Holding, Rows, SharedLog, WhereShared
from zim.nodes.router.log.standings import MOST

log = logging.getLogger(__name__)


LEAST_KNOWN = 10_000  # streams of a shard whose heads are in memory


class PostgresLog(SharedLog):
    """The log of one fabric, as one process has it."""

    def __init__(self, place: WhereShared, fabric: str, key_window_s: float, receipts_s: float) -> None:
        """Opens it. Switches.

        Args:
            place: what the topology says.
            fabric: its name: a log is of one fabric.
            key_window_s: for how long a publisher's key is known.
            receipts_s: how long receipts are kept.

        Raises:
            NodeError: it is not made, half made, newer, of another fabric, or has another number of shards; or commits
                are not replicated. NotNow: it does not answer.
        """
        self.shards: Sequence[str] = place.names
        self.single_copy = place.single_copy
        self._numbers = {name: number for number, name in enumerate(place.names, 1)}
        self._key_window_s, self._receipts_s = key_window_s, receipts_s
        self._process = Process(PostgresServer(place))
        try:
            self._process.is_replicated = self._process.rows.read(lambda c: _check(c, place, fabric))
        except Unavailable as e:
            self._process.close()
            raise NotNow(str(e)) from None
        except BaseException:
            self._process.close()
            raise

    @property
    @override
    def is_replicated(self) -> bool:
        return self._process.is_replicated

    @property
    @override
    def connections(self) -> int:
        return self._process.connections

    @override
    def look(self) -> Rows:
        return self._process.rows.read(rows.look)

    @override
    def enter(self, router: str) -> int:
        return self._process.rows.write(lambda c: rows.enter(c, router))

    @override
    def beat(self, router: str, run: int, time_ms: int, comets: int) -> Rows:
        standing, is_replicated = self._process.rows.write(lambda c: rows.beat(c, router, run, time_ms, comets))
        if is_replicated != self._process.is_replicated and not self.single_copy:
            if is_replicated:
                log.warning("commits are synchronously replicated again")
            else:
                log.error("commits are not synchronously replicated any more: pushes are refused")
        self._process.is_replicated = is_replicated
        return standing

    @override
    def bury(self, beat: Beat) -> bool:
        return self._process.rows.write(lambda c: rows.bury(c, beat))

    @override
    def take(self, holding: Holding, router: str, run: int) -> Lease | None:
        """An append of the owner before may be under way: beats do not wait for it."""
        return self._process.pool.write(lambda c: rows.own(c, holding, router, run))

    @override
    def give(self, lease: Lease, router: str, run: int) -> Lease | None:
        def job(c: Connection) -> Lease | None:
            holding = rows.look(c).holdings.get(lease.shard)
            if holding is None or holding.term != lease.term:
                return None
            return rows.own(c, holding, router, run)

        return self._process.pool.write(job)

    @override
    def leave(self, router: str, run: int) -> None:
        self._process.rows.write(lambda c: rows.leave(c, router, run))

    @override
    def open(self, lease: Lease) -> Durable:
        """Raises: Fenced: the lease is not the newest. Unavailable."""
        shard = self.shard_log(lease.shard)
        shard.load(lease)
        receipts = PostgresReceipts(self._process, self._numbers[lease.shard], lease, self._receipts_s)
        return Durable(shard, lease, receipts)

    def shard_log(self, name: str) -> ShardLog:
        """The log of a shard, for who is to acquire it."""
        known = max(LEAST_KNOWN, 2 * MOST // len(self.shards))  # a router has a part of them, and may get more
        return ShardLog(self._process, self._numbers[name], name, self._key_window_s, known)

    @override
    def close(self) -> None:
        self._process.close()


def _check(connection: Connection, place: WhereShared, fabric: str) -> bool:
    """Whether commits are replicated."""
    schema.check_server(connection)
    schema.check(schema.look(connection), fabric, len(place.names))
    is_replicated = schema.is_replicated(connection)
    if not is_replicated and not place.single_copy:
        raise NotNow(
            "commits of the log are not synchronously replicated: synchronous_standby_names is empty, so what is "
            "accepted would be lost with one machine. Right is a synchronous standby, or log.single_copy = true for "
            "who wants it so"
        )
    if not is_replicated:
        log.warning("SINGLE COPY: commits are not replicated, and what is accepted may be lost with one machine")
    return is_replicated
