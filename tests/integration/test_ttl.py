"""A time to live is kept, whoever stands still on the way."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import gevent
import pytest

from tests.harness import Client, Fabric, running, wait_until
from tests.zim_client import ZimClient

TTL_S = 0.4


@pytest.fixture(scope="module")
def fabric() -> Iterator[Fabric]:
    with running(routers=1, jobs=1, comets=1, comet={"outbox_bytes": 64 << 20}) as found:
        yield found


def connect(fabric: Fabric, is_zim: bool, uid: str) -> Client:
    return ZimClient(fabric.tcp["comet-1"], uid) if is_zim else Client(fabric.tcp["comet-1"], uid)


def expired(fabric: Fabric, push_id: str) -> int:
    receipt = fabric.get(f"/api/pushes/{push_id}?wait_s=10")
    assert (receipt["targeted"], receipt["pending"]) == (1, 0)
    return int(receipt["expired"])


@pytest.mark.parametrize("is_zim", [False, True])
@pytest.mark.parametrize("node", ["router-1", "job-1", "comet-1"])
def test_a_node_that_stands_still_for_longer_delivers_nothing_late(fabric: Fabric, node: str, is_zim: bool) -> None:
    uid = str(sum(map(ord, node)) + is_zim)
    client = connect(fabric, is_zim, uid)
    fabric.kill(node, signal.SIGSTOP)
    pushing = gevent.spawn(fabric.push, {"to": {"users": [uid]}, "body": "late", "ttl_s": TTL_S})
    gevent.sleep(3 * TTL_S)
    in_time = client.bodies  # without its job a comet fetches what it misses, perhaps soon enough
    assert in_time == [] or node == "job-1"
    fabric.kill(node, signal.SIGCONT)
    status, answer = pushing.get()
    assert status == 200
    assert expired(fabric, answer["id"]) == 1 - len(in_time)
    fabric.push({"to": {"users": [uid]}, "body": "last", "ttl_s": 10})
    wait_until(lambda: b'"last"' in client.bodies, "what is in time has come")
    assert client.bodies == [*in_time, b'"last"']


def test_a_client_that_does_not_read_gets_nothing_late(fabric: Fabric) -> None:
    client = ZimClient(fabric.tcp["comet-1"], "8")
    client.pause()
    for _ in range(400):  # more than the sockets' buffers hold
        assert fabric.push({"to": {"users": ["8"]}, "body": "x" * 60_000})[0] == 200
    status, answer = fabric.push({"to": {"users": ["8"]}, "body": "late", "ttl_s": TTL_S})
    assert status == 200
    gevent.sleep(2 * TTL_S)
    client.go_on()
    assert expired(fabric, answer["id"]) == 1
    fabric.push({"to": {"users": ["8"]}, "body": "last"})
    wait_until(lambda: b'"last"' in client.bodies, "all of it has come")
    assert b'"late"' not in client.bodies
    assert len(client.bodies) == 401
