"""Copies of a log that is being written, and what comes out of a backup."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.unit.nodes.router.log.sqlite_support import ROUTERS, acquired, check_told, opened, told
from zim.errors import NodeError, Unavailable
from zim.nodes.router.log.sqlite import back_up, begin_epoch


def test_a_log_that_is_open_is_copied_as_it_is(tmp_path: Path) -> None:
    live, copy = tmp_path / "router-1", tmp_path / "backup" / "router-1"
    live.mkdir()
    log = opened(live)
    lease = acquired(log)
    log.append(lease, [told("u:1", 1), told("u:1", 2)])
    done = back_up(live, copy)
    assert (done.file, done.streams, done.messages) == (copy / "log.db", 1, 2)
    assert done.bytes == (copy / "log.db").stat().st_size
    log.append(lease, [told("u:1", 3)])
    assert back_up(live, copy).messages == 3
    assert [path.name for path in copy.iterdir()] == ["log.db"]
    log.append(lease, [told("u:1", 4)])
    log.close()
    with pytest.raises(NodeError, match=r"a copy out of a backup: .* zim restored router-1"):
        opened(copy)
    begin_epoch(copy, ROUTERS)
    again = opened(copy)
    assert check_told(again, "u:1") == (0, 3)
    again.close()


def test_the_last_copy_stays_where_there_is_no_log_or_a_broken_one(tmp_path: Path) -> None:
    live, copy = tmp_path / "router-1", tmp_path / "backup"
    live.mkdir()
    log = opened(live)
    log.append(acquired(log), [told("u:1", 1)])
    log.close()
    back_up(live, copy)
    before = (copy / "log.db").read_bytes()
    data = bytearray((live / "log.db").read_bytes())
    data[4096:] = b"\xff" * len(data[4096:])
    (live / "log.db").write_bytes(data)
    with pytest.raises(NodeError, match="cannot be copied"):
        back_up(live, copy)
    (live / "log.db").write_bytes(b"something else" * 100)
    with pytest.raises(NodeError, match="is not an SQLite database"):
        back_up(live, copy)
    (live / "log.db").unlink()
    with pytest.raises(NodeError, match=r"log\.db is not there: there is nothing to copy"):
        back_up(live, copy)
    assert not (live / "log.db").exists()
    assert (copy / "log.db").read_bytes() == before
    assert [path.name for path in copy.iterdir()] == ["log.db"]


def test_a_log_with_damaged_messages_leaves_the_last_copy_and_makes_another_one(tmp_path: Path) -> None:
    live, copy = tmp_path / "router-1", tmp_path / "backup"
    live.mkdir()
    log = opened(live)
    lease = acquired(log)
    log.append(lease, [told("u:1", n) for n in range(1, 4)])
    log.append(lease, [told("u:2", 1)])
    log.close()
    back_up(live, copy)
    before = (copy / "log.db").read_bytes()
    db = sqlite3.connect(live / "log.db", isolation_level=None)
    db.execute("UPDATE pushes SET body = x'00' WHERE id IN (SELECT push FROM records WHERE offset = 2)")
    db.execute("DELETE FROM pushes WHERE id IN (SELECT push FROM records WHERE offset = 3)")
    db.close()
    said = (
        rf"2 of 4, the first u:1, offset 2: its checksum does not fit: the copy is {copy}/log.db.damaged; .*as it was$"
    )
    with pytest.raises(NodeError, match=said):
        back_up(live, copy)
    assert (copy / "log.db").read_bytes() == before
    shutil.copy(copy / "log.db.damaged", live / "log.db")
    begin_epoch(live, ROUTERS)
    log = opened(live)
    assert log.heads(["u:1", "u:2"])["u:1"].head == 3
    log.close()
    with pytest.raises(NodeError, match="the router passes over them"):
        back_up(live, tmp_path / "first")
    assert [path.name for path in (tmp_path / "first").iterdir()] == ["log.db.damaged"]


def test_a_copy_has_to_be_somewhere_else(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with pytest.raises(NodeError, match="is the log itself"):
        back_up(tmp_path, tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NodeError, match="cannot be written"):
        back_up(tmp_path, tmp_path / "file")


def test_what_is_restored_is_there_and_has_no_wal_of_another_log(tmp_path: Path) -> None:
    live, copy = tmp_path / "router-1", tmp_path / "backup"
    live.mkdir()
    with pytest.raises(NodeError, match=r"log\.db is not there; put the copy there first"):
        begin_epoch(live, ROUTERS)
    assert not [*live.iterdir()]
    log = opened(live)
    lease = acquired(log)
    log.append(lease, [told("u:1", 1)])
    back_up(live, copy)
    log.append(lease, [told("u:1", 2)])
    snapshot = tmp_path / "snapshot"
    shutil.copytree(live, snapshot)  # as of a router that was killed
    log.close()
    shutil.copy(copy / "log.db", live / "log.db")
    shutil.copy(snapshot / "log.db-wal", live / "log.db-wal")
    with pytest.raises(NodeError, match=r"log\.db-wal is there.*--with-wal"):
        begin_epoch(live, ROUTERS)
    for use in (opened, lambda folder: begin_epoch(folder, ROUTERS, with_wal=True)):
        with pytest.raises(NodeError, match=r"log\.db-wal is there: what the log before this one wrote last"):
            use(live)
    (live / "log.db-wal").unlink()
    epoch = begin_epoch(live, ROUTERS)
    restored = opened(live)
    assert restored.epoch == epoch
    assert check_told(restored, "u:1") == (0, 1)
    restored.close()
    begin_epoch(snapshot, ROUTERS, with_wal=True)
    whole = opened(snapshot)
    assert check_told(whole, "u:1") == (0, 2)
    whole.close()


def test_a_router_with_another_id_does_not_begin_beside_its_old_log(tmp_path: Path) -> None:
    first = tmp_path / "router-1"
    first.mkdir()
    opened(first).close()
    second = tmp_path / "router-2"
    second.mkdir()
    with pytest.raises(NodeError, match=r"router-1/log\.db is the log of router-1, and the topology has router-2"):
        opened(second, routers=("router-2",))
    assert not [*second.glob("log.db*")]
    opened(second).close()  # both are in the topology
    shutil.rmtree(first)
    third = tmp_path / "router-3"
    third.mkdir()
    with pytest.raises(NodeError, match="router-2/log"):
        opened(third, routers=("router-3",))


def test_nothing_is_accepted_into_a_file_that_is_not_there_any_more(tmp_path: Path) -> None:
    log = opened(tmp_path)
    lease = acquired(log)
    log.append(lease, [told("u:1", 1)])
    (tmp_path / "log.db").rename(tmp_path / "moved")
    with pytest.raises(Unavailable, match="was moved or deleted"):
        log.append(lease, [told("u:1", 2)])
    assert "was moved or deleted" in log.trouble
    (tmp_path / "moved").rename(tmp_path / "log.db")
    log.append(lease, [told("u:1", 2)])
    assert log.trouble == ""
    assert check_told(log, "u:1") == (0, 2)
    log.close()
