"""Requests over a real link: who is away, who comes back, and what is too large."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from tests.harness import free_ports, wait_until
from zim.errors import Unavailable
from zim.net import transport
from zim.net.links import Asker, NotSent
from zim.net.transport import Server
from zim.protocol import codec
from zim.protocol.messages import Acknowledge, Acknowledged


class Peer:
    """Answers every Acknowledge, while it is there."""

    def __init__(self, endpoint: str) -> None:
        self._server = Server(endpoint)
        self._greenlet = gevent.spawn(self._serve)

    def _serve(self) -> None:
        for envelope, data in self._server.received():
            for m in codec.decode(data, Acknowledge):
                self._server.send(envelope, codec.encode([Acknowledged(m.req, "router-1", 2)]))

    def close(self) -> None:
        self._server.close()
        self._greenlet.join()


@pytest.fixture
def endpoint() -> str:
    return f"tcp://127.0.0.1:{free_ports(1)[0]}"


@pytest.fixture
def asker(endpoint: str) -> Iterator[Asker[Acknowledged]]:
    asker: Asker[Acknowledged] = Asker("router-1", endpoint, Acknowledged)
    greenlets: list[Any] = []
    asker.spawn(lambda run: greenlets.append(gevent.spawn(run)))
    yield asker
    asker.close()
    gevent.killall(greenlets)


def ask(asker: Asker[Acknowledged], stream: str = "u:1") -> Acknowledged:
    return asker.ask(lambda req: Acknowledge(req, stream, 2), 5.0)


def test_what_never_left_is_said_at_once_and_logged_once_for_each_absence(
    endpoint: str, asker: Asker[Acknowledged], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "zim.net.links")
    for absence in (1, 2):
        wait_until(lambda: not asker.is_connected, "nobody is there")
        for _ in range(3):
            with pytest.raises(NotSent):
                ask(asker)
        assert [r.message for r in caplog.records].count("messages dropped") == absence
        peer = Peer(endpoint)
        wait_until(lambda: asker.is_connected, "the peer is there")
        assert ask(asker).offset == 2
        peer.close()
    assert asker.dropped == 6


def test_a_frame_that_is_too_large_is_not_read_and_the_next_ones_are(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, asker: Asker[Acknowledged]
) -> None:
    monkeypatch.setattr(transport, "MAX_MESSAGE_BYTES", 10_000)  # of the peer's socket; the asker has its own
    peer = Peer(endpoint)
    wait_until(lambda: asker.is_connected, "the peer is there")
    with pytest.raises(Unavailable, match="the connection broke"):
        ask(asker, "u:" + "x" * 20_000)
    wait_until(lambda: asker.is_connected, "the peer is there again")
    assert ask(asker).offset == 2
    peer.close()
