"""Logins: what one costs over all nodes, with tokens that are verified, and where everybody is believed.

    python -m benchmarks.logins [--clients N] [--runs N]

Each run starts a fabric for each way, and that many clients connect over TCP and show their tokens, a window at a time.
What they cost is the CPU time of all nodes, so the shape of the machine matters little: a core does as many as fit into
a second of it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.certificate import make_certificate
from benchmarks.crowd import Crowd
from benchmarks.fabric import BenchmarkError, Fabric, write_topology
from benchmarks.tokens import ISSUER, make_secret, sign

_WAYS = {
    "goim's, believed": {"is_signed": False},
    "HS256": {"is_signed": True},
    "HS256, over TLS": {"is_signed": True, "is_tls": True},
}


def measure(count: int, *, is_signed: bool, is_tls: bool = False) -> tuple[float, dict[str, float]]:
    """Logins a second, and CPU seconds by node.

    Raises:
        BenchmarkError: not everybody came in.
    """
    with tempfile.TemporaryDirectory(prefix="zim-bench-") as folder:
        file = Path(folder) / "topology.toml"
        file.write_text(write_topology(1, is_tls) + (ISSUER if is_signed else ""))
        tls = make_certificate(Path(folder)) if is_tls else None
        with Fabric(file) as fabric:
            processes = fabric.processes()
            before = {name: _cpu_s(process) for name, process in processes.items()}
            token = (lambda number: sign(number + 1)) if is_signed else (lambda number: b"%d" % (number + 1))
            crowd = Crowd(fabric.addresses("tcp"), "tcp", sample=1, token=token, tls=tls)
            try:
                seconds = crowd.connect(count)
                cost = {name: _cpu_s(process) - before[name] for name, process in processes.items()}
            finally:
                crowd.close()
    if len(crowd.counters) != count:
        raise BenchmarkError(f"{len(crowd.counters)} of {count} came in")
    return count / seconds, cost


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Prints the medians of all runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    make_secret()
    found: dict[str, list[tuple[float, dict[str, float]]]] = {name: [] for name in _WAYS}
    try:
        for _ in range(options.runs):
            for name, runs in found.items():
                runs.append(measure(options.clients, **_WAYS[name]))
    except BenchmarkError as e:
        sys.exit(f"logins: {e}")
    table = Table("tokens", "logins/s", "CPU us a login", "of it comet", "logic", "router", "logins a CPU second")
    for what, runs in found.items():
        us = {name: statistics.median(cost[name] for _, cost in runs) / options.clients * 1e6 for name in runs[0][1]}
        whole = statistics.median(sum(cost.values()) for _, cost in runs) / options.clients * 1e6
        parts = [f"{us[name]:.0f}" for name in ("comet-1", "logic-1", "router-1")]
        rate = statistics.median(rate for rate, _ in runs)
        table.add_row(what, f"{rate:,.0f}", f"{whole:.0f}", *parts, f"{1e6 / whole:,.0f}")
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
