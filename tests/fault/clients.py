"""Clients that write down what they are told: zim's dialect with resume, and goim's without.

A client connects to any comet, comes back to any other when its connection ends, and does as the schedule says: hops,
leaves and joins rooms, stops reading. It judges nothing; tests.fault.checker does.
"""

from __future__ import annotations

import contextlib
import json
import random
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import gevent
from gevent import socket
from gevent.lock import RLock

from tests.fault import wire
from tests.fault.history import (
    Acknowledged,
    Asked,
    Broken,
    Client,
    Closed,
    Connected,
    Froze,
    Joined,
    Left,
    Received,
    Told,
)
from tests.fault.wire import Garbled, Said, WireReader

CONNECT_S = 8.0  # more than the comet's own limit for a handshake
SILENCE_S = 12.0  # without a word, also no answer to a heartbeat, the server is taken for lost
PAUSE_S = 0.15  # between two attempts
ACKNOWLEDGED = 0.3  # of the messages of its own stream, the part at which a zim client acknowledges all up to there
BUFFER_BYTES = 32 << 10  # of a client's receiving side, so that one that stops reading is noticed

Clock = Callable[[], float]


class Person:
    """What both dialects share: one user, one connection at a time, for ever.

    Args:
        comets: addresses by the comet's name.
        clock: seconds since the run began.

    Attributes:
        record: all that happened to it.
    """

    dialect: Literal["zim", "goim"]

    def __init__(self, name: str, uid: int, comets: Mapping[str, str], is_ws: bool, clock: Clock, seed: str) -> None:
        self.uid, self.is_ws = uid, is_ws
        self.record = Client(name, self.dialect)
        self.received: set[tuple[str, int]] = set()  # (stream, number); goim is not told the stream
        self.is_online = False
        self._comets, self._clock = comets, clock
        self._rng = random.Random(f"{seed} {name}")
        self._socket: Any = None
        self._next = ""
        self._seq = 0
        self._writing = RLock()
        self._frozen_until = self._away_until = 0.0
        self._greenlet = gevent.spawn(self._run)

    # -- what the schedule does to it

    def hop(self) -> None:
        """Connects to another comet, without a word to this one."""
        self._next = self._rng.choice(sorted(self._comets))
        self._hang_up("hops")

    def drop(self) -> None:
        """Loses its connection."""
        sock = self._socket
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._hang_up("is reset")

    def freeze(self, seconds: float) -> None:
        """Reads nothing for a while."""
        self._frozen_until = self._clock() + seconds
        self._note(Froze(self._clock(), self._frozen_until))

    def go_away(self, seconds: float) -> None:
        """Hangs up, and comes back later."""
        self._away_until = self._clock() + seconds
        self._hang_up("goes away")

    def thaw(self) -> None:
        """Reads again, and comes back at once."""
        self._frozen_until = self._away_until = 0.0

    def beat(self) -> None:
        """Says that it lives."""
        if self.is_online:
            self._say(wire.HEARTBEAT, b"", 3 if self.dialect == "zim" else 1)

    def stop(self) -> None:
        """Ends it. Nothing that comes later is recorded."""
        self._greenlet.kill()
        if self._socket is not None:
            self._socket.close()

    def has(self, stream: str, number: int) -> bool:
        """Whether that push has come, of that stream."""
        return (stream, number) in self.received

    @property
    def is_whole(self) -> bool:
        """It is online, and in all that it wants to get."""
        return self.is_online

    @property
    def streams(self) -> tuple[str, ...]:
        """What it wants to get."""
        return (f"u:{self.uid}", "r:1", "*")

    # -- its life

    def _run(self) -> None:
        while True:
            comet = self._next or self._rng.choice(sorted(self._comets))
            self._next = ""
            why = "cannot connect"
            try:
                why = self._live(comet)
            except Garbled as e:
                why = f"garbled: {e}"
                self._note(Broken(self._clock(), str(e)))
            except OSError as e:
                why = why if self._socket is None else str(e)
            self._end(why)
            gevent.sleep(PAUSE_S * self._rng.uniform(0.5, 1.5))
            while (wait := self._away_until - self._clock()) > 0:
                gevent.sleep(min(wait, 0.05))

    def _live(self, comet: str) -> str:
        host, _, port = self._comets[comet].rpartition(":")
        sock = socket.socket()
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(CONNECT_S)
            sock.connect((host, int(port)))
            self._socket = sock
            reader = WireReader(self.is_ws)
            rest = self._upgrade() if self.is_ws else b""
            self._greet()
            return self._listen(comet, reader, rest)
        finally:
            sock.close()

    def _listen(self, comet: str, reader: WireReader, rest: bytes) -> str:
        sock, data, why = self._socket, rest, "the server closed"
        while True:
            for said in reader.feed(data):
                if said.op == wire.CLOSING:
                    why = f"told to go: {said.body}"
                    continue
                if self._socket is not sock:
                    return why  # hung up meanwhile
                if not self.is_online and said.op == wire.AUTH_REPLY:
                    sock.settimeout(SILENCE_S)
                    self._note(Connected(self._clock(), comet, self.streams))
                    self.is_online = True
                self._hear(said)
            if reader.close:
                return f"told to go: {reader.close}"
            while (wait := self._frozen_until - self._clock()) > 0:
                gevent.sleep(min(wait, 0.05))
            data = sock.recv(64 << 10)
            if not data:
                return why

    def _upgrade(self) -> bytes:
        self._socket.sendall(
            b"GET /sub HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        got = b""
        while b"\r\n\r\n" not in got:
            data = self._socket.recv(4096)
            if not data:
                raise OSError("no upgrade")
            got += data
        head, rest = got.split(b"\r\n\r\n", 1)
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            raise OSError(f"no upgrade: {head[:60]!r}")
        return rest

    def _hang_up(self, why: str) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            self._end(why)  # at once: what its greenlet may still find in the buffer is not recorded
            sock.close()

    def _end(self, why: str) -> None:
        if self.is_online:
            self._note(Closed(self._clock(), why))
        self.is_online = False
        self._socket = None

    def _say(self, op: int, body: bytes, version: int) -> None:
        self._seq += 1
        sock = self._socket
        if sock is not None:
            with contextlib.suppress(OSError), self._writing:  # it has ended, which the reader notes
                sock.sendall((wire.text if self.is_ws else wire.packet)(op, body, self._seq, version))

    def _note(self, event: Any) -> None:
        self.record.events.append(event)

    def _greet(self) -> None:
        raise NotImplementedError

    def _hear(self, said: Said) -> None:
        raise NotImplementedError


class Goim(Person):
    """A goim v1 client: its token is its uid, its room is 1, and what it misses while it is away it does not get."""

    dialect = "goim"

    def has(self, stream: str, number: int) -> bool:
        return ("", number) in self.received

    def _greet(self) -> None:
        self._say(wire.AUTH, str(self.uid).encode(), 1)

    def _hear(self, said: Said) -> None:
        if said.op == wire.PUSH:
            number = number_of(said.body)
            self.received.add(("", number))
            self._note(Received(self._clock(), number))


class Zim(Person):
    """A client of zim's dialect, which comes back with what it has.

    Attributes:
        rooms: those that it wants to be in.
        positions: epoch and offset of the last message of each stream that it ever was in.
        has_memory: it resumes. Without, its own stream begins at the user's cursor, each time.
    """

    dialect = "zim"

    def __init__(
        self,
        name: str,
        uid: int,
        comets: Mapping[str, str],
        is_ws: bool,
        clock: Clock,
        seed: str,
        rooms: set[str],
        has_memory: bool = True,
    ) -> None:
        self.rooms, self.has_memory = rooms, has_memory
        self.positions: dict[str, tuple[str, int]] = {}
        self._states: dict[str, str] = {}  # room → joining, in or leaving; one request at a time for each
        self._resumed: dict[str, tuple[str, int]] = {}  # stream → what was asked for, until it is joined
        super().__init__(name, uid, comets, is_ws, clock, seed)

    @property
    def streams(self) -> tuple[str, ...]:
        return (f"u:{self.uid}", "*", *(f"r:{room}" for room in sorted(self.rooms)))

    @property
    def is_whole(self) -> bool:
        return self.is_online and all(self._states.get(room) == "in" for room in self.rooms)

    def leave(self, room: str) -> None:
        """Leaves a room; what comes until the server confirms is still received."""
        self.rooms.discard(room)
        self._reconcile()

    def join(self, room: str) -> None:
        """Joins a room, with what it has of it."""
        self.rooms.add(room)
        self._reconcile()

    def _reconcile(self) -> None:
        """Asks for the rooms that it wants, and out of those that it does not."""
        if not self.is_online:
            return  # the next auth says it all
        if missing := sorted(room for room in self.rooms if room not in self._states):
            self._states |= dict.fromkeys(missing, "joining")
            resume = self._resume(f"r:{room}" for room in missing)
            self._say(wire.JOIN, json.dumps({"rooms": missing, "resume": resume}).encode(), 3)
        if surplus := sorted(room for room, state in self._states.items() if state == "in" and room not in self.rooms):
            self._states |= dict.fromkeys(surplus, "leaving")
            self._say(wire.LEAVE, json.dumps({"rooms": surplus}).encode(), 3)

    def _greet(self) -> None:
        rooms = sorted(self.rooms)
        self._states = dict.fromkeys(rooms, "joining")
        self._resumed = {}
        resume = self._resume(self.streams)
        body = {"token": str(self.uid), "rooms": rooms, "resume": resume, "device": self.record.name}
        self._say(wire.AUTH, json.dumps(body).encode(), 3)

    def _resume(self, streams: Iterable[str]) -> dict[str, tuple[str, int]]:
        if not self.has_memory:
            return {}
        found = {stream: self.positions[stream] for stream in streams if stream in self.positions}
        self._resumed |= found
        return found

    def _hear(self, said: Said) -> None:
        body = said.body
        match said.op:
            case wire.AUTH_REPLY | wire.JOINED:
                for stream, reply in body["streams"].items():
                    self._joined(stream, reply)
                self._reconcile()
            case wire.LEFT:
                for stream in body["streams"]:
                    self._note(Left(self._clock(), stream))
                    self._states.pop(stream.removeprefix("r:"), None)
                self._reconcile()
            case wire.GAP:
                self._note(Told(self._clock(), body["stream"], body["epoch"], body["from"], body["to"], body["reason"]))
                self.positions[body["stream"]] = (body["epoch"], body["to"])
            case wire.PUSH:
                number = number_of(body)
                self.received.add((said.stream, number))
                self._note(Received(self._clock(), number, said.stream, said.offset))
                if said.stream in self.positions:
                    self.positions[said.stream] = (self.positions[said.stream][0], said.offset)
                if said.stream == f"u:{self.uid}" and self._rng.random() < ACKNOWLEDGED:
                    self._note(Asked(self._clock(), said.stream, said.offset))
                    self._say(wire.ACKNOWLEDGE, json.dumps({said.stream: said.offset}).encode(), 3)
            case wire.ACKNOWLEDGED:
                for stream, offset in body.items():
                    self._note(Acknowledged(self._clock(), stream, offset))
            case wire.HEARTBEAT_REPLY:
                pass
            case _:
                self._note(Broken(self._clock(), f"op {said.op}: {body!r}"))

    def _joined(self, stream: str, reply: dict[str, Any]) -> None:
        if error := reply.get("error"):
            if error != "not joined, retrying":
                self._note(Broken(self._clock(), f"{stream}: {error}"))
            return
        epoch, offset = reply["epoch"], reply["offset"]
        resume = self._resumed.pop(stream, None)
        self._note(Joined(self._clock(), stream, epoch, offset, bool(reply["recovered"]), resume))
        self.positions[stream] = (epoch, offset)
        if stream.startswith("r:"):
            self._states[stream[2:]] = "in"


def number_of(body: Any) -> int:
    """The push's number; -1 if that is no body of ours."""
    number = body.get("n") if isinstance(body, dict) else None
    return number if isinstance(number, int) else -1
