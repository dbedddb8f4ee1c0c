"""Running a Listener in a test, and waiting for what it tells."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Literal

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from tests.unit.client.peers import WAIT_S
from zim.client import Backoff, Listener, Message, State

QUICK = (0.001, 0.01)


class States:
    """Records states; one may wait for the next."""

    def __init__(self) -> None:
        self.all: list[State] = []
        self._queue: queue.Queue[State] = queue.Queue()

    def __call__(self, state: State) -> None:
        self.all.append(state)
        self._queue.put(state)

    @property
    def names(self) -> list[str]:
        return [state.name for state in self.all]

    def wait_for(self, name: str) -> State:
        """The next state of that name."""
        while True:
            state = self._queue.get(timeout=WAIT_S)
            if state.name == name:
                return state


def listen(
    address: str, states: States, token: str = "7", transport: Literal["tcp", "ws"] = "tcp", **options: float
) -> Listener:
    """A listener that comes back quickly."""
    return Listener(address, token, transport, backoff=Backoff(*QUICK), on_state=states, **options)  # type: ignore[arg-type]


@contextlib.contextmanager
def running(listener: Listener) -> Iterator[queue.Queue[Message | None]]:
    """Iterates in a thread; the queue gets the messages, and None at the end."""
    found: queue.Queue[Message | None] = queue.Queue()

    def run() -> None:
        for message in listener:
            found.put(message)
        found.put(None)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield found
    finally:
        listener.close()
        thread.join(WAIT_S)
    assert not thread.is_alive()


def ws_log_in(connection: ServerConnection) -> object:
    """Answers the login; gives the token."""
    auth = json.loads(connection.recv(timeout=WAIT_S))
    assert auth["op"] == 7
    connection.send(json.dumps([{"ver": 1, "op": 8, "seq": auth["seq"], "body": {}}]))
    return auth["body"]


def wait_ws_closed(connection: ServerConnection) -> None:
    """Until the client closes."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            connection.recv(timeout=WAIT_S)


PLAIN = """
import sys, threading
from zim.client import Listener
assert "gevent" not in sys.modules
listener = Listener(sys.argv[1], "7", sys.argv[2])
found = []
def run():
    for message in listener:
        found.append(message.body)
        got.set()
got = threading.Event()
thread = threading.Thread(target=run)
thread.start()
assert got.wait(20)
listener.close()
thread.join(20)
assert not thread.is_alive()
print(found)
"""


def run_plain(address: str, transport: str) -> None:
    """The same library in a process that nobody has monkey-patched."""
    done = subprocess.run([sys.executable, "-c", PLAIN, address, transport], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[b'1']\n", "")
