"""A fabric to measure: its topology, its processes, what they cost."""

from __future__ import annotations

import contextlib
import http.client
import random
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import psutil

from benchmarks.certificate import make_certificate
from zim.client import ZimError
from zim.client.address import split_address
from zim.identity.link_keys import make_keys
from zim.topology import ListenAddress, load
from zim.topology.file import load_alone

_START_S = 30.0
_STOP_S = 15.0
_LINKS = '\n[links]\nkeys = "link-keys"\n'


class BenchmarkError(ZimError):
    """The benchmark cannot run or go on."""


class Fabric:
    """A running fabric. Starts one with `zim up` unless that of the file runs already; stops what it started.

    Attributes:
        tls: whom clients of its comets are to believe; None without TLS.
    """

    def __init__(
        self,
        topology: Path | None,
        comets: int = 1,
        options: Sequence[str] = (),
        is_read: bool = True,
        is_tls: bool = False,
        link_keys: bool = False,
    ) -> None:
        """Does not start anything yet.

        Args:
            topology: a file; without one, a fabric of its own on free ports, one of each node but for the comets.
            comets: how many of them, in a fabric of its own.
            options: for `zim up`.
            is_read: somebody reads what it writes.
            is_tls: its comets speak TLS, in a fabric of its own.
            link_keys: links between its nodes are encrypted, in a fabric of its own.
        """
        self._options, self._is_read = options, is_read
        self._folder = tempfile.TemporaryDirectory(prefix="zim-bench-")
        folder = Path(self._folder.name)
        self._output = folder / "output.txt"
        self.tls: ssl.SSLContext | None = None
        if topology is None:
            topology = folder / "topology.toml"
            topology.write_text(write_topology(comets, is_tls) + (_LINKS if link_keys else ""))
            self.tls = make_certificate(folder) if is_tls else None
            if link_keys:
                bare = load_alone(topology)
                make_keys(bare.links, [node.name for node in bare.nodes])
        self.topology = load(topology)
        self._path = topology
        self._process: subprocess.Popen[bytes] | None = None
        logics = self.topology.logics
        self.http = [_address(at) for logic in logics for at in logic.http]

    def addresses(self, transport: str) -> list[str]:
        """The comets' addresses for "tcp" or "ws"."""
        comets = self.topology.comets
        found = [_address(at) for comet in comets for at in (comet.ws if transport == "ws" else comet.tcp)]
        if not found:
            raise BenchmarkError(f"{self._path}: no comet listens for {transport}")
        return found

    def __enter__(self) -> Fabric:
        if not _answers(self.http[0]):
            with self._output.open("wb") as output:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "zim", "up", *self._options, str(self._path)],
                    stdin=subprocess.DEVNULL,
                    stdout=output if self._is_read else subprocess.PIPE,
                    stderr=output if self._is_read else subprocess.STDOUT,
                )
        try:
            self._wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def comet_processes(self) -> list[psutil.Process]:
        """The processes of all comets."""
        among: list[psutil.Process]
        if self._process is None:
            among = list(psutil.process_iter())
        else:
            among = psutil.Process(self._process.pid).children(recursive=True)
        names = {comet.name for comet in self.topology.comets}
        found = []
        for process in among:
            with contextlib.suppress(psutil.Error):
                if names & set(process.cmdline()):
                    found.append(process)
        if len(found) != len(names):
            raise BenchmarkError(f"found {len(found)} comet processes, not {len(names)}")
        return found

    def processes(self) -> dict[str, psutil.Process]:
        """Those of the nodes and of `zim up`, by name, of a fabric that this benchmark started."""
        assert self._process is not None
        up = psutil.Process(self._process.pid)
        found = {"up": up}
        for process in up.children(recursive=True):
            line = process.cmdline()
            found[line[line.index("node") + 1]] = process
        return found

    def stop(self) -> None:
        """Stops the fabric, if it is one that this benchmark started."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                for child in children:
                    with contextlib.suppress(psutil.Error):
                        child.kill()
        self._folder.cleanup()

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + _START_S
        ports = [_address(at) for comet in self.topology.comets for at in (*comet.tcp, *comet.ws)]
        while not (all(map(_answers, self.http)) and all(map(listens, ports))):
            if self._process is not None and self._process.poll() is not None:
                raise BenchmarkError(f"zim up ended with {self._process.returncode}:\n{self._last_words()}")
            if time.monotonic() > deadline:
                raise BenchmarkError(f"the fabric is not ready after {_START_S:g} s:\n{self._last_words()}")
            time.sleep(0.05)

    def _last_words(self) -> str:
        return "\n".join(self._output.read_text(errors="replace").splitlines()[-20:]) if self._output.exists() else ""


def write_topology(comets: int, is_tls: bool = False) -> str:
    """A topology with one of each node, but for the comets, on free ports of 127.0.0.1. is_tls: of comets."""
    ports = iter(free_ports(8 + 4 * comets))

    def node(kind: str, number: int) -> str:
        bind, admin = f"tcp://127.0.0.1:{next(ports)}", f"127.0.0.1:{next(ports)}"
        return f'\n[[{kind}]]\nid = {number}\nbind = "{bind}"\nadmin = "{admin}"\n'

    text = '[fabric]\nname = "bench"\ndata_dir = "var"\n' + node("router", 1) + node("job", 1)
    text += node("logic", 1) + f'http = "127.0.0.1:{next(ports)}"\npublish = "tcp://127.0.0.1:{next(ports)}"\n'
    for number in range(1, comets + 1):
        text += node("comet", number)
        for key in ("tcp", "ws"):
            at = f'"127.0.0.1:{next(ports)}"'
            tls = 'tls = { certificate = "certificate.pem", key = "key.pem" }'
            text += f"{key} = {{ address = {at}, {tls} }}\n" if is_tls else f"{key} = {at}\n"
    return text


def free_ports(count: int) -> list[int]:
    """Ports below the range from which kernels take those of outgoing connections."""
    found: list[int] = []
    for port in random.sample(range(12_000, 32_000), 2_000):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise BenchmarkError("no free ports between 12000 and 32000")


def _address(listener: ListenAddress) -> str:
    host, port = listener.host_port
    return f"127.0.0.1:{port}" if host in ("", "0.0.0.0", "*") else listener.address


def listens(address: str) -> bool:
    """Somebody accepts connections there."""
    try:
        socket.create_connection(split_address(address), timeout=1).close()
    except OSError:
        return False
    return True


def _answers(address: str) -> bool:
    connection = http.client.HTTPConnection(*split_address(address), timeout=2)
    try:
        connection.request("GET", "/1/count?type=server")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
