"""Runs a case of `autobahn_cases` against a server: what it is told, in which pieces, and what it answers."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import gevent
from gevent import socket
from gevent.event import Event

from tests.integration.autobahn_cases import BINARY, CLOSE, FRAME_WISE, NORMAL, PONG, TEXT, WHOLE, Case, Frame
from zim.protocol import websocket
from zim.protocol.frame import Op
from zim.protocol.websocket import FrameReader, apply_mask

WAIT_S = 20.0
MASK = b"\1\2\3\4"
_FEW = 200  # pieces that are sent apart; above it the kernel may put some together
_OPENING = (
    b"GET /sub HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

Connect = Callable[[str], socket.socket]  # to `host:port`; over TLS it wraps the socket


def connect(address: str) -> socket.socket:
    """In plain TCP."""
    host, _, port = address.rpartition(":")
    sock = socket.create_connection((host, int(port)), timeout=WAIT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Answer(NamedTuple):
    """What a server has made of a case.

    Attributes:
        said: pongs and echoes, in order, as in Case.
        code: of its close frame; 0 if it closed without one, or without a code.
    """

    said: list[tuple[int, bytes]]
    code: int


class Peer:
    """A server that echoes what it is sent: what its messages look like around a payload, and how one logs in."""

    before, after = b"", b""

    def __init__(self, address: str, connect: Connect = connect) -> None:
        self._address, self._connect = address, connect

    def open(self) -> tuple[socket.socket, FrameReader]:
        """A connection after the upgrade."""
        sock, answer = self._connect(self._address), b""
        sock.sendall(_OPENING)
        while b"\r\n\r\n" not in answer:
            data = sock.recv(1)  # no byte of what follows
            assert data, f"no upgrade: {answer!r}"
            answer += data
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        return sock, FrameReader(1 << 26, is_server=False)

    def payload(self, text: bytes) -> bytes:
        """Of an echo."""
        return text

    def written(self, payload: bytes) -> bytes:
        """A payload, as it stands in a message to it."""
        return payload

    def encode(self, frames: Sequence[Frame]) -> list[bytes]:
        """Each frame's bytes. Around the payload of a text message, however it is cut, is what belongs there."""
        found, is_within = [], False
        for opcode, payload, fin, rsv in frames:
            body = payload
            if opcode == TEXT or (opcode == 0 and is_within):
                is_begin, is_within = opcode == TEXT, not fin
                body = self.before * is_begin + self.written(payload) + self.after * fin
            found.append(encode_frame(opcode, body, fin, rsv))
        return found


class Comet(Peer):
    """A comet echoes packets of op 4, as packets of op 5 in an array. A payload is a string of JSON in it."""

    before, after = b'{"ver":1,"op":4,"seq":1,"body":"', b'"}'

    def open(self) -> tuple[socket.socket, FrameReader]:
        sock, reader = super().open()
        sock.sendall(encode_frame(TEXT, b'{"ver":1,"op":7,"seq":1,"body":7}', True, 0))
        said: list[object] = []
        while not said:
            said += reader.receive(sock.recv(4096))
        (text,) = said
        assert isinstance(text, websocket.Text)
        assert json.loads(text.body)[0]["op"] == Op.AUTH_REPLY
        return sock, reader

    def payload(self, text: bytes) -> bytes:
        (packet,) = json.loads(text)
        assert packet["op"] == Op.PUSH
        return str(packet["body"]).encode()

    def written(self, payload: bytes) -> bytes:
        return payload.replace(b"\x00", b"\\u0000")  # the only one of JSON's special characters in the table


def encode_frame(opcode: int, body: bytes, fin: bool, rsv: int) -> bytes:
    """One masked frame, whatever RFC 6455 says of it."""
    first, size = fin << 7 | rsv << 4 | opcode, len(body)
    if size < 126:
        head = struct.pack(">BB", first, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack(">BBQ", first, 0x80 | 127, size)
    return head + MASK + apply_mask(body, MASK)


def cut(frames: Sequence[bytes], chop: int) -> list[bytes]:
    """What is sent, piece by piece."""
    if chop == FRAME_WISE:
        return list(frames)
    data = b"".join(frames)
    return [data] if chop == WHOLE else [data[at : at + chop] for at in range(0, len(data), chop)]


def run(case: Case, peer: Peer, pieces: Sequence[bytes] | None = None) -> Answer:
    """Plays it. The client closes once it has its answers, unless the case closes, or the server is to find a mistake.

    Args:
        pieces: the bytes of its frames as they are to be sent, if not as the case says.
    """
    pieces = cut(peer.encode(case.frames), case.chop) if pieces is None else pieces
    closes = any(frame.opcode == CLOSE for frame in case.frames) or NORMAL not in case.code
    sock, reader = peer.open()
    ear = _Ear(sock, reader, peer, case)
    hearing = gevent.spawn(ear.hear)
    try:
        with suppress(OSError):  # it may have closed
            for piece in pieces:
                sock.sendall(piece)
                if 1 < len(pieces) < _FEW:
                    gevent.sleep(0)
            if not closes:
                ear.is_answered.wait(WAIT_S)
                sock.sendall(encode_frame(CLOSE, NORMAL.to_bytes(2, "big"), True, 0))
        hearing.get(timeout=WAIT_S)
    finally:
        hearing.kill()
        sock.close()
    return Answer(ear.said, ear.code)


class _Ear:
    """Hears what a server says, until it hangs up."""

    def __init__(self, sock: socket.socket, reader: FrameReader, peer: Peer, case: Case) -> None:
        self._sock, self._reader, self._peer, self._case = sock, reader, peer, case
        self.said: list[tuple[int, bytes]] = []
        self.code = 0
        self.is_answered = Event()
        self._look()

    def hear(self) -> None:
        """Switches."""
        with suppress(OSError):
            while data := self._sock.recv(1 << 16):
                for what in self._reader.receive(data):
                    self._take(what)
                self._look()
        self.is_answered.set()

    def _take(self, what: object) -> None:
        match what:
            case websocket.Pong(body):
                self.said.append((PONG, body))
            case websocket.Text(body):
                self.said.append((TEXT, self._peer.payload(body)))
            case websocket.Binary(body):
                self.said.append((BINARY, body))
            case websocket.Close(code, _):
                self.code = code
            case _:
                raise AssertionError(f"a server says {what}")

    def _look(self) -> None:
        """All messages are echoed, and the last ping is answered; others may not be (RFC 6455 5.5.3)."""
        wanted, said = ([one for one in some if one[0] != PONG] for some in (self._case.echoes, self.said))
        if len(said) >= len(wanted) and self._case.echoes[-1:] == self.said[-1:]:
            self.is_answered.set()
