"""A fabric on several machines, each a network namespace with its own `zim up --host`, data and clock.

Its topology is the one that `zim init --machines N` writes, with clients and backends let in from outside and with link
keys. Machines call each other by name, as `/etc/hosts` of each says. What lies between them is `tests.fault.ether`:
delays, losses, cuts both ways and one way. A machine whose power is off has no device any more when its processes are
killed, so nobody is told, and it comes back in a new namespace, whose kernel knows of no connection. Clients and
publishers are in this process, outside; one more machine is for the balancer.

Other programs may run on a machine, such as a database: see `Machine.services`. Linux, root, `ip`.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import gevent
import psutil

from tests.fault.ether import MTU, Ether, both_ways
from tests.fault.fabric import KEEPERS_S, ChaosFabric
from tests.harness import wait_until
from zim.cli.template import render

OUTSIDE = "outside"  # where this process is

PORTS = {"router": 7270, "logic": 7170, "job": 7470, "comet": 8092}
HTTP, PUBLISH, TCP, WS = 7172, 7176, 8080, 8090

Undo = Callable[[], None]


@cache
def why_impossible() -> str:
    """Why this machine does not allow it, in words; "" if it does. It is tried."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need root on Linux"
    if shutil.which("ip") is None:
        return "there is no `ip`; Debian has it in iproute2"
    try:
        with contextlib.closing(Machines(["tried"])):
            return ""
    except OSError as e:
        return f"no network namespace with a TUN device can be made: {e}"


def has_clocks() -> bool:
    """Whether machines can have clocks of their own: a C compiler is there."""
    return shutil.which("cc") is not None


def _clock_library(folder: Path) -> Path | None:
    """What gives a process its machine's clock, made in that folder; None without a C compiler."""
    if not has_clocks():
        return None
    made = folder / "clock.so"
    command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(made), str(Path(__file__).with_name("clock.c")), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return made


class Database(Protocol):
    """What a fabric has to know of a log that all its routers share.

    Attributes:
        table: `[log]` of the topology.
    """

    @property
    def table(self) -> str: ...

    def begin(self) -> None:
        """It is there, and empty."""

    def stop(self) -> None:
        """It is watched over no more."""


class Machine:
    """One machine.

    Attributes:
        services: what it starts when its power comes on, in this order; each is handed the machine.
        is_on: whether it has power.
        folder: its disk. What stands there outlives its power.
    """

    def __init__(self, name: str, ip: str, folder: Path, namespace: str, ether: Ether, library: Path | None) -> None:
        """library: what gives processes its clock."""
        self.name, self.ip, self.folder, self.namespace = name, ip, folder, namespace
        self.services: list[Callable[[Machine], object]] = []
        self.is_on = False
        self._ether = ether
        self._clock = folder / "clock"
        self._clock.write_bytes(bytes(8))
        self._library = library

    def command(self, *words: str) -> list[str]:
        """A command line that runs there."""
        return ["ip", "netns", "exec", self.namespace, *words]

    @property
    def environment(self) -> dict[str, str]:
        """That of its processes: by it they have its clock, as far as there is a way."""
        if not self._library:
            return dict(os.environ)
        return os.environ | {"LD_PRELOAD": str(self._library), "FAULT_CLOCK": str(self._clock)}

    def set_clock(self, ahead_s: float) -> None:
        """Its wall clock is that far ahead of ours from now on. The monotonic one is nobody's to set."""
        with self._clock.open("r+b", buffering=0) as file:  # in place, and at once: its processes look at this file
            file.write(struct.pack("=q", round(ahead_s * 1e9)))

    def boot(self) -> None:
        """Its power comes on: a network that knows of nothing, then its services."""
        ip = ("-n", self.namespace)
        _ip("netns", "add", self.namespace)
        self._ether.plug(self.name, self.ip, self.namespace)
        _ip(*ip, "addr", "add", f"{self.ip}/24", "dev", "eth0")
        _ip(*ip, "link", "set", "eth0", "mtu", str(MTU), "up")
        _ip(*ip, "link", "set", "lo", "up")
        self.is_on = True
        for start in self.services:
            start(self)

    def power_off(self) -> None:
        """Its power fails: its device goes first, so nobody hears a last word; then all its processes are killed."""
        self.is_on = False
        with contextlib.suppress(OSError):
            self._ether.unplug(self.name)
        self.kill_all()
        _ip("netns", "del", self.namespace, is_needed=False)

    def kill_all(self) -> None:
        """kill -9 of all that runs there, until nothing does."""

        def is_silent() -> bool:
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not self.pids()

        wait_until(is_silent, f"all processes of {self.name} are gone")

    def pids(self) -> list[int]:
        """All processes that run there."""
        done = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, check=False, text=True)
        return [pid for pid in map(int, done.stdout.split()) if not _is_zombie(pid)]


class Machines:
    """Machines, and the roads between them and to the outside, until `close()`.

    Raises:
        OSError: they cannot be made here.
    """

    def __init__(self, names: Sequence[str], folder: Path | None = None, seed: int = 0) -> None:
        """
        Args:
            folder: has a folder for each machine, its disk; by default it is gone with them.
        """
        self._scratch = None if folder else tempfile.TemporaryDirectory()
        home = folder or Path(self._scratch.name if self._scratch else "")
        self._tag = f"m{os.getpid() % 100_000}"
        subnet = f"10.{random.SystemRandom().randrange(200, 250)}.{random.SystemRandom().randrange(256)}"
        self.ips = {OUTSIDE: f"{subnet}.1"} | {name: f"{subnet}.{i}" for i, name in enumerate(names, 2)}
        self.ether = Ether(seed)
        self.all: dict[str, Machine] = {}
        library = _clock_library(home)
        for name in names:
            (home / name).mkdir(parents=True, exist_ok=True)
            at = self.ips[name], home / name, f"{self._tag}-{name}"
            self.all[name] = Machine(name, *at, self.ether, library)
        self._extra = [Path(f"/etc/netns/{one.namespace}") for one in self.all.values()]
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    def __getitem__(self, name: str) -> Machine:
        return self.all[name]

    def pave(self, delay_s: float = 0.0, jitter_s: float = 0.0, loss: float = 0.0, name: str = "") -> None:
        """The weather on all roads, or on those that lead to a machine and from it."""
        for source, target in both_ways([name] if name else self.ips, self.ips):
            self.ether.pave(source, target, delay_s, jitter_s, loss)

    def cut(self, *roads: tuple[str, str]) -> Undo:
        """Cuts roads, and returns what mends them, once."""
        left = list(dict.fromkeys(roads))
        for road in left:
            self.ether.cut(*road)

        def mend() -> None:
            while left:
                self.ether.mend(*left.pop())

        return mend

    def roads(self, name: str, direction: str = "", other: str = "") -> list[tuple[str, str]]:
        """The roads of a machine: those to it (`in`), from it (`out`), both. other: to one machine alone."""
        others = [other] if other else [one for one in self.ips if one != name]
        to, back = [(one, name) for one in others], [(name, one) for one in others]
        return {"in": to, "out": back}.get(direction, to + back)

    def close(self) -> None:
        """Takes all of it away, with whatever still runs there."""
        try:
            for machine in self.all.values():
                machine.power_off()
        finally:
            self.ether.close()
            for folder in self._extra:
                shutil.rmtree(folder, ignore_errors=True)
            if self._scratch:
                self._scratch.cleanup()

    def _make(self) -> None:
        device = f"{self._tag}out"
        self.ether.plug(OUTSIDE, self.ips[OUTSIDE], device=device)
        _ip("addr", "add", f"{self.ips[OUTSIDE]}/24", "dev", device)
        _ip("link", "set", device, "mtu", str(MTU), "up")
        hosts = "".join(f"{ip} {name}\n" for name, ip in self.ips.items())
        for machine, folder in zip(self.all.values(), self._extra, strict=True):
            folder.mkdir(parents=True)
            (folder / "hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n{hosts}")  # `ip netns exec` mounts it
            machine.boot()


class MachinesFabric(ChaosFabric):
    """A fabric with a node of each kind on each machine.

    Attributes:
        machines: those of its nodes are `machine-1` and so on, as `zim init` calls them.
    """

    def __init__(self, folder: Path, machines: Machines, names: Sequence[str], more: str = "", **kwargs: Any) -> None:
        """
        Args:
            names: the machines that its nodes are on.
        """
        count = len(names)
        super().__init__(folder, has_links=False, routers=count, logics=count, jobs=count, comets=count, **kwargs)
        self.machines, self.hosts = machines, list(names)
        self._supervisors: list[subprocess.Popen[bytes]] = []
        for name in self.names:
            kind, _, number = name.partition("-")
            ip = machines.ips[f"machine-{number}"]
            self.binds[name] = f"tcp://{ip}:{PORTS[kind]}"
            if kind == "logic":
                self.http[name], self.publish[name] = f"{ip}:{HTTP}", f"tcp://{ip}:{PUBLISH}"
            if kind == "comet":
                self.tcp[name], self.ws[name] = f"{ip}:{TCP}", f"{ip}:{WS}"
        self.file.write_text(f'{open_to_others(render(count))}\n{more}\n[links]\nkeys = "link-keys"\n')
        command = [sys.executable, "-m", "zim", "link-key", "make", "--topology", str(self.file)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        self.server_keys = tomllib.loads((self.link_keys / "public.toml").read_text())
        for name in names:
            self._bring(machines[name].folder, name.rpartition("-")[2])
            machines[name].services.append(self._up)

    def _bring(self, folder: Path, number: str) -> None:
        """What an operator copies to a machine: the topology, the list of keys, the secrets of its own nodes."""
        shutil.copy(self.file, folder)
        keys = folder / self.link_keys.name
        keys.mkdir(mode=0o700)
        for path in (self.link_keys / "public.toml", *self.link_keys.glob(f"*-{number}.secret")):
            shutil.copy2(path, keys)

    def _up(self, machine: Machine) -> None:
        command = machine.command(sys.executable, "-m", "zim", "up", *self._options, "--host", machine.name)
        file = machine.folder / self.file.name
        self._supervisors.append(self._spawn([*command, str(file)], machine.environment))

    def make_log(self) -> None:
        """Makes the log that all routers share, as an operator does on one of the machines."""
        first = self.machines[self.hosts[0]]
        words = ("log", "init", "--topology", str(first.folder / self.file.name))
        done = subprocess.run(
            first.command(sys.executable, "-m", "zim", *words), capture_output=True, check=False, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Starts all of them and waits until each says that it is up."""
        for name in self.hosts:
            self._up(self.machines[name])
        wait_until(
            lambda: self.log.count("demo is up") == len(self.hosts) or any(s.poll() for s in self._supervisors),
            "the fabric is up",
            60,
        )
        assert all(s.poll() is None for s in self._supervisors), self.log
        self.children()

    def supervisors(self) -> list[int]:
        """The processes of `zim up`."""
        return [supervisor.pid for supervisor in self._supervisors if supervisor.poll() is None]

    def children(self) -> list[psutil.Process]:
        """The processes of its nodes."""
        supervisors = {supervisor.pid for supervisor in self._supervisors if supervisor.poll() is None}
        found = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.ppid() in supervisors:
                    found.append(process)
        self._seen.update(found)
        return found

    def nodes_of(self, machine: str) -> list[str]:
        """The nodes that a machine has."""
        return [name for name in self.names if name.rpartition("-")[2] == machine.rpartition("-")[2]]

    def end(self) -> None:
        """Stops what runs, however it is, and leaves no process."""
        self.read_log()
        try:
            self.signal_all(signal.SIGCONT)
            for supervisor in self._supervisors:
                if supervisor.poll() is None:
                    supervisor.terminate()
            wait_until(lambda: all(s.poll() is not None for s in self._supervisors), "the fabric has stopped", 30)
        finally:
            for supervisor in self._supervisors:
                supervisor.kill()
                supervisor.wait()
            self._kill_seen()
            gevent.joinall(self._keepers, timeout=KEEPERS_S)


def open_to_others(text: str) -> str:
    """A topology of `zim init --machines`, with link keys, and with clients and backends let in from other machines."""
    for port in (HTTP, TCP, WS):
        text = text.replace(f'= "127.0.0.1:{port}"', f'= {{ address = "0.0.0.0:{port}", insecure = true }}')
    publish = f'{{ address = "tcp://0.0.0.0:{PUBLISH}", insecure = true }}'
    text = text.replace(f'publish = "tcp://127.0.0.1:{PUBLISH}"', f"publish = {publish}")
    for port in PORTS.values():
        text = text.replace(f'{{ address = "tcp://0.0.0.0:{port}", insecure = true }}', f'"tcp://0.0.0.0:{port}"')
    return text


@contextlib.contextmanager
def machines_fabric(
    folder: Path | None = None,
    count: int = 3,
    more: str = "",
    seed: int = 0,
    others: Sequence[str] = (),
    database: Callable[[Machines], Database] | None = None,
    **kwargs: Any,
) -> Iterator[MachinesFabric]:
    """A started fabric on machines for the length of a block. If the block fails, its log is in the failure.

    Args:
        others: machines beside those of the nodes.
        database: makes one, on these machines, for a log that all routers share.
    """
    names = [f"machine-{n}" for n in range(1, count + 1)]
    with tempfile.TemporaryDirectory() as scratch:
        home = folder or Path(scratch)
        home.chmod(0o755)  # a database is no root's
        machines = Machines([*names, *others], home, seed)
        with contextlib.closing(machines):
            shared = database(machines) if database else None
            fabric = MachinesFabric(home, machines, names, more + (shared.table if shared else ""), **kwargs)
            try:
                if shared:
                    shared.begin()
                    fabric.make_log()
                fabric.start()
                yield fabric
            except BaseException as e:
                e.add_note(f"the fabric's log:\n{fabric.log[-6000:]}")
                raise
            finally:
                if shared:
                    shared.stop()
                fabric.end()


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def _ip(*words: str, is_needed: bool = True) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, check=False, text=True)
    if done.returncode and is_needed:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
