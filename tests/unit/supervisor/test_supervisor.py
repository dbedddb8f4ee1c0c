"""What the supervisor decides, driven by a clock of the test's own."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from zim.supervisor.open_files import Shortage
from zim.supervisor.restarts import (
    MAX_BACK_OFF_S,
    MAX_DEATHS,
    NOT_CURED_BY_RESTART,
    PASSES_BY_ITSELF,
    STEADY_S,
    Readiness,
    Restarts,
    open_file_limits,
    open_files_needed,
    parse_ready,
    parse_said,
    stop_order,
)
from zim.topology import load

TWO_OF_EACH = Path(__file__).parents[3] / "examples" / "two-of-each.toml"
ENDLESS = -1


def test_back_off_doubles_until_it_is_given_up() -> None:
    restarts = Restarts()
    delays = [restarts.died(1, now=0.0) for _ in range(MAX_DEATHS)]
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, None]


@pytest.mark.parametrize("exit_code", [1, -9, NOT_CURED_BY_RESTART, PASSES_BY_ITSELF])
def test_who_was_ready_once_is_never_given_up(exit_code: int) -> None:
    restarts = Restarts()
    restarts.ready(now=0.0)
    delays = [restarts.died(exit_code, now=0.0) for _ in range(3_000)]
    assert delays[:10] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, MAX_BACK_OFF_S]
    assert set(delays[9:]) == {MAX_BACK_OFF_S}


def test_what_passes_by_itself_is_waited_for_from_the_first_start_on() -> None:
    restarts = Restarts()
    assert all(restarts.died(PASSES_BY_ITSELF, now=0.0) for _ in range(100))


def test_a_node_that_was_steady_starts_over() -> None:
    restarts = Restarts()
    for _ in range(MAX_DEATHS - 1):
        restarts.died(-9, now=0.0)
    restarts.ready(now=100.0)
    assert restarts.died(-9, now=100.0 + STEADY_S) == 0.1


def test_ready_for_too_short_a_time_counts_on() -> None:
    restarts = Restarts()
    restarts.died(1, now=0.0)
    restarts.ready(now=1.0)
    assert restarts.died(1, now=1.0 + STEADY_S - 0.1) == 0.2


def test_alive_without_being_ready_is_not_steady() -> None:
    restarts = Restarts()
    restarts.ready(now=0.0)
    restarts.died(1, now=1.0)
    assert restarts.died(1, now=1000.0) == 0.2


def test_what_a_restart_does_not_cure_is_given_up_at_once() -> None:
    assert Restarts().died(NOT_CURED_BY_RESTART, now=0.0) is None


def test_complete_once() -> None:
    readiness = Readiness(["router-1", "comet-1"])
    assert not readiness.ready("router-1")
    assert readiness.missing == ["comet-1"]
    readiness.lost("router-1")
    assert not readiness.ready("comet-1")
    assert readiness.ready("router-1")
    readiness.lost("comet-1")
    assert readiness.missing == ["comet-1"]
    assert not readiness.ready("comet-1")


def test_who_is_down() -> None:
    readiness = Readiness(["router-1", "comet-1"])
    assert readiness.down == set()
    readiness.ready("router-1")
    readiness.lost("router-1")
    readiness.gave_up("comet-1")
    assert (readiness.down, readiness.given_up) == ({"router-1", "comet-1"}, ["comet-1"])
    readiness.ready("router-1")
    assert readiness.down == {"comet-1"}


def test_stops_in_the_order_of_the_data() -> None:
    groups = stop_order(load(TWO_OF_EACH).nodes)
    assert [[node.name for node in group] for group in groups] == [
        ["logic-1", "logic-2"],
        ["router-1", "router-2"],
        ["job-1", "job-2"],
        ["comet-1", "comet-2", "comet-3"],
    ]


@pytest.mark.parametrize(
    ("line", "listening"),
    [
        ('ready comet-1 {"tcp": ["127.0.0.1:1", "[::1]:1"]}', {"tcp": ["127.0.0.1:1", "[::1]:1"]}),
        ('ready comet-1 {"tcp": "127.0.0.1:1"}', None),
        ("ready comet-1 {}", {}),
        ('ready comet-2 {"tcp": ["127.0.0.1:1"]}', None),
        ("ready comet-1 []", None),
        ("ready comet-1 {", None),
        ("ready comet-1 " + "[" * 100_000, None),
        ("hello", None),
        ("", None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_ready_line(line: str, listening: dict[str, list[str]] | None) -> None:
    assert parse_ready(line, "comet-1") == listening


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('reloaded comet-1 {"digest": "a"}', {"digest": "a"}),
        ('reloaded comet-1 {"problems": ["b"]}', {"problems": ["b"]}),
        ('reloaded comet-2 {"digest": "a"}', None),
        ("reloaded comet-1 []", None),
        ("reloaded comet-1 {", None),
        ("reloaded comet-1 " + "[" * 100_000, None),
        ("ready comet-1 {}", None),
    ],
    ids=lambda value: str(value)[:35],
)
def test_reloaded_line(line: str, said: dict[str, Any] | None) -> None:
    assert parse_said(line, "comet-1", "reloaded") == said


def test_open_files_needed() -> None:
    topology = load(TWO_OF_EACH)
    assert open_files_needed(topology.nodes) == (100_200, "comet-1")
    assert open_files_needed(topology.routers) == (0, "")


def test_open_file_limits() -> None:
    assert open_file_limits(hard=4096, needed=200, endless=ENDLESS) == [(4096, 4096)]
    assert open_file_limits(hard=4096, needed=5000, endless=ENDLESS) == [(5000, 5000), (4096, 4096)]
    tried = open_file_limits(hard=ENDLESS, needed=100_200, endless=ENDLESS)
    assert tried == sorted(tried, reverse=True)
    assert (100_200, ENDLESS) in tried
    assert tried[-1] == (10_240, ENDLESS)


@pytest.mark.parametrize(("room", "level"), [(999, logging.WARNING), (1_000, logging.INFO), (19_800, logging.INFO)])
def test_fewer_clients_are_a_warning_only_where_there_is_little_room(
    room: int, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    shortage = Shortage(room, 100_200, "comet-1")
    shortage.tell()
    (record,) = caplog.records
    assert (record.levelno, shortage.is_bad) == (level, level == logging.WARNING)
    assert room in vars(record).values()
    assert any(str(value).startswith("`ulimit -Hn 100200`") for value in vars(record).values())


def test_a_shortage_is_what_the_system_leaves() -> None:
    code = (
        "import resource; from pathlib import Path; from zim.supervisor.open_files import raise_open_files;"
        "from zim.topology import load; resource.setrlimit(resource.RLIMIT_NOFILE, (700, 700));"
        f"nodes = load(Path({str(TWO_OF_EACH)!r})).nodes; import os;"
        "os.setuid(65534) if os.getuid() == 0 else None;"  # root may raise it again
        "print(raise_open_files(nodes), raise_open_files(n for n in nodes if n.kind != 'comet'))"
    )
    out = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert out == "Shortage(room=500, needed=100200, node='comet-1') None\n"
