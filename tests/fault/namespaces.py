"""A fabric whose nodes are machines of their own: one network namespace each, and links that swallow packets.

What a proxy cannot do: a link that is cut here is silent. Nobody gets a reset, nothing is acknowledged, and the kernel
finds out by its own timeouts, or not at all. Needs Linux, root and `ip`.

Every namespace hangs on one bridge. A packet is swallowed by giving its sender a wrong hardware address for its
receiver: that works for each pair and each direction alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gevent
import psutil

from tests.fault.fabric import KEEPERS_S, ChaosFabric
from tests.harness import wait_until

NOBODY = "02:00:00:00:00:01"  # no interface has it
HERE = ""  # where the clients and publishers are: the namespace that this process is in


def is_possible() -> bool:
    """Whether this machine allows it."""
    return sys.platform == "linux" and os.geteuid() == 0 and shutil.which("ip") is not None


class Net:
    """A bridge and a namespace for each name, until `close()`.

    Attributes:
        ips: by name; HERE is this process.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._tag = f"z{os.getpid() % 100_000}"
        subnet = f"10.{random.SystemRandom().randrange(200, 250)}.{random.SystemRandom().randrange(256)}"
        self.ips = {HERE: f"{subnet}.1"} | {name: f"{subnet}.{i}" for i, name in enumerate(names, 2)}
        self._blocked: Counter[tuple[str, str]] = Counter()
        self._bridge = f"{self._tag}br"
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    def namespace(self, name: str) -> str:
        """What `ip netns` calls it."""
        return f"{self._tag}-{name}"

    def block(self, source: str, target: str) -> None:
        """What source sends to target vanishes; counted, so that every block has its unblock."""
        self._blocked[source, target] += 1
        if self._blocked[source, target] == 1:
            self._neighbour(source, "replace", self.ips[target], "lladdr", NOBODY, "nud", "permanent")

    def unblock(self, source: str, target: str) -> None:
        """Undoes one block."""
        self._blocked[source, target] -= 1
        if self._blocked[source, target] == 0:
            self._neighbour(source, "del", self.ips[target])

    def close(self) -> None:
        """Takes all of it away."""
        for name in self.names:
            _ip("netns", "del", self.namespace(name), is_needed=False)
        _ip("link", "del", self._bridge, is_needed=False)

    def _make(self) -> None:
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self.ips[HERE]}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for i, name in enumerate(self.names):
            space, port = self.namespace(name), f"{self._tag}v{i}"
            _ip("netns", "add", space)
            _ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "set", port, "master", self._bridge, "up")
            _ip("-n", space, "addr", "add", f"{self.ips[name]}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                _ip("-n", space, "link", "set", device, "up")

    def _neighbour(self, source: str, verb: str, *words: str) -> None:
        where = ("-n", self.namespace(source)) if source else ()
        _ip(*where, "neigh", verb, *words, "dev", "eth0" if source else self._bridge)


class NetLink:
    """The links of one node; the kinds of the schedule, in what a network can do."""

    def __init__(self, net: Net, name: str) -> None:
        self._net, self._name = net, name
        self._rng = random.Random(f"link {name}")
        self._blocked: list[tuple[str, str]] = []

    def cut(self) -> None:
        """Between this node and one other nothing arrives."""
        other = self._another()
        self._block((self._name, other), (other, self._name))

    def stall(self, *directions: str) -> None:
        """Nothing arrives from anybody (`in`), nowhere (`out`), or both; clients included."""
        others = [name for name in self._net.ips if name != self._name]
        for direction in directions or ("in", "out"):
            self._block(*((o, self._name) if direction == "in" else (self._name, o) for o in others))

    def pair(self, direction: str) -> None:
        """One other node is not heard any more (`in`), or hears nothing (`out`)."""
        other = self._another()
        self._block((other, self._name) if direction == "in" else (self._name, other))

    def delay(self, seconds: float) -> None:
        """Not all kernels can delay; with one other node nothing is exchanged instead."""
        self.cut()

    def heal(self) -> None:
        """All that was blocked here is not any more."""
        blocked, self._blocked = self._blocked, []
        for pair in blocked:
            self._net.unblock(*pair)

    def _another(self) -> str:
        return self._rng.choice([name for name in self._net.names if name != self._name])

    def _block(self, *pairs: tuple[str, str]) -> None:
        for pair in pairs:
            self._net.block(*pair)
            self._blocked.append(pair)


class NamespaceFabric(ChaosFabric):
    """A fabric with one `zim up` in each namespace, and one node under it."""

    def __init__(self, folder: Path, net: Net, more: str = "", is_verbose: bool = False, **counts: Any) -> None:
        super().__init__(folder, has_links=False, is_verbose=is_verbose, **counts)
        self._net = net
        self.links = {name: NetLink(net, name) for name in self.names}
        self._supervisors: list[subprocess.Popen[bytes]] = []
        lines = ["[fabric]", 'name = "test"', 'data_dir = "var"']
        for name in self.names:
            kind, _, number = name.partition("-")
            ip = net.ips[name]
            self.binds[name] = f"tcp://{ip}:7000"
            lines += [f"[[{kind}]]", f"id = {number}", f'host = "{name}"', _listener("bind", self.binds[name])]
            if kind == "logic":
                self.http[name] = f"{ip}:7001"
                self.publish[name] = f"tcp://{ip}:7004"
                lines += [_listener("http", self.http[name]), _listener("publish", self.publish[name])]
            if kind == "comet":
                self.tcp[name], self.ws[name] = f"{ip}:7002", f"{ip}:7003"
                lines += [_listener("tcp", self.tcp[name]), _listener("ws", self.ws[name])]
        self.file.write_text("\n".join([*lines, more]) + "\n")

    def start(self) -> None:
        """Starts all of them and waits until each says that it is up."""
        for name in self.names:
            command = ["ip", "netns", "exec", self._net.namespace(name), sys.executable, "-m", "zim", "up"]
            self._supervisors.append(self._spawn([*command, *self._options, "--host", name, str(self.file)]))
        wait_until(
            lambda: self.log.count("test is up") == len(self.names) or any(s.poll() for s in self._supervisors),
            "the fabric is up",
            60,
        )
        self.children()

    def supervisors(self) -> list[int]:
        """The processes of `zim up`."""
        return [supervisor.pid for supervisor in self._supervisors if supervisor.poll() is None]

    def children(self) -> list[psutil.Process]:
        """The processes of its nodes."""
        supervisors = {supervisor.pid for supervisor in self._supervisors}
        found = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.ppid() in supervisors:
                    found.append(process)
        self._seen.update(found)
        return found

    def end(self) -> None:
        """Stops what runs, however it is, and leaves no process."""
        self.read_log()
        try:
            self.signal_all(signal.SIGCONT)
            for supervisor in self._supervisors:
                supervisor.terminate()
            wait_until(lambda: all(s.poll() is not None for s in self._supervisors), "the fabric has stopped", 30)
        finally:
            for supervisor in self._supervisors:
                supervisor.kill()
                supervisor.wait()
            self._kill_seen()
            gevent.joinall(self._keepers, timeout=KEEPERS_S)


@contextlib.contextmanager
def namespace_fabric(folder: Path | None = None, **counts: Any) -> Iterator[NamespaceFabric]:
    """A started fabric in namespaces for the length of a block. If the block fails, its log is in the failure."""
    names = [f"{kind[:-1]}-{i}" for kind in ("routers", "logics", "jobs", "comets") for i in range(1, counts[kind] + 1)]
    net = Net(names)
    with tempfile.TemporaryDirectory() as scratch, contextlib.closing(net):
        fabric = NamespaceFabric(folder or Path(scratch), net, **counts)
        try:
            fabric.start()
            yield fabric
        except BaseException as e:
            e.add_note(f"the fabric's log:\n{fabric.log[-6000:]}")
            raise
        finally:
            fabric.end()


def _listener(key: str, address: str) -> str:
    return f"{key} = {{ address = {json.dumps(address)}, insecure = true }}"


def _ip(*words: str, is_needed: bool = True) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, check=False, text=True)
    if done.returncode and is_needed:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
