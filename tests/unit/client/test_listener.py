"""Listener against comets that speak version 3, over TCP and WebSocket."""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import islice

import pytest

from tests.unit.client.comet import COMETS, Fabric, Log, tcp_comet, ws_comet
from tests.unit.client.listening import States, listen, run_plain, running
from tests.unit.client.peers import WAIT_S, Connection, TcpPeer
from zim.client import AddressError, ClientError, Event, Gap, Listener, Message, NotJoined, NotRecovered

Serve = Callable[[Fabric], AbstractContextManager[str]]


@pytest.fixture(params=["tcp", "ws"])
def serve(request: pytest.FixtureRequest) -> Serve:
    """A comet of either kind."""
    return COMETS[request.param]


@pytest.fixture
def fabric() -> Fabric:
    """A fabric without a message."""
    return Fabric()


def message(stream: str, offset: int, body: bytes, epoch: str = "e1") -> Message:
    """A message as pushed by Fabric.push."""
    return Message(stream, offset, epoch, 5, body)


def take(found: queue.Queue[Event | None], count: int) -> list[Event | None]:
    """The next events."""
    return [found.get(timeout=WAIT_S) for _ in range(count)]


def test_messages_of_all_streams_with_their_place(fabric: Fabric, serve: Serve) -> None:
    fabric.push("u:7", b"1", b"2")
    fabric.push("r:1", b"0")
    states = States()
    with serve(fabric) as address, listen(address, states) as listener, running(listener) as found:
        assert take(found, 2) == [message("u:7", 1, b"1"), message("u:7", 2, b"2")]
        fabric.push("r:1", b"3")
        fabric.push("*", b"4")
        assert take(found, 2) == [message("r:1", 2, b"3"), message("*", 1, b"4")]
        assert listener.resume == {"u:7": ("e1", 2), "r:1": ("e1", 2), "*": ("e1", 1)}
        assert listener.key == "7_1"
    assert fabric.auths == [{"token": "7"}]
    assert states.names == ["connecting", "connected"]
    assert states.all[0].address == address


def test_what_came_while_the_connection_was_lost_comes_once_and_in_order(fabric: Fabric, serve: Serve) -> None:
    fabric.repeats = 3
    states = States()
    with serve(fabric) as address, running(listen(address, states, rooms=["1", "a"])) as found:
        states.wait_for("connected")
        for number in range(1, 41):
            fabric.push("r:a", b"%d" % number)
            if number % 10 == 0:
                fabric.cut()
                states.wait_for("connected")
        assert take(found, 40) == [message("r:a", number, b"%d" % number) for number in range(1, 41)]
        fabric.push("r:a", b"0")
        assert take(found, 1) == [message("r:a", 41, b"0")]
    assert len(fabric.auths) == 5
    assert all(auth["rooms"] == ["1", "a"] for auth in fabric.auths)
    assert fabric.auths[-1]["resume"]["r:a"][0] == "e1"


def test_the_next_comet_is_asked(fabric: Fabric) -> None:
    states = States()
    with tcp_comet(fabric) as one, ws_comet(fabric) as two, running(listen([one, two], states)) as found:
        addresses = []
        for number in range(1, 5):
            addresses.append(states.wait_for("connected").address)
            fabric.wait_for(lambda: fabric.connections)
            fabric.push("u:7", b"%d" % number)
            assert take(found, 1) == [message("u:7", number, b"%d" % number)]
            fabric.cut()
    assert addresses == [one, two, one, two]


def test_a_position_that_was_kept(fabric: Fabric, serve: Serve) -> None:
    fabric.push("u:7", b"1", b"2", b"3")
    with serve(fabric) as address:
        with listen(address) as listener:
            assert len(list(islice(listener, 2))) == 2
            kept = json.dumps(listener.resume)
        listener = listen(address, resume=json.loads(kept))
        assert list(islice(listener, 1)) == [message("u:7", 3, b"3")]
    assert fabric.auths[1]["resume"] == {"u:7": ["e1", 2], "r:1": ["e1", 0], "*": ["e1", 0]}


@pytest.mark.parametrize(
    "resume", [{"u:7": 5}, {"u:7": ["e", -1]}, {"u:7": ["e"]}, {"u:7": [1, 1]}, {"u:7": ["e", True]}]
)
def test_positions_that_cannot_be(resume: dict[str, list[object]]) -> None:
    with pytest.raises(ClientError, match="resume"):
        listen("127.0.0.1:1", resume=resume)


def test_what_cannot_be_recovered_is_said(fabric: Fabric, serve: Serve) -> None:
    fabric.push("r:1", b"1")
    resume = {"u:7": ("e1", 9), "r:1": ("e0", 1), "*": ("e1", 0)}
    with serve(fabric) as address, running(listen(address, resume=resume)) as found:
        assert take(found, 2) == [
            NotRecovered("u:7", ("e1", 9), ("e1", 0)),
            NotRecovered("r:1", ("e0", 1), ("e1", 1)),
        ]
        fabric.push("r:1", b"2")
        fabric.push("u:7", b"3")
        assert take(found, 2) == [message("r:1", 2, b"2"), message("u:7", 1, b"3")]


def test_a_history_that_is_lost_between_two_connections(fabric: Fabric) -> None:
    states = States()
    with tcp_comet(fabric) as address, running(listen(address, states)) as found:
        fabric.push("u:7", b"1", b"2")
        assert take(found, 2) == [message("u:7", 1, b"1"), message("u:7", 2, b"2")]
        with fabric.lock:
            fabric.logs["u:7"] = Log("e2")
            fabric.cut()
        assert take(found, 1) == [NotRecovered("u:7", ("e1", 2), ("e2", 0))]
        fabric.push("u:7", b"new")
        assert take(found, 1) == [message("u:7", 1, b"new", "e2")]


def test_gaps_are_told_in_their_place(fabric: Fabric, serve: Serve) -> None:
    with serve(fabric) as address, listen(address) as listener, running(listener) as found:
        fabric.wait_for(lambda: fabric.connections)
        fabric.push("r:1", b"1")
        assert take(found, 1) == [message("r:1", 1, b"1")]
        with fabric.lock:
            (client,) = fabric.connections
            about = {"stream": "r:1", "epoch": "e1", "from": 2, "to": 4, "reason": "shed"}
            client.say(26, 0, about)
            client.say(26, 0, about)
            client.say(26, 0, {"stream": "u:7", "epoch": "e2", "from": 1, "to": 0, "reason": "epoch"})
        assert take(found, 2) == [Gap("r:1", 2, 4, "shed", "e1"), Gap("u:7", 1, 0, "epoch", "e2")]
        assert listener.resume == {"u:7": ("e2", 0), "r:1": ("e1", 4), "*": ("e1", 0)}


def test_rooms_joined_and_left_while_running(fabric: Fabric, serve: Serve) -> None:
    fabric.push("r:b", b"1", b"2", b"3")
    with serve(fabric) as address, listen(address) as listener, running(listener) as found:
        listener.join("a", "b", resume={"r:b": ["e1", 1]})
        assert take(found, 2) == [message("r:b", 2, b"2"), message("r:b", 3, b"3")]
        listener.leave("b")
        listener.leave(1)
        fabric.wait_for(lambda: (22, {"rooms": ["1"]}) in fabric.requests or len(fabric.requests[-1][1]["rooms"]) == 2)
        fabric.push("r:b", b"4")
        fabric.push("r:1", b"5")
        fabric.push("r:a", b"6")
        assert take(found, 1) == [message("r:a", 1, b"6")]
        fabric.cut()
        fabric.wait_for(
            lambda: len(fabric.auths) == 2 and (20, {"rooms": ["a"], "resume": {"r:a": ["e1", 1]}}) in fabric.requests
        )
        fabric.push("r:1", b"7")
        fabric.push("r:b", b"8")
        fabric.push("r:a", b"9")
        assert take(found, 1) == [message("r:a", 2, b"9")]
        assert "r:b" not in listener.resume


def test_rooms_given_at_the_start_are_kept_up_to_date(fabric: Fabric) -> None:
    states = States()
    with tcp_comet(fabric) as address, listen(address, states, rooms=["a", "b"]) as listener, running(listener):
        fabric.wait_for(lambda: fabric.connections)
        listener.leave("a")
        listener.join("c")
        fabric.wait_for(lambda: len(fabric.requests) == 2)
        fabric.cut()
        fabric.wait_for(lambda: len(fabric.auths) == 2)
    assert fabric.auths[1]["rooms"] == ["b", "c"]


def test_rooms_that_cannot_be_joined_and_one_that_comes_later(fabric: Fabric, serve: Serve) -> None:
    fabric.forbidden, fabric.away = {"x"}, {"y"}
    with serve(fabric) as address, running(listen(address, rooms=["x", "y"])) as found:
        told = take(found, 2)
        assert told == [NotJoined("r:x", "not allowed"), NotJoined("r:y", "not joined, retrying")]
        fabric.wait_for(lambda: fabric.connections)
        (client,) = fabric.connections
        client.come_back("y")
        fabric.push("r:y", b"1")
        assert take(found, 1) == [message("r:y", 1, b"1")]


def test_auto_ack_acknowledges_what_the_application_is_through_with(fabric: Fabric, serve: Serve) -> None:
    fabric.push("u:7", *(b"%d" % number for number in range(1, 51)))
    with serve(fabric) as address:
        assert len(list(islice(listen(address, auto_ack=True), 30))) == 30
        fabric.wait_for(lambda: not fabric.connections)
        assert fabric.cursors == {"u:7": 29}
        assert list(islice(listen(address), 1)) == [message("u:7", 30, b"30")]
    assert 0 < len([op for op, _ in fabric.requests if op == 24]) <= 29


def test_an_ack_before_leaving_is_not_lost(fabric: Fabric, serve: Serve) -> None:
    fabric.push("u:7", b"1", b"2")
    with serve(fabric) as address, listen(address) as listener:
        for event in listener:
            assert isinstance(event, Message)
            listener.ack(event)
            break
        assert listener.acknowledged == 1
    assert fabric.cursors == {"u:7": 1}


def test_an_ack_and_close_in_the_middle_of_an_iteration(fabric: Fabric) -> None:
    fabric.push("u:7", b"1", b"2")
    with tcp_comet(fabric) as address:
        listener = listen(address)
        events = iter(listener)
        event = next(events)
        assert isinstance(event, Message)
        listener.ack(event)
        listener.close()
        assert fabric.cursors == {"u:7": 1}
        assert list(events) == []


def test_acks_of_others_count_for_nothing(fabric: Fabric) -> None:
    fabric.push("u:7", b"1")
    with tcp_comet(fabric) as address, listen(address) as listener, running(listener) as found:
        assert take(found, 1) == [message("u:7", 1, b"1")]
        listener.ack(message("r:1", 7, b""))
        listener.ack(message("u:7", 7, b"", "e0"))
        listener.ack(1)
        fabric.wait_for(lambda: fabric.cursors)
    assert fabric.cursors == {"u:7": 1}


def test_heartbeats_as_often_as_the_fabric_wants(fabric: Fabric) -> None:
    fabric.heartbeat_s = 0.2
    with tcp_comet(fabric) as address, running(listen(address)):
        fabric.wait_for(lambda: len([op for op, _ in fabric.requests if op == 2]) >= 3)
    assert len(fabric.auths) == 1


def test_close_from_another_thread_while_the_application_is_busy(fabric: Fabric, serve: Serve) -> None:
    fabric.push("u:7", b"1")
    is_there, may_go_on = threading.Event(), threading.Event()
    with serve(fabric) as address:
        listener = listen(address)

        def run() -> None:
            for _ in listener:
                is_there.set()
                assert may_go_on.wait(WAIT_S)

        thread = threading.Thread(target=run)
        thread.start()
        assert is_there.wait(WAIT_S)
        listener.close()
        fabric.wait_for(lambda: not fabric.connections)
        may_go_on.set()
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_close_while_it_connects_and_while_it_waits() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        states = States()
        with running(listen(address, states, timeout_s=1000.0)):
            states.wait_for("connecting")
    states = States()
    with running(listen(address, states)):
        assert "nothing listens" in states.wait_for("unreachable").reason


def test_a_host_that_has_no_address_is_said_shortly() -> None:
    states = States()
    with running(listen("nowhere.invalid:80", states)):
        reason = states.wait_for("unreachable").reason
    assert reason.startswith("cannot find nowhere.invalid: ")
    assert "[Errno" not in reason


@pytest.mark.parametrize(
    "address",
    [
        "x",
        "wss://",
        "wss://a:",
        "wss://a:1#x",
        "http://a:1",
        "ws://a",
        "ws://a:1#x",
        "ws://a:1/\r\nX: y",
        "ws://[a:1",
        "x" * 64 + ".org:1",
    ],
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(AddressError):
        listen(address)
    with pytest.raises(AddressError):
        listen(["127.0.0.1:1", address])


def test_no_address_at_all() -> None:
    with pytest.raises(AddressError, match="no address"):
        listen([])


def test_one_iteration_at_a_time(fabric: Fabric) -> None:
    fabric.push("u:7", b"1", b"2")
    with tcp_comet(fabric) as address, listen(address) as listener:
        events = iter(listener)
        next(events)
        with pytest.raises(ClientError, match="already"):
            next(iter(listener))
        assert next(events) == message("u:7", 2, b"2")


GOOD = {"key": "7_1", "heartbeat_s": 300, "streams": {"u:7": {"epoch": "e", "offset": 0, "recovered": True}}}
PUSH = b"\0\0\0\x1d\0\x1c\0\x03\0\0\0\5\0\0\0\0" + b"\0\0\0\0\0\0\0\1"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "not of version 3"),
        (b"{}", "not of version 3"),
        (b"[]", "where a JSON object should be"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (json.dumps({**GOOD, "heartbeat_s": 0}).encode(), "heartbeat_s"),
        (json.dumps({**GOOD, "heartbeat_s": True}).encode(), "heartbeat_s"),
        (json.dumps({**GOOD, "key": 7}).encode(), "key"),
        (json.dumps({**GOOD, "streams": []}).encode(), "where a JSON object should be"),
        (json.dumps({**GOOD, "streams": {"u:7": 5}}).encode(), "where a JSON object should be"),
        (json.dumps({**GOOD, "streams": {"u:7": {"epoch": 5, "offset": 1}}}).encode(), "epoch"),
        (json.dumps({**GOOD, "streams": {"u:7": {"epoch": "e", "offset": -1}}}).encode(), "offset"),
    ],
)
def test_a_login_that_is_answered_with_nonsense(answer: bytes, reason: str) -> None:
    states = States()

    def script(peer: Connection) -> None:
        _, _, seq = peer.receive()
        peer.send(8, answer, seq, 3)
        peer.wait_closed()

    with TcpPeer(script) as peer, running(listen(peer.address, states)):
        assert reason in states.wait_for("disconnected").reason
        states.wait_for("disconnected")


@pytest.mark.parametrize(
    ("op", "body", "reason"),
    [
        (21, b"nonsense", "not JSON"),
        (21, b'{"streams":[]}', "JSON object"),
        (23, b"{}", "leave"),
        (25, b'{"u:7":-1}', "offset"),
        (26, b"{}", "epoch"),
        (26, b'{"stream":"r:9","epoch":"e","from":1,"to":2,"reason":""}', "not joined"),
        (26, b'{"stream":"u:7","epoch":"e","from":1,"to":"2","reason":""}', "offset"),
        (6, b'{"reason":"drained"}', "disconnected by the server: drained"),
        (6, b"\xff", "disconnected by the server: \ufffd"),
        (6, b'{"reason":5}', 'disconnected by the server: {"reason":5}'),
    ],
)
def test_nonsense_after_the_login(op: int, body: bytes, reason: str) -> None:
    states = States()

    def script(peer: Connection) -> None:
        _, _, seq = peer.receive()
        peer.send(8, json.dumps(GOOD).encode(), seq, 3)
        peer.send(op, body, 0, 3)
        peer.wait_closed()

    with TcpPeer(script) as peer, running(listen(peer.address, states)):
        states.wait_for("connected")
        assert reason in states.wait_for("disconnected").reason
        states.wait_for("connected")


def test_a_message_of_a_stream_that_was_not_joined() -> None:
    states = States()

    def script(peer: Connection) -> None:
        _, _, seq = peer.receive()
        peer.send(8, json.dumps(GOOD).encode(), seq, 3)
        peer.socket.sendall(PUSH + b"r:zz" + b"x")
        peer.wait_closed()

    with TcpPeer(script) as peer, running(listen(peer.address, states)) as found:
        assert "'r:zz', which was not joined" in states.wait_for("disconnected").reason
        assert found.empty()


def test_in_a_process_that_nobody_has_patched(fabric: Fabric, serve: Serve) -> None:
    fabric.push("u:7", b"1")
    with serve(fabric) as address:
        run_plain(address, "zim")


def test_device_and_platform_are_told(fabric: Fabric) -> None:
    fabric.push("u:7", b"1")
    with tcp_comet(fabric) as address:
        next(iter(Listener(address, 7, device="phone", platform="x")))
    assert fabric.auths == [{"token": 7, "device": "phone", "platform": "x"}]


def test_a_token_that_fails_is_not_silent(fabric: Fabric, caplog: pytest.LogCaptureFixture) -> None:
    """Once, and again after a connection."""
    calls: Iterator[Exception | str] = iter(
        [OSError("no cookie"), OSError("no cookie"), "7", ClientError("in its words"), "7"]
    )

    def token() -> str:
        found = next(calls)
        if isinstance(found, Exception):
            raise found
        return found

    def warned() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "zim.client.lifeline"]

    with tcp_comet(fabric) as address, running(listen(address, None, token=token)) as found:
        fabric.push("u:7", b"1")
        assert take(found, 1) == [message("u:7", 1, b"1")]
        assert len(warned()) == 1
        assert warned()[0].startswith("no token: OSError: no cookie; it is asked again.")
        fabric.cut()
        fabric.wait_for(lambda: len(fabric.auths) == 2)
        assert [text.partition(";")[0] for text in warned()[1:]] == ["no token: in its words"]
