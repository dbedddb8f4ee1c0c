"""Listener against real sockets: a peer that speaks goim's packets, and the websockets package's server."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Literal

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from tests.unit.client.peers import WAIT_S, Connection, TcpPeer, packet, ws_peer
from zim.client import Backoff, Listener, Message, State

QUICK = (0.001, 0.01)


class States:
    """Records states; one may wait for the next."""

    def __init__(self) -> None:
        self.all: list[State] = []
        self._queue: queue.Queue[State] = queue.Queue()

    def __call__(self, state: State) -> None:
        self.all.append(state)
        self._queue.put(state)

    @property
    def names(self) -> list[str]:
        return [state.name for state in self.all]

    def wait_for(self, name: str) -> State:
        """The next state of that name."""
        while True:
            state = self._queue.get(timeout=WAIT_S)
            if state.name == name:
                return state


def listen(
    address: str, states: States, token: str = "7", transport: Literal["tcp", "ws"] = "tcp", **options: float
) -> Listener:
    """A listener that comes back quickly."""
    return Listener(address, token, transport, backoff=Backoff(*QUICK), on_state=states, **options)  # type: ignore[arg-type]


@contextlib.contextmanager
def running(listener: Listener) -> Iterator[queue.Queue[Message | None]]:
    """Iterates in a thread; the queue gets the messages, and None at the end."""
    found: queue.Queue[Message | None] = queue.Queue()

    def run() -> None:
        for message in listener:
            found.put(message)
        found.put(None)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield found
    finally:
        listener.close()
        thread.join(WAIT_S)
    assert not thread.is_alive()


def ws_log_in(connection: ServerConnection) -> object:
    """Answers the login; gives the token."""
    auth = json.loads(connection.recv(timeout=WAIT_S))
    assert auth["op"] == 7
    connection.send(json.dumps([{"ver": 1, "op": 8, "seq": auth["seq"], "body": {}}]))
    return auth["body"]


def wait_ws_closed(connection: ServerConnection) -> None:
    """Until the client closes."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            connection.recv(timeout=WAIT_S)


def test_messages_come_in_order_with_op_and_bytes() -> None:
    bodies = [b"%d" % number for number in range(500)] + [b"", b"\xff\x00", b"x" * 100_000]
    states, tokens = States(), []

    def script(peer: Connection) -> None:
        tokens.append(peer.log_in())
        peer.socket.sendall(b"".join(packet(5, body) for body in bodies) + packet(1000, b"other op"))
        peer.wait_closed()

    with TcpPeer(script) as peer:
        listener = listen(peer.address, states)
        found = list(islice(listener, len(bodies) + 1))
    assert found == [Message(5, body) for body in bodies] + [Message(1000, b"other op")]
    assert tokens == [b"7"]
    assert states.all == [State("connecting", peer.address), State("connected", peer.address)]


def test_a_message_in_the_same_segment_as_the_login_reply() -> None:
    def script(peer: Connection) -> None:
        _, _, seq = peer.receive()
        peer.socket.sendall(packet(8, b"", seq, 1) + packet(5, b"at once"))
        peer.wait_closed()

    with TcpPeer(script) as peer:
        assert list(islice(listen(peer.address, States()), 1)) == [Message(5, b"at once")]


def test_packets_in_pieces() -> None:
    def script(peer: Connection) -> None:
        peer.log_in()
        for byte in packet(5, b"slowly"):
            peer.socket.sendall(bytes([byte]))
        peer.wait_closed()

    with TcpPeer(script) as peer:
        assert list(islice(listen(peer.address, States()), 1)) == [Message(5, b"slowly")]


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (b"", "closed by the server"),
        (packet(6, b"too slow"), "disconnected by the server: too slow"),
        (b"\xff" * 16, "the server broke the wire"),
        (packet(5, b"cut")[:-1], "closed by the server"),
    ],
)
def test_after_a_loss_it_says_why_and_comes_back(last: bytes, reason: str) -> None:
    states = States()

    def script(peer: Connection) -> None:
        peer.log_in()
        peer.send(5, b"%d" % peer.number)
        if peer.number < 3:
            peer.socket.sendall(last)
        else:
            peer.wait_closed()

    with TcpPeer(script) as peer:
        assert [message.body for message in islice(listen(peer.address, states), 4)] == [b"0", b"1", b"2", b"3"]
    assert states.names == ["connecting", "connected", "disconnected"] * 3 + ["connecting", "connected"]
    lost = [state for state in states.all if state.name == "disconnected"]
    assert all(reason in state.reason for state in lost)
    assert all(QUICK[0] <= state.retry_s <= QUICK[1] for state in lost)


def test_delays_grow_while_nothing_listens_and_close_ends_the_wait() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    states = States()
    listener = Listener(address, "7", backoff=Backoff(0.001, 60.0), on_state=states)
    with running(listener) as found:
        delays = [states.wait_for("disconnected").retry_s for _ in range(7)]
        listener.close()
        assert found.get(timeout=WAIT_S) is None
    assert all(0.001 * 2**number <= delay <= 0.002 * 2**number for number, delay in enumerate(delays))
    assert f"nothing listens on {address}" in states.all[1].reason


def test_a_server_that_lets_in_and_throws_out_is_not_hammered() -> None:
    states = States()
    with (
        TcpPeer(Connection.log_in) as peer,
        running(Listener(peer.address, "7", backoff=Backoff(0.001, 60.0), on_state=states)),
    ):
        delays = [states.wait_for("disconnected").retry_s for _ in range(6)]
    assert delays == sorted(delays)
    assert delays[-1] >= 0.032


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(b"", "closed by the server"), (packet(6, b"who are you"), "the server says: who are you")],
)
def test_a_login_that_is_refused(answer: bytes, reason: str) -> None:
    states = States()

    def script(peer: Connection) -> None:
        peer.receive()
        peer.socket.sendall(answer)

    with TcpPeer(script) as peer, running(listen(peer.address, states)):
        assert reason in states.wait_for("refused").reason
        states.wait_for("refused")
    assert "connected" not in states.names


def test_a_server_that_does_not_answer_the_login() -> None:
    states = States()
    with TcpPeer(Connection.wait_closed) as peer, running(listen(peer.address, states, timeout_s=0.05)):
        assert "no answer to the login in 0.05 s" in states.wait_for("disconnected").reason


def test_something_else_than_the_logins_reply() -> None:
    states = States()

    def script(peer: Connection) -> None:
        peer.receive()
        peer.send(5, b"too early")
        peer.wait_closed()

    with TcpPeer(script) as peer, running(listen(peer.address, states)):
        assert "broke the wire: op 5" in states.wait_for("disconnected").reason


def test_heartbeats_and_their_replies_are_no_messages() -> None:
    def script(peer: Connection) -> None:
        peer.log_in()
        for _ in range(3):
            op, body, seq = peer.receive()
            assert (op, body) == (2, b"")
            peer.send(3, b"", seq, 1)
        peer.send(5, b"after three")
        peer.wait_closed()

    with TcpPeer(script) as peer:
        assert list(islice(listen(peer.address, States(), heartbeat_s=0.02), 1)) == [Message(5, b"after three")]


def test_a_server_that_is_silent_is_left() -> None:
    states = States()

    def script(peer: Connection) -> None:
        peer.log_in()
        peer.wait_closed()

    with TcpPeer(script) as peer, running(listen(peer.address, states, heartbeat_s=0.02, timeout_s=0.1)):
        assert "no reply to a heartbeat in 0.1 s" in states.wait_for("disconnected").reason
        states.wait_for("connected")


def test_an_application_that_was_busy_keeps_its_connection() -> None:
    """The reply to the heartbeat has long been there when it comes back to read."""
    states, read, answered = States(), threading.Event(), threading.Event()

    def script(peer: Connection) -> None:
        peer.log_in()
        peer.send(5, b"first")
        op, _, seq = peer.receive()
        assert op == 2
        peer.socket.sendall(packet(5, b"second") + packet(3, b"", seq, 1))
        read.wait(WAIT_S)
        peer.send(5, b"third")
        answered.set()
        peer.wait_closed()

    with TcpPeer(script) as peer, listen(peer.address, states, heartbeat_s=0.05, timeout_s=0.05) as listener:
        messages = iter(listener)
        assert [next(messages).body, next(messages).body] == [b"first", b"second"]
        read.set()
        answered.wait(WAIT_S)
        threading.Event().wait(0.12)  # longer than both limits; what is tested is a pause
        assert next(messages).body == b"third"
    assert "disconnected" not in states.names


def test_a_packet_above_the_limit() -> None:
    states = States()

    def script(peer: Connection) -> None:
        peer.log_in()
        peer.send(5, b"x" * 1000)
        peer.wait_closed()

    with TcpPeer(script) as peer, running(listen(peer.address, states, max_packet_bytes=500)):
        assert "1016 bytes, more than 500" in states.wait_for("disconnected").reason


@pytest.mark.parametrize("when", ["in the login", "connected"])
def test_close_from_another_thread_ends_the_iteration(when: str) -> None:
    states, is_there = States(), threading.Event()

    def script(peer: Connection) -> None:
        if when == "connected":
            peer.log_in()
        is_there.set()
        peer.wait_closed()

    with TcpPeer(script) as peer, running(listen(peer.address, states)) as found:
        is_there.wait(WAIT_S)
        if when == "connected":
            states.wait_for("connected")
        listener_closed_at_exit = found.empty()
    assert listener_closed_at_exit
    assert found.get_nowait() is None
    assert "disconnected" not in states.names


def test_after_close_nothing_more_comes() -> None:
    def script(peer: Connection) -> None:
        peer.log_in()
        peer.socket.sendall(packet(5, b"1") + packet(5, b"2"))
        peer.wait_closed()

    with TcpPeer(script) as peer, listen(peer.address, States()) as listener:
        found = []
        for message in listener:
            found.append(message.body)
            listener.close()
        assert found == [b"1"]
        assert list(listener) == []


def test_leaving_the_loop_hangs_up() -> None:
    def script(peer: Connection) -> None:
        peer.log_in()
        peer.send(5, b"1")
        peer.wait_closed()

    with TcpPeer(script) as peer:
        for _ in listen(peer.address, States()):
            break


@pytest.mark.parametrize(("token", "sent"), [("7", 7), ("007", "007"), ("+7", "+7"), ('a"b', 'a"b'), ("-1", -1)])
def test_ws_token_as_goims_clients_send_it(token: str, sent: object) -> None:
    tokens: list[object] = []

    def script(connection: ServerConnection) -> None:
        tokens.append(ws_log_in(connection))
        connection.send('[{"ver":0,"op":5,"seq":0,"body":1}]')
        wait_ws_closed(connection)

    with ws_peer(script) as address:
        assert list(islice(listen(address, States(), token, "ws"), 1)) == [Message(5, b"1")]
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
        bodies = [message.body for message in islice(listen(address, States(), "7", "ws"), 4)]
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
        assert list(islice(listen(address, States(), "7", "ws", heartbeat_s=0.02), 1)) == [Message(5, b"2")]


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
        assert [message.body for message in islice(listen(address, states, "7", "ws"), 3)] == [b"0", b"1", b"2"]
    assert [reason in state.reason for state in states.all if state.name == "disconnected"] == [True, True]


def test_ws_close_says_goodbye_with_a_close_frame() -> None:
    states, codes = States(), queue.Queue[int]()

    def script(connection: ServerConnection) -> None:
        ws_log_in(connection)
        with pytest.raises(ConnectionClosed) as caught:
            connection.recv(timeout=WAIT_S)
        assert caught.value.rcvd is not None
        codes.put(caught.value.rcvd.code)

    with ws_peer(script) as address, running(listen(address, states, "7", "ws")):
        states.wait_for("connected")
    assert codes.get(timeout=WAIT_S) == 1000


def test_ws_on_a_port_that_is_something_else() -> None:
    states = States()

    def script(peer: Connection) -> None:
        peer.socket.recv(1000)
        peer.socket.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    with TcpPeer(script) as peer, running(listen(peer.address, states, "7", "ws")):
        assert states.wait_for("refused").reason == "HTTP 404 Not Found for /sub instead of a WebSocket"


PLAIN = """
import sys, threading
from zim.client import Listener
assert "gevent" not in sys.modules
listener = Listener(sys.argv[1], "7", sys.argv[2])
found = []
def run():
    for message in listener:
        found.append(message.body)
        got.set()
got = threading.Event()
thread = threading.Thread(target=run)
thread.start()
assert got.wait(20)
listener.close()
thread.join(20)
assert not thread.is_alive()
print(found)
"""


def run_plain(address: str, transport: str) -> None:
    """The same library in a process that nobody has monkey-patched."""
    done = subprocess.run([sys.executable, "-c", PLAIN, address, transport], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[b'1']\n", "")


def test_plain_threads_over_tcp() -> None:
    def script(peer: Connection) -> None:
        peer.log_in()
        peer.send(5, b"1")
        peer.wait_closed()

    with TcpPeer(script) as peer:
        run_plain(peer.address, "tcp")


def test_plain_threads_over_ws() -> None:
    def script(connection: ServerConnection) -> None:
        ws_log_in(connection)
        connection.send('[{"ver":0,"op":5,"seq":0,"body":1}]')
        wait_ws_closed(connection)

    with ws_peer(script) as address:
        run_plain(address, "ws")
