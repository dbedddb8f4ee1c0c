"""Three machines: what lies between them does as it is told, and a fabric on them keeps its promises.

Needs root on Linux, where network namespaces can be made: it is tried. Elsewhere all of it is skipped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import gevent.subprocess
import pytest
from gevent import socket

from tests.fault.chaos import Plan, run
from tests.fault.history import Connected
from tests.fault.machines import OUTSIDE, Machine, Machines, why_impossible
from tests.fault.report import lines
from tests.fault.schedule import Operation
from tests.harness import wait_until
from tests.postgresql import require
from tests.programs import program

A, B = "machine-1", "machine-2"


@pytest.fixture(autouse=True)
def _possible() -> None:
    if why := why_impossible():
        pytest.skip(why)


@pytest.fixture
def machines() -> Iterator[Machines]:
    with closing(Machines([A, B], seed=1)) as made:
        yield made


def heard(machine: Machine) -> list[str]:
    """What a machine's listener has written down."""
    file = machine.folder / "heard"
    return file.read_text().splitlines() if file.exists() else []


LISTEN = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 9))
with open(sys.argv[1], "a", buffering=1) as file:
    while True:
        file.write(s.recv(100).decode() + "\\n")
"""
SAY = "import socket, sys; socket.socket(type=socket.SOCK_DGRAM).sendto(sys.argv[2].encode(), (sys.argv[1], 9))"


def listen(machine: Machine) -> None:
    """It notes every datagram, whenever it has power."""
    file = str(machine.folder / "heard")
    gevent.subprocess.Popen(machine.command("/usr/bin/env", "python3", "-c", LISTEN, file))


def say(source: Machine, target: Machine, text: str) -> None:
    """One datagram. It may find no way."""
    gevent.subprocess.run(source.command("/usr/bin/env", "python3", "-c", SAY, target.name, text), check=False)


def until_heard(source: Machine, target: Machine, text: str) -> None:
    def is_heard() -> bool:
        say(source, target, text)
        return text in heard(target)

    wait_until(is_heard, f"{target.name} hears {text}")


def test_roads_are_cut_one_way_and_mended_and_names_are_known(machines: Machines) -> None:
    a, b = machines[A], machines[B]
    for one in (a, b):
        one.services.append(listen)
        listen(one)
    until_heard(a, b, "one")
    until_heard(b, a, "one")
    undo = machines.cut(*machines.roads(A, "in", B))
    twice = machines.cut(*machines.roads(A))
    twice()
    until_heard(a, b, "two")  # a hears nothing of b, which still hears a
    before = machines.ether.counts().get("swallowed", 0)
    say(b, a, "lost")
    wait_until(lambda: machines.ether.counts()["swallowed"] > before, "it is swallowed")
    assert "lost" not in heard(a)
    undo()
    undo()
    until_heard(b, a, "three")
    assert "lost" not in heard(a)


def test_without_power_nothing_runs_and_with_it_services_start_again(machines: Machines) -> None:
    b = machines[B]
    b.services.append(listen)
    listen(b)
    until_heard(machines[A], b, "one")
    b.power_off()
    assert b.pids() == []
    say(machines[A], b, "lost")
    b.boot()
    until_heard(machines[A], b, "two")
    assert "lost" not in heard(b)


def test_nobody_is_told_that_a_machine_has_no_power_any_more(machines: Machines) -> None:
    """Neither FIN nor RST comes, not even when it is back: its kernel says RST then to who asks, and nobody does."""
    b = machines[B]
    serve = "import socket; s = socket.create_server(('0.0.0.0', 9)); c = s.accept()[0]; c.send(b'a'); c.recv(1)"
    b.services.append(lambda there: gevent.subprocess.Popen(there.command("/usr/bin/env", "python3", "-c", serve)))
    b.services[0](b)

    def connected() -> socket.socket | None:
        try:
            return socket.create_connection((machines.ips[B], 9), timeout=10)
        except OSError:
            return None

    with wait_until(connected, "it listens") as client:
        assert client.recv(1) == b"a"
        b.power_off()
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
        b.boot()
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(10)
        client.sendall(b"?")
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_roads_are_late_and_lossy(machines: Machines) -> None:
    """How late is not judged: what comes after a delay is on its way meanwhile, and a cut takes it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"?", (machines.ips[A], 9))
        machines.pave(delay_s=3600.0)
        carried = machines.ether.counts()["carried"]
        for _ in range(20):
            s.sendto(b"?", (machines.ips[A], 9))
        machines.cut((OUTSIDE, A))()
        wait_until(lambda: machines.ether.counts().get("swallowed", 0) >= 20, "they were on their way")
        assert machines.ether.counts()["carried"] == carried
        machines.pave(loss=0.5)
        for _ in range(200):
            s.sendto(b"?", (machines.ips[A], 9))
            gevent.sleep(0)
        wait_until(lambda: machines.ether.counts().get("lost", 0) > 20, "some are lost")
        wait_until(lambda: machines.ether.counts()["carried"] > carried + 20, "some are not")


@pytest.mark.parametrize("ahead_s", [600.0, -90.0])
def test_each_machine_has_a_clock(machines: Machines, ahead_s: float) -> None:
    a = machines[A]
    program("cc", "gcc and libc6-dev")
    ask = a.command(
        "/usr/bin/env", "python3", "-c", "import time; time.sleep(0.001); print(time.time(), time.monotonic())"
    )

    def clocks() -> tuple[float, float]:
        told = gevent.subprocess.run(ask, env=a.environment, capture_output=True, check=True, text=True).stdout
        wall, monotonic = map(float, told.split())
        return wall - time.time(), monotonic - time.monotonic()

    a.set_clock(ahead_s)
    wall, monotonic = clocks()
    assert abs(wall - ahead_s) < 30
    assert abs(monotonic) < 30
    a.set_clock(0.0)
    assert abs(clocks()[0]) < 30


# Two of three never miss the same machine at once, so pushes go on all the time.
OPERATIONS = (
    Operation(0.2, "clock", "machine-1", 7.0),
    Operation(0.5, "off", "machine-2", 2.0),
    Operation(4.0, "bad", "machine-1", 3.0),
    Operation(4.5, "island-in", "machine-3", 3.0),
    Operation(5.0, "drop", "2"),
    Operation(6.0, "apart", "machine-1", 1.5),
)


def test_a_fabric_keeps_its_promises() -> None:
    """On the topology that `zim init --machines 3` writes, with link keys, behind one HTTP address."""
    program("haproxy", "haproxy")
    said: list[str] = []
    plan = Plan(seed=1, seconds=8, clients=10, publishers=8, rate=30, has_machines=True, operations=OPERATIONS)
    report = run(plan, said.append)
    told = "\n".join([*said, *lines(report)])
    assert report.is_good, told
    assert {finding.stream for finding in report.findings} <= {"r:2", "r:3"}, told  # that keep little, or nothing
    history = report.history
    assert {push.verdict for push in history.pushes} >= {"accepted"}, told
    assert len(history.logs) > len(history.clients)
    comets = {e.comet for client in history.clients for e in client.events if isinstance(e, Connected)}
    assert len(comets) > 1, told  # who is not served in time goes on to another one: it may be all but two


WITH_A_DATABASE = (
    Operation(0.5, "off", "machine-1", 6.0),
    Operation(1.0, "clock", "machine-3", 8.0),
    Operation(9.0, "island-in", "machine-3", 2.5),
)


def test_a_log_on_two_machines_outlives_the_first() -> None:
    """The power of the primary's machine fails, and of a router's, logic's, job's and comet's with it."""
    require()
    said: list[str] = []
    plan = Plan(seed=1, seconds=12, clients=10, publishers=8, rate=30, has_machines=True, has_shared_log=True)
    report = run(replace(plan, operations=WITH_A_DATABASE), said.append)
    told = "\n".join([*said, *lines(report)])
    assert report.is_good, told
    assert any("machine-1, the primary, is deposed, and machine-2 promoted" in line for line in said), told
    assert {finding.stream for finding in report.findings} <= {"r:2", "r:3"}, told
    assert {push.verdict for push in report.history.pushes} >= {"accepted"}, told
