"""A router that is killed loses nothing that it acknowledged."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.nodes.router.log.appender import STREAMS
from tests.unit.nodes.router.log.sqlite_support import acquired, check_told, direct, opened, told


def acknowledged(lines: list[str]) -> dict[str, int]:
    found = dict.fromkeys(STREAMS, 0)
    for line in lines:
        words = line.split()
        if len(words) == 3 and line.endswith("\n"):
            found[words[1]] = max(found[words[1]], int(words[2]))
    return found


def appender(folder: Path, seed: int, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.unit.nodes.router.log.appender", str(folder), str(seed), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_what_was_acknowledged_outlives_kill_9(tmp_path: Path) -> None:
    rng = random.Random(7)
    before = dict.fromkeys(STREAMS, 0)
    for seed in range(6):
        with appender(tmp_path, seed) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(rng.randrange(5, 2_000))]
            process.kill()
            lines += process.stdout.readlines()
        acks = acknowledged(lines)
        log = opened(tmp_path, direct)
        for stream in STREAMS:
            _, head = check_told(log, stream)
            assert head >= max(acks[stream], before[stream])
            before[stream] = head
        log.close()
    assert sum(before.values()) > 100


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    with appender(tmp_path, 1, str(300_000)) as process:
        assert process.stdout is not None
        lines = process.stdout.readlines()
    assert process.returncode == 0
    assert lines.count("unavailable\n") == 1
    log = opened(tmp_path, direct)
    for stream, head in acknowledged(lines).items():
        assert check_told(log, stream)[1] == head
    log.close()


def test_a_router_killed_while_it_makes_its_log_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "log.db.new").write_bytes(b"half a database")
    log = opened(tmp_path, direct)
    assert acquired(log).term > 0
    log.close()
    assert not (tmp_path / "log.db.new").exists()


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a killed router leaves it: everything in the WAL. 30 batches of 3."""
    folder = tmp_path_factory.mktemp("crashed")
    log = opened(tmp_path_factory.mktemp("running"), direct)
    lease = acquired(log)
    for offset in range(1, 31):
        log.append(lease, [told(stream, offset) for stream in STREAMS[:3]])
    for file in log._path.parent.iterdir():  # a copy of what kill -9 would leave
        shutil.copy(file, folder)
    log.close()
    return folder


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1))
def test_a_torn_wal_is_a_prefix(crashed: Path, tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    folder = tmp_path_factory.mktemp("torn") / "router-1"
    shutil.copytree(crashed, folder)
    wal = folder / "log.db-wal"
    with wal.open("r+b") as f:
        f.truncate(int(wal.stat().st_size * share))
    log = opened(folder, direct)
    heads = {check_told(log, stream)[1] for stream in STREAMS[:3]}
    assert len(heads) == 1  # no half batch
    assert (share < 1) or heads == {30}
    lease = acquired(log)
    head = heads.pop()
    assert [a.offsets for a in log.append(lease, [told("r:0", head + 1)])] == [(head + 1,)]
    log.close()
    shutil.rmtree(folder)
