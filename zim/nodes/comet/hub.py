"""What a comet decides: who is subscribed to what, what a push becomes for whom, what a router must be told.

Fifth stop of a push: an Entry comes in, a Pass over subscribers goes out.

Pure: it touches no socket and no clock, so that a simulator can run it; zim.nodes.comet.node talks, and performs the
passes, one at a time.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from zim.nodes.comet.feed import RETRY_S, Link
from zim.nodes.comet.views import Catchup, Session, View
from zim.protocol.client import Dialect, Encoded, join
from zim.protocol.messages import (
    Answer,
    Answers,
    Change,
    Del,
    Entry,
    Fetched,
    Message,
    Put,
    Read,
    Records,
    Renewed,
    Room,
)
from zim.protocol.streams import EVERYBODY, room_stream, user_stream
from zim.sharding import Shards

log = logging.getLogger(__name__)

JOIN_S = 1.0  # how long an auth reply waits for the shards of rooms; after it they are joined in the background
PASS_BYTES = 512 << 10  # of entries that one pass takes from one router


@dataclass
class Pass:
    """Work for the fan-out: each chunk to each of its sessions, in this order; then `after`."""

    writes: list[tuple[list[Session], bytes]]
    after: Callable[[float], None]


class Hub:
    """One run of a comet.

    Attributes:
        sessions: by connection number, from the moment they ask to join.
        links: to the routers, by name.
    """

    def __init__(self, comet: str, inc: int, routers: Sequence[str], send: Callable[[str, Message, int], bool]) -> None:
        """
        Args:
            comet: this comet's name.
            inc: its incarnation.
            routers: names of all routers.
            send: takes a router's name, a message for it and its size in bytes; see Link.
        """
        self.sessions: dict[int, Session] = {}
        self.links = {r: Link(r, comet, inc, partial(send, r)) for r in routers}
        self._shards = Shards(routers)
        self._views: dict[str, View] = {}
        self._opening: dict[Session, None] = {}  # they wait for their auth reply, oldest first
        self._reqs = itertools.count(1)
        self._reads: dict[int, tuple[View, Catchup]] = {}
        self._pages: deque[tuple[View, Catchup, Records]] = deque()
        self._flushes: deque[tuple[View, Catchup]] = deque()
        self._is_passing = False
        self._after_pass: list[Callable[[], None]] = []
        self._gaps = 0  # streams whose router has forgotten them, since the last registration
        self._view(EVERYBODY, EVERYBODY, 0.0)

    # -- sessions

    def join(self, session: Session, uid: str, rooms: Sequence[str], now: float) -> None:
        """A client is who it says: subscribes it. `session.opened` is called when its router knows it."""
        session.uid, session.rooms, session.joined_at = uid, tuple(dict.fromkeys(rooms)), now
        self.sessions[session.conn] = session
        self._opening[session] = None
        streams = [(user_stream(uid), ""), *((room_stream(r), r) for r in session.rooms), (EVERYBODY, EVERYBODY)]
        views = []
        for stream, room in streams:
            is_new = stream not in self._views
            view = self._view(stream, room, now)
            view.waiting[session] = None  # served from now on: entries move the position
            views.append(view)
            if room == EVERYBODY:
                continue
            n = view.link.change(self._room(view) if room else self._put(session), now)
            if is_new:
                view.asked = n
        session.views = tuple(views)
        self._open(session, now)

    def leave(self, session: Session, now: float) -> None:
        """A connection is over."""
        if self.sessions.pop(session.conn, None) is None:
            return
        self._opening.pop(session, None)
        for view in session.views:
            view.remove(session)
            if view.room == EVERYBODY:
                continue
            if not len(view):
                del self._views[view.stream]
            view.link.change(self._room(view) if view.room else self._del(session), now)
        session.views = ()

    def _view(self, stream: str, room: str, now: float) -> View:
        view = self._views.get(stream)
        if view is None:
            view = self._views[stream] = View(stream, room, self.links[self._shards.owner(stream)])
        return view

    def _put(self, session: Session) -> Callable[[int], Change]:
        return lambda n: Put(n, session.conn, session.uid, session.seq, session.rooms)

    def _del(self, session: Session) -> Callable[[int], Change]:
        return lambda n: Del(n, session.conn)

    def _room(self, view: View) -> Callable[[int], Change]:
        return lambda n: Room(n, view.room, len(view))

    def _open(self, session: Session, now: float) -> None:
        """Sends the auth reply once the session has its seq and its streams are told; starts it in the same step."""
        if session.is_open or not session.seq:
            return
        user, *others = session.views
        if not user.is_told or user.asked:
            return
        if now - session.joined_at < JOIN_S and not all(v.is_told and not v.asked for v in others):
            return
        self._opening.pop(session, None)
        session.is_open = True
        session.opened()
        for view in session.views:
            if view.is_told and not view.asked:
                view.start(session)

    # -- the feed up

    def answers(self, m: Answers, now: float) -> None:
        """A router has applied changes."""
        link = self.links.get(m.router)
        if link is None:
            return
        for change, answer in link.answers(m, now):
            if isinstance(change, Put):
                session = self.sessions.get(change.conn)
                if session is not None:
                    session.seq = answer.seq
                # Even if it has left: other sessions of the user wait for what this answer tells of the stream.
                self._told(user_stream(change.uid), answer, now)
                if session is not None:
                    self._open(session, now)
            elif isinstance(change, Room):
                self._told(room_stream(change.room), answer, now)
        if link.complete_registration():
            log.info("registered", extra={"router": link.router, "term": link.term, "streams_anew": self._gaps})
            self._gaps = 0

    def _told(self, stream: str, answer: Answer, now: float) -> None:
        """One rule for a join, for a registration and for a router's return: compare with the head."""
        view = self._views.get(stream)
        if view is None or view.asked != answer.n:
            return
        if self._is_passing and view.is_told:
            # The pass under way still hands out what the position says is handed out.
            self._after_pass.append(lambda: self._told(stream, answer, now))
            return
        view.asked = 0
        was, view.epoch = view.epoch, answer.epoch
        if not view.is_told:
            view.is_told = True
            view.position = max(answer.head, view.position or 0)
        elif was != answer.epoch:
            # The end of the old epoch is gone with the router's memory; goim's wire has no word for that. All of the
            # new one is new to those who are here.
            self._gaps += 1
            view.start_over()
            self._catch_up(view, answer.head, now)
        elif answer.head > (view.position or 0):
            self._catch_up(view, answer.head, now)
        for session in list(view.waiting):
            if session.is_open:
                view.start(session)
            else:
                self._open(session, now)

    def _register(self, link: Link, term: int, now: float) -> None:
        changes: list[Callable[[int], Change]] = []
        views = []
        for view in self._views.values():
            if view.link is not link:
                continue
            if not view.is_told:
                view.position = None  # it came from entries of a feed that is over, perhaps of another epoch
            views.append((view, len(changes)))
            changes += [self._room(view)] if view.room else [self._put(session) for session in view]
        numbers = link.register(term, changes, now)
        for view, at in views:
            view.asked = numbers[at]

    def renewed(self, m: Renewed, now: float) -> int:
        """A router has answered a Renew.

        Returns:
            0, or the incarnation that it knows if that is above ours: then we must not go on.
        """
        link = self.links.get(m.router)
        if link is None:
            return 0
        if m.verdict == "fenced":
            return m.known_inc
        if link.renewed(m):
            self._register(link, m.term, now)
        return 0

    # -- the feed down

    def entry(self, e: Entry) -> None:
        """A push for this comet."""
        link = self.links.get(e.router)
        if link is not None:
            link.entry(e)

    def fetched(self, m: Fetched, now: float) -> None:
        """Entries that were missing."""
        link = self.links.get(m.router)
        if link is not None and link.fetched(m):
            self._register(link, link.term, now)

    def next_pass(self, now: float) -> Pass | None:
        """The next work for the fan-out, if there is any. Positions move and snapshots are taken here, before the first
        send. What gathered while the last pass ran becomes one write per connection and stream."""
        if self._is_passing:
            return None
        found = self._catchup_pass() or self._entry_pass()
        if found is not None:
            self._is_passing = True
        return found

    def end_pass(self, done: Pass, now: float) -> None:
        """All writes of a pass are in a socket or an outbox."""
        self._is_passing = False
        done.after(now)
        steps, self._after_pass = self._after_pass, []
        for step in steps:
            step()

    def _entry_pass(self) -> Pass | None:
        taken = [(link, link.begin, entries) for link in self.links.values() if (entries := link.take(PASS_BYTES))]
        if not taken:
            return None
        fresh: dict[View, list[Encoded]] = {}
        for _, _, entries in taken:
            for entry in entries:
                push = Encoded(entry.op, entry.body)
                for stream, offset in entry.items:
                    view = self._views.get(stream)
                    if view is None or (view.position is not None and offset <= view.position):
                        continue
                    view.position = offset
                    fresh.setdefault(view, []).append(push)
                    for catchup in view.catchups:
                        if offset > catchup.target:
                            catchup.put(offset, push)
        writes = [write for view, pushes in fresh.items() for write in _writes(view.live, pushes)]

        def after(_: float) -> None:
            for link, begin, entries in taken:
                if link.begin == begin and not link.is_registering:
                    link.passed(entries)

        return Pass(writes, after)

    # -- catching up

    def _catch_up(self, view: View, head: int, now: float) -> None:
        for catchup in view.catch_up(head):
            self._read(view, catchup, now)

    def _read(self, view: View, catchup: Catchup, now: float) -> None:
        self._reads.pop(catchup.req, None)
        catchup.req, catchup.asked_at = next(self._reqs), now
        self._reads[catchup.req] = (view, catchup)
        view.link.read(Read(catchup.req, view.stream, catchup.offset, catchup.target))

    def records(self, m: Records) -> None:
        """A piece of a stream that somebody misses."""
        view, catchup = self._reads.get(m.req, (None, None))
        if view is not None and catchup is not None and m.epoch == view.epoch:
            del self._reads[m.req]
            self._pages.append((view, catchup, m))

    def _catchup_pass(self) -> Pass | None:
        while self._pages:
            view, catchup, page = self._pages.popleft()
            if catchup not in view.catchups or catchup.req != page.req:
                continue
            if page.floor > catchup.offset:
                log.warning("no longer kept", extra={"stream": view.stream, "messages": page.floor - catchup.offset})
                catchup.offset = min(page.floor, catchup.target)
            records = [r for r in page.records if r.offset > catchup.offset]
            if records:
                catchup.offset = records[-1].offset
            elif page.head < catchup.target:
                catchup.offset = catchup.target  # the router knows of nothing more
            writes = _writes(catchup.subscribers, [Encoded(r.op, r.body) for r in records])
            return Pass(writes, partial(self._caught_up, view, catchup))
        while self._flushes:
            view, catchup = self._flushes.popleft()
            if catchup in view.catchups and catchup.offset >= catchup.target:  # else it aims later by now, and reads
                writes = _writes(catchup.subscribers, catchup.take_queue())
                return Pass(writes, partial(self._caught_up, view, catchup))
        return None

    def _caught_up(self, view: View, catchup: Catchup, now: float) -> None:
        """After a page: the next page, the queue, or live. No entry is handled between the queue and live."""
        if catchup not in view.catchups:
            return
        if catchup.offset < catchup.target:
            self._read(view, catchup, now)
        elif catchup.queue:
            self._flushes.append((view, catchup))
        else:
            view.end_catchup(catchup)

    # -- time

    def tick(self, now: float, renew_bytes: int) -> None:
        """Repeats, fetches and renews what is due.

        Args:
            renew_bytes: of handled entries, at which a Renew is due at once.
        """
        for link in self.links.values():
            link.tick(now, renew_bytes)
        for req, (view, catchup) in list(self._reads.items()):
            if self._views.get(view.stream) is not view:
                del self._reads[req]
            elif now - catchup.asked_at > RETRY_S:
                self._read(view, catchup, now)
        for session in list(itertools.takewhile(lambda s: now - s.joined_at >= JOIN_S, self._opening)):
            self._open(session, now)

    def is_registered(self) -> bool:
        """Every router knows all that is here."""
        return all(link.term and not link.is_registering for link in self.links.values())


def _writes(subscribers: Sequence[dict[Session, None]], pushes: Sequence[Encoded]) -> list[tuple[list[Session], bytes]]:
    """One chunk per dialect that somebody speaks, and a snapshot of who does."""
    if not pushes:
        return []
    return [
        (list(sessions), pushes[0].chunk(dialect) if len(pushes) == 1 else join(dialect, pushes))
        for dialect, sessions in zip(Dialect, subscribers, strict=True)
        if sessions
    ]
