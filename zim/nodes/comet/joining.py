"""A session on its way into streams: what it waits for, and where it starts. Pure: no socket, no clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from zim.fabric.streams import is_user_stream
from zim.nodes.comet.passes import Passes, is_live_only
from zim.nodes.comet.views import Session, View
from zim.protocol.messages import Records
from zim.protocol.vocabularies.base import Resume, Start
from zim.protocol.vocabularies.zim import RETRYING


class _Standing(NamedTuple):
    """Where a stream stands at its router."""

    epoch: str
    floor: int
    head: int


class _Wish:
    """One stream that a session wants to be in.

    Attributes:
        resume: what the client has of it, epoch and offset; None if it has nothing.
        standing: what the router says of the stream, if it had to be asked.
        is_asked: it is under way.
    """

    __slots__ = ("is_asked", "resume", "standing")

    def __init__(self, resume: tuple[str, int] | None) -> None:
        self.resume = resume
        self.standing: _Standing | None = None
        self.is_asked = False


class Joining:
    """What one packet asked for: auth, or a join. It ends with one reply, which starts all streams that are ready; the
    others follow by themselves.

    Attributes:
        session: whose.
        seq: of the packet, for the reply to a join.
        since: when it asked; monotonic seconds.
        is_replied: the reply has gone out.
    """

    __slots__ = (
        "_advance",
        "_errors",
        "_passes",
        "_resume",
        "_wishes",
        "is_replied",
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
        advance: Callable[[Session, float], None],
        now: float,
    ) -> None:
        """
        Args:
            resume: what the client has, by stream.
            errors: streams that it will not be in, and why; the reply names them.
            advance: is called when a router has answered.
        """
        self.session, self.seq, self.since = session, seq, now
        self.is_replied = False
        self._resume, self._errors, self._passes, self._advance = resume, errors, passes, advance
        self._wishes: dict[View, _Wish] = {}

    def want(self, view: View) -> None:
        """One more stream."""
        self._wishes[view] = _Wish(self._resume.get(view.stream))

    def forget(self, views: Sequence[View]) -> None:
        """It does not want to be in these any more."""
        for view in views:
            self._wishes.pop(view, None)

    @property
    def is_over(self) -> bool:
        """All streams have started."""
        return self.is_replied and not self._wishes

    def advance(self, now: float, patience_s: float) -> None:
        """Does what can be done: asks routers, replies, starts.

        Args:
            patience_s: how long the reply waits for streams whose routers do not answer.
        """
        ready = [view for view, wish in self._wishes.items() if self._is_ready(view, wish, now)]
        is_late = now - self.since >= patience_s
        if not self.is_replied and not self._may_reply(ready, is_late):
            return
        if self.is_replied and not ready:
            return
        starts = [self._start(view, now) for view in ready]
        if self.is_replied:
            if self.session.vocabulary.tells_starts:
                self.session.joined(0, starts)
            return
        self.is_replied = True
        starts += [Start(view.stream, error=RETRYING) for view in self._wishes]
        starts += self._errors
        if self.session.is_open:
            self.session.joined(self.seq, starts)
        else:
            self.session.is_open = True
            self.session.opened(starts)

    def _may_reply(self, ready: Sequence[View], is_late: bool) -> bool:
        """A session without its key, which its user's router gives, is nobody: it waits on."""
        is_whole = len(ready) == len(self._wishes)
        if self.session.is_open:
            return is_whole or is_late
        can_be_told = (
            self.session.vocabulary.tells_starts
        )  # goim's clients would miss what comes before they are joined
        return bool(self.session.seq) and self.session.views[0] in ready and (is_whole or (is_late and can_be_told))

    def _is_ready(self, view: View, wish: _Wish, now: float) -> bool:
        """Whether it is known where the session starts. Who has something asks the router first what is left of it."""
        if not view.is_current:
            return False
        has_cursor = is_user_stream(view.stream) and not is_live_only(view.epoch)
        if wish.resume is None and has_cursor and self.session.vocabulary.has_cursors:
            if not self.session.seq:
                return False  # the answer that gives it tells the cursor too
            wish.resume = (view.epoch, min(view.acknowledged, view.at))
        if wish.resume is None:
            return True
        epoch, offset = wish.resume
        if epoch != view.epoch or offset == view.at:
            return True
        if wish.standing is not None and wish.standing.epoch == view.epoch:
            return True
        if not wish.is_asked:
            wish.is_asked, wish.standing = True, None

            def got(page: Records, now: float) -> None:
                wish.is_asked, wish.standing = False, _Standing(page.epoch, page.floor, page.head)
                self._advance(self.session, now)

            upto = max(view.at, offset)
            self._passes.read(view, offset, upto, now, got, lambda: self._wishes.get(view) is wish, limit=1)
        return False

    def _start(self, view: View, now: float) -> Start:
        wish = self._wishes.pop(view)
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
