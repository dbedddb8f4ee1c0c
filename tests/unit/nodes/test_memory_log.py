from pathlib import Path

import pytest

from zim.nodes.router.log import NewRecord
from zim.nodes.router.log.memory import IDLE_S, MemoryLog
from zim.nodes.state import StateDir


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> MemoryLog:
    return MemoryLog(1, StateDir(tmp_path, "router-1"), clock, keep_s=10, keep_bytes=10_000)


def append(log: MemoryLog, stream: str, *bodies: bytes) -> list[int]:
    return log.append([NewRecord(stream, f"push {i}", 5, body) for i, body in enumerate(bodies)])


def test_offsets_count_from_one_in_each_stream(log: MemoryLog) -> None:
    assert append(log, "u:1", b"a", b"b") == [1, 2]
    assert append(log, "u:2", b"c") == [1]
    assert append(log, "u:1", b"d") == [3]
    page = log.read("u:1", 1, 9, 1 << 20)
    assert [(r.offset, r.body) for r in page.records] == [(2, b"b"), (3, b"d")]
    assert (page.floor, page.head) == (0, 3)
    assert log.head("u:1") == (page.epoch, 3)
    assert log.head("u:9")[1] == 0


def test_a_page_is_bounded_but_never_empty(log: MemoryLog) -> None:
    append(log, "u:1", b"x" * 500, b"y" * 500, b"z")
    assert [r.offset for r in log.read("u:1", 0, 3, 900).records] == [1]
    assert [r.offset for r in log.read("u:1", 0, 3, 1).records] == [1]
    assert [r.offset for r in log.read("u:1", 1, 2, 9999).records] == [2]


def test_old_messages_go_and_the_head_stays(log: MemoryLog, clock: Clock) -> None:
    append(log, "u:1", b"old")
    clock.now = 6
    append(log, "u:1", b"new")
    clock.now = 11
    log.trim(clock.now, lambda stream: False)
    page = log.read("u:1", 0, 9, 9999)
    assert (page.floor, [r.body for r in page.records], page.head) == (1, [b"new"], 2)


def test_memory_is_bounded(log: MemoryLog) -> None:
    for _ in range(100):
        append(log, "u:1", b"x" * 700)
    page = log.read("u:1", 0, 999, 1 << 20)
    assert page.head == 100
    assert len(page.records) == 10


def test_streams_that_nobody_uses_are_forgotten_and_come_back_in_a_new_epoch(log: MemoryLog, clock: Clock) -> None:
    append(log, "u:1", b"a")
    append(log, "u:2", b"a")
    epoch = log.head("u:1")[0]
    for _ in range(3):
        clock.now += IDLE_S + 11
        log.trim(clock.now, lambda stream: stream == "u:2")
    assert log.head("u:2")[1] == 1
    assert log.head("u:1")[1] == 0
    assert log.head("u:1")[0] != epoch


def test_session_numbers_are_never_given_twice(tmp_path: Path, clock: Clock) -> None:
    state = StateDir(tmp_path, "router-2")
    logs = [MemoryLog(term, state, clock, 1, 1) for term in (1, 2)]
    assert [log.reserve_seqs(10) for log in (*logs, logs[0])] == [1, 11, 21]
