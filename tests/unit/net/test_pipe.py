"""A plain socket as a pipe: what it takes, gives, and how it waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import gevent
import pytest
from gevent import socket

from tests.harness import wait_until
from zim.net.pipe import READ_BYTES, SocketPipe, _unpark


@pytest.fixture
def ends() -> Iterator[tuple[SocketPipe, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    yield SocketPipe(ours), theirs
    ours.close()
    theirs.close()


Ends = tuple[SocketPipe, socket.socket]


def test_bytes_go_both_ways(ends: Ends) -> None:
    pipe, client = ends
    assert pipe.send(b"one") == 3
    assert pipe.send_many([b"two", b"three"]) == 8
    assert client.recv(100) == b"onetwothree"
    assert pipe.receive(waits=False) is None
    client.sendall(b"x" * (READ_BYTES + 1))
    assert len(pipe.receive(waits=True) or b"") == READ_BYTES
    assert pipe.receive(waits=False) == b"x"
    client.close()
    assert pipe.receive(waits=True) == b""


def test_a_full_pipe_takes_nothing_until_it_is_writable(ends: Ends) -> None:
    pipe, client = ends

    def fill() -> None:
        while True:
            pipe.send(bytes(1 << 16))

    with pytest.raises(BlockingIOError):
        fill()
    waiting = gevent.spawn(pipe.wait_writable)
    gevent.sleep(0.01)
    assert not waiting.dead
    client.settimeout(0.2)
    with suppress(TimeoutError):
        while client.recv(1 << 20):
            pass
    assert waiting.successful()
    assert pipe.send(b"again") == 5


def test_who_is_parked_is_called_once_when_something_comes(ends: Ends) -> None:
    pipe, client = ends
    called: list[str] = []
    pipe.park(called.append, "it")
    gevent.sleep(0.01)
    assert called == []
    client.sendall(b"x")
    wait_until(lambda: called, "it is called")
    gevent.sleep(0.01)
    assert called == ["it"]


def test_who_is_parked_is_not_called_after_a_close(ends: Ends) -> None:
    pipe, client = ends
    called: list[str] = []
    pipe.park(called.append, "it")
    pipe.close()
    pipe.park(called.append, "it")
    _unpark(pipe._socket, called.append, "it")  # it had something to read in the same moment
    assert client.recv(1) == b""
    gevent.sleep(0.01)
    assert called == []


def test_after_a_shutdown_what_was_sent_arrives_and_the_client_is_heard(ends: Ends) -> None:
    pipe, client = ends
    pipe.send(b"bye")
    pipe.shutdown()
    assert client.recv(3) == b"bye"
    assert client.recv(1) == b""
    client.sendall(b"too")
    assert pipe.receive(waits=True) == b"too"
    client.close()
    pipe.close()
    pipe.shutdown()
