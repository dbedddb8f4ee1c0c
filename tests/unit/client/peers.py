"""Servers for the client to talk to: scripted, over real sockets, a thread for each connection."""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from types import TracebackType

from websockets.sync.server import Server, ServerConnection, serve

HEADER = struct.Struct(">ihhii")
WAIT_S = 20.0


class Connection:
    """The server's end of one TCP connection, in goim's packets."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.socket = sock
        self.number = number
        sock.settimeout(WAIT_S)

    def send(self, op: int, body: bytes = b"", seq: int = 0, ver: int = 0) -> None:
        """One packet."""
        self.socket.sendall(packet(op, body, seq, ver))

    def receive(self) -> tuple[int, bytes, int]:
        """Op, body and seq of the next packet. EOFError at the end of the stream."""
        length, header, _, op, seq = HEADER.unpack(self._exactly(HEADER.size))
        assert header == HEADER.size
        return op, self._exactly(length - header), seq

    def log_in(self) -> bytes:
        """Answers the login; gives the token."""
        op, token, seq = self.receive()
        assert op == 7
        self.send(8, b"", seq, 1)
        return token

    def wait_closed(self) -> None:
        """Until the client hangs up."""
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                self.receive()

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data


def packet(op: int, body: bytes = b"", seq: int = 0, ver: int = 0) -> bytes:
    """A packet of goim's."""
    return HEADER.pack(HEADER.size + len(body), HEADER.size, ver, op, seq) + body


class TcpPeer:
    """Listens on a free port and runs `script(connection)` for each connection, in a thread of its own.

    Leaving the context waits for all scripts, and fails if one of them failed.
    """

    def __init__(self, script: Callable[[Connection], object]) -> None:
        self._script = script
        self._server = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"

    def __enter__(self) -> TcpPeer:
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        # shutdown() wakes accept() in a plain thread, a connection wakes it in a greenlet.
        self._is_closed = True
        with contextlib.suppress(OSError):
            socket.create_connection(self._server.getsockname()).close()
        self._acceptor.join(WAIT_S)
        self._server.close()
        for thread in self._threads:
            thread.join(WAIT_S)
            assert not thread.is_alive(), "a script is still running"
        if self._errors and error is None:
            raise self._errors[0]

    _is_closed = False

    def _accept(self) -> None:
        number = 0
        while True:
            sock, _ = self._server.accept()
            if self._is_closed:
                sock.close()
                return
            thread = threading.Thread(target=self._run, args=(sock, number))
            self._threads.append(thread)
            thread.start()
            number += 1

    def _run(self, sock: socket.socket, number: int) -> None:
        with sock:
            try:
                self._script(Connection(sock, number))
            except BaseException as error:  # noqa: BLE001  (told by __exit__)
                self._errors.append(error)


def _accept_all(server: Server) -> None:
    """Server.serve_forever without its selector.

    That is never closed: under gevent it leaves watchers on closed files, and the process aborts when it forks.
    """
    with contextlib.suppress(OSError):
        while True:
            thread = threading.Thread(target=server.handler, args=server.socket.accept())
            with server.lock:
                server.handler_threads.add(thread)
            thread.start()
    server.socket_closed.set()
    server.shutdown_watcher.close()


@contextlib.contextmanager
def ws_peer(script: Callable[[ServerConnection], None], **options: object) -> Iterator[str]:
    """The `websockets` package's server on a free port; gives its address."""
    errors: queue.Queue[BaseException] = queue.Queue()

    def handle(connection: ServerConnection) -> None:
        try:
            script(connection)
        except BaseException as error:
            errors.put(error)
            raise

    with serve(handle, "127.0.0.1", 0, compression=None, **options) as server:  # type: ignore[arg-type]
        thread = threading.Thread(target=_accept_all, args=(server,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join(WAIT_S)
    if not errors.empty():
        raise errors.get()
