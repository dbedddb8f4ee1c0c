"""What lies between machines: every IP packet from one to another passes here, and may be late, lost, or swallowed.

A process of its own reads the packets of each machine from a TUN device in the machine's network namespace, and writes
them to the device of whom they are for. So each pair of machines has, in each direction, a *road* with its own delay
and its own losses, on any Linux kernel with TUN: netem is not in all of them. What is swallowed is silent: nobody gets
a reset, and no hardware says that a link is down. A machine that is unplugged loses its device at once, so its kernel
can say nothing either while its processes are killed.

    python -m tests.fault.ether     # for `Ether`, which says by lines on stdin what is to be

Nothing here uses gevent: packets must not wait for the greenlets of clients and publishers.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

MTU = 9000
MOST_ON_ROAD = 20_000  # packets; above it the newest is lost, as in any router
ROUND = 64  # packets of one machine, before others get their turn

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
SOURCE, TARGET = slice(12, 16), slice(16, 20)  # of an IPv4 header, RFC 791 3.1


@dataclass
class Road:
    """How it is to go from one machine to another.

    Attributes:
        delay_s, jitter_s: each packet takes delay_s, and up to jitter_s more. None overtakes another.
        loss: of all packets, the part that is lost.
        is_cut: all are.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    is_cut: bool = False


class Ether:
    """The process, from outside; until `close()`.

    A cut is counted: as often as a road was cut it must be mended.
    """

    def __init__(self, seed: int = 0) -> None:
        self._cuts: Counter[tuple[str, str]] = Counter()
        self._asking = threading.Lock()
        command = [sys.executable, "-m", "tests.fault.ether", str(seed)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def plug(self, name: str, ip: str, namespace: str = "", device: str = "eth0") -> None:
        """Gives a machine a device. namespace: as `ip netns` calls it; "" for that of this process.

        Raises:
            OSError: it cannot be made.
        """
        self._ask(do="plug", name=name, ip=ip, namespace=namespace, device=device)

    def unplug(self, name: str) -> None:
        """Takes its device away: nothing of it gets out any more."""
        self._ask(do="unplug", name=name)

    def pave(self, source: str, target: str, delay_s: float = 0.0, jitter_s: float = 0.0, loss: float = 0.0) -> None:
        """How a road is from now on; whether it is cut stays."""
        self._ask(do="road", source=source, target=target, delay_s=delay_s, jitter_s=jitter_s, loss=loss)

    def cut(self, source: str, target: str) -> None:
        """What one sends to the other vanishes, and what is on its way."""
        self._count(source, target, 1)

    def mend(self, source: str, target: str) -> None:
        """Undoes one cut."""
        self._count(source, target, -1)

    def counts(self) -> dict[str, int]:
        """How many packets were carried, lost and swallowed, of all machines."""
        found: dict[str, int] = self._ask(do="counts")
        return found

    def close(self) -> None:
        """Ends it, and with it all devices."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()

    def _count(self, source: str, target: str, cuts: int) -> None:
        with self._asking:  # who waits for it is not let in by turns: an answer counted before may be the last told
            self._cuts[source, target] += cuts
            self._tell(do="road", source=source, target=target, is_cut=self._cuts[source, target] > 0)

    def _ask(self, **what: Any) -> Any:
        with self._asking:
            return self._tell(**what)

    def _tell(self, **what: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or b'{"error": "the ether has ended"}')
        if error := answer.get("error"):
            raise OSError(f"{what}: {error}")
        return answer["told"]


class _Switch:
    """The process, from inside."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"ether {seed}")
        self._files: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._at: dict[bytes, str] = {}  # names by address
        self._roads: dict[tuple[str, str], Road] = {}
        self._last: dict[tuple[str, str], float] = {}  # when the last packet of a road arrives
        self._counts: Counter[str] = Counter()
        self._waiting: list[tuple[float, int, str, str, bytes]] = []  # when, number, source, target, packet
        self._number = 0
        self._poll = select.epoll()

    def run(self) -> None:
        """Until stdin ends."""
        self._poll.register(0, select.EPOLLIN)
        rest = b""
        while True:
            for fd, _ in self._poll.poll(self._pause_s()):
                if fd == 0:
                    data = os.read(0, 1 << 16)
                    if not data:
                        return
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        self._obey(json.loads(line))
                elif fd in self._names:
                    self._take(fd)
            self._deliver()

    def _pause_s(self) -> float:
        return max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else -1

    def _obey(self, what: dict[str, Any]) -> None:
        told: Any = None
        error = ""
        try:
            match what.pop("do"):
                case "plug":
                    self._plug(**what)
                case "unplug":
                    self._unplug(**what)
                case "road":
                    self._change(what.pop("source"), what.pop("target"), what)
                case "counts":
                    told = dict(self._counts)
        except OSError as e:
            error = str(e)
        os.write(1, json.dumps({"told": told, "error": error}).encode() + b"\n")

    def _plug(self, name: str, ip: str, namespace: str, device: str) -> None:
        self._unplug(name)
        file = _open_tun(namespace, device)
        self._files[name], self._names[file] = file, name
        self._at[bytes(map(int, ip.split(".")))] = name
        self._poll.register(file, select.EPOLLIN)

    def _unplug(self, name: str) -> None:
        file = self._files.pop(name, None)
        if file is None:
            return
        del self._names[file]
        self._poll.unregister(file)
        os.close(file)  # the device goes with it
        self._forget(lambda source, target: name in (source, target))

    def _change(self, source: str, target: str, how: dict[str, Any]) -> None:
        road = self._roads.setdefault((source, target), Road())
        for key, value in how.items():
            setattr(road, key, value)
        if road.is_cut:
            self._forget(lambda s, t: (s, t) == (source, target))
        on_it = [due for due, _, s, t, _ in self._waiting if (s, t) == (source, target)]
        self._last[source, target] = max(on_it, default=0.0)

    def _forget(self, is_lost: Any) -> None:
        before = len(self._waiting)
        self._waiting = [one for one in self._waiting if not is_lost(one[2], one[3])]
        heapq.heapify(self._waiting)
        self._counts["swallowed"] += before - len(self._waiting)

    def _take(self, file: int) -> None:
        """Puts what a machine has sent on its road."""
        source = self._names[file]
        for _ in range(ROUND):
            try:
                packet = os.read(file, MTU + 64)
            except BlockingIOError:
                return
            except OSError:  # its namespace is gone
                self._unplug(source)
                return
            if packet[0] >> 4 == 4 and (target := self._at.get(packet[TARGET])) is not None:
                self._send(source, target, packet)

    def _send(self, source: str, target: str, packet: bytes) -> None:
        road = self._roads.get((source, target))
        if road is None or (not road.delay_s and not road.loss and not road.jitter_s and not road.is_cut):
            self._write(target, packet)
        elif road.is_cut:
            self._counts["swallowed"] += 1
        elif self._rng.random() < road.loss or len(self._waiting) >= MOST_ON_ROAD:
            self._counts["lost"] += 1
        else:
            due = time.monotonic() + road.delay_s + road.jitter_s * self._rng.random()
            due = self._last[source, target] = max(due, self._last.get((source, target), 0.0))
            self._number += 1
            heapq.heappush(self._waiting, (due, self._number, source, target, packet))

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            *_, target, packet = heapq.heappop(self._waiting)
            self._write(target, packet)

    def _write(self, target: str, packet: bytes) -> None:
        file = self._files.get(target)
        if file is not None:
            with contextlib.suppress(OSError):  # its queue is full, or it is going away
                os.write(file, packet)
                self._counts["carried"] += 1


def _open_tun(namespace: str, device: str) -> int:
    """A TUN device in a namespace. This thread is there for a moment.

    Raises:
        OSError: it cannot be made.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(path: str) -> None:
        file = os.open(path, os.O_RDONLY)
        try:
            if libc.setns(file, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"setns: {os.strerror(ctypes.get_errno())}")
        finally:
            os.close(file)

    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if namespace:
            enter(f"/run/netns/{namespace}")
        try:
            tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH14x", device.encode(), IFF_TUN | IFF_NO_PI))
            except OSError:
                os.close(tun)
                raise
            return tun
        finally:
            enter(f"/proc/self/fd/{home}")
    finally:
        os.close(home)


def both_ways(names: Iterable[str], others: Iterable[str]) -> list[tuple[str, str]]:
    """Every road between one of these and one of those."""
    found = list(others)
    return [road for name in names for other in found if name != other for road in ((name, other), (other, name))]


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        _Switch(int(sys.argv[1])).run()
