"""Messages over a real link: who is away, who comes back, and what is too large."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from tests.harness import free_ports, wait_until
from zim.fabric.grants import Grant
from zim.net import transport
from zim.net.links import PeerLink
from zim.net.transport import Dealer, Server
from zim.protocol import codec
from zim.protocol.logins import Auth, Authed
from zim.protocol.message import Message


class Peer:
    """Answers every Auth, while it is there."""

    def __init__(self, endpoint: str) -> None:
        self._server = Server(endpoint)
        self._greenlet = gevent.spawn(self._server.receive, self._answer)

    def _answer(self, envelope: tuple[bytes, ...], data: bytes, _: str) -> None:
        for m in codec.decode(data, Auth):
            self._server.send(envelope, codec.encode([Authed(m.req, Grant("7"))]))

    def close(self) -> None:
        self._server.close()
        self._greenlet.join()


class Asker:
    """One end of a link, and what it is told."""

    def __init__(self, endpoint: str, limit_bytes: int = 1 << 20) -> None:
        self.lost: list[int] = []
        self.changes: list[bool] = []
        self.answers: list[Any] = []
        self._req = 0
        self.link: PeerLink[Message] = PeerLink(
            "logic-1", Dealer(endpoint), limit_bytes, self._on_lost, lambda peer, there: self.changes.append(there)
        )
        self.greenlets: list[gevent.Greenlet[..., Any]] = []
        self.link.spawn(lambda run: self.greenlets.append(gevent.spawn(run)))
        self.greenlets.append(gevent.spawn(self.link.receive, self._take))

    def _on_lost(self, peer: str, messages: list[Message]) -> None:
        assert peer == "logic-1"
        self.lost += [m.req for m in messages]  # type: ignore[attr-defined]

    def _take(self, frame: bytes) -> None:
        self.answers += codec.decode(frame, Authed)

    def ask(self, token: bytes = b"7") -> int:
        self._req += 1
        self.link.put(Auth(self._req, token, 1), 64 + len(token))
        return self._req


@pytest.fixture
def endpoint() -> str:
    return f"tcp://127.0.0.1:{free_ports(1)[0]}"


@pytest.fixture
def asker(endpoint: str) -> Iterator[Asker]:
    found = Asker(endpoint)
    yield found
    found.link.close()
    gevent.killall(found.greenlets)


def test_what_never_left_is_said_at_once_and_logged_once_for_each_absence(
    endpoint: str, asker: Asker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "zim.net.links")
    for absence in (1, 2):
        wait_until(lambda: not asker.link.is_connected, "nobody is there")
        asked = [asker.ask() for _ in range(3)]
        wait_until(lambda: asker.lost[-3:] == asked, "all of it is lost")  # noqa: B023
        assert [r.message for r in caplog.records].count("messages dropped") == absence
        peer = Peer(endpoint)
        wait_until(lambda: asker.link.is_connected, "the peer is there")
        last = asker.ask()
        wait_until(lambda: asker.answers[-1:] == [Authed(last, Grant("7"))], "it answers")  # noqa: B023
        peer.close()
    assert asker.link.dropped == 6
    wait_until(lambda: asker.changes == [True, False, True, False], "each change is told")


def test_a_frame_that_is_too_large_is_not_read_and_the_next_ones_are(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, asker: Asker
) -> None:
    monkeypatch.setattr(transport, "MAX_MESSAGE_BYTES", 10_000)  # of the peer's socket; the asker has its own
    peer = Peer(endpoint)
    wait_until(lambda: asker.link.is_connected, "the peer is there")
    asker.ask(b"x" * 20_000)
    wait_until(lambda: False in asker.changes, "the connection broke")
    wait_until(lambda: asker.link.is_connected, "the peer is there again")
    last = asker.ask()
    wait_until(lambda: asker.answers == [Authed(last, Grant("7"))], "it answers")
    peer.close()


def test_a_full_queue_loses_the_newest_and_says_so(endpoint: str) -> None:
    asker = Asker(endpoint, limit_bytes=200)
    asked = [asker.ask() for _ in range(4)]  # 65 bytes each, and nobody sends before this greenlet waits
    assert asker.lost == asked[3:]
    asker.link.close()
    gevent.killall(asker.greenlets)
