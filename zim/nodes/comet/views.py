"""The streams that a comet serves, and who is subscribed to them. Pure: no socket, no clock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence

from zim.fabric.audience import ALL, Audience
from zim.nodes.comet.feed import Link
from zim.nodes.comet.results import Row
from zim.protocol.messages import Change, Del, Put, Room
from zim.protocol.pushes import Encoded
from zim.protocol.speech import SPEECHES, Speech
from zim.protocol.vocabularies.base import Vocabulary

QUEUE_BYTES = 4 << 20  # of live messages that wait while a catch-up reads older ones
PUSH_BYTES = 200  # what one of them counts for beside its body


class Session(ABC):
    """One authenticated connection, or one that is about to be.

    Attributes:
        conn: a number that no other connection of this incarnation has.
        speech: what it speaks; it does not change once it is subscribed to something.
        uid: the user, once known.
        seq: the router's number for the session; 0 before it is known.
        rooms: which it is in.
        views: of the streams that it is subscribed to: the user's own first, then everybody's, then the rooms'.
        is_open: the auth reply has gone out.
        device: its class; most: how many sessions its user may have, 0 for what the topology says.
        given: rooms that a backend has put it into, whatever its token says.
    """

    __slots__ = ("conn", "device", "given", "is_open", "most", "rooms", "seq", "speech", "uid", "views")

    def __init__(self, conn: int, speech: Speech) -> None:
        self.conn, self.speech = conn, speech
        self.uid, self.seq = "", 0
        self.rooms: tuple[str, ...] = ()
        self.views: tuple[View, ...] = ()
        self.is_open = False
        self.device, self.most = "", 0
        self.given: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The session's key, `uid_seq`."""
        return f"{self.uid}_{self.seq}"

    @property
    def vocabulary(self) -> Vocabulary:
        """What its packets mean."""
        return self.speech.vocabulary

    @property
    def is_full(self) -> bool:
        """Its socket takes nothing more for the moment: who resumes waits, for there is no end to what one may miss."""
        return False

    @abstractmethod
    def write(self, chunk: bytes, rows: Sequence[Row] = (), until: float = 0.0) -> bool:
        """Sends whole packets or frames: to the socket, or to its outbox. Must not switch.

        Args:
            rows: of the entries that they carry. Each is told what becomes of this session, unless it is delivered now.
            until: it leaves the outbox before that or not at all; monotonic seconds, 0 for whenever.

        Returns:
            The kernel has taken all of it.
        """


Members = dict[Session, None]

_NOBODY: Members = {}  # stands for every speech that nobody speaks; never changed


class Subscribers:
    """Sessions by speech, so that the fan-out asks nobody what it speaks; and by key, so that a push to some of them
    asks none of the others. The index of keys is made for the first such push, and kept from then on."""

    __slots__ = ("_by_key", "_by_speech")

    def __init__(self) -> None:
        self._by_speech: list[Members] = [_NOBODY] * len(SPEECHES)
        self._by_key: dict[str, Session] | None = None

    def __iter__(self) -> Iterator[Session]:
        for members in self._by_speech:
            yield from members

    def __len__(self) -> int:
        return sum(map(len, self._by_speech))

    def __contains__(self, session: Session) -> bool:
        return session in self._by_speech[session.speech.number]

    def add(self, session: Session) -> None:
        """One more."""
        number = session.speech.number
        if self._by_speech[number] is _NOBODY:
            self._by_speech[number] = {}
        self._by_speech[number][session] = None
        if self._by_key is not None:
            self._by_key[session.key] = session

    def discard(self, session: Session) -> None:
        """One less."""
        members = self._by_speech[session.speech.number]
        if session in members:
            del members[session]
            if self._by_key is not None:
                self._by_key.pop(session.key, None)

    def of(self, audience: Audience) -> list[Session]:
        """Those of an audience that names keys."""
        if self._by_key is None:
            self._by_key = {session.key: session for session in self}
        return [session for key in audience.keys if (session := self._by_key.get(key)) is not None]

    def count(self, audience: Audience) -> int:
        """How many of them an audience has."""
        return len(self.of(audience)) if audience.keys else len(self)

    def groups(self, audience: Audience = ALL) -> list[tuple[Speech, list[Session]]]:
        """Each speech that somebody of an audience speaks, and a snapshot of who does."""
        if not audience.keys:
            by_speech = zip(SPEECHES, self._by_speech, strict=True)
            return [(speech, list(members)) for speech, members in by_speech if members]
        found: dict[Speech, list[Session]] = {}
        for session in self.of(audience):
            found.setdefault(session.speech, []).append(session)
        return list(found.items())


class Catchup:
    """Subscribers who miss a piece of a stream that will not come by the feed. It is read from the router a page at a
    time, then come the live messages that queued up meanwhile, then they are live.

    Attributes:
        subscribers: who.
        offset: the last one that they have.
        target: up to where it is read; later ones are in the queue.
        is_waiting: everything up to the target is there, but the comet is not that far yet: its clients were, at
            another comet. What the feed still brings up to there is passed over.
        turn: counts the pages that were asked for.
        queue_bytes: of the queue.
    """

    __slots__ = ("is_waiting", "offset", "queue", "queue_bytes", "subscribers", "target", "turn")

    def __init__(self, subscribers: Subscribers, offset: int, target: int) -> None:
        self.subscribers, self.offset, self.target = subscribers, offset, target
        self.is_waiting = False
        self.turn = 0
        self.queue: list[Encoded] = []
        self.queue_bytes = 0

    def put(self, push: Encoded) -> None:
        """A live message. If the queue is full it starts over: everything up to this one is read instead."""
        self.queue_bytes += PUSH_BYTES + len(push.content.body)
        self.queue.append(push)
        if self.queue_bytes > QUEUE_BYTES:
            self.aim(push.offset)

    def is_like(self, offset: int, target: int) -> bool:
        """Whether whoever is there and misses that misses just what these do."""
        return (self.offset, self.target) == (offset, target) and not self.queue and not self.is_waiting

    def aim(self, target: int) -> None:
        """Reads up to a later offset."""
        self.target = max(target, self.offset)
        self.queue, self.queue_bytes = [], 0

    def take_queue(self) -> list[Encoded]:
        """What queued up, for the ones who have everything before it."""
        found = [push for push in self.queue if push.offset > self.offset]
        if self.queue:
            self.offset = self.target = max(self.offset, self.queue[-1].offset)
        self.queue, self.queue_bytes = [], 0
        return found


class View:
    """One stream as this comet serves it.

    Attributes:
        stream: its canonical name; room: of a room, or `*`, or "" for a user's.
        link: to the router that owns it.
        position: the offset last handed to its subscribers; nothing while none is known.
        epoch: which history the position belongs to.
        acknowledged: the cursor of a user's stream, as the router last told it.
        asked: the number of the change whose answer will tell epoch and head; 0 once told.
        is_told: it has been told in this or an earlier registration.
        live: who gets messages as they come.
        waiting: who is served but not live yet.
        catchups: who misses something, and catching: in which of them each one is; newest: the last that began.
    """

    __slots__ = (
        "acknowledged",
        "asked",
        "catching",
        "catchups",
        "epoch",
        "is_told",
        "link",
        "live",
        "newest",
        "position",
        "room",
        "stream",
        "waiting",
    )

    def __init__(self, stream: str, room: str, link: Link) -> None:
        self.stream, self.room, self.link = stream, room, link
        self.position: int | None = None
        self.epoch = ""
        self.acknowledged = 0
        self.asked = -1
        self.is_told = False
        self.live = Subscribers()
        self.waiting: Members = {}
        self.catchups: dict[Catchup, None] = {}
        self.catching: dict[Session, Catchup] = {}
        self.newest: Catchup | None = None

    @property
    def at(self) -> int:
        """The position, as a number."""
        return self.position or 0

    @property
    def is_current(self) -> bool:
        """Epoch and position are known, and no answer is under way that may change them."""
        return self.is_told and not self.asked

    def __len__(self) -> int:
        """How many local members."""
        return len(self.live) + len(self.waiting) + len(self.catching)

    def __iter__(self) -> Iterator[Session]:
        """All local members."""
        yield from self.live
        yield from self.waiting
        yield from self.catching

    def remove(self, session: Session) -> None:
        """Lets one go, wherever it stands."""
        self.live.discard(session)
        self.waiting.pop(session, None)
        catchup = self.catching.pop(session, None)
        if catchup is not None:
            catchup.subscribers.discard(session)
            if not catchup.subscribers:
                del self.catchups[catchup]

    def number(self, session: Session, seq: int) -> None:
        """The router of this stream, the session's user's own, has told the session's number: its key has changed."""
        catchup = self.catching.get(session)
        subscribers = self.live if catchup is None else catchup.subscribers
        is_subscribed = session in subscribers
        subscribers.discard(session)
        session.seq = seq
        if is_subscribed:
            subscribers.add(session)

    def start(self, session: Session, offset: int) -> Catchup | None:
        """One that waited has everything up to offset: it is live if that is the position, else it has to read.

        Returns:
            What has to be read for it. Nothing if it is live, or misses the same as the one before it did, of whom
            nothing has been read yet: when a comet dies, thousands come from one place.
        """
        self.waiting.pop(session, None)
        if offset == self.at:
            self.live.add(session)
            return None
        same = self.newest
        if same is not None and same in self.catchups and same.is_like(offset, max(offset, self.at)):
            same.subscribers.add(session)
            self.catching[session] = same
            return None
        subscribers = Subscribers()
        subscribers.add(session)
        self.newest = self._begin(Catchup(subscribers, offset, max(offset, self.at)))
        return self.newest

    def _begin(self, catchup: Catchup) -> Catchup:
        self.catchups[catchup] = None
        self.catching.update(dict.fromkeys(catchup.subscribers, catchup))
        return catchup

    def catch_up(self, head: int) -> Iterable[Catchup]:
        """The feed will not carry what is missing up to head: who is live has to read it. Those who read already aim
        later.

        Returns:
            Who has to read (anew).
        """
        for catchup in self.catchups:
            catchup.aim(head)
        if self.live and head > self.at:
            self._begin(Catchup(self.live, self.at, head))
            self.live = Subscribers()
        self.position = head
        return self.catchups

    def move_to(self, offset: int) -> None:
        """Another history: everybody goes on from there."""
        self.position = offset
        for session in self.catching:
            self.live.add(session)
        self.catchups, self.catching = {}, {}

    def part(self, catchup: Catchup, session: Session) -> Catchup:
        """One of several who miss the same is too slow for the others: from now on it catches up by itself."""
        alone = Catchup(Subscribers(), catchup.offset, catchup.target)
        alone.queue, alone.queue_bytes = list(catchup.queue), catchup.queue_bytes
        catchup.subscribers.discard(session)
        alone.subscribers.add(session)
        return self._begin(alone)

    def end_catchup(self, catchup: Catchup) -> None:
        """They have everything: they are live."""
        if catchup in self.catchups:
            del self.catchups[catchup]
            for session in catchup.subscribers:
                del self.catching[session]
                self.live.add(session)


# ---------------------------------------------------------------- what a router is told of them, around its number


def put_change(session: Session) -> Callable[[int], Change]:
    """A session is here, as it will be when this goes."""
    return lambda n: Put(n, session.conn, session.uid, session.seq, session.rooms, session.device, session.most)


def del_change(session: Session) -> Callable[[int], Change]:
    """A session is gone."""
    return lambda n: Del(n, session.conn)


def room_change(view: View) -> Callable[[int], Change]:
    """So many are in a room, when this goes."""
    return lambda n: Room(n, view.room, len(view))
