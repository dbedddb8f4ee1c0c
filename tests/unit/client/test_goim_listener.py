"""GoimListener over TCP, against a peer that speaks goim's packets."""

from __future__ import annotations

import socket
import threading
from itertools import islice

import pytest

from tests.unit.client.listening import QUICK, States, listen_goim, pushed, run_plain, running
from tests.unit.client.peers import WAIT_S, Connection, TcpPeer, packet
from zim.client import Backoff, GoimListener, State


def test_messages_come_in_order_with_op_and_bytes() -> None:
    bodies = [b"%d" % number for number in range(500)] + [b"", b"\xff\x00", b"x" * 100_000]
    states, tokens = States(), []

    def script(peer: Connection) -> None:
        tokens.append(peer.log_in())
        peer.socket.sendall(b"".join(packet(5, body) for body in bodies) + packet(1000, b"other op"))
        peer.wait_closed()

    with TcpPeer(script) as peer:
        listener = listen_goim(peer.address, states)
        found = list(islice(listener, len(bodies) + 1))
    assert found == [pushed(5, body) for body in bodies] + [pushed(1000, b"other op")]
    assert tokens == [b"7"]
    assert states.all == [State("connecting", peer.address), State("connected", peer.address)]


def test_a_message_in_the_same_segment_as_the_login_reply() -> None:
    def script(peer: Connection) -> None:
        _, _, seq = peer.receive()
        peer.socket.sendall(packet(8, b"", seq, 1) + packet(5, b"at once"))
        peer.wait_closed()

    with TcpPeer(script) as peer:
        assert list(islice(listen_goim(peer.address, States()), 1)) == [pushed(5, b"at once")]


def test_packets_in_pieces() -> None:
    def script(peer: Connection) -> None:
        peer.log_in()
        for byte in packet(5, b"slowly"):
            peer.socket.sendall(bytes([byte]))
        peer.wait_closed()

    with TcpPeer(script) as peer:
        assert list(islice(listen_goim(peer.address, States()), 1)) == [pushed(5, b"slowly")]


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
        assert [message.body for message in islice(listen_goim(peer.address, states), 4)] == [b"0", b"1", b"2", b"3"]
    assert states.names == ["connecting", "connected", "disconnected"] * 3 + ["connecting", "connected"]
    lost = [state for state in states.all if state.name == "disconnected"]
    assert all(reason in state.reason for state in lost)
    assert all(QUICK[0] <= state.retry_s <= QUICK[1] for state in lost)


def test_delays_grow_while_nothing_listens_and_close_ends_the_wait() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    states = States()
    listener = GoimListener(address, "7", backoff=Backoff(0.001, 60.0), on_state=states)
    with running(listener) as found:
        delays = [states.wait_for("unreachable").retry_s for _ in range(7)]
        listener.close()
        assert found.get(timeout=WAIT_S) is None
    assert all(0.001 * 2**number <= delay <= 0.002 * 2**number for number, delay in enumerate(delays))
    assert f"nothing listens on {address}" in states.all[1].reason


def test_a_server_that_lets_in_and_throws_out_is_not_hammered() -> None:
    states = States()
    with (
        TcpPeer(Connection.log_in) as peer,
        running(GoimListener(peer.address, "7", backoff=Backoff(0.001, 60.0), on_state=states)),
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

    with TcpPeer(script) as peer, running(listen_goim(peer.address, states)):
        assert reason in states.wait_for("refused").reason
        states.wait_for("refused")
    assert "connected" not in states.names


def test_a_server_that_does_not_answer_the_login() -> None:
    states = States()
    with TcpPeer(Connection.wait_closed) as peer, running(listen_goim(peer.address, states, timeout_s=0.05)):
        assert "no answer to the login in 0.05 s" in states.wait_for("disconnected").reason


def test_something_else_than_the_logins_reply() -> None:
    states = States()

    def script(peer: Connection) -> None:
        peer.receive()
        peer.send(5, b"too early")
        peer.wait_closed()

    with TcpPeer(script) as peer, running(listen_goim(peer.address, states)):
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
        assert list(islice(listen_goim(peer.address, States(), heartbeat_s=0.02), 1)) == [pushed(5, b"after three")]


def test_a_server_that_is_silent_is_left() -> None:
    states = States()

    def script(peer: Connection) -> None:
        peer.log_in()
        peer.wait_closed()

    with TcpPeer(script) as peer, running(listen_goim(peer.address, states, heartbeat_s=0.02, timeout_s=0.1)):
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

    with TcpPeer(script) as peer, listen_goim(peer.address, states, heartbeat_s=0.05, timeout_s=0.05) as listener:
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

    with TcpPeer(script) as peer, running(listen_goim(peer.address, states, max_packet_bytes=500)):
        assert "packet too large" in states.wait_for("disconnected").reason


@pytest.mark.parametrize("when", ["in the login", "connected"])
def test_close_from_another_thread_ends_the_iteration(when: str) -> None:
    states, is_there = States(), threading.Event()

    def script(peer: Connection) -> None:
        if when == "connected":
            peer.log_in()
        is_there.set()
        peer.wait_closed()

    with TcpPeer(script) as peer, running(listen_goim(peer.address, states)) as found:
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

    with TcpPeer(script) as peer, listen_goim(peer.address, States()) as listener:
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
        for _ in listen_goim(peer.address, States()):
            break


def test_plain_threads_over_tcp() -> None:
    def script(peer: Connection) -> None:
        peer.log_in()
        peer.send(5, b"1")
        peer.wait_closed()

    with TcpPeer(script) as peer:
        run_plain(peer.address, "goim")
