"""A logic node's ROUTER to talk to, in a thread: answers what the test says."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterator

import gevent
import zmq.green as zmq

from tests.unit.client.peers import WAIT_S
from zim.protocol import codec, messages
from zim.protocol.messages import Submit, Submitted

Answering = Callable[[Submit], Submitted | None]


def accept(submit: Submit) -> Submitted:
    """Accepts anything."""
    return Submitted(submit.req, "p" + submit.key, "ok")


class Logic:
    """Binds, and answers each Submit by `answer`; None is no answer.

    Attributes:
        submits: all that came, in order.
        frames: how many frames they came in.
    """

    def __init__(self, answer: Answering = accept, port: int = 0, secret_key: bytes = b"") -> None:
        """secret_key: a logic with link keys has it."""
        self.answer = answer
        self.submits: list[Submit] = []
        self.frames = 0
        self._came = queue.Queue[Submit]()
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        if secret_key:
            self._socket.setsockopt(zmq.CURVE_SERVER, 1)
            self._socket.setsockopt(zmq.CURVE_SECRETKEY, secret_key)
        while True:
            try:
                self._socket.bind(f"tcp://127.0.0.1:{port or '*'}")
            except zmq.ZMQError:  # its predecessor lets go a little later
                gevent.sleep(0.01)
            else:
                break
        self.endpoint: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._envelopes: list[list[bytes]] = []
        self._greenlet = gevent.spawn(self._run)

    def say(self, frame: bytes) -> None:
        """Sends anything to whoever asked last."""
        self._socket.send_multipart([*self._envelopes[-1], frame])

    def wait_for(self, count: int) -> list[Submit]:
        """The next submits."""
        return [self._came.get(timeout=WAIT_S) for _ in range(count)]

    def close(self) -> None:
        """Goes away, as a process that is killed."""
        self._greenlet.kill()
        self._socket.close(0)

    def _run(self) -> None:
        while True:
            *envelope, frame = self._socket.recv_multipart()
            self._envelopes.append(envelope)
            self.frames += 1
            submits = codec.decode(frame, messages.FromPublisher)
            answers = []
            for submit in submits:
                self.submits.append(submit)
                self._came.put(submit)
                answer = self.answer(submit)
                if answer is not None:
                    answers.append(answer)
            if answers:
                self._socket.send_multipart([*envelope, codec.encode(answers)])


@contextlib.contextmanager
def logic(answer: Answering = accept) -> Iterator[Logic]:
    """A logic node."""
    peer = Logic(answer)
    try:
        yield peer
    finally:
        peer.close()
