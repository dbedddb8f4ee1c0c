"""How long a socket waits while greenlets work and yield: `python -m benchmarks.fairness`.

Another process sends a byte and waits for its echo. Meanwhile greenlets of this process work in steps of STEP_S and
yield after each: with gevent.sleep(0), as one would think, or with zim.net.fairness.give_way.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import click
import gevent
from gevent import socket, subprocess

from benchmarks.report import percentile
from zim.net.fairness import give_way

STEP_S = 0.002
ECHOES = 60

_CLIENT = """
import os, sys, time
fd, count = int(sys.argv[1]), int(sys.argv[2])
for _ in range(count):
    time.sleep(0.0137)
    began = time.perf_counter()
    os.write(fd, b"x")
    os.read(fd, 1)
    print(time.perf_counter() - began)
"""


def waits_s(yield_: Callable[[], None], busy: int, step_s: float = STEP_S, echoes: int = ECHOES) -> list[float]:
    """How long each echo took.

    Args:
        yield_: what the greenlets do after each step.
        busy: how many of them there are.
        step_s: of work.
    """
    ours, theirs = socket.socketpair()

    def echo() -> None:
        while data := ours.recv(1):
            ours.send(data)

    def work() -> None:
        while True:
            until = time.perf_counter() + step_s
            while time.perf_counter() < until:
                pass
            yield_()

    greenlets = [gevent.spawn(echo), *(gevent.spawn(work) for _ in range(busy))]
    theirs.setblocking(True)
    fd = theirs.fileno()
    command = [sys.executable, "-S", "-c", f"import os; os.set_blocking({fd}, True)\n{_CLIENT}", str(fd), str(echoes)]
    try:
        client = subprocess.run(command, pass_fds=(fd,), stdout=subprocess.PIPE, check=True)
    finally:
        gevent.killall(greenlets)
        ours.close()
        theirs.close()
    return [float(line) for line in client.stdout.split()]


@click.command()
def main() -> None:
    """Print how long a socket waits while greenlets work and yield."""
    ways: dict[str, Callable[[], None]] = {"gevent.sleep(0)": lambda: gevent.sleep(0), "give_way()": give_way}
    for busy in (1, 3):
        for name, yield_ in ways.items():
            waits = waits_s(yield_, busy)
            p50, p95 = (percentile(waits, share) * 1000 for share in (0.5, 0.95))
            click.echo(f"{busy} busy, {name:>15}: p50 {p50:6.1f} ms, p95 {p95:6.1f} ms")


if __name__ == "__main__":
    main()
