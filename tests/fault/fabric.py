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

import psutil

from tests.fault.proxy import Link, proxies
from tests.harness import Fabric, free_ports, wait_until


class ChaosFabric(Fabric):
    """A Fabric whose nodes reach each other through `links`.

    Attributes:
        links: what leads to each node, once it runs; none without proxies.
    """

    def __init__(self, folder: Path, has_links: bool = True, **kwargs: Any) -> None:
        super().__init__(folder, **kwargs)
        self.links: Mapping[str, Link] = {}
        self.addresses: dict[str, tuple[str, str]] = {}
        if has_links:
            text = self.file.read_text()
            for (name, bind), port in zip(self.binds.items(), free_ports(len(self.binds)), strict=True):
                self.addresses[name] = (f"127.0.0.1:{port}", bind.removeprefix("tcp://"))
                line = f'bind = "{bind}"'
                text = text.replace(line, f'{line}\nadvertise = "tcp://127.0.0.1:{port}"')
            self.file.write_text(text)
        self._seen: set[psutil.Process] = set()

    def start(self) -> None:
        """Starts it, also once more on the same data, and waits until it says that it is up."""
        begin = self.log_file.stat().st_size if self.log_file.exists() else 0
        with self.log_file.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "zim", "up", str(self.file)], stdout=out, stderr=out, stdin=subprocess.DEVNULL
            )
        process = self.process
        wait_until(
            lambda: b"test is up" in self.log_file.read_bytes()[begin:] or process.poll() is not None,
            "the fabric is up",
            60,
        )
        assert process.poll() is None, self.log
        self.children()

    def children(self) -> list[psutil.Process]:
        """The processes of its nodes."""
        found = super().children()
        self._seen.update(found)
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
        try:
            for child in self.children():
                self.signal(child.pid, signal.SIGCONT)
            if self.process:
                self.stop()
        finally:
            self._kill_seen()

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
