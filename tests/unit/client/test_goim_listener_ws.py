"""GoimListener over WebSocket, against the websockets package's server."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable
from itertools import islice

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from tests.unit.client.listening import States, listen_goim, pushed, run_plain, running, wait_ws_closed, ws_log_in
from tests.unit.client.peers import WAIT_S, Connection, TcpPeer, ws_peer


@pytest.mark.parametrize(("token", "sent"), [("7", 7), ("007", "007"), ("+7", "+7"), ('a"b', 'a"b'), ("-1", -1)])
def test_ws_token_as_goims_clients_send_it(token: str, sent: object) -> None:
    tokens: list[object] = []

    def script(connection: ServerConnection) -> None:
        tokens.append(ws_log_in(connection))
        connection.send('[{"ver":0,"op":5,"seq":0,"body":1}]')
        wait_ws_closed(connection)

    with ws_peer(script) as address:
        assert list(islice(listen_goim(f"ws://{address}", States(), token), 1)) == [pushed(5, b"1")]
    assert tokens == [sent]


def test_ws_messages_gathered_fragmented_and_between_pings() -> None:
    def script(connection: ServerConnection) -> None:
        ws_log_in(connection)
        pong = connection.ping()
        connection.send('[{"ver":0,"op":5,"seq":0,"body":{"a" : 1}},{"ver":0,"op":5,"seq":0,"body":"t"}]')
        connection.send(['[{"ver":0,"op":5,', '"seq":0,"body":', "[2]}]"])
        assert pong.wait(WAIT_S)
        connection.send('[{"ver":0,"op":5,"seq":0,"body":"%s"}]' % ("x" * 70_000))
        wait_ws_closed(connection)

    with ws_peer(script) as address:
        bodies = [message.body for message in islice(listen_goim(f"ws://{address}", States()), 4)]
    assert bodies[:3] == [b'{"a" : 1}', b'"t"', b"[2]"]
    assert len(bodies[3]) == 70_002


def test_ws_heartbeats_are_packets() -> None:
    def script(connection: ServerConnection) -> None:
        ws_log_in(connection)
        for _ in range(2):
            heartbeat = json.loads(connection.recv(timeout=WAIT_S))
            assert heartbeat["op"] == 2
            connection.send(json.dumps([{**heartbeat, "op": 3, "body": {}}]))
        connection.send('[{"ver":0,"op":5,"seq":0,"body":2}]')
        wait_ws_closed(connection)

    with ws_peer(script) as address:
        assert list(islice(listen_goim(f"ws://{address}", States(), heartbeat_s=0.02), 1)) == [pushed(5, b"2")]


def ws_close(connection: ServerConnection) -> None:
    connection.close(1013, "try again")


def ws_binary(connection: ServerConnection) -> None:
    connection.send(b"\x00\x01")
    wait_ws_closed(connection)


def ws_no_json(connection: ServerConnection) -> None:
    connection.send("nonsense")
    wait_ws_closed(connection)


@pytest.mark.parametrize(
    ("act", "reason"), [(ws_close, "1013: try again"), (ws_binary, "binary frame"), (ws_no_json, "broke the wire")]
)
def test_ws_comes_back_after_a_loss(act: Callable[[ServerConnection], None], reason: str) -> None:
    states, count = States(), iter(range(100))

    def script(connection: ServerConnection) -> None:
        number = next(count)
        ws_log_in(connection)
        connection.send(f'[{{"ver":0,"op":5,"seq":0,"body":{number}}}]')
        if number < 2:
            act(connection)
        wait_ws_closed(connection)

    with ws_peer(script) as address:
        assert [message.body for message in islice(listen_goim(f"ws://{address}", states), 3)] == [b"0", b"1", b"2"]
    assert [reason in state.reason for state in states.all if state.name == "disconnected"] == [True, True]


def test_ws_close_says_goodbye_with_a_close_frame() -> None:
    states, codes = States(), queue.Queue[int]()

    def script(connection: ServerConnection) -> None:
        ws_log_in(connection)
        with pytest.raises(ConnectionClosed) as caught:
            connection.recv(timeout=WAIT_S)
        assert caught.value.rcvd is not None
        codes.put(caught.value.rcvd.code)

    with ws_peer(script) as address, running(listen_goim(f"ws://{address}", states)):
        states.wait_for("connected")
    assert codes.get(timeout=WAIT_S) == 1000


def test_ws_on_a_port_that_is_something_else() -> None:
    states = States()

    def script(peer: Connection) -> None:
        peer.socket.recv(1000)
        peer.socket.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    with TcpPeer(script) as peer, running(listen_goim(f"ws://{peer.address}", states)):
        assert states.wait_for("refused").reason == "HTTP 404 Not Found for /sub instead of a WebSocket"


def test_plain_threads_over_ws() -> None:
    def script(connection: ServerConnection) -> None:
        ws_log_in(connection)
        connection.send('[{"ver":0,"op":5,"seq":0,"body":1}]')
        wait_ws_closed(connection)

    with ws_peer(script) as address:
        run_plain(f"ws://{address}", "goim")
