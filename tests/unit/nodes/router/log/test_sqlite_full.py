"""A full disk: nothing half written, 503 and not a crash, and on again by itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.nodes.router.log.contract import FOR_EVER, NOW, rules
from tests.unit.nodes.router.log.sqlite_support import Clock, acquired, check_told, direct, in_thread, opened, told
from zim.errors import NotNow, Unavailable
from zim.nodes.router.log import Head, Lease
from zim.nodes.router.log.sqlite import SqliteLog

MB = 1 << 20
SIZE = 8_000


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A small one of its own. Of so many MB, if the test says how many."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", f"size={getattr(request, 'param', 24)}m", "tmpfs", str(folder)],
            check=False,
            capture_output=True,
        ).returncode
    ):
        pytest.skip("needs a tmpfs of its own, which only root may mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(log: SqliteLog, lease: Lease, start: int = 0) -> int:
    """Appends until the disk is full. Returns the last offset that was acknowledged."""
    for offset in range(start + 1, start + 10_000):
        try:
            log.append(lease, [told("r:1", offset, SIZE)])
        except Unavailable:
            return offset - 1
    raise AssertionError("never full")


def test_room_that_others_give_back(disk: Path) -> None:
    clock = Clock()
    (disk / "others").write_bytes(b"x" * (10 * MB))
    folder = disk / "router-1"
    folder.mkdir()
    log = opened(folder, in_thread, ballast_bytes=2 * MB, clock=clock)
    lease = acquired(log)
    assert (folder / "ballast").stat().st_size == 2 * MB
    head = fill(log, lease)
    assert head > 100
    assert log.is_full
    assert not (folder / "ballast").exists()
    assert log.heads(["r:1"])["r:1"].head == head
    assert check_told(log, "r:1", SIZE) == (0, head)
    for _ in range(3):
        clock.now += 10
        with pytest.raises(Unavailable, match="the disk is full"):
            log.append(lease, [told("r:1", head + 1, SIZE)])
    (disk / "others").unlink()
    clock.now += 10
    log.append(lease, [told("r:1", head + 1, SIZE)])
    assert not log.is_full
    assert (folder / "ballast").exists()
    log.close()
    log = opened(folder, direct)
    assert check_told(log, "r:1", SIZE) == (0, head + 1)
    log.close()


def test_room_that_trimming_makes(disk: Path) -> None:
    clock = Clock()
    folder = disk / "router-1"
    folder.mkdir()
    log = opened(folder, in_thread, ballast_bytes=2 * MB, clock=clock)
    lease = acquired(log)
    head = fill(log, lease)
    for again in range(3):
        assert log.is_full
        for i in range(40):
            clock.now += 1
            log.trim(lease, rules(count=50), NOW + (again * 40 + i) * 60_000, FOR_EVER, 1_000)
        assert not log.is_full
        assert check_told(log, "r:1", SIZE) == (head - 50, head)
        more = fill(log, lease, head)
        assert more > head + 50
        head = more
    log.close()


def test_a_disk_that_is_full_when_the_router_starts(disk: Path) -> None:
    folder = disk / "router-1"
    folder.mkdir()
    log = opened(folder, direct, ballast_bytes=2 * MB)
    log.append(acquired(log), [told("r:1", 1, SIZE)])
    log.close()
    free = os.statvfs(disk)
    (disk / "others").write_bytes(b"x" * (free.f_bavail * free.f_frsize))
    with pytest.raises(OSError, match="No space"):
        (disk / "more").write_bytes(b"x")
    log = opened(folder, direct, ballast_bytes=2 * MB)
    head = fill(log, acquired(log), 1)
    assert check_told(log, "r:1", SIZE) == (0, head)
    log.close()


def take_the_rest(disk: Path, name: str) -> None:
    with (disk / name).open("wb", buffering=0) as f, contextlib.suppress(OSError):
        while True:
            f.write(bytes(4096))


@pytest.mark.parametrize("disk", [48], indirect=True)
@pytest.mark.parametrize("is_killed", [False, True])
def test_a_start_after_the_disk_was_full_and_the_ballast_given_up(disk: Path, is_killed: bool) -> None:
    clock = Clock()
    folder = disk / "router-1"
    folder.mkdir()
    log = opened(folder, direct, ballast_bytes=8 * MB, clock=clock)
    lease = acquired(log)
    head = fill(log, lease)
    take_the_rest(disk, "others")
    if is_killed:  # what is in its files stays as it is
        shutil.copytree(folder, disk.parent / "killed")
        log.close()
        shutil.rmtree(folder)
        shutil.copytree(disk.parent / "killed", folder)
        take_the_rest(disk, "others too")
    else:
        log.close()
    log = opened(folder, direct, ballast_bytes=8 * MB, clock=clock)
    lease = acquired(log)
    assert not list(folder.glob("ballast*"))
    assert check_told(log, "r:1", SIZE) == (0, head)
    with pytest.raises(Unavailable, match="the disk is full"):
        log.append(lease, [told("r:1", head + 1, SIZE)])
    for i in range(60):
        clock.now += 1
        log.trim(lease, rules(count=50), NOW + i * 60_000, FOR_EVER, 1_000)
    assert log.heads(["r:1"])["r:1"] == Head(log.epoch, head - 50, head)
    log.append(lease, [told("r:1", head + 1, SIZE)])
    log.close()


def test_a_start_without_any_room_is_for_later(disk: Path) -> None:
    folder = disk / "router-1"
    folder.mkdir()
    take_the_rest(disk, "others")
    with pytest.raises(NotNow, match=r"log\.db cannot be opened"):
        opened(folder, direct)
    (disk / "others").unlink()
    opened(folder, direct).close()


def test_a_database_that_may_not_grow(tmp_path: Path) -> None:
    """As a full disk, but of pages, and with room for a new ballast: it recovers as soon as trimming has freed some."""
    clock = Clock()
    log = opened(tmp_path, direct, clock=clock)
    log._writer._worker.run(lambda c: c.execute("PRAGMA max_page_count = 500").fetchone())
    lease = acquired(log)
    head = fill(log, lease)
    assert check_told(log, "r:1", SIZE) == (0, head)
    clock.now += 10
    assert log.trim(lease, rules(count=50), NOW, FOR_EVER, 10_000).records == head - 50
    clock.now += 10
    log.append(lease, [told("r:1", head + 1, SIZE)])
    assert check_told(log, "r:1", SIZE) == (head - 50, head + 1)
    log.close()
