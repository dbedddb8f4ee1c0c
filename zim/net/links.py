"""Messages on their way to a peer: what gathers in front of a socket, and what becomes of it when nobody is there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

import gevent
from gevent.event import Event

from zim.net import names
from zim.net.batches import Batches
from zim.net.transport import Dealer, Outlet
from zim.protocol import codec
from zim.protocol.message import Message

log = logging.getLogger(__name__)

RETRY_S = 0.001  # until a full pipe is tried again: libzmq's own signal that there is room gets lost under gevent

M = TypeVar("M", bound=Message)


class PeerLink(Generic[M]):
    """One peer. A message goes at once when the pipe is free; while it is not, many gather for one frame.

    Attributes:
        peer: the node's name.
    """

    def __init__(
        self,
        peer: str,
        socket: Outlet | Dealer,
        limit_bytes: int,
        on_lost: Callable[[str, list[M]], None] = lambda peer, messages: None,
        on_change: Callable[[str, bool], None] = lambda peer, is_connected: None,
    ) -> None:
        """
        Args:
            limit_bytes: of what waits; above it messages are dropped.
            on_lost: is told of messages that never leave: nobody is there, or the queue is full. Must not switch.
            on_change: is told that the peer is there now, or is not any more. Must not switch.
        """
        self.peer = peer
        self._socket, self._on_lost, self._on_change = socket, on_lost, on_change
        self._batches: Batches[M] = Batches(limit_bytes)
        self._wake = Event()
        self._dropped = 0
        self._is_said = False  # that messages are dropped, since the peer was there last
        self._refused = ""  # why hands were not shaken, since then
        if socket.keys is not None:
            socket.keys.call_on_change(self._on_keys)

    @property
    def is_connected(self) -> bool:
        """Whether the peer is there."""
        return self._socket.is_connected

    @property
    def where(self) -> str:
        """Where the peer is looked for, for people."""
        return self._socket.endpoint

    @property
    def trouble(self) -> str:
        """Why the peer is not there, as far as link keys are the reason, in words; "" if they are none."""
        return self._socket.trouble or self._refused

    @property
    def waiting_bytes(self) -> int:
        """Of what is not handed to the socket yet."""
        return self._batches.waiting_bytes

    @property
    def dropped(self) -> int:
        """How many messages never left, ever."""
        return self._dropped

    def put(self, message: M, size: int) -> None:
        """Queues a message of that many bytes, or drops it: repair is the receiver's. Does not switch."""
        if self._batches.put(message, size):
            self._wake.set()
        else:
            self._drop([message])

    def spawn(self, spawn: Callable[..., object]) -> None:
        """Starts its greenlets: one sends, one follows the connection, one the name in its address, if any."""
        spawn(self._run)
        spawn(self._watch)
        if self._socket.has_name:
            spawn(names.follow, self._socket, self.peer)

    def receive(self, take: Callable[[bytes], object]) -> None:
        """Hands over the peer's answers, frame by frame, until it is closed. Switches."""
        assert isinstance(self._socket, Dealer)
        self._socket.receive(take)

    def close(self) -> None:
        """Ends the link. What has not left is dropped."""
        self._socket.close()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while batch := self._batches.begin():
                self._send(batch)
                self._batches.end()

    def _send(self, batch: list[M]) -> None:
        frame = codec.encode(batch)
        while not self._socket.send(frame):
            if not self._socket.is_connected:
                self._drop([*batch, *self._batches.drain()])
                return
            gevent.sleep(RETRY_S)

    def _watch(self) -> None:
        for found in self._socket.watch():
            if isinstance(found, str):
                self._say_refused(found)
            else:
                self._changed(found)

    def _changed(self, is_connected: bool) -> None:
        if is_connected:
            self._is_said, self._refused = False, ""
        elif lost := self._batches.drain():
            self._drop(lost)
        self._on_change(self.peer, is_connected)

    def _say_refused(self, why: str) -> None:
        """Once for each reason: it is tried again for ever."""
        if why != self._refused:
            self._refused = why
            log.warning("a link is refused", extra={"peer": self.peer, "reason": why})

    def _on_keys(self, changed: frozenset[str], lost: frozenset[str]) -> None:
        keys = self._socket.keys
        assert keys is not None
        if self.peer in changed or keys.name in changed:
            self._socket.take_keys()
            self._refused = ""
            self._changed(False)

    def _drop(self, messages: list[M]) -> None:
        if not self._is_said:
            self._is_said = True
            log.info("messages dropped", extra={"peer": self.peer})
        self._dropped += len(messages)
        self._on_lost(self.peer, messages)
