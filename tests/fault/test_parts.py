"""The parts of the chaos test, each without a fabric: the schedule, the proxy, the wire and the clients that use it."""

from __future__ import annotations

import itertools
import json
import struct
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.server import StreamServer
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fault import wire
from tests.fault.chaos import parser
from tests.fault.checker import check
from tests.fault.clients import Goim, Zim
from tests.fault.history import Closed, Connected, Froze, History, Joined, Left, Push, Received, Told
from tests.fault.proxy import Proxy
from tests.fault.report import may_be_forgotten
from tests.fault.schedule import KINDS, NODES, REST_S, schedule
from tests.fault.wire import Garbled, Said, WireReader
from tests.harness import free_ports, wait_until
from zim.protocol.websocket import encode_frame

# ---------------------------------------------------------------- schedule


@settings(deadline=None)
@given(st.integers(), st.integers(0, 30), st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 10.0]))
def test_a_seed_is_a_schedule(seed: int, clients: int, every_s: float, kills: float) -> None:
    made = schedule(seed, 60, clients, every_s=every_s, kills=kills)
    assert made == schedule(seed, 60, clients, every_s=every_s, kills=kills)
    assert made != schedule(seed + 1, 60, clients, every_s=every_s, kills=kills)
    assert [operation.at_s for operation in made] == sorted(operation.at_s for operation in made)
    assert {o.target for o in made} <= {*NODES, *map(str, range(clients)), "fabric", "disk"}
    for name in NODES:
        deaths = [o.at_s for o in made if o.target == name and KINDS[o.kind].is_death]
        assert all(later - earlier >= REST_S for earlier, later in itertools.pairwise(deaths))


def test_a_long_schedule_has_everything_and_what_is_spared_is_spared() -> None:
    assert {o.kind for o in schedule(1, 1800, 20, machines=("machine-1", "machine-2"))} == set(KINDS)
    assert not any(KINDS[o.kind].group == "machine" for o in schedule(1, 600, 20))
    spared = schedule(1, 600, 20, without=("router", "kill"))
    assert not any(o.kind == "kill" or o.target.startswith("router") for o in spared)
    assert schedule(1, 600, 0, nodes=()) == []


def test_faults_come_as_often_as_is_asked_for() -> None:
    made = schedule(1, 600, 20, every_s=1.0, kills=10.0)
    deaths = [o for o in made if KINDS[o.kind].is_death]
    assert 95 <= len(deaths) <= 100
    others = [o.at_s for o in made if not KINDS[o.kind].is_death]
    assert len(others) > 400  # some targets are not free
    assert all(at == int(at) for at in others)


def test_what_is_done_is_in_the_help() -> None:
    help_text = parser().format_help()
    assert all(f"  {kind} " in help_text and of.text in help_text for kind, of in KINDS.items())


# ---------------------------------------------------------------- receipts


def test_a_receipt_may_be_forgotten_by_a_router_that_was_killed_before_it_was_stored() -> None:
    push = Push(1, ("r:3",), 9.9, "", 10.0, "accepted")
    for killed_at, waits, expected in (
        (9.0, [], False),
        (11.0, [], True),
        (14.0, [], False),
        (14.0, [(10.1, 16.0)], True),  # everything stood still, so it was not stored yet
        (14.0, [(2.0, 7.0)], False),
    ):
        assert may_be_forgotten(push, History(router_kills=[killed_at], waits=waits)) == expected


# ---------------------------------------------------------------- proxy


@pytest.fixture
def echo() -> Iterator[Proxy]:
    def serve(sock: Any, _: object) -> None:
        while data := sock.recv(65536):
            sock.sendall(data)

    here, there = (f"127.0.0.1:{port}" for port in free_ports(2))
    server = StreamServer(("127.0.0.1", int(there.rpartition(":")[2])), serve)
    server.start()
    proxy = Proxy(here, there)
    yield proxy
    proxy.close()
    server.stop()


def connect(proxy: Proxy) -> Any:
    host, _, port = proxy.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def read(sock: Any, size: int) -> bytes:
    got = b""
    while len(got) < size and (data := sock.recv(size - len(got))):
        got += data
    return got


def test_a_link_forwards_and_is_late_when_told_to(echo: Proxy) -> None:
    with connect(echo) as sock:
        sock.sendall(b"x" * 300_000)
        assert read(sock, 300_000) == b"x" * 300_000
        echo.delay(1000)
        sock.sendall(b"late")
        assert is_silent(sock)
        echo.heal()
        assert read(sock, 4) == b"late"
        echo.delay(0.01)
        sock.sendall(b"late")
        assert read(sock, 4) == b"late"
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""


def test_a_cut_link_breaks_and_takes_nobody_until_it_is_healed(echo: Proxy) -> None:
    with connect(echo) as sock:
        sock.sendall(b"a")
        assert read(sock, 1) == b"a"
        echo.cut()
        assert is_broken(sock)
    with connect(echo) as sock:
        assert is_broken(sock)
    echo.heal()
    with connect(echo) as sock:
        sock.sendall(b"b")
        assert read(sock, 1) == b"b"


@pytest.mark.parametrize("direction", ["in", "out"])
def test_of_those_who_call_one_is_not_heard(echo: Proxy, direction: str) -> None:
    with connect(echo) as one, connect(echo) as two:
        for sock in (one, two):
            sock.sendall(b"a")
            assert read(sock, 1) == b"a"
        echo.pair(direction)
        for sock in (one, two):
            sock.sendall(b"b")
        silent = [sock for sock in (one, two) if is_silent(sock)]
        assert len(silent) == 1
        echo.heal()
        silent[0].settimeout(10)
        assert read(silent[0], 1) == b"b"


def is_silent(sock: Any) -> bool:
    sock.settimeout(0.1)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(10)
    return False


def is_broken(sock: Any) -> bool:
    try:
        return not sock.recv(1)
    except ConnectionError:
        return True


@pytest.mark.parametrize("direction", ["in", "out"])
def test_a_stalled_link_is_silent_and_keeps_what_it_has(echo: Proxy, direction: str) -> None:
    with connect(echo) as sock:
        sock.sendall(b"a")
        assert read(sock, 1) == b"a"
        echo.stall(direction)
        sock.sendall(b"b")
        assert is_silent(sock)
        echo.heal()
        assert read(sock, 1) == b"b"


# ---------------------------------------------------------------- wire


def push_packet(stream: str, offset: int, number: int) -> bytes:
    """A push as it stands on TCP, byte for byte."""
    name, body = stream.encode(), b'{"n":%d}' % number
    header = 16 + 8 + len(name)
    return struct.pack(">ihhiiQ", header + len(body), header, 3, 5, 0, offset) + name + body


def test_packets_are_read_however_they_are_cut() -> None:
    data = push_packet("r:é", 1 << 40, 7) + wire.packet(wire.CLOSING, b"bye", 1, 3) + wire.packet(3, b"", 9)
    expected = [
        Said(5, 0, 3, {"n": 7}, "r:é", 1 << 40),
        Said(6, 1, 3, b"bye"),
        Said(3, 9, 3, b""),
    ]
    for size in (1, 5, len(data)):
        reader = WireReader(is_ws=False)
        assert [s for i in range(0, len(data), size) for s in reader.feed(data[i : i + size])] == expected
    with pytest.raises(Garbled):
        WireReader(is_ws=False).feed(struct.pack(">ihhii", 20, 12, 3, 5, 0))


def test_text_frames_are_read_however_they_are_cut() -> None:
    pushes = [{"ver": 3, "op": 5, "seq": 0, "body": {"n": n}, "stream": "*", "offset": n} for n in range(1, 9)]
    data = encode_frame(1, json.dumps(pushes).encode()) + encode_frame(9, b"") + encode_frame(8, b"\x03\xe8bye")
    for size in (1, 7, len(data)):
        reader = WireReader(is_ws=True)
        got = [s for i in range(0, len(data), size) for s in reader.feed(data[i : i + size])]
        assert got == [Said(5, 0, 3, {"n": n}, "*", n) for n in range(1, 9)]
        assert reader.close == (1000, "bye")


# ---------------------------------------------------------------- clients


class Comet:
    """A few lines of a server on TCP: one client at a time; notes what it is told, says what a test wants."""

    def __init__(self) -> None:
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        self.heard: list[tuple[int, int, Any]] = []  # op, seq, body
        self._socket: Any = None
        self._server = StreamServer(("127.0.0.1", port), self._serve)
        self._server.start()

    def _serve(self, sock: Any, _: object) -> None:
        self._socket = sock
        reader = WireReader(is_ws=False)  # a client's packets are cut as a server's
        while data := sock.recv(65536):
            self.heard += [(said.op, said.seq, said.body) for said in reader.feed(data)]

    def wait(self, op: int) -> tuple[int, Any]:
        """Waits for a packet; takes it and all before it."""
        wait_until(lambda: any(heard[0] == op for heard in self.heard), f"op {op}")
        place = next(i for i, heard in enumerate(self.heard) if heard[0] == op)
        _, seq, body = self.heard[place]
        del self.heard[: place + 1]
        return seq, body

    def say(self, op: int, body: Any, seq: int = 0) -> None:
        self._socket.sendall(wire.packet(op, json.dumps(body).encode(), seq))

    def push(self, stream: str, offset: int, number: int) -> None:
        self._socket.sendall(push_packet(stream, offset, number))

    def hang_up(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._server.stop(timeout=0)


@pytest.fixture
def comet() -> Iterator[Comet]:
    one = Comet()
    yield one
    one.close()


def at(offset: int, recovered: bool = True) -> dict[str, Any]:
    return {"epoch": "e", "offset": offset, "recovered": recovered}


def test_a_zim_client_resumes_joins_and_leaves(comet: Comet) -> None:
    client = Zim("zim-7", 7, {"comet-1": comet.address}, False, time.monotonic, "seed", {"1"})
    try:
        seq, body = comet.wait(wire.AUTH)
        assert body == {"token": "7", "rooms": ["1"], "resume": {}, "device": "zim-7"}
        comet.say(
            wire.AUTH_REPLY,
            {"key": "7_1", "heartbeat_s": 300, "streams": {"u:7": at(0), "*": at(4), "r:1": at(10)}},
            seq,
        )
        comet.push("r:1", 11, 101)
        comet.push("u:7", 1, 102)
        comet.say(wire.GAP, {"stream": "*", "epoch": "e", "from": 5, "to": 6, "reason": "trimmed"})
        wait_until(lambda: client.has("u:7", 102) and client.positions["*"] == ("e", 6), "all has come")
        client.join("2")
        seq, body = comet.wait(wire.JOIN)
        assert body == {"rooms": ["2"], "resume": {}}
        client.leave("2")  # before it is in: asked once it is
        comet.say(wire.JOINED, {"streams": {"r:2": at(3)}}, seq)
        seq, body = comet.wait(wire.LEAVE)
        assert body == {"rooms": ["2"]}
        comet.push("r:2", 4, 103)
        comet.say(wire.LEFT, {"streams": ["r:2"]}, seq)
        wait_until(lambda: isinstance(client.record.events[-1], Left), "it has left")
        client.join("2")
        seq, body = comet.wait(wire.JOIN)
        assert body["resume"] == {"r:2": ["e", 4]}
        comet.hang_up()
        seq, body = comet.wait(wire.AUTH)
        assert body["rooms"] == ["1", "2"]
        assert body["resume"] == {"r:1": ["e", 11], "r:2": ["e", 4], "u:7": ["e", 1], "*": ["e", 6]}
        streams = {"u:7": at(1), "*": at(6), "r:1": {"error": "not joined, retrying"}, "r:2": at(9, recovered=False)}
        comet.say(wire.AUTH_REPLY, {"key": "7_2", "heartbeat_s": 300, "streams": streams}, seq)
        comet.say(wire.JOINED, {"streams": {"r:1": at(11)}})
        comet.push("r:1", 12, 104)
        wait_until(lambda: client.has("r:1", 104), "the last one has come")
        client.beat()
        comet.wait(wire.HEARTBEAT)
    finally:
        client.stop()
    joined = [(e.stream, e.offset, e.recovered, e.resume) for e in client.record.events if isinstance(e, Joined)]
    assert joined == [
        ("u:7", 0, True, None),
        ("*", 4, True, None),
        ("r:1", 10, True, None),
        ("r:2", 3, True, None),
        ("u:7", 1, True, ("e", 1)),
        ("*", 6, True, ("e", 6)),
        ("r:2", 9, False, ("e", 4)),
        ("r:1", 11, True, ("e", 11)),
    ]
    kinds = [type(e) for e in client.record.events if not isinstance(e, Joined)]
    assert kinds == [Connected, Received, Received, Told, Received, Left, Closed, Connected, Received]
    history = History(0, [Push(n, (s,), 0.0, "", 0.0, "accepted") for n, s in EVERY_PUSH], [client.record])
    history.kept = {"*": 1, "r:2": 1}
    assert {f.kind for f in check(history)} == {"told"}


EVERY_PUSH = ((101, "r:1"), (102, "u:7"), (103, "r:2"), (104, "r:1"))


def test_a_goim_client_comes_back_and_a_frozen_one_reads_later(comet: Comet) -> None:
    client = Goim("goim-7", 7, {"comet-1": comet.address}, False, time.monotonic, "seed")
    try:
        for number in (1, 2):
            seq, body = comet.wait(wire.AUTH)
            assert body == 7
            comet.say(wire.AUTH_REPLY, {}, seq)
            wait_until(lambda: client.is_online, "it is in")
            client.freeze(1000)
            comet.say(wire.PUSH, {"n": number})
            client.thaw()
            wait_until(lambda n=number: client.has("r:1", n), "it has come")  # type: ignore[misc]
            client.drop() if number == 1 else client.hop()
        comet.wait(wire.AUTH)
    finally:
        client.stop()
    events = client.record.events
    assert [type(e) for e in events] == [Connected, Froze, Received, Closed] * 2
    assert [e.why for e in events if isinstance(e, Closed)] == ["is reset", "hops"]
    assert isinstance(events[0], Connected)
    assert events[0].streams == ("u:7", "r:1", "*")


def test_a_comet_that_breaks_the_wire_is_noted(comet: Comet) -> None:
    client = Goim("goim-7", 7, {"comet-1": comet.address}, False, time.monotonic, "seed")
    try:
        comet.wait(wire.AUTH)
        comet._socket.sendall(struct.pack(">ihhii", 3, 3, 3, 3, 3))
        wait_until(lambda: client.record.events, "it is noted")
    finally:
        client.stop()
    assert {f.kind for f in check(History(0, [], [client.record]))} == {"broken"}
    gevent.sleep(0)
