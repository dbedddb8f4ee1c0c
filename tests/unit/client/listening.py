"""Running a listener in a test, and waiting for what it tells."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from tests.unit.client.peers import WAIT_S
from zim.client import Backoff, Event, GoimListener, Listener, Message, State

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


def pushed(op: int, body: bytes) -> Message:
    """A message of goim's, which has no stream."""
    return Message("", 0, "", op, body)


def listen_goim(address: str, states: States, token: str = "7", **options: Any) -> GoimListener:
    """A listener of goim's dialect that comes back quickly."""
    return GoimListener(address, token, backoff=Backoff(*QUICK), on_state=states, **options)


def listen(addresses: str | list[str], states: States | None = None, **options: Any) -> Listener:
    """A listener that comes back quickly."""
    return Listener(addresses, **{"token": "7", "backoff": Backoff(*QUICK), "on_state": states, **options})


@contextlib.contextmanager
def running(listener: Listener | GoimListener) -> Iterator[queue.Queue[Event | None]]:
    """Iterates in a thread; the queue gets the messages, and None at the end."""
    found: queue.Queue[Event | None] = queue.Queue()

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
from zim.client import GoimListener, Listener
assert "gevent" not in sys.modules
listener = (Listener if sys.argv[2] == "zim" else GoimListener)(sys.argv[1], "7")
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


def run_plain(address: str, dialect: str) -> None:
    """The same library in a process that nobody has monkey-patched."""
    done = subprocess.run([sys.executable, "-c", PLAIN, address, dialect], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[b'1']\n", "")
