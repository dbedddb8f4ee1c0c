"""Who reads what a fabric writes, and who does not: neither may hold it up or end it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Client, Fabric, is_listening, wait_until

LOGINS = 1_500


@pytest.fixture
def fabric(tmp_path: Path) -> Iterator[Fabric]:
    found = Fabric(tmp_path)
    yield found
    if found.process is not None:  # its nodes end with it
        found.process.kill()
        found.process.wait()


def started(fabric: Fabric, *options: str, **streams: int) -> subprocess.Popen[bytes]:
    """`zim up`, once it answers."""
    command = [sys.executable, "-m", "zim", "up", *options, str(fabric.file)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **streams)  # type: ignore[call-overload]
    fabric.process = process

    def answers() -> bool:
        try:
            Client(fabric.tcp["comet-1"], "1").close()
            return fabric.get("/healthz") is not None
        except OSError:
            return False

    wait_until(answers, "the fabric answers")
    return process  # type: ignore[no-any-return]


def test_a_log_that_nobody_reads_holds_up_nobody(fabric: Fabric) -> None:
    reading, writing = os.pipe()
    process = started(fabric, "-v", stdout=subprocess.DEVNULL, stderr=writing)
    for n in range(LOGINS):  # each is a line or two, and more than a pipe holds
        Client(fabric.tcp["comet-1"], f"{n}").close()
    late = Client(fabric.tcp["comet-1"], "7")
    fabric.post("/1/push?uid=7", b"hello")
    late.wait(1)
    assert late.packets[0].body == b"hello"
    late.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    os.close(writing)
    os.close(reading)


def test_a_fabric_with_a_name_that_the_terminal_cannot_show(fabric: Fabric) -> None:
    fabric.file.write_text(fabric.file.read_text().replace('name = "test"', 'name = "Büro"'))
    reading, writing = os.pipe()
    os.environ["PYTHONIOENCODING"] = "ascii"
    try:
        process = started(fabric, stdout=writing, stderr=subprocess.DEVNULL)
    finally:
        del os.environ["PYTHONIOENCODING"]
    assert os.read(reading, 1 << 16).startswith(b"B?ro is up\n")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    os.close(writing)
    os.close(reading)


def test_a_fabric_without_an_output(fabric: Fabric, tmp_path: Path) -> None:
    script = f'exec "{sys.executable}" -m zim up "{fabric.file}" >&- 2>"{tmp_path / "err"}"'
    (tmp_path / "err").touch()
    process = fabric.process = subprocess.Popen(["sh", "-c", script], stdin=subprocess.DEVNULL)
    wait_until(lambda: "directory whole" in (tmp_path / "err").read_text(), "the router is up")
    wait_until(lambda: is_listening(fabric.http["logic-1"]), "the logic is up")
    fabric.post("/1/push?uid=7", b"hello")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert "Traceback" not in (tmp_path / "err").read_text()
