"""A session on its way into streams: what it waits for, and where it starts. Pure: no socket, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from zim.fabric.streams import is_user_stream
from zim.nodes.comet.effects import Joined, Opened
from zim.nodes.comet.passes import Passes, is_live_only
from zim.nodes.comet.views import Session, View
from zim.protocol.messages import Records
from zim.protocol.vocabularies.base import Resume, Start
from zim.protocol.vocabularies.zim import RETRYING

AT_ONCE = 200  # streams that one step asks for


class _Standing(NamedTuple):
    """Where a stream stands at its router."""

    epoch: str
    floor: int
    head: int


class Wish:
    """One stream that a session wants to be in.

    Attributes:
        session, view: whose, and which.
        resume: what the client has of it, epoch and offset; None if it has nothing.
        standing: what the router says of the stream, if it had to be asked.
        is_asked: it is under way.
        asked_in: the view's epoch when it was asked last. While that is the same, nothing new is to be heard.
        is_wanted: it is neither granted nor given up.
    """

    __slots__ = ("asked_in", "is_asked", "is_wanted", "resume", "session", "standing", "view")

    def __init__(self, session: Session, view: View, resume: tuple[str, int] | None) -> None:
        self.session, self.view, self.resume = session, view, resume
        self.standing: _Standing | None = None
        self.is_asked, self.asked_in, self.is_wanted = False, "", True

    def on_records(self, m: Records) -> None:
        """The router says where the stream stands."""
        self.is_asked, self.standing = False, _Standing(m.epoch, m.floor, m.head)


class Joining:
    """What one packet asked for: auth, or a join. It ends with one reply, which starts all streams that are ready; the
    others follow by themselves.

    Attributes:
        session: whose.
        seq: of the packet, for the reply to a join.
        since: when it asked; monotonic seconds.
        is_replied: the reply has gone out.
        later: streams that are still to be asked for.
    """

    __slots__ = (
        "_errors",
        "_passes",
        "_ready",
        "_resume",
        "_wishes",
        "is_replied",
        "later",
        "seq",
        "session",
        "since",
    )

    def __init__(
        self,
        session: Session,
        seq: int,
        resume: Resume,
        errors: Sequence[Start],
        passes: Passes,
        now: float,
        streams: Sequence[str],
    ) -> None:
        """
        Args:
            resume: what the client has, by stream.
            errors: streams that it will not be in, and why; the reply names them.
            streams: that it wants to be in.
        """
        self.session, self.seq, self.since = session, seq, now
        self.is_replied, self.later = False, streams
        self._resume, self._errors, self._passes = resume, errors, passes
        self._wishes: dict[View, Wish] = {}
        self._ready: dict[View, None] = {}  # of them, as they were seen last

    def next_streams(self) -> Sequence[str]:
        """Some that are to be asked for now."""
        now, self.later = self.later[:AT_ONCE], self.later[AT_ONCE:]
        return now

    def want(self, view: View) -> None:
        """One more stream."""
        self._wishes[view] = Wish(self.session, view, self._resume.get(view.stream))

    def forget(self, views: Iterable[View]) -> None:
        """It does not want to be in these any more."""
        for view in views:
            if (wish := self._wishes.pop(view, None)) is not None:
                wish.is_wanted = False
                self._ready.pop(view, None)

    @property
    def is_over(self) -> bool:
        """All streams have started."""
        return self.is_replied and not self._wishes

    def advance(self, now: float, patience_s: float, views: Iterable[View] | None) -> Opened | Joined | None:
        """Does what can be done: asks routers, starts streams. All its work is linear in the views that it is told.

        Args:
            patience_s: how long the reply waits for streams whose routers do not answer.
            views: of which something is new; None for all.

        Returns:
            What the client is to be told now, if anything.
        """
        self._look_at(self._wishes if views is None else views, now)
        is_late = now - self.since >= patience_s
        if not self._may_start(is_late):
            return None
        seen, self._ready = self._ready, {}  # one that was ready may have to wait again: its router was started anew
        self._look_at([view for view in self._wishes if view in seen] if not self.is_replied else seen, now)
        if not self._may_start(is_late):
            return None
        ready, self._ready = self._ready, {}
        starts = [self._start(view, now) for view in ready]
        if self.is_replied:
            return Joined(self.session, 0, starts) if self.session.vocabulary.tells_starts else None
        self.is_replied = True
        starts += [Start(view.stream, error=RETRYING) for view in self._wishes]
        starts += self._errors
        if self.session.is_open:
            return Joined(self.session, self.seq, starts)
        self.session.is_open = True
        return Opened(self.session, starts)

    def _look_at(self, views: Iterable[View], now: float) -> None:
        for view in views:
            wish = self._wishes.get(view)
            if wish is not None and self._is_ready(view, wish, now):
                self._ready[view] = None

    def _may_start(self, is_late: bool) -> bool:
        if self.is_replied:
            return bool(self._ready)
        return not self.later and self._may_reply(is_late)

    def _may_reply(self, is_late: bool) -> bool:
        """A session without its key, which its user's router gives, is nobody: it waits on."""
        is_whole = len(self._ready) == len(self._wishes)
        if self.session.is_open:
            return is_whole or is_late
        can_be_told = self.session.vocabulary.tells_starts  # others would miss what comes before they are joined
        is_somebody = bool(self.session.seq) and self.session.views[0] in self._ready
        return is_somebody and (is_whole or (is_late and can_be_told))

    def _is_ready(self, view: View, wish: Wish, now: float) -> bool:
        """Whether it is known where the session starts. Who has something asks the router first what is left of it."""
        if not view.is_current:
            return False
        has_cursor = is_user_stream(view.stream) and not is_live_only(view.epoch)
        if wish.resume is None and has_cursor and self.session.vocabulary.has_cursors:
            if not self.session.seq:
                return False  # the answer that gives it tells the cursor too
            wish.resume = (view.epoch, view.acknowledged)
        if wish.resume is None:
            return True
        epoch, offset = wish.resume
        if epoch == view.epoch and offset == view.at:
            return True
        if wish.standing is not None and wish.standing.epoch == view.epoch:
            return True
        if not wish.is_asked and wish.asked_in != view.epoch:
            # Of two epochs ours may be the old one: a comet that is cut off has not heard of the other yet. Who began
            # in the old one would then be given all of the new one, with what its client has.
            after = offset if epoch == view.epoch else view.at
            wish.is_asked, wish.asked_in, wish.standing = True, view.epoch, None
            self._passes.read(view, wish, after, max(view.at, after), now, limit=1)
        return False

    def _start(self, view: View, now: float) -> Start:
        wish = self._wishes.pop(view)
        wish.is_wanted = False
        epoch, at = view.epoch, view.at
        if wish.resume is None:
            view.start(self.session, at)
            return Start(view.stream, epoch, at)
        has_epoch, offset = wish.resume
        told = wish.standing if wish.standing is not None and wish.standing.epoch == epoch else None
        if has_epoch != epoch or (told is not None and offset > told.head):
            view.start(self.session, at)
            self._passes.resumed["false"] += 1
            return Start(view.stream, epoch, at, recovered=False)
        recovered = True
        if told is not None and told.floor > offset:
            offset, recovered = told.floor, False
        self._passes.resumed["true" if recovered else "false"] += 1
        catchup = view.start(self.session, offset)
        if catchup is not None:
            self._passes.go_on(view, catchup, now)
        return Start(view.stream, epoch, offset, recovered)
