"""A fabric that records, and a raw HTTP client."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import gevent
from gevent.event import Event

from zim.errors import Unavailable
from zim.web.app import create_app
from zim.web.fabric import Counts, Published
from zim.web.server import HttpServer
from zim.web.v1 import max_request_bytes

MAX_BODY_BYTES = 1_000


class Recorder:
    """A fabric in memory: keeps what it is asked to publish, and answers as it is told to."""

    def __init__(self) -> None:
        self.published: list[tuple[list[str], bytes]] = []
        self.forgotten: list[int] = []
        self.known = Counts({}, {}, 0)
        self.status: Literal["ok", "unavailable", "unknown"] = "ok"
        self.is_away = False
        self.error: BaseException | None = None
        self.entered = Event()  # set when a publish begins
        self.may_publish = Event()  # what a publish waits for
        self.may_publish.set()

    def publish(self, streams: Sequence[str], body: bytes) -> Published:
        self.entered.set()
        self.may_publish.wait()
        if self.error is not None:
            raise self.error
        self.published.append((list(streams), body))
        return Published(f"push-{len(self.published)}", self.status, 3)

    def counts(self) -> Counts:
        self._check()
        return self.known

    def forget(self, comet_id: int) -> None:
        self._check()
        self.forgotten.append(comet_id)

    def _check(self) -> None:
        if self.is_away:
            raise Unavailable("router-1", "no answer")


@contextmanager
def serving(fabric: Recorder, timeout_s: float = 10.0, max_body_bytes: int = MAX_BODY_BYTES) -> Iterator[HttpServer]:
    """The app on a free port."""
    limit = max_request_bytes(max_body_bytes)
    server = HttpServer(create_app(fabric, max_body_bytes), ("127.0.0.1", 0), timeout_s, limit)
    server.start()
    try:
        yield server
    finally:
        fabric.may_publish.set()
        server.stop(5)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A socket to the server that says what it is told to."""

    def __init__(self, server: HttpServer) -> None:
        assert isinstance(server.address, tuple)
        self.socket = socket.create_connection(("127.0.0.1", server.address[1]), timeout=20)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, method: str = "GET") -> Answer:
        """The next answer."""
        response = http.client.HTTPResponse(self.socket, method=method)
        with response:
            response.begin()
            body = response.read()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)

    def rest(self) -> bytes:
        """Everything until the server ends the connection."""
        data = b""
        while piece := self.socket.recv(65_536):
            data += piece
        return data


def ask(server: HttpServer, method: str, path: str, body: bytes = b"", headers: str = "") -> Answer:
    """One request on a connection of its own."""
    with Client(server) as client:
        head = f"{method} {path} HTTP/1.1\r\nHost: zim\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        client.send(head.encode() + body)
        return client.receive(method)


def wait_until(is_so: Callable[[], bool], timeout_s: float = 20.0) -> None:
    with gevent.Timeout(timeout_s):
        while not is_so():
            gevent.sleep(0.005)
