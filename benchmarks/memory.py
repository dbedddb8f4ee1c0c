"""Memory: what attacks on limits cost the nodes, beside what the limits say.

    python -m benchmarks.memory [--seconds S] [--after S] [NAME …]

Each attack is made by a process of its own, against a fabric of its own with one node of each kind. The memory is what
a process has for itself alone (USS): before, at its highest under the attack, and a minute after its end. A node is to
stay below half as much again as its limits say and BASE_MIB, and to be back within BACK_MIB of its start.

Meanwhile somebody else pushes 100 kB every half second: others must be served.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import contextlib  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import urllib.error  # noqa: E402
import urllib.request  # noqa: E402
from collections import Counter  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
import psutil  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from benchmarks.attacks import ATTACKS, CACHES, HISTORY, MIB, Attack, Place  # noqa: E402
from benchmarks.crowd import raise_open_files  # noqa: E402
from benchmarks.fabric import BenchmarkError, Fabric, write_topology  # noqa: E402
from zim.client import Publisher  # noqa: E402
from zim.topology import load  # noqa: E402

BASE_MIB = 16  # of every node under every attack: what Python, gevent and libzmq take for having much to do at all
BACK_MIB = 10
SAMPLE_S = 0.05
STOPPED_S, GOES_ON_S = 2.0, 0.3  # within a comet's lease
OTHERS_S = 0.5

_LIVE = '\n[[room_class]]\nname = "live"\nrooms = ["live-*"]\ncount = 0\n'


class Memory:
    """What each process of a fabric has for itself.

    Attributes:
        peak: by name, since the last `restart`, in bytes.
    """

    def __init__(self, processes: dict[str, psutil.Process]) -> None:
        self._processes = processes
        self.peak: dict[str, int] = {}
        self._sampling = gevent.spawn(self._sample)

    def now(self) -> dict[str, int]:
        """By name, in bytes.

        Raises:
            BenchmarkError: one has died.
        """
        try:
            return {name: process.memory_full_info().uss for name, process in self._processes.items()}
        except psutil.Error as e:
            raise BenchmarkError(f"a node has died: {e}") from None

    def restart(self) -> None:
        """Peaks count from now on."""
        self.peak = {}

    def close(self) -> None:
        """Samples no more."""
        self._sampling.kill()

    def _sample(self) -> None:
        while True:
            with contextlib.suppress(BenchmarkError):
                for name, n_bytes in self.now().items():
                    self.peak[name] = max(n_bytes, self.peak.get(name, 0))
            gevent.sleep(SAMPLE_S)


class Others:
    """A backend that has nothing to do with it. statuses: what it was answered; 0 for nothing."""

    def __init__(self, http: str) -> None:
        self.statuses: Counter[int] = Counter()
        self._request = f"http://{http}/1/push?uid=800"
        self._batch = f"http://{http}/api/push/batch"
        self._pushing = gevent.spawn(self._run)

    def _run(self) -> None:
        line = b'{"to":{"users":[800]},"body":"' + b"x" * 50_000 + b'"}\n'
        while True:
            gevent.spawn(self._push, line * 2)
            gevent.sleep(OTHERS_S)

    def _push(self, body: bytes) -> None:
        request = urllib.request.Request(self._batch, body, {"Content-Type": "application/x-ndjson"})
        try:
            self.statuses[urllib.request.urlopen(request, timeout=10).status] += 1
        except urllib.error.HTTPError as e:
            self.statuses[e.code] += 1
        except OSError:
            self.statuses[0] += 1

    def close(self) -> str:
        """Ends, and says what it was answered."""
        self._pushing.kill()
        return ", ".join(f"{count} × {status or 'none'}" for status, count in sorted(self.statuses.items()))


def _topology(folder: Path, attack: Attack) -> Path:
    text = write_topology(1)
    for kind, lines in attack.settings.items():
        text = text.replace(f"[[{kind}]]\n", f"[[{kind}]]\n{lines}\n")
    path = folder / "topology.toml"
    path.write_text(text + _LIVE)
    return path


def _warm_up(fabric: Fabric) -> None:
    """What is made once, and stays, is made before it is measured."""
    http = fabric.http[0]
    with Publisher(http) as publisher:
        for _ in range(300):
            publisher.push(b"x" * 1_000, users=list(range(700, 720)), rooms=["warm", "live-warm"])
    for path in (HISTORY, "/api/ledger", "/api/openapi.json", "/1/count?type=room"):
        urllib.request.urlopen(f"http://{http}{path}", timeout=10).read()
    gevent.sleep(3.0)


def _stop_again_and_again(process: psutil.Process) -> None:
    try:
        while True:
            process.send_signal(signal.SIGSTOP)
            gevent.sleep(STOPPED_S)
            process.send_signal(signal.SIGCONT)
            gevent.sleep(GOES_ON_S)
    finally:
        process.send_signal(signal.SIGCONT)


def _meet(fabric: Fabric, name: str, path: Path, seconds: float) -> None:
    """Lets the attack go on for so long."""
    command = [sys.executable, "-m", "benchmarks.memory", "--attack", name, str(path)]
    attack = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert attack.stdout is not None
    stops, stopping = ATTACKS[name].stops, None
    try:
        attack.stdout.readline()  # what it needs for itself is there
        if stops:
            stopping = gevent.spawn(_stop_again_and_again, fabric.processes()[f"{stops}-1"])
        gevent.sleep(seconds)
        if attack.poll() is not None:
            raise BenchmarkError(f"the attack {name} ended with {attack.returncode}")
    finally:
        attack.kill()
        attack.wait()
        if stopping is not None:
            stopping.kill()


def _row(name: str, node: str, limit: int, cache: int, before: int, peak: int, after: int, others: str) -> list[str]:
    said = [f"{n / MIB:.0f}" for n in (limit, before, peak, after)]
    faults = []
    if peak - before > 1.5 * limit + cache + BASE_MIB * MIB:
        faults.append(f"{(peak - before) / MIB:.0f} more")
    if after - before > cache + BACK_MIB * MIB:
        faults.append(f"keeps {(after - before) / MIB:.0f}")
    return [name, node, *said, ", ".join(faults), others]


def measure(name: str, seconds: float, after_s: float) -> list[list[str]]:
    """One attack; a row for each process that grew, or that has a limit."""
    attack = ATTACKS[name]
    with tempfile.TemporaryDirectory(prefix="zim-bench-") as folder:
        path = _topology(Path(folder), attack)
        with Fabric(path, options=["-v"] if attack.is_unread else [], is_read=not attack.is_unread) as fabric:
            _warm_up(fabric)
            memory = Memory(fabric.processes())
            before = memory.now()
            memory.restart()
            others = Others(fabric.http[0])
            _meet(fabric, name, path, seconds)
            answered = others.close()
            gevent.sleep(attack.holds_s + after_s)
            after = memory.now()
            memory.close()
    rows = []
    for node in before:
        kind = node.rpartition("-")[0]
        limit, cache = attack.limits.get(kind, 0), CACHES.get(kind, 0)
        row = _row(name, node, limit, cache, before[node], memory.peak[node], after[node], answered)
        print(*row, sep="  ", flush=True)
        if limit or row[-2]:
            rows.append(row)
    sums = [sum(of.values()) for of in (before, memory.peak, after)]
    return rows or [_row(name, "all", 0, 0, sums[0], sums[1], sums[2], answered)]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ATTACKS)}; all if none is given")
    parser.add_argument("--seconds", type=float, default=15.0, help="for which each attack goes on")
    parser.add_argument("--after", type=float, default=60.0, help="seconds after its end")
    parser.add_argument("--attack", metavar="NAME", help=argparse.SUPPRESS)
    args = parser.parse_args()
    raise_open_files(8_000)
    if args.attack:
        ATTACKS[args.attack].run(Place.of(load(Path(args.names[0]))))
        return
    if unknown := set(args.names) - set(ATTACKS):
        parser.error(f"there is no attack {', '.join(sorted(unknown))}")
    table = Table("attack", "node", "limit", "before", "peak", "after", "too much", "others", title="MiB")
    for name in args.names or list(ATTACKS):
        for row in measure(name, args.seconds, args.after):
            table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
