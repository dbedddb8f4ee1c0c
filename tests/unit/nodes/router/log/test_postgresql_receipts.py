"""Receipts on PostgreSQL do what all receipts do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest

from tests.unit.nodes.router.log.postgresql_support import RECEIPTS_S, database, opened
from tests.unit.nodes.router.log.receipts_contract import ReceiptsContract, receipt, write
from zim.errors import Unavailable
from zim.fabric.tally import Tally
from zim.nodes.router.log import Lease
from zim.nodes.router.log.postgresql.schema import SLOTS
from zim.nodes.router.log.receipts import ReceiptStore

SEGMENT_MS = int(RECEIPTS_S * 1000) // 8


class TestPostgresReceipts(ReceiptsContract):
    @pytest.fixture(autouse=True)
    def _log(self) -> Iterator[None]:
        with ExitStack() as stack:
            self.where = stack.enter_context(database())
            self.shared = opened(self.where)
            stack.callback(self.shared.close)
            yield

    def lease(self, shard: str = "shard-1") -> Lease:
        return self.shared.shard_log(shard).acquire("router-1")

    def open(self, run: int) -> ReceiptStore:
        """A run is a term."""
        return self.shared.open(self.lease()).receipts

    def test_each_shard_has_its_own(self) -> None:
        one, two = self.open(1), self.shared.open(self.lease("shard-2")).receipts
        write(one, receipt(delivered=1))
        write(two, receipt(delivered=2))
        assert [r.tally.delivered for r in one.find("aa")] == [1]
        assert [r.tally.delivered for r in two.find("aa")] == [2]
        assert self.open(2).before.tally == Tally(targeted=3, delivered=1, unknown=2)

    def test_they_go_when_their_time_is_over(self) -> None:
        store = self.open(1)
        write(store, receipt("aa", 1), now_ms=10_000_000)
        for i in range(1, 9):
            write(store, receipt("bb", 1 + i), now_ms=10_000_000 + i * SEGMENT_MS)
        assert [r.serial for r in store.find("aa")] == [1]
        assert len(store.find("bb")) == 8
        for i in range(9, 12):
            write(store, now_ms=10_000_000 + i * SEGMENT_MS)
        assert store.find("aa") == []
        assert [r.serial for r in store.find("bb")] == [3, 4, 5, 6, 7, 8, 9]

    def test_two_owners_that_begin_a_segment_at_once_lose_nothing(self) -> None:
        one, two = self.open(1), self.shared.open(self.lease("shard-2")).receipts
        for i in range(30):
            at = 10_000_000 + i * SEGMENT_MS
            write(one, receipt(f"one {i}", 1 + i), now_ms=at)
            write(two, receipt(f"two {i}", 1 + i), now_ms=at + 1)
            for store, name in ((one, "one"), (two, "two")):
                assert all(store.find(f"{name} {n}") for n in range(max(0, i - 7), i + 1))

    def test_a_backup_that_reads_all_tables_holds_up_nobody(self) -> None:
        """As pg_dump does it: it has all tables locked against TRUNCATE until it is through."""
        store, other = self.open(1), self.shared.open(self.lease("shard-2")).receipts
        write(store, receipt("aa", 1), now_ms=10_000_000)
        with psycopg.connect(self.where.url) as dump:
            for slot in range(SLOTS):
                dump.execute(f"SELECT FROM zim.receipts_{slot}".encode())
            for i in range(1, 4):
                write(store, receipt("bb", 1 + i), now_ms=10_000_000 + i * SEGMENT_MS)
                write(other, receipt("cc", 1 + i), now_ms=10_000_000 + i * SEGMENT_MS)
                assert [len(store.find(push_id)) for push_id in ("aa", "bb")] == [1, i]
            assert self.begun() == 1
        self.shared._process.ring_waits_until = 0.0  # some seconds later
        for i in range(4, 7):
            write(store, receipt("bb", 1 + i), now_ms=10_000_000 + i * SEGMENT_MS)
        assert self.begun() == 4
        assert [len(store.find(push_id)) for push_id in ("aa", "bb")] == [1, 6]

    def begun(self) -> int:
        """How many parts of the time have a table."""
        with psycopg.connect(self.where.url) as c:
            (count,) = c.execute("SELECT count(*) FROM zim.receipt_slots WHERE began_ms > 0").fetchone() or (0,)
        return int(count)

    def test_who_is_not_the_owner_any_more_writes_nothing(self) -> None:
        store = self.open(1)
        write(store, receipt(delivered=1))
        after = self.open(2)
        with pytest.raises(Unavailable):
            write(store, receipt(delivered=3))
        assert [r.tally.delivered for r in after.find("aa")] == [1]
