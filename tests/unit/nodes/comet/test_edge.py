"""Who may come: what a token handler of one's own says is checked, for nobody could read it later."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import msgspec
import pytest

from tests.harness import Client, wait_until
from zim.fabric.grants import Grant
from zim.net.handshakes import Handshakes
from zim.nodes.comet.connection import ClientLimits
from zim.nodes.comet.edge import Edge
from zim.nodes.comet.effects import Told
from zim.nodes.comet.hub import Hub
from zim.nodes.comet.runner import CometRunner
from zim.nodes.comet.tcp import TcpListener
from zim.nodes.effects import Effect, Send
from zim.nodes.placement import Placement
from zim.protocol.frame import Op
from zim.protocol.logins import Auth, Authed

Connect = Callable[[Authed], Client]


@pytest.fixture
def connect() -> Iterator[tuple[Connect, Hub]]:
    """Connects somebody of whom the logic says this, and says auth; and the comet's hub."""
    identity: list[Authed] = []
    runner = CometRunner("comet-1", 1, Placement("comet-1", ["router-1"], ["router-1"]), ["logic-1"], 1 << 20, 5.0)
    hub = runner.hub

    def perform(effects: Iterable[Effect]) -> None:
        """The logic answers at once; nothing else is done."""
        for effect in effects:
            if isinstance(effect, Send):
                assert isinstance(effect.message, Auth)
                answer = msgspec.structs.replace(identity[-1], req=effect.message.req)
                (identified,) = runner.on_told([answer], time.monotonic())
                assert isinstance(identified, Told)
                identified.ticket.set(identified.answer)

    edge = Edge(runner, perform, ClientLimits(4096, 5.0, 60.0, 1 << 20, False), 10)
    listener = TcpListener(("127.0.0.1", 0), edge, 60, Handshakes(5.0))
    listener.start()

    def connect(authed: Authed) -> Client:
        identity.append(authed)
        client = Client(f"127.0.0.1:{listener.address[1]}", None)
        client.say(Op.AUTH, b"token")
        return client

    yield connect, hub
    listener.stop()
    edge.close()


@pytest.mark.parametrize(
    "authed",
    [Authed(1, Grant("x" * 300)), Authed(1, Grant("")), Authed(1, Grant("7", ("a\0",)))],
    ids=["long", "empty", "room"],
)
def test_a_name_that_no_stream_can_have_is_nobody(authed: Authed, connect: tuple[Connect, Hub]) -> None:
    come, hub = connect
    stranger = come(authed)
    wait_until(lambda: stranger.is_closed, "the comet closes")
    assert hub.sessions == {}
    come(Authed(1, Grant("7", ("a",))))
    wait_until(lambda: hub.sessions, "who is right comes in")
