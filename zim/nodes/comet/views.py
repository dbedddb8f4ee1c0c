"""The streams that a comet serves, and who is subscribed to them. Pure: no socket, no clock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from zim.nodes.comet.feed import Link
from zim.protocol.client import Dialect, Encoded

QUEUE_BYTES = 4 << 20  # of live messages that wait while a catch-up reads older ones
PUSH_BYTES = 200  # what one of them counts for beside its body


class Session(ABC):
    """One authenticated connection, or one that is about to be.

    Attributes:
        conn: a number that no other connection of this incarnation has.
        dialect: what it speaks.
        uid: the user, once known.
        seq: the router's number for the session; 0 before it is known. Its key is `uid_seq`.
        rooms: which it is in.
        views: of the streams that it is subscribed to: the user's own, the rooms', everybody's.
        is_open: the auth reply has gone out.
        joined_at: when it asked to join; monotonic seconds.
    """

    __slots__ = ("conn", "dialect", "is_open", "joined_at", "rooms", "seq", "uid", "views")

    def __init__(self, conn: int, dialect: Dialect) -> None:
        self.conn, self.dialect = conn, dialect
        self.uid, self.seq = "", 0
        self.rooms: tuple[str, ...] = ()
        self.views: tuple[View, ...] = ()
        self.is_open = False
        self.joined_at = 0.0

    @abstractmethod
    def opened(self) -> None:
        """The session is in the directory: the auth reply is to go out now. Must not switch."""

    @abstractmethod
    def write(self, chunk: bytes) -> None:
        """Sends whole packets or frames: to the socket, or to its outbox. Must not switch."""


class Catchup:
    """Subscribers who miss a piece of a stream that will not come by the feed. It is read from the router a page at a
    time, then come the live messages that queued up meanwhile, then they are live.

    Attributes:
        subscribers: by dialect.
        offset: the last one that they have.
        target: up to where it is read; later ones are in the queue.
        req: the number of the Read under way; asked_at: since when.
    """

    __slots__ = ("_queue_bytes", "asked_at", "offset", "queue", "req", "subscribers", "target")

    def __init__(self, subscribers: tuple[dict[Session, None], ...], offset: int, target: int) -> None:
        self.subscribers, self.offset, self.target = subscribers, offset, target
        self.queue: list[tuple[int, Encoded]] = []
        self._queue_bytes = 0
        self.req, self.asked_at = 0, 0.0

    def put(self, offset: int, push: Encoded) -> None:
        """A live message. If the queue is full it starts over: everything up to this one is read instead."""
        self._queue_bytes += PUSH_BYTES + len(push.body)
        self.queue.append((offset, push))
        if self._queue_bytes > QUEUE_BYTES:
            self.aim(offset)

    def aim(self, target: int) -> None:
        """Reads up to a later offset."""
        self.target = target
        self.queue, self._queue_bytes = [], 0

    def take_queue(self) -> list[Encoded]:
        """What queued up, for the ones who have everything before it."""
        found = [push for offset, push in self.queue if offset > self.offset]
        if self.queue:
            self.offset = self.target = max(self.offset, self.queue[-1][0])
        self.queue, self._queue_bytes = [], 0
        return found


class View:
    """One stream as this comet serves it.

    Attributes:
        stream: its canonical name; room: of a room, or `*`, or "" for a user's.
        link: to the router that owns it.
        position: the offset last handed to its subscribers; nothing while none is known.
        epoch: which history the position belongs to.
        asked: the number of the change whose answer will tell epoch and head; 0 once told.
        is_told: it has been told in this or an earlier registration.
        live: who gets messages as they come, by dialect.
        waiting: who is served but not live yet.
        catchups: who misses something.
    """

    __slots__ = ("asked", "catchups", "epoch", "is_told", "link", "live", "position", "room", "stream", "waiting")

    def __init__(self, stream: str, room: str, link: Link) -> None:
        self.stream, self.room, self.link = stream, room, link
        self.position: int | None = None
        self.epoch = ""
        self.asked = -1
        self.is_told = False
        self.live: tuple[dict[Session, None], ...] = tuple({} for _ in Dialect)
        self.waiting: dict[Session, None] = {}
        self.catchups: list[Catchup] = []

    def __len__(self) -> int:
        """How many local members."""
        return sum(map(len, self._groups()))

    def __iter__(self) -> Iterator[Session]:
        """All local members."""
        for group in self._groups():
            yield from group

    def _groups(self) -> Iterator[dict[Session, None]]:
        yield from self.live
        yield self.waiting
        for catchup in self.catchups:
            yield from catchup.subscribers

    def remove(self, session: Session) -> None:
        """Lets one go, wherever it stands."""
        for group in self._groups():
            if session in group:
                del group[session]
                return

    def start(self, session: Session) -> None:
        """One that waited is live from the position on."""
        if session in self.waiting:
            del self.waiting[session]
            self.live[session.dialect][session] = None

    def start_over(self) -> None:
        """Another epoch: its offsets start again, and nobody has any of it."""
        self.position = 0
        for catchup in self.catchups:
            catchup.offset = 0

    def catch_up(self, head: int) -> list[Catchup]:
        """The feed will not carry what is missing up to head: who is live has to read it. Those who read already aim
        later.

        Returns:
            Whose Read is to be sent, or sent anew.
        """
        for catchup in self.catchups:
            catchup.aim(head)
        if any(self.live) and head > (self.position or 0):
            self.catchups.append(Catchup(self.live, self.position or 0, head))
            self.live = tuple({} for _ in Dialect)
        self.position = head
        return self.catchups

    def end_catchup(self, catchup: Catchup) -> None:
        """They have everything: they are live."""
        if catchup in self.catchups:
            self.catchups.remove(catchup)
            for dialect, sessions in enumerate(catchup.subscribers):
                self.live[dialect].update(sessions)
