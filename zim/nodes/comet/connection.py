"""One client's socket: the only writer to it. Last stop of a push: a chunk comes in, bytes go to the kernel.

A write goes straight to the socket, without blocking and without a switch. Only one that is full gets an outbox and a
greenlet that waits for it; until that is empty, later chunks join it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, cast

import gevent
from gevent import socket
from gevent.event import Event

from zim.nodes.comet.outbox import Outbox
from zim.nodes.comet.results import Row
from zim.nodes.comet.views import Session
from zim.protocol import client, dialect3, frame, websocket
from zim.protocol.client import Dialect
from zim.protocol.dialect3 import Gap, Start
from zim.protocol.frame import Op, Packet

log = logging.getLogger(__name__)

READ_BYTES = 4_096
CLOSE_S = 2.0  # for a half-sent frame and the close frame after it

GOING_AWAY, POLICY, TRY_AGAIN = 1001, 1008, 1013  # RFC 6455 7.4.1, and the IANA registry for 1013


@dataclass(frozen=True)
class Limits:
    """What the topology allows a client. See zim.topology.Comet."""

    max_packet_bytes: int
    handshake_timeout_s: float
    heartbeat_s: float
    outbox_bytes: int
    drops_oldest: bool


class Owner(Protocol):
    """Who is told of a connection's end, each once. Neither may switch."""

    def closed(self, connection: Connection) -> None:
        """Nothing is written or taken from its client any more."""

    def release(self) -> None:
        """Its socket is closed."""


def _unpark(connection: Connection, sock: Any, read: Callable[[Connection], None]) -> None:
    """In the hub. No method of an object: gevent's close() throws into the callback's `__self__`."""
    if sock._read_event is not None:  # else it was closed in the meantime
        sock._read_event.stop()
        gevent.spawn_raw(read, connection)


class Connection(Session):
    """See the module.

    Attributes:
        deadline: monotonic; when it is closed unless its client has spoken.
        is_closed: nothing is written any more.
        may_join: rooms that its client may ask for; None for any.
        reason: why it is closed.
    """

    __slots__ = (
        "_answered",
        "_asked",
        "_limits",
        "_outbox",
        "_owner",
        "_send",
        "_socket",
        "deadline",
        "is_closed",
        "may_join",
        "reason",
    )

    def __init__(
        self,
        conn: int,
        dialect: Dialect,
        sock: socket.socket,
        limits: Limits,
        owner: Owner,
    ) -> None:
        super().__init__(conn, dialect)
        self._owner: Owner | None = owner
        self._socket = sock
        raw: Any = sock
        self._send = raw._sock.send  # gevent's own would wait when the socket is full
        self._limits = limits
        self._outbox: Outbox | None = None
        self._asked: Packet | None = None
        self._answered: Event | None = None
        self.deadline = time.monotonic() + limits.handshake_timeout_s
        self.is_closed = False
        self.may_join: tuple[str, ...] | None = ()
        self.reason = ""

    @property
    def waiting_bytes(self) -> int:
        """What waits in its outbox."""
        return self._outbox.waiting_bytes if self._outbox is not None else 0

    # -- writing

    @property
    def is_full(self) -> bool:
        """See Session."""
        return self._outbox is not None

    def write(self, chunk: bytes, rows: Sequence[Row] = ()) -> bool:
        """See Session. Whole packets or frames only."""
        if self._outbox is None and not self.is_closed:
            try:
                sent = self._send(chunk)
            except BlockingIOError:
                sent = 0
            except OSError as e:
                self.drop(e.strerror or type(e).__name__)
                sent = -1
            if sent == len(chunk):
                return True
            if sent >= 0:
                self._outbox = Outbox(self._limits.outbox_bytes)
                self._outbox.begin(chunk, sent, rows)
                gevent.spawn(self._drain, self._outbox)
                return False
        elif self._outbox is not None and not self.is_closed:
            self._queue(self._outbox, chunk, rows)
            return False
        for row in rows:
            row.settle("gone")
        return False

    def _queue(self, outbox: Outbox, chunk: bytes, rows: Sequence[Row]) -> None:
        if outbox.put(chunk, rows):
            return
        if self._limits.drops_oldest and not self.dialect.is_zim:  # who can resume need not miss anything
            outbox.put_newest(chunk, rows)
            return
        log.info("slow consumer", extra={"uid": self.uid, "key": self.key, "waiting_bytes": outbox.waiting_bytes})
        for row in rows:
            row.settle("shed")
        self.close("slow consumer", POLICY, "shed")

    def _drain(self, outbox: Outbox) -> None:
        """The greenlet of a full socket."""
        sock: Any = self._socket
        try:
            while outbox:
                try:
                    outbox.sent(sock._sock.sendmsg(outbox.head()))
                except BlockingIOError:
                    sock._wait(sock._write_event)
        except OSError as e:
            self.drop(e.strerror or type(e).__name__)
        finally:
            outbox.abandon("gone")
            if outbox.dropped:
                log.info("slow consumer", extra={"uid": self.uid, "key": self.key, "dropped": outbox.dropped})
            self._outbox = None
            if self.is_closed:
                self._say_goodbye()

    # -- closing

    def close(self, reason: str, code: int = 0, outcome: str = "gone") -> None:
        """Closes from our side. Does not switch.

        Args:
            reason: for the log, for zim's clients, and for WebSocket clients if there is a code.
            code: of a WebSocket close frame; 0 for none, as goim v1 closes on a packet that it does not like.
            outcome: what becomes of messages that wait for the client: "gone" or "shed".
        """
        if self.is_closed:
            return
        farewell = self._reply(Op.DISCONNECT, 0, dialect3.disconnect(reason)) if self.dialect.is_zim else b""
        if code and self.dialect.is_text:
            farewell += websocket.close_frame(code, reason)
        if self._outbox is not None:
            self._outbox.end_with(farewell, outcome)
        elif farewell:
            self.write(farewell)
        if self.is_closed:
            return
        self._end(reason)
        if self._outbox is None and not farewell:
            self._hang_up()
            return
        gevent.spawn_later(CLOSE_S, self._hang_up)
        if self._outbox is None:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        """All is sent. The client closes next: to close first, with bytes of its unread, would reset what we sent."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def drop(self, reason: str) -> None:
        """The client is gone, or not worth a word: nothing more goes out, whatever waits. Does not switch."""
        if not self.is_closed:
            self._end(reason)
        self._hang_up()

    def _end(self, reason: str) -> None:
        self.is_closed, self.reason = True, reason
        self._wake()
        if self._owner is not None:
            self._owner.closed(self)

    def _hang_up(self) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            self._socket.close()
            owner.release()

    # -- reading

    def receive(self, waits: bool) -> bytes | None:
        """What its client has sent; b"" if it has closed. Switches: to wait, if it may.

        Args:
            waits: if nothing is there, wait for it; otherwise return None.

        Raises:
            OSError: the connection broke, or was closed from our side.
        """
        sock: Any = self._socket
        try:
            return cast(bytes, sock._sock.recv(READ_BYTES))
        except BlockingIOError:
            return cast(bytes, sock.recv(READ_BYTES)) if waits else None

    def park(self, read: Callable[[Connection], None]) -> None:
        """Its client is silent: no greenlet waits for it, which would cost 7 kB, only a watcher of the event loop.

        Args:
            read: the body of the greenlet that goes on when it speaks.
        """
        sock: Any = self._socket
        if sock._read_event is not None:  # else the socket is closed already
            sock._read_event.start(_unpark, self, sock, read)

    # -- answers to what its client asked for

    def await_reply(self, asked: Packet) -> Event:
        """Its client has asked for something that others decide; the event is set once the reply is out, or the
        connection closed."""
        self._asked, self._answered = asked, Event()
        return self._answered

    def opened(self, starts: Sequence[Start]) -> None:
        """See Session."""
        assert self._asked is not None
        self.heard()
        body = dialect3.auth_reply(self.key, self._limits.heartbeat_s, starts) if self.dialect.is_zim else b""
        self.write(client.reply(self.dialect, Packet(Op.AUTH_REPLY, self._asked.seq, self._asked.version, body)))
        self._wake()

    def joined(self, seq: int, starts: Sequence[Start]) -> None:
        """See Session."""
        self._tell(Op.JOINED, seq, dialect3.joined(starts))

    def left(self, seq: int, streams: Sequence[str]) -> None:
        """See Session."""
        self._tell(Op.LEFT, seq, dialect3.left(streams))

    def acknowledged(self, stream: str, offset: int) -> None:
        """See Session."""
        seq = self._asked.seq if self._asked is not None and self._asked.op == Op.ACKNOWLEDGE else 0
        self._tell(Op.ACKNOWLEDGED, seq, dialect3.acknowledged(stream, offset))

    def missed(self, gap: Gap, is_kept: bool) -> None:
        """See Session. A client that cannot be told is closed, and comes back fresh."""
        if self.dialect.is_zim:
            self.write(self._reply(Op.GAP, 0, dialect3.gap(gap)))
        elif is_kept:
            self.close(f"messages of {gap.stream} are missing: {gap.reason}", TRY_AGAIN)

    def _tell(self, op: int, seq: int, body: bytes) -> None:
        self.write(self._reply(op, seq, body))
        if self._asked is not None and self._asked.op == op - 1:  # else it tells what was asked for long ago
            self._wake()

    def _reply(self, op: int, seq: int, body: bytes) -> bytes:
        return client.reply(self.dialect, Packet(op, seq, frame.VERSION, body))

    def _wake(self) -> None:
        if self._answered is not None:
            self._answered.set()
        self._asked = self._answered = None

    def heard(self) -> None:
        """Its client has said something: it lives."""
        self.deadline = time.monotonic() + self._limits.heartbeat_s
