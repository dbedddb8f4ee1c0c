"""A comet to talk to, and the fabric behind it: speaks version 3 as a real one does, over TCP and WebSocket."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from tests.unit.client.peers import WAIT_S, Connection, TcpPeer, ws_peer
from zim.protocol import frame
from zim.protocol.frame import Op, Packet


class Log:
    """A stream's history."""

    def __init__(self, epoch: str = "e1") -> None:
        self.epoch = epoch
        self.floor = 0
        self.bodies: list[bytes] = []

    @property
    def head(self) -> int:
        """The last offset."""
        return self.floor + len(self.bodies)

    def start(self, resume: list[Any] | None, default: int) -> dict[str, Any]:
        """From where on a client gets it."""
        epoch, offset = resume or (self.epoch, default)
        is_recovered = epoch == self.epoch and self.floor <= offset <= self.head
        return {
            "epoch": self.epoch,
            "offset": offset if is_recovered else self.head,
            "recovered": is_recovered,
        }


class Fabric:
    """Streams, what users have acknowledged, and the connections that are open.

    Attributes:
        auths: the bodies of all logins.
        requests: op and body of whatever came after them.
        forbidden, away: rooms that nobody may join, and whose router is away.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.logs: dict[str, Log] = {"u:7": Log(), "r:1": Log(), "*": Log()}
        self.cursors: dict[str, int] = {}
        self.auths: list[dict[str, Any]] = []
        self.requests: list[tuple[int, Any]] = []
        self.forbidden: set[str] = set()
        self.away: set[str] = set()
        self.heartbeat_s: float = 300
        self.repeats = 0
        self.connections: set[Served] = set()

    def push(self, stream: str, *bodies: bytes) -> None:
        """Appends, and sends to whoever is in the stream."""
        with self.lock:
            log = self.logs.setdefault(stream, Log())
            log.bodies += bodies
            for connection in list(self.connections):
                connection.flush()

    def cut(self) -> None:
        """Hangs up on everybody."""
        with self.lock:
            for connection in list(self.connections):
                connection.hang_up()

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Waits until something is true; looked at after each login and request."""
        with self.changed:
            assert self.changed.wait_for(condition, WAIT_S)


class Served:
    """One client's connection."""

    def __init__(self, fabric: Fabric, send: Callable[[Packet], None], hang_up: Callable[[], None]) -> None:
        self.fabric = fabric
        self._send = send
        self.hang_up = hang_up
        self.sent: dict[str, int] = {}

    def say(self, op: int, seq: int, body: object) -> None:
        """One packet with a JSON body."""
        self._send(Packet(op, seq, 3, json.dumps(body).encode()))

    def flush(self) -> None:
        """Sends what the client has not got yet."""
        for stream, sent in self.sent.items():
            log = self.fabric.logs[stream]
            for offset in range(max(sent + 1 - self.fabric.repeats, log.floor + 1, 1), log.head + 1):
                self._send(Packet(Op.PUSH, 0, 3, log.bodies[offset - log.floor - 1], stream, offset))
            self.sent[stream] = log.head

    def handle(self, packet: Packet) -> None:
        """Answers one packet."""
        fabric, seq = self.fabric, packet.seq
        assert packet.version == 3
        with fabric.lock:
            body: Any = json.loads(packet.body) if packet.body.strip() else None
            if packet.op == Op.AUTH:
                self._log_in(seq, body)
            elif packet.op == Op.HEARTBEAT:
                self._send(Packet(Op.HEARTBEAT_REPLY, seq, 3))
            elif packet.op == Op.JOIN:
                self.say(Op.JOINED, seq, {"streams": self._join(body["rooms"], body["resume"])})
            elif packet.op == Op.LEAVE:
                for room in body["rooms"]:
                    self.sent.pop("r:" + room, None)
                self.say(Op.LEFT, seq, {"streams": ["r:" + room for room in body["rooms"]]})
            elif packet.op == Op.ACKNOWLEDGE:
                for stream, offset in body.items():
                    fabric.cursors[stream] = max(fabric.cursors.get(stream, 0), offset)
                self.say(Op.ACKNOWLEDGED, seq, {stream: fabric.cursors[stream] for stream in body})
            if packet.op != Op.AUTH:
                fabric.requests.append((packet.op, body))
            self.flush()
            fabric.changed.notify_all()

    def _log_in(self, seq: int, auth: dict[str, Any]) -> None:
        fabric = self.fabric
        fabric.auths.append(auth)
        resume, own = auth.get("resume", {}), f"u:{auth['token']}"
        streams = {}
        for stream, default in ((own, fabric.cursors.get(own, 0)), ("*", fabric.logs["*"].head)):
            streams[stream] = fabric.logs.setdefault(stream, Log()).start(resume.get(stream), default)
            self.sent[stream] = streams[stream]["offset"]
        streams |= self._join(auth.get("rooms", ["1"]), resume)
        self.say(
            Op.AUTH_REPLY, seq, {"key": f"{auth['token']}_1", "heartbeat_s": fabric.heartbeat_s, "streams": streams}
        )
        fabric.connections.add(self)

    def _join(self, rooms: list[str], resume: dict[str, Any]) -> dict[str, Any]:
        streams: dict[str, Any] = {}
        for room in rooms:
            stream = f"r:{room}"
            if room in self.fabric.forbidden:
                streams[stream] = {"error": "not allowed"}
            elif room in self.fabric.away:
                streams[stream] = {"error": "not joined, retrying"}
            else:
                log = self.fabric.logs.setdefault(stream, Log())
                streams[stream] = log.start(resume.get(stream), log.head)
                self.sent[stream] = streams[stream]["offset"]
        return streams

    def come_back(self, room: str) -> None:
        """The room's router is there again."""
        with self.fabric.lock:
            self.fabric.away.discard(room)
            self.say(Op.JOINED, 0, {"streams": self._join([room], {})})
            self.flush()


@contextlib.contextmanager
def _served(fabric: Fabric, send: Callable[[Packet], None], hang_up: Callable[[], None]) -> Iterator[Served]:
    served = Served(fabric, send, hang_up)
    try:
        yield served
    except (OSError, EOFError, ConnectionClosed):
        pass  # the client, or `cut`, has hung up
    finally:
        with fabric.lock:
            fabric.connections.discard(served)
            fabric.changed.notify_all()


@contextlib.contextmanager
def tcp_comet(fabric: Fabric) -> Iterator[str]:
    """A comet for TCP; gives its address."""

    def script(peer: Connection) -> None:
        def send(packet: Packet) -> None:
            with contextlib.suppress(OSError):
                peer.socket.sendall(frame.encode(packet))

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                peer.socket.shutdown(socket.SHUT_RDWR)

        with _served(fabric, send, hang_up) as served:
            while True:
                op, body, seq = peer.receive()
                served.handle(Packet(op, seq, 3, body))

    with TcpPeer(script) as comet:
        yield comet.address


@contextlib.contextmanager
def ws_comet(fabric: Fabric) -> Iterator[str]:
    """A comet for WebSocket; gives its address."""

    def script(connection: ServerConnection) -> None:
        def send(packet: Packet) -> None:
            fields: dict[str, Any] = {"ver": 3, "op": packet.op, "seq": packet.seq}
            fields["body"] = json.loads(packet.body) if packet.body else {}
            if packet.stream:
                fields |= {"stream": packet.stream, "offset": packet.offset}
            with contextlib.suppress(ConnectionClosed):
                connection.send(json.dumps([fields]))

        with _served(fabric, send, lambda: connection.socket.shutdown(socket.SHUT_RDWR)) as served:
            while True:
                found = json.loads(connection.recv(timeout=WAIT_S))
                served.handle(Packet(found["op"], found["seq"], found["ver"], json.dumps(found["body"]).encode()))

    with ws_peer(script) as address:
        yield f"ws://{address}"


COMETS = {"tcp": tcp_comet, "ws": ws_comet}
