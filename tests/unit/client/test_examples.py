"""The examples of the docs, run against peers."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from tests.unit.client.comet import Fabric, tcp_comet
from tests.unit.client.http_peer import Answer, serving
from tests.unit.client.logic_peer import logic
from tests.unit.client.test_publisher import accept

PAGE = Path(__file__).parents[3] / "docs" / "client-protocol.md"


def example(name: str) -> str:
    """The example of the docs that imports a class."""
    section = PAGE.read_text().partition("## Python client")[2]
    found: list[str] = [
        block for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL) if re.search(rf"with {name}\(", block)
    ]
    (text,) = found
    return text


def test_listener(capsys: pytest.CaptureFixture[str]) -> None:
    fabric = Fabric()
    fabric.push("u:7", b"1", b"2")
    fabric.forbidden = {"1"}

    def push_to_lobby() -> bool:
        if fabric.connections:
            fabric.push("r:lobby", b"3", b"4")
        return bool(fabric.connections)

    with tcp_comet(fabric) as address:
        pusher = threading.Thread(target=fabric.wait_for, args=(push_to_lobby,))
        pusher.start()
        exec(example("Listener").replace("127.0.0.1:8080", address), {})
        pusher.join()
    assert capsys.readouterr().out == "r:1 not allowed\nu:7 1 b'1'\nu:7 2 b'2'\nr:lobby 1 b'3'\nr:lobby 2 b'4'\n"
    assert fabric.cursors == {"u:7": 2}


def test_publisher(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Answer(200, accept), Answer(200, accept)) as server:
        exec(example("Publisher").replace("127.0.0.1:7172", server.address), {})
    assert capsys.readouterr().out.endswith(" {} None\n")
    assert [path for path, _ in server.requests] == ["/api/push", "/api/push/batch"]


def test_zmq_publisher(capsys: pytest.CaptureFixture[str]) -> None:
    with logic() as peer:
        exec(example("ZmqPublisher").replace("tcp://127.0.0.1:7176", peer.endpoint), {})
    assert capsys.readouterr().out.endswith(" 0\n")
    assert len(peer.submits) == 10_000
