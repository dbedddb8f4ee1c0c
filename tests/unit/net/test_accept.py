"""Those who are not let in hear why: a word, however much they have sent, and however many they are."""

from __future__ import annotations

from typing import Any

import gevent
from gevent import socket

from tests.harness import WAIT_S, wait_until
from zim.net.accept import Farewell

WORDS = b"HTTP/1.1 429 Too Many Requests\r\n\r\n"


def pair() -> tuple[Any, Any]:
    """Both ends of a TCP connection: only TCP resets what is closed with bytes unread."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname(), timeout=WAIT_S)
        ours, _ = server.accept()
    return ours, theirs


def heard(theirs: socket.socket) -> bytes:
    """All that came until the end."""
    found = b""
    while data := theirs.recv(100):
        found += data
    theirs.close()
    return found


def test_the_word_comes_though_a_request_has_come() -> None:
    farewell = Farewell()
    before, theirs = pair()
    theirs.sendall(b"GET /sub HTTP/1.1\r\n\r\n")
    gevent.sleep(0.05)
    farewell.say(before, WORDS)
    assert heard(theirs) == WORDS


def test_the_word_comes_though_the_request_comes_later() -> None:
    ours, theirs = pair()
    Farewell().say(ours, WORDS)
    theirs.sendall(b"GET /sub HTTP/1.1\r\n\r\n")
    assert heard(theirs) == WORDS


def test_in_a_flood_sockets_do_not_stay() -> None:
    """And those that have stayed make room for others."""
    farewell = Farewell(most=2)
    pairs = [pair() for _ in range(5)]
    for ours, _ in pairs:
        farewell.say(ours, WORDS)
    assert [ours.closed for ours, _ in pairs] == [False, False, True, True, True]
    assert [heard(theirs) for _, theirs in pairs] == [WORDS] * 5
    wait_until(lambda: all(ours.closed for ours, _ in pairs), "nobody stays for long")
    ours, theirs = pair()
    farewell.say(ours, WORDS)
    assert not ours.closed
    theirs.close()
    wait_until(lambda: ours.closed, "it goes, too")


def test_somebody_who_has_hung_up_is_no_error() -> None:
    ours, theirs = pair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    theirs.close()
    gevent.sleep(0.05)
    Farewell().say(ours, WORDS)
    assert ours.closed
