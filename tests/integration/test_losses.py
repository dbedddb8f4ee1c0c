"""What retention has let go while a listener was away is told in numbers."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.harness import running, wait_until
from zim.client import Listener, Message, NotRecovered


def test_a_listener_and_zim_listen_say_which_messages_are_gone(tmp_path: Path) -> None:
    out_file, err_file = tmp_path / "out", tmp_path / "err"
    with running(more="[retention]\nusers = { count = 3 }") as fabric:
        tcp = fabric.tcp["comet-1"]
        fabric.post("/1/push?uid=7", b"first")
        with Listener(tcp, 7) as listener:
            assert isinstance(next(iter(listener)), Message)
            kept = listener.resume
        command = [sys.executable, "-m", "zim", "listen", "--uid", "7", "--tcp", tcp, "--count", "4", "--verbose"]
        with out_file.open("wb") as out, err_file.open("wb") as err:
            process = subprocess.Popen(command, stdout=out, stderr=err)
        try:
            wait_until(lambda: out_file.read_text() == "u:7 1 first\n", "the first message")
            process.send_signal(signal.SIGSTOP)
            pid = fabric.kill("comet-1")
            wait_until(lambda: fabric.pid("comet-1") not in (0, pid), "another comet-1")
            for number in range(2, 11):
                fabric.post("/1/push?uid=7", b"%d" % number)
            wait_until(lambda: fabric.get("/api/streams/u:7?after=0")["first"] == 8, "three are kept")
            process.send_signal(signal.SIGCONT)
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
        assert out_file.read_text() == "u:7 1 first\nu:7 8 8\nu:7 9 9\nu:7 10 10\n"
        assert "could not recover u:7: messages 2 to 7 are gone; it goes on after 7\n" in err_file.read_text()
        with Listener(tcp, 7, resume=kept) as listener:
            events = iter(listener)
            assert next(events) == NotRecovered("u:7", kept["u:7"], (kept["u:7"][0], 7))
            message = next(events)
            assert isinstance(message, Message)
            assert message.offset == 8
