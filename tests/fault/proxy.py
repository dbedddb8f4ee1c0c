"""A TCP proxy in front of one node: the link that leads to it, which can be cut, stalled and delayed.

Everybody who connects to the node does so through its proxy (`advertise` in the topology), so a fault here cuts one
node off from all who call it, while the node itself can still call others: a partition that is not symmetric.
"""

from __future__ import annotations

import contextlib
import random
import struct
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import gevent
from gevent import Greenlet, socket
from gevent.event import Event
from gevent.queue import Queue
from gevent.server import StreamServer

CHUNK_BYTES = 64 << 10
STEP_S = 0.02
WAITING_CHUNKS = 64  # on their way through one connection in one direction; above it nothing is read


class Link(Protocol):
    """What the schedule can do to the links that lead to one node."""

    def cut(self) -> None:
        """They break."""

    def stall(self, *directions: str) -> None:
        """They are silent, `in` (to the node), `out`, or both."""

    def pair(self, direction: str) -> None:
        """Of those who call the node one is not heard any more (`in`), or hears nothing (`out`)."""

    def delay(self, seconds: float) -> None:
        """Everything arrives later."""

    def heal(self) -> None:
        """Back to links without faults."""


class Proxy:
    """Forwards what connects to `address` to `target`. Both are `host:port`.

    Attributes:
        delay_s: how much later everything arrives.
        is_cut: every connection is broken, and new ones are at once.
    """

    def __init__(self, address: str, target: str) -> None:
        self.address, self.target = address, target
        self.delay_s = 0.0
        self.is_cut = False
        self._flows = {"in": Event(), "out": Event()}
        self._pairs: dict[tuple[Any, Any], dict[str, Event]] = {}  # a connection's both sockets, and its own flows
        self._rng = random.Random(address)
        self._server = StreamServer(_split(address), self._serve)
        self.heal()
        self._server.start()

    def cut(self) -> None:
        """Resets every connection, and every new one, until it is healed."""
        self.is_cut = True
        for pair in list(self._pairs):
            for sock in pair:
                _reset(sock)

    def stall(self, *directions: str) -> None:
        """Reads nothing any more, `in` (to the node), `out`, or both: as if the packets vanished."""
        for direction in directions or ("in", "out"):
            self._flows[direction].clear()

    def pair(self, direction: str) -> None:
        """Reads nothing any more from one of those who are connected (`in`), or nothing for it (`out`)."""
        if self._pairs:
            self._rng.choice(list(self._pairs.values()))[direction].clear()

    def delay(self, seconds: float) -> None:
        """Everything arrives that much later, in both directions."""
        self.delay_s = seconds

    def heal(self) -> None:
        """Back to a link without faults; what was held back arrives now."""
        self.delay_s, self.is_cut = 0.0, False
        for flows in (self._flows, *self._pairs.values()):
            for flow in flows.values():
                flow.set()

    def close(self) -> None:
        """Ends it and its connections."""
        self._server.stop()
        self.cut()

    def _serve(self, sock: Any, _: object) -> None:
        try:
            if self.is_cut:
                _reset(sock)
                return
            with contextlib.closing(sock), socket.create_connection(_split(self.target), timeout=5.0) as other:
                sock.settimeout(None)
                other.settimeout(None)
                for s in (sock, other):
                    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._forward(sock, other)
        except OSError:  # nobody listens there now
            return

    def _forward(self, sock: Any, other: Any) -> None:
        pair = (sock, other)
        flows = self._pairs[pair] = {"in": Event(), "out": Event()}
        for flow in flows.values():
            flow.set()
        pumps: list[Greenlet[..., None]] = []
        try:
            for source, drain, direction in ((sock, other, "in"), (other, sock, "out")):
                chunks: Queue[tuple[float, bytes]] = Queue(WAITING_CHUNKS)
                both = (self._flows[direction], flows[direction])
                pumps += [
                    gevent.spawn(self._read, source, chunks, both),
                    gevent.spawn(self._write, drain, chunks, both),
                ]
            gevent.joinall(pumps, count=1)
            gevent.joinall(pumps, timeout=0.2)  # the last bytes of the other direction
        finally:
            gevent.killall(pumps)
            del self._pairs[pair]

    def _read(self, source: Any, chunks: Queue[tuple[float, bytes]], flows: Iterable[Event]) -> None:
        data = b"more"
        while data:
            for flow in flows:
                flow.wait()
            try:
                data = source.recv(CHUNK_BYTES)
            except OSError:
                data = b""
            chunks.put((time.monotonic(), data))

    def _write(self, drain: Any, chunks: Queue[tuple[float, bytes]], flows: Iterable[Event]) -> None:
        while True:
            came_at, data = chunks.get()
            while (wait := came_at + self.delay_s - time.monotonic()) > 0:
                gevent.sleep(min(wait, STEP_S))  # it may be healed meanwhile
            for flow in flows:
                flow.wait()
            if not data:
                return
            try:
                drain.sendall(data)
            except OSError:
                return


@contextlib.contextmanager
def proxies(links: dict[str, tuple[str, str]]) -> Iterator[dict[str, Proxy]]:
    """A proxy for each name, from `(address, target)`, for the length of a block."""
    made: dict[str, Proxy] = {}
    try:
        for name, (address, target) in links.items():
            made[name] = Proxy(address, target)
        yield made
    finally:
        for proxy in made.values():
            proxy.close()


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def _reset(sock: Any) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        sock.close()
