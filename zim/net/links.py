"""Messages over links: what gathers in front of a socket, and requests that wait for their answers."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import gevent
from gevent.event import Event

from zim.errors import Unavailable
from zim.net.gather import Gatherer
from zim.net.transport import Dealer, Outlet
from zim.protocol import codec
from zim.protocol.errors import CodecError
from zim.protocol.messages import Message

log = logging.getLogger(__name__)

RETRY_S = 0.001  # until a full pipe is tried again: libzmq's own signal that there is room gets lost under gevent
MESSAGE_BYTES = 64  # what a message without a body counts for

M = TypeVar("M", bound=Message)


class Sender(Generic[M]):
    """Messages on their way to one peer: at once when the pipe is free, many in one frame while it is not.

    Attributes:
        peer: the node's name.
        dropped: how many messages were given up, ever: nobody was there, or the queue was full.
    """

    def __init__(
        self, peer: str, link: Outlet | Dealer, limit_bytes: int, on_lost: Callable[[list[M]], None] | None = None
    ) -> None:
        """
        Args:
            on_lost: is told what will not arrive: nobody is there, or the queue was full.
        """
        self.peer, self.dropped = peer, 0
        self._link, self._on_lost = link, on_lost
        self._gatherer: Gatherer[M] = Gatherer(self._send, limit_bytes)
        self._lost = 0

    @property
    def is_connected(self) -> bool:
        """Whether the peer is there."""
        return self._link.is_connected

    @property
    def waiting_bytes(self) -> int:
        """Of what is not handed to the link yet."""
        return self._gatherer.waiting_bytes

    def put(self, message: M, size: int = MESSAGE_BYTES) -> bool:
        """Queues a message, or drops it: repair is the receiver's. Does not switch."""
        if self._gatherer.put(message, size):
            return True
        self._drop([message])
        return False

    def _send(self, batch: list[M]) -> None:
        frame = codec.encode(batch)
        while not self._link.send(frame):
            if not self._link.is_connected:
                self._drop([*batch, *self._gatherer.drain()])
                return
            gevent.sleep(RETRY_S)

    def _drop(self, messages: list[M]) -> None:
        if not self._lost:
            log.info("messages dropped", extra={"peer": self.peer})
        self._lost += len(messages)
        self.dropped += len(messages)
        if self._on_lost:
            self._on_lost(messages)

    def run(self) -> None:
        """The sending greenlet."""
        self._gatherer.run()

    def watch(self) -> None:
        """The greenlet that follows the connection. Waits."""
        for is_connected in self._link.watch():
            self.changed(is_connected)

    def changed(self, is_connected: bool) -> None:
        """The connection has come or gone: what waits for one that is gone is dropped."""
        if is_connected:
            if self._lost:
                log.info("connected again", extra={"peer": self.peer, "dropped": self._lost})
            self._lost = 0
        elif lost := self._gatherer.drain():
            self._drop(lost)


class NotSent(Unavailable):
    """A request never left: nobody can have acted on it."""


class _Asked(Generic[M]):
    """Requests that were asked together, and their answers as they come."""

    __slots__ = ("_missing", "answers", "is_complete")

    def __init__(self, count: int) -> None:
        self.answers: list[M | Unavailable | None] = [None] * count
        self._missing = count
        self.is_complete = Event()

    def set(self, at: int, answer: M | Unavailable) -> None:
        self.answers[at] = answer
        self._missing -= 1
        if not self._missing:
            self.is_complete.set()


class Asker(Generic[M]):
    """Requests to one peer, each with its answer.

    Attributes:
        peer: the node's name.
    """

    def __init__(self, peer: str, endpoint: str, answers: Any, limit_bytes: int = 64 << 20) -> None:
        """
        Args:
            answers: the messages that may come back; each has the field `req`.
        """
        self.peer = peer
        self._dealer = Dealer(endpoint)
        self._sender: Sender[Message] = Sender(peer, self._dealer, limit_bytes, self._on_lost)
        self._answers = answers
        self._reqs = itertools.count(1)
        self._waiting: dict[int, tuple[_Asked[M], int]] = {}

    @property
    def is_connected(self) -> bool:
        """Whether the peer is there."""
        return self._dealer.is_connected

    @property
    def waiting_bytes(self) -> int:
        """Of requests that are not handed to the link yet."""
        return self._sender.waiting_bytes

    @property
    def dropped(self) -> int:
        """How many requests never left, ever."""
        return self._sender.dropped

    def ask(self, make: Callable[[int], Message], timeout_s: float, size: int = MESSAGE_BYTES) -> M:
        """Sends a request and waits for its answer. Switches.

        Args:
            make: builds the request around its number.
            size: what it counts for in the queue.

        Raises:
            NotSent: nobody is there, or the queue is full.
            Unavailable: sent, and no answer came in time: it may have been acted upon.
        """
        (answer,) = self.ask_all([(make, size)], timeout_s)
        if isinstance(answer, Unavailable):
            raise answer
        return answer

    def ask_all(
        self, requests: Sequence[tuple[Callable[[int], Message], int]], timeout_s: float
    ) -> list[M | Unavailable]:
        """Sends requests and waits for all answers. Switches.

        Args:
            requests: each as for `ask`.

        Returns:
            The answer to each, or why there is none, as `ask` raises it.
        """
        asked: _Asked[M] = _Asked(len(requests))
        reqs: list[int] = []
        for at, (make, size) in enumerate(requests):
            req = next(self._reqs)
            reqs.append(req)
            self._waiting[req] = asked, at
            self._sender.put(make(req), size)
        if not asked.is_complete.wait(timeout_s):
            for req in reqs:
                self._waiting.pop(req, None)
        late = Unavailable(self.peer, f"no answer within {timeout_s:g} s")
        return [late if answer is None else answer for answer in asked.answers]

    def _on_lost(self, messages: list[Message]) -> None:
        for message in messages:
            self._set(message.req, NotSent(self.peer, "not connected"))  # type: ignore[attr-defined]

    def _set(self, req: int, answer: M | Unavailable) -> None:
        waiting = self._waiting.pop(req, None)
        if waiting is not None:
            asked, at = waiting
            asked.set(at, answer)

    def run(self) -> None:
        """The sending greenlet."""
        self._sender.run()

    def watch(self) -> None:
        """The greenlet that follows the connection: what was asked before it broke will not be answered."""
        for is_connected in self._dealer.watch():
            self._sender.changed(is_connected)
            if not is_connected:
                for req in list(self._waiting):
                    self._set(req, Unavailable(self.peer, "the connection broke"))

    def receive(self) -> None:
        """The receiving greenlet."""
        for frame in self._dealer.received():
            try:
                answers = codec.decode(frame, self._answers)
            except CodecError as e:
                log.warning("answer not understood", extra={"peer": self.peer, "error": str(e)})
                continue
            for answer in answers:
                self._set(answer.req, answer)

    def spawn(self, spawn: Callable[..., object]) -> None:
        """Starts all three greenlets."""
        for run in (self.run, self.watch, self.receive):
            spawn(run)

    def close(self) -> None:
        """Ends the link."""
        self._dealer.close()
