"""One client's connection: the only writer to its pipe. Last stop of a push.

In: a chunk, with the pushes of one pass. Out: bytes to the kernel, and to its rows what became of them.

A write goes straight to the pipe, without blocking and without a switch. Only one that is full gets an outbox and a
greenlet that waits for it; until that is empty, later chunks join it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import gevent
from gevent.event import Event
from typing_extensions import override

from zim.fabric.grants import NO_RIGHTS, Grant
from zim.net.pipe import Pipe
from zim.nodes.comet.outbox import Outbox
from zim.nodes.comet.phases import Cause, Phase, after
from zim.nodes.comet.results import Row
from zim.nodes.comet.views import Session
from zim.protocol.endings import Ending
from zim.protocol.frame import Packet
from zim.protocol.speech import Speech
from zim.protocol.vocabularies.base import Login, Onward, Past, ReadHistory, Refresh, Request, Start

log = logging.getLogger(__name__)

CLOSE_S = 2.0  # for a half-sent frame and the close frame after it


@dataclass(frozen=True)
class ClientLimits:
    """What the topology allows a client. See zim.topology.Comet."""

    max_packet_bytes: int
    handshake_timeout_s: float
    heartbeat_s: float
    outbox_bytes: int
    drops_oldest: bool


class Owner(Protocol):
    """Who is told of a connection's end, each once. Neither may switch."""

    def on_closed(self, connection: Connection) -> None:
        """Nothing is written or taken from its client any more."""

    def release(self) -> None:
        """Its socket is closed."""


class Asked(NamedTuple):
    """What a client waits for, and has its further packets wait.

    Attributes:
        packet: that asked for it; kind: what it says.
        answered: set once the reply is out, or the connection is over.
    """

    packet: Packet
    kind: type[Login | Request]
    answered: Event


class Connection(Session):
    """See the module.

    Attributes:
        pipe: its bytes; only the connection writes.
        phase: where it is in its life.
        deadline: monotonic; when it is closed unless its client has spoken.
        rights: what its grant allows; expires: when that ends; monotonic, or never.
        cookie: a token that its browser has shown with the upgrade; is_anonymous: it may come without one.
        ending, reason: why it is closed.
        address: of its client, for people; since: when it came; monotonic.
    """

    __slots__ = (
        "_asked",
        "_limits",
        "_outbox",
        "_owner",
        "_send",
        "address",
        "cookie",
        "deadline",
        "ending",
        "expires",
        "is_anonymous",
        "phase",
        "pipe",
        "reason",
        "rights",
        "since",
    )

    def __init__(self, conn: int, speech: Speech, pipe: Pipe, address: str, limits: ClientLimits, owner: Owner) -> None:
        super().__init__(conn, speech)
        self._owner: Owner | None = owner
        self.pipe = pipe
        self._send = pipe.send
        self._limits = limits
        self._outbox: Outbox | None = None
        self._asked: Asked | None = None
        self.phase = Phase.HANDSHAKE
        self.address, self.since = address, time.monotonic()
        self.deadline = self.since + limits.handshake_timeout_s
        self.rights, self.expires = NO_RIGHTS, math.inf
        self.cookie, self.is_anonymous = b"", False
        self.ending, self.reason = Ending.LOST, ""

    @property
    def waiting_bytes(self) -> int:
        """What waits in its outbox."""
        return self._outbox.waiting_bytes if self._outbox is not None else 0

    def on(self, cause: Cause) -> Phase:
        """Something happens; returns the phase that it is in now.

        Raises:
            WireError: its client may not say that here.
        """
        self.phase = after(self.phase, cause)
        return self.phase

    @property
    def host(self) -> str:
        """The address of its client, without the port."""
        return self.address.rpartition(":")[0].strip("[]")

    # -- writing

    @property
    @override
    def is_full(self) -> bool:
        return self._outbox is not None

    @override
    def write(self, chunk: bytes, rows: Sequence[Row] = (), until: float = 0.0) -> bool:
        """Whole packets or frames only."""
        if self._outbox is None and not self.phase.is_over:
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
                self._outbox.begin(chunk, sent, rows, until, self.pipe.is_begun)
                gevent.spawn(self._drain, self._outbox)
                return False
        elif self._outbox is not None and not self.phase.is_over:
            self._queue(self._outbox, chunk, rows, until)
            return False
        for row in rows:
            row.settle("gone")
        return False

    def _queue(self, outbox: Outbox, chunk: bytes, rows: Sequence[Row], until: float) -> None:
        if outbox.put(chunk, rows, until):
            return
        if self._limits.drops_oldest and not self.vocabulary.resumes:
            outbox.put_newest(chunk, rows, until)
            return
        log.info("slow consumer", extra={"uid": self.uid, "key": self.key, "waiting_bytes": outbox.waiting_bytes})
        for row in rows:
            row.settle("shed")
        self.close(Ending.SLOW, outcome="shed")

    def _drain(self, outbox: Outbox) -> None:
        """The greenlet of a full socket."""
        try:
            while outbox:
                if not (chunks := outbox.head(time.monotonic())):
                    continue
                try:
                    sent = self.pipe.send_many(chunks)
                except BlockingIOError:
                    sent = 0
                outbox.sent(sent, self.pipe.is_begun)
                if not sent:
                    self.pipe.wait_writable()
        except OSError as e:
            self.drop(e.strerror or type(e).__name__)
        finally:
            outbox.abandon("gone")
            if outbox.dropped:
                log.info("slow consumer", extra={"uid": self.uid, "key": self.key, "dropped": outbox.dropped})
            self._outbox = None
            if self.phase.is_over:
                self.pipe.shutdown()

    # -- closing

    def close(
        self, ending: Ending, why: str = "", code: int = 0, outcome: str = "gone", onward: Onward | None = None
    ) -> None:
        """Closes from our side. Does not switch.

        All is sent, then the client closes: to close first, with bytes of its unread, would reset what we sent.

        Args:
            why: more than the ending says; for the log, for zim's clients, and for the close frame if there is one.
            code: of a WebSocket close frame, if it is not the one for such an ending.
            outcome: what becomes of messages that wait for the client: "gone" or "shed".
            onward: to which other comet it is to go.
        """
        if self.phase.is_over:
            return
        reason = why or ending.word
        farewell = self.vocabulary.encode_farewell(reason, ending, onward)
        words = self.speech.framing.encode(farewell) if farewell is not None else b""
        words += self.speech.framing.encode_close(code or self.vocabulary.close_code(ending), reason)
        if self._outbox is not None:
            self._outbox.end_with(words, outcome)
        elif words:
            self.write(words)
        if self.phase.is_over:
            return
        self._end(ending, reason)
        if self._outbox is None and not words:
            self._hang_up()
            return
        gevent.spawn_later(CLOSE_S, self._hang_up)
        if self._outbox is None:
            self.pipe.shutdown()

    def drop(self, reason: str = "") -> None:
        """The client is gone, or not worth a word: nothing more goes out, whatever waits. Does not switch.

        Args:
            reason: what error ended it; none if its client has closed it in order.
        """
        if not self.phase.is_over:
            ending = Ending.LOST if reason else Ending.CLIENT
            self._end(ending, reason or ending.word)
        self._hang_up()

    def _end(self, ending: Ending, reason: str) -> None:
        self.on(Cause.CLOSE)
        self.ending, self.reason = ending, reason
        self._answer()
        if self._owner is not None:
            self._owner.on_closed(self)

    def _hang_up(self) -> None:
        self.on(Cause.HANG_UP)
        owner, self._owner = self._owner, None
        if owner is not None:
            self.pipe.close()
            owner.release()

    def heard(self) -> None:
        """Its client has said something: it lives. Before the auth reply the time for the handshake goes on."""
        if self.phase is Phase.OPEN:
            self.deadline = time.monotonic() + self._limits.heartbeat_s

    # -- answers to what its client asked for

    def await_reply(self, packet: Packet, kind: type[Login | Request]) -> Event:
        """Its client has asked for something that others decide; see Asked.answered."""
        self._asked = Asked(packet, kind, Event())
        return self._asked.answered

    def seq_of(self, kind: type[Login | Request]) -> int:
        """Of the packet that asked for such a thing and waits for its reply; 0 if none does."""
        return self._asked.packet.seq if self._asked is not None and self._asked.kind is kind else 0

    def open(self, starts: Sequence[Start]) -> None:
        """Its session is in the directory: its auth reply goes out."""
        if self.on(Cause.OPENED) is Phase.OPEN and self._asked is not None:
            self.heard()
            asked, heartbeat_s, expires_s = self._asked.packet, self._limits.heartbeat_s, self._expires_s()
            self.tell(self.vocabulary.encode_opened(asked, self.key, heartbeat_s, starts, expires_s), Login)

    def refreshed(self, seq: int, error: str = "") -> None:
        """Another token has been looked at, as its client asked in packet seq."""
        self.tell(self.vocabulary.encode_refreshed(seq, self._expires_s(), error), Refresh)

    def tell_history(self, seq: int, past: Past) -> None:
        """A piece of a stream's past, or why there is none, as its client asked in packet seq."""
        self.tell(self.vocabulary.encode_history(seq, past), ReadHistory)

    def take(self, grant: Grant, now: float) -> None:
        """From now on its client may do what this grant says, and nothing else."""
        self.rights = grant.rights
        self.expires = now + grant.lifetime_ms / 1000 if grant.lifetime_ms else math.inf

    def _expires_s(self) -> float | None:
        return None if self.expires == math.inf else max(0.0, self.expires - time.monotonic())

    def tell(self, packet: Packet | None, answers: type[Login | Request] | None = None) -> None:
        """Sends what the vocabulary has a word for. It may answer what was asked long ago, and nobody waits for."""
        if packet is not None:
            self.write(self.speech.framing.encode(packet))
        if self._asked is not None and self._asked.kind is answers:
            self._answer()

    def _answer(self) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.answered.set()
