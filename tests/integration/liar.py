"""A server that says what no right one says, each of the ways to it by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
from gevent import socket
from gevent.server import StreamServer

HUGE_BYTES = 8 << 20


def reply(body: Any, status: str = "200 OK", *headers: str) -> bytes:
    """An answer. body: JSON's value, or bytes as they are."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


def _says(answer: bytes) -> Callable[[socket.socket], None]:
    return lambda client: client.sendall(answer)


def _drips(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        client.sendall(b" ")
        gevent.sleep(0.1)


def _never_ends(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        client.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")


WAYS: dict[str, Callable[[socket.socket], Any]] = {
    "garbage": _says(b"\x00\xff\x16\x03\x01 not HTTP at all\r\n\r\n"),
    "no JSON": _says(reply(b"<html>it works!</html>")),
    "half a JSON": _says(reply(b'{"user":"7"')),
    "JSON in another alphabet": _says(reply(b"\xff\xfe{\x00}\x00")),
    "deep JSON": _says(reply(b'{"rooms":' + b"[" * 100_000)),
    "an array": _says(reply([{"user": "7"}])),
    "text": _says(reply("7")),
    "null": _says(reply(None)),
    "empty": _says(reply(b"")),
    "nothing to do with it": _says(reply({})),
    "no content": _says(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "huge": _says(reply(b'{"user":"7","reason":"' + b"x" * HUGE_BYTES + b'"}')),
    "without an end": _never_ends,
    "an error": _says(reply({"user": "7"}, "500 Internal Server Error")),
    "not found": _says(reply({"user": "7"}, "404 Not Found")),
    "cut off": _says(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"user":"7"}'),
    "hangs up": lambda client: None,
    "a chunk without a size": _says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"),
    "silence": lambda client: client.recv(1),
    "a byte now and then": _drips,
}


class Liar:
    """A server of which a test says how it lies.

    Attributes:
        way: in which it lies, by path; "*" for all others.
        asked: paths, one for each request.
    """

    def __init__(self) -> None:
        self.way: dict[str, Callable[[socket.socket], Any]] = {}
        self.asked: list[str] = []

    def __call__(self, client: socket.socket, _address: object) -> None:
        with client:
            try:
                with client.makefile("rb") as said:
                    path = said.readline().split(b" ")[1].decode()
                    lines = list(iter(said.readline, b"\r\n"))
                    length = next((int(line[15:]) for line in lines if line.lower().startswith(b"content-length:")), 0)
                    said.read(length)
                self.asked.append(path)
                self.way.get(path, self.way.get("*", WAYS["hangs up"]))(client)
                client.shutdown(socket.SHUT_WR)
                client.settimeout(1)
                while client.recv(1 << 16):
                    pass
            except (OSError, IndexError):  # who asked is gone
                pass


@contextmanager
def lying(liar: Liar, port: int) -> Iterator[None]:
    """It listens. At the end all its connections end."""
    server = StreamServer(("127.0.0.1", port), liar)
    server.start()
    try:
        yield
    finally:
        server.stop(timeout=0)
