"""Receipts on a real file: what a restart, a crash, time and rubbish make of them."""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
import pytest

from tests.unit.nodes.router.log.receipts_contract import keep, receipt, write
from tests.unit.nodes.router.log.sqlite_support import in_thread
from zim.errors import NodeError, Unavailable
from zim.fabric.tally import Tally
from zim.nodes.router.log.sqlite.receipts import FILE, SEGMENTS, SqliteReceipts
from zim.nodes.router.receipts import PushRow, RouterLedger
from zim.protocol.messages import Result

KEEP_S = 80.0
SEGMENT_MS = int(KEEP_S * 1000) // SEGMENTS


@contextmanager
def opened(folder: Path, run: int = 1, keep_s: float = KEEP_S) -> Iterator[SqliteReceipts]:
    store = SqliteReceipts(folder, run, keep_s, in_thread)
    try:
        yield store
    finally:
        store.close()


def segments(folder: Path) -> list[str]:
    db = sqlite3.connect(folder / FILE)
    names = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE name LIKE 'segment%' ORDER BY 1")]
    db.close()
    return names


def test_more_than_one_statement_holds(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        write(store, *(receipt(f"{i:08x}", i) for i in range(1, 1_002)))
        assert [r.serial for r in store.find(f"{1_001:08x}")] == [1_001]
    with opened(tmp_path, run=2) as store:
        assert store.before[2:4] == (1_001, 1_001)


def test_late_states_win(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        write(store, receipt(), now_ms=1_000)
        write(store, receipt(delivered=1), now_ms=1_001)
        assert [r.tally.delivered for r in store.find("aa")] == [1]
        write(store, receipt(delivered=2), now_ms=1_000 + SEGMENT_MS)
        assert len(segments(tmp_path)) == 2
        assert [r.tally.delivered for r in store.find("aa")] == [2]


@pytest.mark.parametrize("keep_s", [KEEP_S / 7, KEEP_S * 7])
def test_late_states_win_after_a_change_of_how_long_they_are_kept(tmp_path: Path, keep_s: float) -> None:
    now_ms = 1_700_000_012_345
    with opened(tmp_path) as store:
        write(store, receipt(), receipt("bb", 2), now_ms=now_ms)
    with opened(tmp_path, 2, keep_s) as store:
        write(store, receipt(delivered=1), now_ms=now_ms + 10)
        assert [r.tally.delivered for r in store.find("aa")] == [1]
        assert [r.serial for r in store.find("bb")] == [2]


def test_segments_are_dropped_by_age(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for i in range(4 * SEGMENTS):
            now_ms = i * SEGMENT_MS
            write(store, receipt(f"{i:04x}", i), now_ms=now_ms)
            assert [r.serial for r in store.find(f"{i:04x}")] == [i]
            assert [r.serial for r in store.find(f"{max(0, i - SEGMENTS):04x}")] == [max(0, i - SEGMENTS)]
            assert len(segments(tmp_path)) <= SEGMENTS + 2
        assert store.find("0000") == []


def test_an_old_segment_stays_while_what_is_in_it_is_young(tmp_path: Path) -> None:
    """It began long ago, and was written to at its end."""
    with opened(tmp_path) as store:
        write(store, receipt("01", 1), now_ms=0)
        write(store, receipt("02", 2), now_ms=SEGMENT_MS - 1)
        write(store, receipt("03", 3), now_ms=SEGMENT_MS - 1 + int(KEEP_S * 1000))
        assert [r.serial for r in store.find("02")] == [2]


@pytest.mark.parametrize(
    "rubbish",
    [b"rubbish" * 1000, b"SQLite format 3\0" + b"\xff" * 5_000],
    ids=["text", "a broken header"],
)
def test_a_file_that_is_no_database_is_replaced_with_a_warning(
    tmp_path: Path, rubbish: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).write_bytes(rubbish)
    (tmp_path / f"{FILE}-wal").write_bytes(rubbish)
    with opened(tmp_path) as store:
        assert store.before[:4] == (Tally(), 0, 0, 0)
        write(store, receipt())
        assert len(store.find("aa")) == 1
    assert [record.getMessage() for record in caplog.records] == ["receipts are lost, their file cannot be read"]
    gc.collect()  # a connection that was left open would warn


@pytest.mark.parametrize("schema", ["CREATE TABLE totals (a, b)", "CREATE TABLE segment_1000 (a, b)"])
def test_tables_of_another_shape_are_replaced_with_a_warning(
    tmp_path: Path, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    db = sqlite3.connect(tmp_path / FILE)
    db.execute(schema)
    db.close()
    with opened(tmp_path) as store:
        write(store, receipt())
        assert len(store.find("aa")) == 1
    assert [record.getMessage() for record in caplog.records] == ["receipts are lost, their file cannot be read"]


def test_receipts_that_are_damaged_are_lost_and_stop_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The tables are as they should be, and one of the pages of the newest is not."""
    with opened(tmp_path) as store:
        write(store, *(receipt(f"{i:08x}", i) for i in range(1, 1_000)))
    file = tmp_path / FILE
    data = file.read_bytes()
    middle = len(data) // 2 // 4096 * 4096
    file.write_bytes(data[:middle] + b"\xff" * 4096 + data[middle + 4096 :])
    with opened(tmp_path, run=2) as store:
        assert store.before == (Tally(), 0, 0, 0, 0)
        write(store, receipt())
        assert len(store.find("aa")) == 1
    assert [record.getMessage() for record in caplog.records] == ["receipts are lost, their file cannot be read"]
    gc.collect()


def test_an_empty_file_is_as_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE).write_bytes(b"")
    with opened(tmp_path) as store:
        assert store.before[:4] == (Tally(), 0, 0, 0)
    assert not caplog.records


def test_a_file_that_cannot_be_opened_is_kept(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        write(store, receipt())
    db = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("BEGIN EXCLUSIVE")
    with pytest.raises(NodeError, match=r"receipts\.db cannot be opened: database is locked"):
        SqliteReceipts(tmp_path, 2, KEEP_S, in_thread)
    db.close()
    with opened(tmp_path, run=2) as store:
        assert store.before.pushes == 1


def test_a_disk_that_takes_nothing_costs_receipts_and_not_the_totals(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with opened(tmp_path) as store:
        book = RouterLedger(*store.before)
        row = PushRow(book, book.open("aa", 1, 2), 2)
        other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
        pages = other.execute("PRAGMA page_count").fetchone()[0]
        store._worker._connection.execute(f"PRAGMA max_page_count = {pages}")
        changed = book.take_changed()
        with pytest.raises(Unavailable, match="the receipts: database or disk is full"):
            store.write(changed, book.tally, book.offline, book.pushes, 1_000)
        book.stored(changed)
        assert other.execute("SELECT count(*) FROM totals").fetchone() == (0,)
        other.close()
        store._worker._connection.execute("PRAGMA max_page_count = 1000000")
        row.report(Result(1, 2, 2, 0, 0, 0), 3)
        keep(store, book, 2_000)
    assert capfd.readouterr().err == ""
    with opened(tmp_path, run=2) as store:
        assert store.before[:4] == (Tally(targeted=2, delivered=2), 0, 1, 1)
        assert [r.tally.delivered for r in store.find("aa")] == [2]


@pytest.mark.slow
def test_finding_and_writing_at_once_do_not_meet(tmp_path: Path) -> None:
    """They share a connection: a table that somebody reads cannot be dropped."""
    with opened(tmp_path) as store:

        def write_many(i: int) -> None:
            write(store, *(receipt("01", 1000 * i + j) for j in range(500)), now_ms=i * SEGMENT_MS)

        for i in range(3 * SEGMENTS):
            jobs: list[gevent.Greenlet[..., object]] = [gevent.spawn(store.find, f"{j % 3:02x}") for j in range(6)]
            jobs.append(gevent.spawn(write_many, i))
            jobs += [gevent.spawn(store.find, "01") for _ in range(6)]
            gevent.joinall(jobs, raise_error=True)
        assert len(store.find("01")) > 500


@pytest.mark.parametrize(
    ("change", "left"),
    [("DROP COLUMN unserved", []), ("RENAME unserved TO offline_users", ["u:7"])],
)
def test_a_file_of_an_earlier_version_gets_its_new_column(tmp_path: Path, change: str, left: list[str]) -> None:
    with opened(tmp_path) as store:
        write(store, receipt("aa", 1))
    (segment,) = segments(tmp_path)
    db = sqlite3.connect(tmp_path / FILE)
    db.execute(f"ALTER TABLE {segment} {change}")
    db.close()
    with opened(tmp_path, run=2) as store:
        assert [(r.serial, list(r.unserved)) for r in store.find("aa")] == [(1, left)]
        write(store, receipt("bb", 2))
        assert [list(r.unserved) for r in store.find("bb")] == [["u:7"]]
