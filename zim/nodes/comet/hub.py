"""What a comet decides: who is subscribed to what, what a push becomes for whom, what a router must be told.

In: what routers and jobs send, what clients want, the time. Out: effects: a Pass over subscribers, words to a client,
messages to routers. The comet's driver performs them, one pass at a time. Pure: no socket, no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from zim.fabric.bans import Networks
from zim.fabric.limits import CHANGES
from zim.fabric.streams import EVERYBODY, room_stream, user_stream
from zim.nodes.comet.cursors import Acknowledgements
from zim.nodes.comet.effects import Gapped, Left, Pass, Replaced
from zim.nodes.comet.feed import Link
from zim.nodes.comet.feeds import Feeds
from zim.nodes.comet.history import Histories, HistoryReader
from zim.nodes.comet.joining import Joining, Wish
from zim.nodes.comet.obeying import obey
from zim.nodes.comet.passes import Passes, is_live_only
from zim.nodes.comet.views import Session, View, del_change, put_change, room_change
from zim.nodes.effects import INFO, Effect, Note, topologies_differ
from zim.nodes.placement import Placement
from zim.protocol.messages import (
    Acknowledged,
    Answer,
    Answers,
    Change,
    Entry,
    Fetched,
    Put,
    Records,
    Renewed,
    Room,
    ToComet,
)
from zim.protocol.orders import Orders
from zim.protocol.placing import Moved, Owned
from zim.protocol.vocabularies.base import Missed, ReadHistory, Resume, Start
from zim.protocol.vocabularies.zim import JOINED_ALREADY

ROOMS_S = 0.5  # how late the directory may name a session's rooms, for one that joins and leaves all the time
JOIN_S = 1.0  # how long a reply waits for the shards of rooms; after it they are joined in the background


class Hub:
    """One run of a comet.

    Attributes:
        sessions: by connection number, from the moment they ask to join.
        links: the feeds of all shards.
        passes: what goes out next.
        barred: networks from which nobody may come.
    """

    def __init__(self, comet: str, inc: int, placement: Placement, most_changes: int = CHANGES) -> None:
        """
        Args:
            comet: this comet's name.
            inc: its incarnation.
            placement: of all shards.
            most_changes: see Link.
        """
        self.sessions: dict[int, Session] = {}
        self._out: list[Effect] = []
        self.links = Feeds(comet, inc, placement, self._out, most_changes)
        self._views: dict[str, View] = {}
        self.passes = Passes(self._views, self.links.values(), self._out)
        self._joinings: dict[Session, list[Joining]] = {}
        self._patient: deque[tuple[float, Session]] = deque()  # who has asked to join, and when
        self._acks = Acknowledgements()
        self.histories = Histories(self.passes)
        self._woken: dict[Session, list[View]] = {}  # who waits for streams of which something new is known
        self._moved: dict[Session, None] = {}  # whose rooms are others than the directory names
        self._told_rooms_at = 0.0
        self.barred = Networks()
        self._anew = 0  # streams with another history, since the last registration
        self._view(EVERYBODY, EVERYBODY)

    def _take(self) -> list[Effect]:
        """What is to be done after all this."""
        self.links.flush()
        out = self._out.copy()
        self._out.clear()
        return out

    # -- sessions

    def join(
        self,
        session: Session,
        uid: str,
        rooms: Sequence[str],
        now: float,
        resume: Resume | None = None,
        refused: Sequence[Start] = (),
    ) -> list[Effect]:
        """A client is who it says: subscribes it. Opened comes when its router knows it.

        Args:
            resume: what it has of its streams.
            refused: rooms that it asked for and may not be in, with the reason.
        """
        session.uid, session.rooms = uid, tuple(dict.fromkeys(rooms))
        self.sessions[session.conn] = session
        streams = [user_stream(uid), EVERYBODY, *map(room_stream, session.rooms)]
        return self._join(session, 0, streams, resume, refused, now)

    def join_rooms(
        self,
        session: Session,
        rooms: Sequence[str],
        seq: int,
        now: float,
        resume: Resume | None = None,
        refused: Sequence[Start] = (),
    ) -> list[Effect]:
        """It wants to be in more rooms. Joined comes when their routers know it."""
        has, wanted = set(session.rooms), dict.fromkeys(rooms)
        fresh = tuple(room for room in wanted if room not in has)
        errors = [*(Start(room_stream(r), error=JOINED_ALREADY) for r in wanted if r in has), *refused]
        session.rooms += fresh
        if fresh:
            self._moved[session] = None
        return self._join(session, seq, list(map(room_stream, fresh)), resume, errors, now)

    def _join(
        self,
        session: Session,
        seq: int,
        streams: Sequence[str],
        resume: Resume | None,
        errors: Sequence[Start],
        now: float,
    ) -> list[Effect]:
        joining = Joining(session, seq, resume or {}, errors, self.passes, now, streams)
        self._joinings.setdefault(session, []).append(joining)
        self._patient.append((now, session))
        return self._ask_for_some(joining, now)

    def is_joining(self, session: Session) -> bool:
        """It has asked for streams that nobody has been told of yet: `go_on_joining` does that."""
        return any(joining.later for joining in self._joinings.get(session, ()))

    def go_on_joining(self, session: Session, now: float) -> list[Effect]:
        """The next of many streams that a session has asked for. All at once would hold up everybody else."""
        return self._ask_for_some(next(joining for joining in self._joinings[session] if joining.later), now)

    def _ask_for_some(self, joining: Joining, now: float) -> list[Effect]:
        session, streams = joining.session, joining.next_streams()
        were = [stream in self._views for stream in streams]
        views = [self._view(s, "" if s.startswith("u:") else s.removeprefix("r:")) for s in streams]
        session.views += tuple(views)
        for view, stream, is_old in zip(views, streams, were, strict=True):
            view.waiting[session] = None  # served from now on: entries move the position
            joining.want(view)
            if stream == EVERYBODY:
                continue
            n = view.link.change(room_change(view) if view.room else put_change(session), now)
            if not is_old:
                view.asked = n
        self._advance(session, now, views)
        return self._take()

    def leave_rooms(
        self, session: Session, rooms: Sequence[str], seq: int, now: float, reason: str = ""
    ) -> list[Effect]:
        """It wants to be out of rooms, or somebody else does, for a reason. Left comes when nothing of them will come
        any more."""
        unwanted = {*rooms} - {EVERYBODY}
        gone = dict.fromkeys(view for view in session.views if view.room in unwanted)
        for view in gone:
            self._unsubscribe(session, view, now)
        if gone:
            session.rooms = tuple(room for room in session.rooms if room not in unwanted)
            session.views = tuple(view for view in session.views if view not in gone)
            self._moved[session] = None
            for joining in self._joinings.get(session, ()):
                joining.forget(gone)
            self._advance(session, now)
        reply = Left(session, seq, [view.stream for view in gone], reason)
        if not self.passes.when_over(reply):  # the pass under way may have something of them for it
            self._out.append(reply)
        return self._take()

    def leave(self, session: Session, now: float) -> list[Effect]:
        """A connection is over."""
        if self.sessions.pop(session.conn, None) is None:
            return []
        self.histories.forget(session, now)
        for joining in self._joinings.pop(session, ()):
            joining.forget(session.views)
        for view in session.views:
            self._unsubscribe(session, view, now)
        session.views = ()
        return self._take()

    def _unsubscribe(self, session: Session, view: View, now: float) -> None:
        view.remove(session)
        if view.room == EVERYBODY:
            return
        if not len(view):
            del self._views[view.stream]
        view.link.change(room_change(view) if view.room else del_change(session), now)

    def _view(self, stream: str, room: str) -> View:
        view = self._views.get(stream)
        if view is None:
            view = self._views[stream] = View(stream, room, self.links.of(stream))
        return view

    def _advance(self, session: Session, now: float, views: Sequence[View] | None = None) -> None:
        """Replies to what a session asked for, as far as it can be. views: of which something is new; None for all."""
        joinings = self._joinings.get(session)
        if joinings is None:
            return
        self._out += [told for joining in joinings if (told := joining.advance(now, JOIN_S, views)) is not None]
        self._joinings[session] = [joining for joining in joinings if not joining.is_over]
        if not self._joinings[session]:
            del self._joinings[session]

    # -- cursors, and the past

    def acknowledge(self, session: Session, offset: int, now: float) -> list[Effect]:
        """Its user's stream is acknowledged up to there. CursorMoved comes when that is durable."""
        self._acks.acknowledge(session, offset, now)
        return self._take()

    def read_history(self, session: Session, request: ReadHistory, seq: int, now: float) -> list[Effect]:
        """It wants to see a piece of a stream's past, and may. HistoryRead comes when the router has answered."""
        link = self.links.of(request.stream)
        self.histories.ask(session, request, seq, link, now)
        return self._take()

    # -- messages

    def on_message(self, m: ToComet | Entry, now: float) -> list[Effect]:
        """A router, or a job, has sent something."""
        match m:
            case Entry() if (link := self.links.get(m.shard)) is not None:
                link.entry(m)
            case Answers():
                self._on_answers(m, now)
            case Renewed():
                self._on_renewed(m, now)
            case Fetched():
                if (link := self.links.get(m.shard)) is not None and link.fetched(m):
                    self._register(link, link.term, now)
            case Records() if m.epoch:  # without one that router knows no such stream, and is asked again later
                reader = self.passes.on_records(m, now)
                if isinstance(reader, Wish):
                    reader.on_records(m)
                    self._advance(reader.session, now, (reader.view,))
                elif isinstance(reader, HistoryReader):
                    self._out.append(reader.on_records(m, now))
            case Acknowledged() if (moved := self._acks.on_acknowledged(m, self.sessions)) is not None:
                self._out.append(moved)
            case Owned() | Moved():
                self.links.on_placing(m)
            case Orders() if (link := self.links.get(m.shard)) is not None:
                return [effect for order in link.orders(m) for effect in obey(self, order, now)]
        return self._take()

    # -- the feed up

    def _on_answers(self, m: Answers, now: float) -> None:
        """A router has applied changes."""
        link = self.links.get(m.shard)
        if link is None:
            return
        for change, answer in link.answers(m, now):
            if isinstance(change, Put):
                session = self.sessions.get(change.conn)
                if session is not None and answer.seq:
                    session.views[0].number(session, answer.seq)
                # Even if it has left: other sessions of the user wait for what this answer tells of the stream.
                self._told(user_stream(change.uid), answer, now)
                if session is not None:
                    self._woken.setdefault(session, []).append(session.views[0])
            elif isinstance(change, Room):
                self._told(room_stream(change.room), answer, now)
        self._wake(now)
        if link.complete_registration():
            fields = {"shard": link.shard, "term": link.term, "streams_anew": self._anew}
            self._out.append(Note(INFO, "registered", fields))
            self._anew = 0

    def _told(self, stream: str, answer: Answer, now: float) -> None:
        """One rule for a join, for a registration and for a router's return: compare with the head."""
        view = self._views.get(stream)
        if view is None:
            return
        if not answer.epoch:  # nobody starts there before a router that knows the stream has answered
            self._out.append(topologies_differ(shard=view.link.shard, stream=stream))
            return
        if answer.epoch == view.epoch:
            view.acknowledged = max(view.acknowledged, answer.acknowledged)
        if view.asked != answer.n:
            return
        if view.is_told and self.passes.when_over((stream, answer)):
            return  # the pass under way still hands out what the position says is handed out
        view.asked = 0
        was, view.epoch = view.epoch, answer.epoch
        view.acknowledged = answer.acknowledged
        if not view.is_told:
            view.is_told = True
            view.position = max(answer.head, view.at)
        elif was != answer.epoch or answer.head < view.at:
            self._start_anew(view, answer.head, now)
        elif answer.head > view.at:
            self.passes.catch_up(view, answer.head, now)
        for session in view.waiting:
            self._woken.setdefault(session, []).append(view)

    def _wake(self, now: float) -> None:
        """Once for all that one message has told each session."""
        woken, self._woken = self._woken, {}
        for session, views in woken.items():
            self._advance(session, now, views)

    def _start_anew(self, view: View, head: int, now: float) -> None:
        """Another history. What came of it before we heard is not ours to hand out, for it may be old; but a live-only
        stream starts with its router's memory, so all of it is new to those who are here."""
        self._anew += 1
        is_live = is_live_only(view.epoch)
        view.move_to(0 if is_live else head)
        missed = Missed(view.stream, view.epoch, 0, view.at, "epoch")
        self._out += [Gapped(session, missed, not is_live) for session in view.live]
        if is_live and head:
            self.passes.catch_up(view, head, now)

    def _register(self, link: Link, term: int, now: float) -> None:
        changes: list[Callable[[int], Change]] = []
        views = []
        for view in self._views.values():
            if view.link is not link:
                continue
            if not view.is_told:
                view.position = None  # it came from entries of a feed that is over, perhaps of another epoch
            views.append((view, len(changes)))
            changes += [room_change(view)] if view.room else [put_change(session) for session in view]
        numbers = link.register(term, changes, now)
        for view, at in views:
            view.asked = numbers[at]

    def _on_renewed(self, m: Renewed, now: float) -> None:
        """A router has answered a Renew."""
        link = self.links.get(m.shard)
        if link is None:
            return
        if m.verdict == "fenced":
            self._out.append(Replaced(m.known_inc))
        elif link.renewed(m, now):
            self._register(link, m.term, now)

    # -- the fan-out

    def begin_pass(self, now: float) -> list[Effect]:
        """The next work for the fan-out, if there is any and none is under way: a Pass, and what comes before it."""
        if (todo := self.passes.next(now)) is not None:
            self._out.append(todo)
        return self._take()

    def end_pass(self, done: Pass, now: float) -> list[Effect]:
        """All writes of a pass are in a socket or an outbox."""
        for waited in self.passes.end(done, now):
            if isinstance(waited, Left):
                self._out.append(waited)
            else:
                stream, answer = waited
                self._told(stream, answer, now)
        self._wake(now)
        return self._take()

    # -- time

    def on_tick(self, now: float, renew_bytes: int) -> list[Effect]:
        """Repeats, fetches and renews what is due.

        Args:
            renew_bytes: of handled entries, at which a Renew is due at once.
        """
        self.links.tick(now, renew_bytes)
        self.passes.tick(now)
        self._acks.tick(now, self.sessions)
        if now - self._told_rooms_at >= ROOMS_S:
            self._told_rooms_at = now
            moved, self._moved = self._moved, {}
            for session in moved:
                if session.conn in self.sessions:
                    session.views[0].link.change(put_change(session), now)
        while self._patient and now - self._patient[0][0] >= JOIN_S:
            self._advance(self._patient.popleft()[1], now, ())
        return self._take()
