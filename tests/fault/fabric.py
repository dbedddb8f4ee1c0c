"""A fabric for chaos: a proxy in front of each node, started again on the same data, killed as a whole."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gevent
import psutil
from gevent.event import Event
from gevent.os import make_nonblocking, nb_read

from tests.fault.proxy import Link, proxies
from tests.harness import Fabric, free_ports, wait_until

PAGE_BYTES, FILLER = 4096, b"\0"  # of a pipe that is to be full
KEEPERS_S = 5.0  # for the last lines of the log


class ChaosFabric(Fabric):
    """A Fabric whose nodes reach each other through `links`.

    Attributes:
        links: what leads to each node, once it runs; none without proxies. Half of them are called by a name.
        balanced: one address for all logics, by a name; none without a balancer.
        server_keys: by logic, what publishers over ZeroMQ need; none without link keys.
    """

    def __init__(self, folder: Path, has_links: bool = True, is_verbose: bool = False, **kwargs: Any) -> None:
        super().__init__(folder, **kwargs)
        self.links: Mapping[str, Link] = {}
        self.balanced: dict[str, str] = {}
        self.server_keys: dict[str, str] = {}
        self._options = ["-v"] if is_verbose else []
        self._is_read = Event()
        self._is_read.set()
        self._pipes: set[int] = set()
        self._keepers: list[gevent.Greenlet[..., None]] = []
        self.addresses: dict[str, tuple[str, str]] = {}
        if has_links:
            text = self.file.read_text()
            for i, (name, bind) in enumerate(self.binds.items()):
                (port,), host = free_ports(1), ("127.0.0.1", "localhost")[i % 2]
                self.addresses[name] = (f"127.0.0.1:{port}", bind.removeprefix("tcp://"))
                line = f'bind = "{bind}"'
                text = text.replace(line, f'{line}\nadvertise = "tcp://{host}:{port}"')
            self.file.write_text(text)
        self._seen: set[psutil.Process] = set()

    def start(self) -> None:
        """Starts it, also once more on the same data, and waits until it says that it is up."""
        begin = self.log_file.stat().st_size if self.log_file.exists() else 0
        self.process = self._spawn([sys.executable, "-m", "zim", "up", *self._options, str(self.file)])
        process = self.process
        wait_until(
            lambda: b"test is up" in self.log_file.read_bytes()[begin:] or process.poll() is not None,
            "the fabric is up",
            60,
        )
        assert process.poll() is None, self.log
        self.children()

    def _spawn(self, command: list[str], environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """A supervisor, in a process group of its own, as a shell starts it; its output goes to the log by a pipe."""
        self.log_file.touch()
        reading, writing = os.pipe()
        with open(writing, "wb") as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, process_group=0, env=environment
            )
        self._keepers.append(gevent.spawn(self._keep_log, reading))
        return process

    def _keep_log(self, reading: int) -> None:
        make_nonblocking(reading)
        with open(reading, "rb", 0), self.log_file.open("ab", 0) as log:
            self._pipes.add(reading)
            while data := nb_read(reading, 1 << 16):
                log.write(data.replace(FILLER, b""))
                self._is_read.wait()
            self._pipes.remove(reading)

    def ignore_log(self) -> None:
        """Nobody reads the log any more, until `read_log()`. On Linux there is no room for a line from now on."""
        self._is_read.clear()
        for reading in self._pipes:
            with contextlib.suppress(OSError):  # full; or there is no /proc
                filling = os.open(f"/proc/self/fd/{reading}", os.O_WRONLY | os.O_NONBLOCK)
                with open(filling, "wb", 0) as pipe:
                    while pipe.write(FILLER * PAGE_BYTES):
                        pass

    def read_log(self) -> None:
        """All that was written is read, and what comes."""
        self._is_read.set()

    def supervisors(self) -> list[int]:
        """The processes of `zim up`."""
        return [self.process.pid] if self.process and self.process.poll() is None else []

    def signal_all(self, how: int) -> None:
        """Sends all processes a signal, supervisors first."""
        for pid in (*self.supervisors(), *(child.pid for child in self.children())):
            self.signal(pid, how)

    def children(self) -> list[psutil.Process]:
        """The processes of its nodes."""
        found = super().children()
        self._seen.update(found)
        return found

    def running(self) -> dict[str, psutil.Process]:
        """The process of each node that runs now."""
        found: dict[str, psutil.Process] = {}
        for child in self.children():
            with contextlib.suppress(psutil.Error):
                found |= {name: child for name in self.names if name in child.cmdline()}
        return found

    def signal(self, pid: int, how: int) -> None:
        """Sends a process a signal, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)

    def kill_all(self) -> None:
        """kill -9 of the supervisor and every node, at once."""
        assert self.process
        children = self.children()
        for pid in (self.process.pid, *(child.pid for child in children)):
            self.signal(pid, signal.SIGKILL)
        self.process.wait()
        psutil.wait_procs(children, 10)

    def end(self) -> None:
        """Stops what runs, however it is, and leaves no process."""
        self.read_log()
        try:
            self.signal_all(signal.SIGCONT)
            if self.process:
                self.stop()
        finally:
            self._kill_seen()
            gevent.joinall(self._keepers, timeout=KEEPERS_S)

    def _kill_seen(self) -> None:
        """Orphans, if a supervisor was killed."""
        for process in self._seen:
            with contextlib.suppress(psutil.Error):
                process.kill()


@contextlib.contextmanager
def chaos_fabric(folder: Path | None = None, **kwargs: Any) -> Iterator[ChaosFabric]:
    """A started fabric for the length of a block. If the block fails, its log is in the failure."""
    with tempfile.TemporaryDirectory() as scratch:
        fabric = ChaosFabric(folder or Path(scratch), **kwargs)
        with proxies(fabric.addresses) as fabric.links:
            try:
                fabric.start()
                yield fabric
            except BaseException as e:
                e.add_note(f"the fabric's log:\n{fabric.log[-6000:]}")
                raise
            finally:
                fabric.end()
