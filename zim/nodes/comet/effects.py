"""What a comet's runner wants from its edge, as frozen values. Pure.

None of them may switch when it is performed, but for Pass, which is the fan-out's work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zim.nodes.comet.feed import Link
from zim.nodes.comet.results import Row
from zim.nodes.comet.views import Catchup, Session, View
from zim.nodes.effects import Effect
from zim.protocol.logins import Authed, MayJoin
from zim.protocol.messages import Entry
from zim.protocol.orders import Why
from zim.protocol.vocabularies.base import Missed, Past, Start


class SessionEffect(Effect, frozen=True):
    """Something that one client is told."""

    session: Session


class Opened(SessionEffect, frozen=True):
    """The session is in the directory: its auth reply goes out."""

    starts: Sequence[Start]


class Joined(SessionEffect, frozen=True):
    """It is in rooms that it asked for in packet seq, or 0 if this comes late."""

    seq: int
    starts: Sequence[Start]


class Left(SessionEffect, frozen=True):
    """It is out of rooms, as it asked in packet seq: nothing more of them comes."""

    seq: int
    streams: Sequence[str]
    reason: str = ""


class Expelled(SessionEffect, frozen=True):
    """A router orders that it is closed. why: decides whether its client comes back; reason: for it."""

    why: Why
    reason: str


class SendOn(SessionEffect, frozen=True):
    """It is to go to another comet. to: its name; "" for any. after_s: so much later."""

    to: str
    after_s: float


class Barred(Effect, frozen=True):
    """A network has been banned: those who come from there are to be closed."""


class Gapped(SessionEffect, frozen=True):
    """It will not get a piece of a stream.

    Attributes:
        is_kept: the stream is not live only: a client that cannot be told must not go on as if nothing was.
    """

    missed: Missed
    is_kept: bool


class HistoryRead(SessionEffect, frozen=True):
    """A piece of a stream's history, as it asked in packet seq."""

    seq: int
    past: Past


class CursorMoved(SessionEffect, frozen=True):
    """The cursor of its user's stream stands there, durably."""

    stream: str
    offset: int


class Told(Effect, frozen=True):
    """What a logic says, or None: none has answered. ticket: names who asked."""

    ticket: Any
    answer: Authed | MayJoin | None


class Replaced(Effect, frozen=True):
    """A router knows a later run of this comet: this one must end. known_inc: the later one's incarnation."""

    known_inc: int


class Write(Effect, frozen=True):
    """One chunk for many sessions. rows, until: see `Session.write`."""

    sessions: Sequence[Session]
    chunk: bytes
    rows: Sequence[Row] = ()
    until: float = 0.0

    def is_late(self, now: float) -> bool:
        """It is not to be written any more: its sessions' part in it has expired. now: monotonic seconds."""
        return 0.0 < self.until <= now


class Pass(Effect, frozen=True):
    """Work for the fan-out: each write to each of its sessions, in this order. One is under way at a time.

    Attributes:
        taken: entries that are handled with it; of each link, and the registration that they belong to.
        catchup: who reads on after it, and in which view.
    """

    writes: Sequence[Write]
    taken: Sequence[tuple[Link, int, list[Entry]]] = ()
    catchup: tuple[View, Catchup] | None = None
