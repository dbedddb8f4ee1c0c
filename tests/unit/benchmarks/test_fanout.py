"""The benchmark's own arithmetic, and its crowd against small peers."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.sync.server import ServerConnection

from benchmarks.bare import bare_send_us
from benchmarks.crowd import Crowd, Sample
from benchmarks.fabric import write_topology
from benchmarks.fanout import judge_samples
from benchmarks.publisher import FIRST, MARK, MIN_SIZE, make_body, publish
from benchmarks.report import Figures, medians, percentile
from tests.unit.client.http_peer import Answer, serving
from tests.unit.client.listening import wait_ws_closed, ws_log_in
from tests.unit.client.peers import WAIT_S, Connection, TcpPeer, packet, ws_peer
from zim.topology import parse

COUNT = 300


@given(st.integers(0, 999_999), st.integers(0, 63), st.integers(MIN_SIZE, 500))
def test_all_bodies_have_the_size_asked_for_and_one_mark(number: int, connection: int, size: int) -> None:
    body = make_body(number, connection, size)
    assert len(body) == size
    assert body.count(MARK) == 1
    assert json.loads(body)["n"] == FIRST + number


def test_percentile_is_the_nearest_rank() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.5, 0.99, 0.999, 1.0, 0.0)] == [50, 99, 100, 100, 1]
    assert percentile([3.0], 0.5) == 3.0


def test_medians_keep_every_problem() -> None:
    runs = [Figures(1, 1, expected=number, problems=["bad"] * (number == 2)) for number in (1, 3, 2)]
    assert medians(runs).expected == 2
    assert medians(runs).problems == ["run 3: bad"]
    assert medians(runs).messages_per_s is None


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        ([[1, 2, 2]], "twice"),
        ([[1, 2], [1]], "same order"),
        ([[1, 2], [2, 1]], "same order"),
        ([[2, 1]], "out of order"),
    ],
)
def test_faults_of_the_sample_are_named(samples: list[list[int]], problem: str) -> None:
    found = judge_samples([Sample(numbers, [0] * len(numbers), []) for numbers in samples])
    assert any(problem in text for text in found)


def test_two_connections_may_overtake_each_other() -> None:
    assert judge_samples([Sample([1, 3, 2], [0, 0, 1], [])] * 2) == []


@pytest.mark.parametrize("comets", [1, 3])
def test_its_topology_is_one(comets: int) -> None:
    assert len(parse(write_topology(comets), Path("topology.toml")).comets) == comets


def check(crowd: Crowd) -> None:
    """Four subscribers, two of them sampled: all get everything."""
    crowd.connect(4)
    while crowd.received < 4 * COUNT and not crowd.lost:
        crowd.poll(WAIT_S)
    assert [counter.received for counter in crowd.counters] == [COUNT] * 4
    assert [sample.numbers for sample in crowd.samples] == [list(range(FIRST, FIRST + COUNT))] * 2
    assert crowd.lost == []


def test_the_crowd_counts_exactly_over_tcp_even_byte_by_byte() -> None:
    stream = b"".join(packet(5, make_body(number, 0, MIN_SIZE)) for number in range(COUNT))

    def script(peer: Connection) -> None:
        peer.log_in()
        for at in range(0, 2000):
            peer.socket.sendall(stream[at : at + 1])
        peer.socket.sendall(stream[2000:])
        peer.wait_closed()

    with TcpPeer(script) as peer:
        crowd = Crowd([peer.address], "tcp", sample=2)
        try:
            check(crowd)
        finally:
            crowd.close()


def test_the_crowd_counts_exactly_over_websocket() -> None:
    def script(connection: ServerConnection) -> None:
        ws_log_in(connection)
        packets = [b'{"ver":0,"op":5,"seq":0,"body":%s}' % make_body(number, 0, MIN_SIZE) for number in range(COUNT)]
        for at in range(0, COUNT, 7):
            connection.send((b"[" + b",".join(packets[at : at + 7]) + b"]").decode())
        wait_ws_closed(connection)

    with ws_peer(script) as address:
        crowd = Crowd([address], "ws", sample=2)
        try:
            check(crowd)
        finally:
            crowd.close()


def test_the_crowd_notices_who_is_lost() -> None:
    go = threading.Event()

    def script(peer: Connection) -> None:
        peer.log_in()
        go.wait(WAIT_S)

    with TcpPeer(script) as peer:
        crowd = Crowd([peer.address], "tcp")
        try:
            crowd.connect(2)
            go.set()
            while len(crowd.lost) < 2:
                crowd.poll(WAIT_S)
        finally:
            crowd.close()
    assert crowd.lost == ["closed by the server"] * 2


def test_the_publisher_counts_what_http_said() -> None:
    with serving(Answer(503, b""), *[Answer()] * 9) as server:
        result = publish([server.address], rate=1000.0, seconds=0.01, size=MIN_SIZE, connections=2)
    assert result.accepted == 9
    assert list(result.refused.values()) == [1]
    assert len(result.http_s) == 9
    assert {path for path, _ in server.requests} == {"/1/push/room?rid=1"}


@pytest.mark.slow
def test_a_bare_send_costs_something() -> None:
    assert 0 < bare_send_us(10, 200.0, MIN_SIZE) < 10_000
