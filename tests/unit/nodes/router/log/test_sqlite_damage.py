"""What is damaged is said to be; nothing of it is handed out."""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.nodes.router.log.contract import FOR_EVER, NOW, new, rules
from tests.unit.nodes.router.log.sqlite_support import acquired, check_told, direct, opened, told
from tests.unit.nodes.router.log.test_sqlite_crash import crashed  # noqa: F401
from zim.errors import NodeError
from zim.nodes.router.log import Damaged, LogError
from zim.nodes.router.log.sqlite import opening
from zim.nodes.router.log.sqlite.wal import lost_commits

STREAMS = [f"r:{i}" for i in range(40)]
EACH = 25
SIZE = 300


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log that was closed: some hundred pages."""
    folder = tmp_path_factory.mktemp("whole")
    log = opened(folder, direct)
    lease = acquired(log)
    for offset in range(1, EACH + 1):
        log.append(lease, [told(stream, offset, SIZE) for stream in STREAMS])
    log.append(lease, [new("u:1", body=b"one shared body", only=("7_1",)), new("u:2", body=b"one shared body")])
    log.close()
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "router-1"))


def refused(folder: Path, why: str) -> str:
    with pytest.raises(NodeError, match=why) as caught:
        opened(folder, direct)
    assert str(folder / "log.db") in str(caught.value)
    return str(caught.value)


def test_garbage(folder: Path) -> None:
    (folder / "log.db").write_bytes(random.Random(1).randbytes(50_000))
    assert "backup" in refused(folder, "not an SQLite database")


def test_nothing(folder: Path) -> None:
    (folder / "log.db").write_bytes(b"")
    refused(folder, "empty")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_file_cut_off(folder: Path, share: float) -> None:
    file = folder / "log.db"
    with file.open("r+b") as f:
        f.truncate(int(file.stat().st_size * share))
    refused(folder, "is damaged")


def test_a_large_file_cut_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "CHECKED_BYTES", 0)
    file = folder / "log.db"
    with file.open("r+b") as f:
        f.truncate(file.stat().st_size - 4096)
    refused(folder, "is damaged")


def test_a_wal_without_its_database(folder: Path) -> None:
    (folder / "log.db").rename(folder / "log.db-wal")
    refused(folder, "is there without it")


def test_another_programs_database(folder: Path) -> None:
    (folder / "log.db").unlink()
    with sqlite3.connect(folder / "log.db") as c:
        c.execute("CREATE TABLE addresses (name)")
    c.close()
    refused(folder, "another program")


def test_a_newer_format(folder: Path) -> None:
    with sqlite3.connect(folder / "log.db") as c:
        c.execute("PRAGMA user_version = 4")
    c.close()
    refused(folder, "format 4, and this zim knows format 3")


def test_the_log_of_other_routers(folder: Path) -> None:
    with pytest.raises(NodeError, match=r"belongs to the routers router-1, router-2, and the topology has router-1\."):
        opened(folder, direct, routers=["router-1"])
    opened(folder, direct, routers=["router-2", "router-1"]).close()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    refused(tmp_path / "none", "cannot be opened")


def test_a_flipped_byte_in_a_body_is_noticed(folder: Path) -> None:
    file = folder / "log.db"
    data = bytearray(file.read_bytes())
    at = data.index(b"r:7 9 ") + 100
    data[at] ^= 1
    file.write_bytes(data)
    log = opened(folder, direct)
    before = log.read("r:7", 0, 99, 99, 1 << 20, NOW)
    assert (len(before.records), before.last) == (8, 8)
    with pytest.raises(Damaged, match="r:7, offset 9") as caught:
        log.read("r:7", 8, 99, 99, 1 << 20, NOW)
    assert (caught.value.where, caught.value.offset) == ("r:7, offset 9", 9)
    assert len(log.read("r:7", 9, 99, 99, 1 << 20, NOW).records) == EACH - 9
    assert check_told(log, "r:8", SIZE) == (0, EACH)
    log.close()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE records SET push = 2 WHERE push = 1",
        "UPDATE records SET only_for = NULL WHERE only_for IS NOT NULL",
        "UPDATE pushes SET push_id = 'x'",
        "UPDATE pushes SET op = op + 1",
        "UPDATE pushes SET time_ms = time_ms + 1",
        "UPDATE pushes SET body = NULL, op = 'x', push_id = CAST(x'ff' AS TEXT)",
        "UPDATE records SET only_for = '{' WHERE offset = 1",
        "DELETE FROM pushes",
    ],
)
def test_nothing_else_of_a_record_changes_unnoticed(folder: Path, sql: str) -> None:
    with sqlite3.connect(folder / "log.db") as c:
        c.execute("PRAGMA writable_schema = 1")
        c.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, 'body BLOB NOT NULL', 'body BLOB') WHERE name = 'pushes'"
        )
    c.close()
    with sqlite3.connect(folder / "log.db") as c:
        assert c.execute(sql).rowcount
    c.close()
    log = opened(folder, direct)
    damaged = 0
    for stream in (*STREAMS, "u:1", "u:2"):
        try:
            page = log.read(stream, 0, 1, 1, 1 << 20, NOW)
        except Damaged:
            damaged += 1
        else:
            assert page.records[0].body.startswith(f"{stream} 1 ".encode() if stream in STREAMS else b"one shared")
    assert damaged
    log.close()


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 30), is_large=st.booleans())
def test_whatever_is_flipped_nothing_wrong_is_handed_out(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, seed: int, is_large: bool
) -> None:
    folder = Path(shutil.copytree(whole, tmp_path_factory.mktemp("flipped") / "router-1"))
    rng = random.Random(seed)
    data = bytearray((folder / "log.db").read_bytes())
    for _ in range(rng.choice([1, 10, 100])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    (folder / "log.db").write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        if is_large:
            patch.setattr(opening, "CHECKED_BYTES", 0)
        try:
            log = opened(folder, direct)
        except NodeError:
            shutil.rmtree(folder)
            return
    for stream in STREAMS:
        for after in range(EACH):
            try:
                page = log.read(stream, after, after + 1, 1, 1 << 20, NOW)
            except LogError:
                continue
            for r in page.records:
                assert (r.push_id, r.body) == (told(stream, r.offset).push_id, told(stream, r.offset, SIZE).body)
    with suppress(LogError):
        lease = acquired(log)
        for stream in STREAMS:
            with suppress(LogError):
                log.append(lease, [told(stream, EACH + 1), new(stream, "k", b"1")])
                log.trim(lease, rules(count=3), NOW, FOR_EVER, 100)
                log.acknowledge(lease, {stream: 2})
    log.close()
    shutil.rmtree(folder)


def test_acknowledged_batches_behind_a_broken_frame(crashed: Path, tmp_path: Path) -> None:  # noqa: F811
    folder = Path(shutil.copytree(crashed, tmp_path / "router-1"))
    wal = folder / "log.db-wal"
    data = bytearray(wal.read_bytes())
    data[data.index(b"r:1 12 ")] ^= 1
    wal.write_bytes(data)
    text = refused(folder, "a frame is broken, and [0-9]+ commits stand behind it")
    assert re.search("wal", text)


def test_batches_that_failed_one_after_another_are_not_taken_for_acknowledged(
    crashed: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Their frames stay behind the valid ones, but do not follow each other."""
    folder = Path(shutil.copytree(crashed, tmp_path / "router-1"))
    wal = folder / "log.db-wal"
    whole = wal.read_bytes()
    data = bytearray(whole)
    for text in (b"r:1 28 ", b"r:1 29 ", b"r:1 30 "):
        data[data.index(text)] ^= 1
    wal.write_bytes(data)
    broken_at = (whole.index(b"r:1 28 ") - 32) // (24 + 4096)
    assert lost_commits(wal, broken_at) <= 1
    wal.write_bytes(whole)
    assert lost_commits(wal, broken_at) > 1
    log = opened(folder, direct)
    assert check_told(log, "r:1") == (0, 30)
    log.close()


def test_the_batch_under_way_may_be_broken(crashed: Path, tmp_path: Path) -> None:  # noqa: F811
    folder = Path(shutil.copytree(crashed, tmp_path / "router-1"))
    wal = folder / "log.db-wal"
    data = bytearray(wal.read_bytes())
    data[data.rindex(b"r:1 30 ")] ^= 1
    wal.write_bytes(data)
    log = opened(folder, direct)
    assert check_told(log, "r:1") == (0, 29)
    log.close()
