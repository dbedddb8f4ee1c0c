"""Programs other than zim: those that Python's packages cannot bring, and what runs while a test does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import WAIT_S, is_listening, wait_until

ROOT = Path(__file__).parents[1]

# Debian keeps servers out of the PATH of those who are not root.
WHERE = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


def program(name: str, package: str) -> str:
    """Where it is. Without it the test is skipped, and in CI, which installs all of them, it fails."""
    found = shutil.which(name, path=WHERE)
    if found is None:
        why = f"there is no {name}; Debian has it in {package}"
        assert not os.environ.get("CI"), why
        pytest.skip(why)
    return found


@contextmanager
def serving(command: list[str], port: int, folder: Path) -> Iterator[Path]:
    """An example that serves until Ctrl-C, and what it has written. Ctrl-C ends it, without a traceback."""
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=ROOT)
    try:
        wait_until(lambda: is_listening(f"127.0.0.1:{port}") or process.poll() is not None, "the example listens")
        assert process.poll() is None, log.read_text()
        yield log
        process.send_signal(signal.SIGINT)
        process.wait(WAIT_S)
        assert process.returncode in (0, 128 + signal.SIGINT, -signal.SIGINT), log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()


@contextmanager
def started(command: list[str], folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path, Path]]:
    """A process, and the files of its standard output and standard error."""
    out_file, err_file = folder / "out", folder / "err"
    with out_file.open("wb") as out, err_file.open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, cwd=folder)
    try:
        yield process, out_file, err_file
    finally:
        process.kill()
        process.wait()
