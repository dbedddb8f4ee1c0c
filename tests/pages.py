"""Pages of docs/how-to, followed word for word but for the ports."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from tests.harness import WAIT_S, wait_until
from tests.programs import ROOT, started

PORTS = (5000, 7000, 7170, 7171, 7172, 7176, 7270, 7271, 7470, 8080, 8090, 8092, 8093)  # of the pages
OFFSETS = range(4_000, 7_900)  # below the ports of `free_ports`, and above those without an offset

_claims: list[IO[str]] = []  # open files; each is locked for as long as this process lives


def free_offset() -> int:
    """With it all ports that pages name are free. No other offset, of any process, shares one of them."""
    apart = {abs(one - other) for one in PORTS for other in PORTS}
    offsets: list[int] = []
    for offset in OFFSETS:
        if apart.isdisjoint(offset - before for before in offsets):
            offsets.append(offset)
    for offset in offsets:
        claim = (Path(tempfile.gettempdir()) / f"zim-test-offset-{offset}").open("w")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with ExitStack() as stack:
                for port in PORTS:
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port + offset))
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return offset
    raise AssertionError("no offset is free")


class Page:
    """One page.

    Args:
        offset: is added to all ports.
    """

    def __init__(self, name: str, offset: int) -> None:
        self.text = (ROOT / "docs" / "how-to" / f"{name}.md").read_text()
        self.offset = offset

    def port(self, number: int) -> int:
        """The port that stands for this one of the page."""
        return number + self.offset

    def blocks(self, language: str, heading: str = "") -> list[str]:
        """Its code blocks, under this heading or all."""
        text = self.text
        if heading:
            (text,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
        found = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        return [
            re.sub(r"(127\.0\.0\.1:|0\.0\.0\.0:|localhost:|--port )(\d{4})\b", self._moved, block) for block in found
        ]

    def _moved(self, found: re.Match[str]) -> str:
        return f"{found[1]}{self.port(int(found[2]))}"

    def begin(self, folder: Path, heading: str = "zim") -> Path:
        """Follows the block that makes the folder of the page, and goes there. That folder."""
        begin, *_ = self.blocks("sh", heading)
        named = re.match(r"umask 077\nmkdir (\w+) && cd (\w+)\n", begin)
        assert named
        assert named[1] == named[2]
        ran(begin, folder)
        return folder / named[1]

    def setup(self, block: str) -> str:
        """A block that makes a topology and runs it, without the last."""
        assert "zim init\n" in block
        assert block.endswith("zim up\n")
        return block.replace("zim init\n", f"zim init --offset {self.offset}\n").removesuffix("zim up\n")


def environment() -> dict[str, str]:
    """With zim's command, and what stands beside it, in PATH."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def sh(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs lines of a page."""
    return subprocess.run(
        ["sh", "-ec", text], cwd=folder, env=environment(), capture_output=True, text=True, timeout=60
    )


def ran(text: str, folder: Path) -> str:
    """Runs lines that must succeed. What they print."""
    done = sh(text, folder)
    assert done.returncode == 0, (text, done.stdout, done.stderr)
    return done.stdout


def told(block: str) -> list[tuple[str, str]]:
    """Each command of a block, on one line, and what the page says it prints."""
    found: list[tuple[str, str]] = []
    for line in block.replace("\\\n", "").splitlines():
        if line.startswith("# "):
            command, says = found[-1]
            found[-1] = command, f"{says}{line[2:]}\n"
        else:
            found.append((line, ""))
    return found


def assert_says(text: str, says: str) -> None:
    """A text is as a page says it, `…` for anything."""
    pattern = ".*".join(map(re.escape, says.strip().split("…")))
    assert re.fullmatch(pattern, text.strip(), re.DOTALL), f"{text.strip()}\nis not\n{says.strip()}"


def follow(block: str, folder: Path) -> None:
    """Runs the commands of a block, one by one; each prints what the page says, if it says anything."""
    for command, says in told(block):
        done = sh(command, folder)
        if says:
            assert_says(done.stdout + done.stderr, says)
        else:
            assert done.returncode == 0, (command, done.stderr)


@contextmanager
def listening(line: str, folder: Path, until: str = "connected to", name: str = "listener") -> Iterator[Path]:
    """`zim listen …` of a page, in the background, once it has said something; the file of all that it says."""
    out = folder / f"{name}.out"
    words = shlex.split(line)
    assert words[:2] == ["zim", "listen"]
    with out.open("wb") as f:
        command = [sys.executable, "-m", *words]
        process = subprocess.Popen(command, stdout=f, stderr=f, stdin=subprocess.DEVNULL, cwd=folder, env=environment())
    try:
        wait_until(lambda: until in out.read_text(), f"{until!r} in what {line} says")
        yield out
    finally:
        process.kill()
        process.wait()


@contextmanager
def up(folder: Path) -> Iterator[Path]:
    """`zim up` in a folder with a topology; its log."""
    log = folder / "up"
    log.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "zim", "up", str(folder / "topology.toml")]
    with started(command, log) as (process, out, err):
        try:
            wait_until(lambda: "is up" in out.read_text() or process.poll() is not None, "it is up")
            assert process.poll() is None, err.read_text()
            yield err
        except BaseException as e:
            e.add_note(f"the fabric's log:\n{err.read_text()[-4000:]}")
            raise
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(WAIT_S)
