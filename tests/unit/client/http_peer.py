"""An HTTP server that answers what the test says."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.unit.client.peers import WAIT_S


@dataclass
class Answer:
    """What the server says next. body: bytes, or what makes them of the request's."""

    status: int = 200
    body: bytes | Callable[[bytes], bytes] = b'{"ret":1}'
    headers: dict[str, str] = field(default_factory=lambda: {"X-Zim-Push-Id": "abc"})
    then_hang_up: bool = False
    missing_bytes: int = 0


class Server(ThreadingHTTPServer):
    """Remembers requests and connections; answers from a queue, or with success."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, bytes]] = []
        self.types: list[str] = []  # of the requests' bodies
        self.connections: set[object] = set()
        self.answers: queue.Queue[Answer | None] = queue.Queue()
        self.hung_up = threading.Event()
        self.address = f"127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = WAIT_S

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.requests.append((self.path, body))
        self.server.types.append(self.headers.get("Content-Type", ""))
        self.server.connections.add(self.client_address)
        try:
            answer = self.server.answers.get_nowait()
        except queue.Empty:
            answer = Answer()
        if answer is None:
            self.close_connection = True
            return
        text = answer.body if isinstance(answer.body, bytes) else answer.body(body)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text) + answer.missing_bytes))
        self.end_headers()
        self.wfile.write(text)
        self.close_connection = answer.then_hang_up

    def finish(self) -> None:
        super().finish()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.server.hung_up.set()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(*answers: Answer | None) -> Iterator[Server]:
    """A server that gives these answers, one for each request; None hangs up without."""
    with Server() as server:
        for answer in answers:
            server.answers.put(answer)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(WAIT_S)
