"""The supervisor with real processes, which stand in for the nodes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
ONE_OF_EACH = ROOT / "topology.toml"
TWO_OF_EACH = ROOT / "examples" / "two-of-each.toml"

FACT_TIMEOUT_S = 30.0


class Fabric:
    """A supervisor process, what it said, and what its nodes wrote down."""

    def __init__(self, folder: Path, topology: Path, *constants: str, stdin: int = subprocess.DEVNULL) -> None:
        self.folder = folder
        self.stderr_file = folder / "stderr"
        self.stdout_file = folder / "stdout"
        with self.stdout_file.open("wb") as out, self.stderr_file.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.stand_in_fabric", topology, folder, *constants],
                cwd=ROOT,
                stdin=stdin,
                stdout=out,
                stderr=err,
            )

    @property
    def stderr(self) -> str:
        return self.stderr_file.read_text()

    @property
    def started(self) -> list[tuple[str, int]]:
        return [(name, int(pid)) for name, pid in (line.split() for line in self.noted("started"))]

    def noted(self, file: str) -> list[str]:
        path = self.folder / file
        return path.read_text().splitlines() if path.exists() else []

    def starts_of(self, name: str) -> list[int]:
        return [pid for who, pid in self.started if who == name]

    def wait(self, fact: Callable[[], object]) -> None:
        """Waits for a fact about processes and files, which nobody announces to us."""
        deadline = time.monotonic() + FACT_TIMEOUT_S
        while not fact():
            assert time.monotonic() < deadline, f"it never became true; stderr:\n{self.stderr}"
            time.sleep(0.005)

    def wait_complete(self) -> dict[str, int]:
        """Waits until all nodes were ready; their pids by name."""
        self.wait(lambda: self.stdout_file.read_text().endswith("\n"))
        pairs = (word.rpartition(":") for word in self.stdout_file.read_text().split()[1:])
        return {name: int(pid) for name, _, pid in pairs}

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(FACT_TIMEOUT_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for _, pid in self.started:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


Start = Callable[..., Fabric]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    fabrics: list[Fabric] = []

    def start_one(
        *constants: str, topology: Path = ONE_OF_EACH, stdin: int = subprocess.DEVNULL, **behaviours: str
    ) -> Fabric:
        for name, behaviour in behaviours.items():
            (tmp_path / f"{name.replace('_', '-')}.do").write_text(behaviour)
        fabrics.append(Fabric(tmp_path, topology, *constants, stdin=stdin))
        return fabrics[-1]

    yield start_one
    for fabric in fabrics:
        fabric.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_starts_all_and_stops_in_the_order_of_the_data(start: Start, number: signal.Signals) -> None:
    fabric = start(topology=TWO_OF_EACH)
    pids = fabric.wait_complete()
    assert dict(fabric.started) == pids
    assert len(pids) == 9
    assert fabric.end(number) == 0
    assert [name.partition("-")[0] for name in fabric.noted("asked")] == ["logic"] * 2 + ["router"] * 2 + [
        "job"
    ] * 2 + ["comet"] * 3
    assert not any(map(is_alive, pids.values()))


def test_sighup_ends_nothing_where_there_is_no_terminal(start: Start) -> None:
    fabric = start()
    pids = fabric.wait_complete()
    fabric.process.send_signal(signal.SIGHUP)
    fabric.wait(lambda: "INFO SIGHUP" in fabric.stderr)
    assert all(map(is_alive, pids.values()))
    assert fabric.end() == 0


def test_a_terminal_that_is_closed_ends_it(start: Start) -> None:
    ours, its = os.openpty()
    fabric = start(stdin=its)
    fabric.wait_complete()
    fabric.process.send_signal(signal.SIGHUP)
    fabric.wait(lambda: "INFO SIGHUP" in fabric.stderr)  # the terminal is there: somebody has sent it
    os.close(ours)
    fabric.wait(lambda: not os.isatty(its))
    assert fabric.end(signal.SIGHUP) == 0
    os.close(its)


def test_nodes_are_out_of_reach_of_the_terminal(start: Start) -> None:
    pids = start().wait_complete()
    assert len({os.getsid(pid) for pid in [*pids.values(), os.getpid()]}) == len(pids) + 1


def test_a_node_that_dies_is_restarted_and_the_others_are_not(start: Start) -> None:
    fabric = start("BACK_OFF_S=0.001")
    pids = fabric.wait_complete()
    for deaths in range(1, 4):
        os.kill(fabric.starts_of("comet-1")[-1], signal.SIGKILL)
        fabric.wait(lambda: fabric.stderr.count("node ready again") == deaths)  # noqa: B023 called at once
    assert len(fabric.starts_of("comet-1")) == 4
    assert len(fabric.started) == len(pids) + 3
    assert "node died node=comet-1 ended=SIGKILL restart_in_s=0.001" in fabric.stderr
    assert fabric.end() == 0


def test_given_up_before_the_fabric_was_complete(start: Start) -> None:
    fabric = start("BACK_OFF_S=0.001", job_1="crash")
    assert fabric.process.wait(FACT_TIMEOUT_S) == 1
    assert len(fabric.starts_of("job-1")) == 8
    head, _, last_words = fabric.stderr.partition('node given up node=job-1 ended="exit code 1" deaths=8\n')
    assert head.count("job-1 line 29\n") == 8
    assert [line.strip() for line in last_words.splitlines()[:20]] == [f"job-1 line {i}" for i in range(10, 30)]
    assert not any(is_alive(pid) for _, pid in fabric.started)


@pytest.mark.parametrize("ailment", ["crash", "fatal"])
def test_who_was_ready_once_comes_back_whatever_ails_it(start: Start, ailment: str) -> None:
    fabric = start("BACK_OFF_S=0.001")
    pids = fabric.wait_complete()
    do = fabric.folder / "comet-1.do"
    do.write_text(ailment)
    os.kill(pids.pop("comet-1"), signal.SIGKILL)
    fabric.wait(lambda: len(fabric.starts_of("comet-1")) > 9)
    assert all(map(is_alive, pids.values()))
    do.unlink()
    fabric.wait(lambda: "node ready again node=comet-1" in fabric.stderr)
    assert fabric.end() == 0


def test_who_is_down_at_the_end_is_in_the_exit_code(start: Start) -> None:
    fabric = start("BACK_OFF_S=0.001")
    pids = fabric.wait_complete()
    (fabric.folder / "comet-1.do").write_text("crash")
    os.kill(pids.pop("comet-1"), signal.SIGKILL)
    fabric.wait(lambda: len(fabric.starts_of("comet-1")) > 3)
    assert fabric.end() == 1
    assert sorted(fabric.noted("asked")) == sorted(pids)


def test_a_node_without_room_is_waited_for_and_named(start: Start) -> None:
    fabric = start("BACK_OFF_S=0.001", comet_1="full")
    fabric.wait(lambda: len(fabric.starts_of("comet-1")) > 9)
    assert 'node waits node=comet-1 for="comet-1: there is no room" restart_in_s=0.001' in fabric.stderr
    (fabric.folder / "comet-1.do").unlink()
    fabric.wait_complete()
    assert fabric.end() == 0


def test_what_a_restart_does_not_cure(start: Start) -> None:
    fabric = start(router_1="fatal")
    assert fabric.process.wait(FACT_TIMEOUT_S) == 1
    assert len(fabric.starts_of("router-1")) == 1
    assert (
        'node given up node=router-1 ended="exit code 2" deaths=1\n    router-1: 127.0.0.1:1 is in use' in fabric.stderr
    )


def test_a_program_that_is_not_there(start: Start) -> None:
    fabric = start("BACK_OFF_S=0.001", router_1="absent")
    assert fabric.process.wait(FACT_TIMEOUT_S) == 1
    assert "    router-1 cannot be started: " in fabric.stderr
    assert "Traceback" not in fabric.stderr


def test_a_killed_supervisor_leaves_no_orphan(start: Start) -> None:
    fabric = start(topology=TWO_OF_EACH)
    pids = fabric.wait_complete()
    fabric.end(signal.SIGKILL)
    fabric.wait(lambda: not any(map(is_alive, pids.values())))
    assert sorted(fabric.noted("cut")) == sorted(pids)


def test_a_stubborn_node_is_killed(start: Start) -> None:
    fabric = start("STOP_TIMEOUT_S=0.1", router_1="stubborn")
    fabric.wait_complete()
    assert fabric.end() == 0
    assert "node killed, as it did not end in time node=router-1" in fabric.stderr
    assert fabric.noted("asked") == ["logic-1", "router-1", "job-1", "comet-1"]


def test_a_second_ctrl_c_kills_at_once(start: Start) -> None:
    fabric = start("STOP_TIMEOUT_S=1000", logic_1="stubborn")
    pids = fabric.wait_complete()
    fabric.process.send_signal(signal.SIGINT)
    fabric.wait(lambda: fabric.noted("asked") == ["logic-1"])
    assert fabric.end(signal.SIGINT) == 130
    assert fabric.noted("asked") == ["logic-1"]
    assert not any(map(is_alive, pids.values()))


def test_who_is_late_is_told_once(start: Start) -> None:
    fabric = start("READY_TIMEOUT_S=0.05", comet_1="mute")
    fabric.wait(lambda: "comet-1" in fabric.stderr)
    fabric.wait(lambda: len(fabric.started) == 4)
    assert fabric.stdout_file.read_text() == ""
    assert fabric.end() == 0
    assert fabric.stderr.count("nodes not ready yet") == 1


def test_stop_while_a_node_waits_for_its_restart(start: Start) -> None:
    fabric = start("BACK_OFF_S=1000", "MAX_BACK_OFF_S=1000", comet_1="crash")
    fabric.wait(lambda: "node died node=comet-1" in fabric.stderr)
    assert fabric.end() == 1
    assert len(fabric.starts_of("comet-1")) == 1
