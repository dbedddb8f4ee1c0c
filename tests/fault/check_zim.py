"""The life of one client of zim's dialect → what is wrong with it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from tests.fault.findings import Finding, Kind, Where
from tests.fault.history import (
    Acknowledged,
    Asked,
    Broken,
    Client,
    Closed,
    Connected,
    Froze,
    Joined,
    Left,
    Received,
    Told,
)
from tests.fault.world import World


@dataclass
class Stretch:
    """What a zim client was owed of one stream without a break: from a start on, until it was told otherwise, or left.

    Attributes:
        start, position: it is owed everything after start, and is at position.
        is_closed: it left, or was told of a hole, so nothing after position is owed.
    """

    stream: str
    epoch: str
    start: int
    position: int
    since: float
    until: float = 0.0
    is_closed: bool = False
    numbers: set[int] = field(default_factory=set)


class ZimChecker:
    """One client's life, event by event. A stretch survives reconnects, and leaving a room if the return resumes it."""

    def __init__(self, world: World, client: Client) -> None:
        self._world, self._client = world, client
        self._found: list[Finding] = []
        self._stretches: list[Stretch] = []
        self._open: dict[str, Stretch] = {}  # by stream, also those that wait to be resumed
        self._in: set[str] = set()  # streams of which the server may send now
        self._seen: dict[str, set[tuple[str, int]]] = defaultdict(set)  # by stream: epoch and number
        self._cursor = _Cursor()
        self._freezes = [event for event in client.events if isinstance(event, Froze)]

    def run(self) -> list[Finding]:
        for event in self._client.events:
            match event:
                case Joined():
                    self._join(event)
                case Received():
                    self._receive(event)
                case Told():
                    self._told(event)
                case Left():
                    self._in.discard(event.stream)
                case Connected() | Closed():
                    self._in.clear()
                    self._cursor.unanswered.clear()
                case Asked():
                    self._cursor.ask(event.offset)
                case Acknowledged():
                    if why := self._cursor.answer(event.offset):
                        self._add("cursor", event.stream, event.at, offset=event.offset, detail=why)
                case Broken():
                    self._add("broken", "", event.at, detail=event.what)
                case _:
                    pass
        for stretch in self._stretches:
            self._check_lost(stretch)
        return self._found

    def _add(self, kind: Kind, stream: str, at: float, number: int = 0, offset: int = 0, detail: str = "") -> None:
        self._found.append(Finding(kind, self._client.name, stream, number, offset, "", at, detail))

    def _join(self, event: Joined) -> None:
        self._in.add(event.stream)
        stretch = self._open.get(event.stream)
        if stretch is None or event.resume is None:
            if event.stream.startswith("u:") and (why := self._cursor.why_not(event.offset)):
                self._add("cursor", event.stream, event.at, offset=event.offset, detail=f"starts there, {why}")
            # What it does not resume may come again, of a newer epoch than its comet knew, too.
            self._seen[event.stream].clear()
            self._start(event.stream, event.epoch, event.offset, event.at)
        elif not event.recovered:
            detail = f"not recovered: from {stretch.position} of {stretch.epoch} on"
            self._explain(stretch, event.epoch, event.offset, event.at, detail)
            self._start(event.stream, event.epoch, event.offset, event.at)
        elif (event.epoch, event.offset) != (stretch.epoch, stretch.position):
            detail = f"recovered, but it had {stretch.position} of {stretch.epoch}"
            self._add("untold", event.stream, event.at, offset=event.offset, detail=detail)
            if event.epoch != stretch.epoch:
                self._start(event.stream, event.epoch, event.offset, event.at)

    def _explain(self, stretch: Stretch, epoch: str, offset: int, at: float, detail: str) -> None:
        """It was told that something is gone. That is right only where something can have taken it away."""
        why = self._world.why_gone(stretch.stream, stretch.epoch, stretch.since, epoch, offset, at)
        kind: Kind = "told" if why else "unexplained"
        self._add(kind, stretch.stream, at, offset=offset, detail=f"{detail}{'; ' if why else ''}{why}")

    def _start(self, stream: str, epoch: str, offset: int, at: float) -> None:
        self._end(stream, at)
        self._open[stream] = Stretch(stream, epoch, offset, offset, at)
        self._stretches.append(self._open[stream])

    def _end(self, stream: str, at: float) -> None:
        if stretch := self._open.pop(stream, None):
            stretch.is_closed, stretch.until = True, at

    def _receive(self, event: Received) -> None:
        if why := self._world.why_unexpected(event.number, event.stream):
            self._add("unexpected", event.stream, event.at, event.number, event.offset, why)
        if why := self._world.why_late(event, self._freezes):
            self._add("late", event.stream, event.at, event.number, event.offset, why)
        stretch = self._open.get(event.stream)
        if stretch is None or event.stream not in self._in:
            why = "of a stream that it is not in"
            self._add("unexpected", event.stream, event.at, event.number, event.offset, why)
            return
        seen, one = self._seen[event.stream], (stretch.epoch, event.number)
        if one in seen:
            self._add("duplicate", event.stream, event.at, event.number, event.offset)
        elif event.offset <= stretch.position:
            detail = f"after {stretch.position}"
            self._add("reordered", event.stream, event.at, event.number, event.offset, detail)
        elif not self._have_expired(stretch, event.offset):
            detail = f"{stretch.position + 1} was expected"
            self._add("untold", event.stream, event.at, event.number, event.offset, detail)
        seen.add(one)
        stretch.numbers.add(event.number)
        stretch.position = max(stretch.position, event.offset)

    def _have_expired(self, stretch: Stretch, end: int) -> bool:
        """Whether all between its position and end may have been past their ttl."""
        between = range(stretch.position + 1, end)
        return all(self._world.may_have_expired(stretch.stream, stretch.epoch, offset) for offset in between)

    def _told(self, event: Told) -> None:
        stretch = self._open.get(event.stream)
        detail = f"{event.first} to {event.last}, {event.reason}"
        if stretch is None or event.stream not in self._in:
            self._add("unexpected", event.stream, event.at, detail="a gap in a stream that it is not in")
        else:
            self._explain(stretch, event.epoch, event.last, event.at, detail)
            is_here = event.first > stretch.position and self._have_expired(stretch, event.first)
            if event.epoch == stretch.epoch and not is_here:
                detail = f"the gap begins at {event.first}, it had {stretch.position}"
                self._add("untold", event.stream, event.at, offset=event.first, detail=detail)
        self._start(event.stream, event.epoch, event.last, event.at)

    def _check_lost(self, stretch: Stretch) -> None:
        """What was accepted and lies in this stretch, but did not come.

        A push is in it by its offset, if anybody knows that; else if it was asked after the client was in, and the
        stretch never ended. Of a live-only stream nobody but clients knows where it is.
        """
        world, stream = self._world, stretch.stream
        if stretch.numbers:
            offsets = [world.offsets[stream, n] for n in stretch.numbers if n > 0]
            lowest, highest = min(offsets, default=0), max(offsets, default=0)
        else:
            lowest = highest = 0
        is_to_the_end = not stretch.is_closed and stream in self._in and world.history.is_settled
        is_live, log = world.is_live(stream), world.logs.get(stream)
        if log and log.epoch != stretch.epoch and not is_live:
            return
        for push in world.owed[stream]:
            if push.number in stretch.numbers:
                continue
            if is_live and world.epochs.get((stream, push.number)) != stretch.epoch:
                continue
            offset = world.offsets.get((stream, push.number), 0)
            if offset:
                if offset <= stretch.start or (offset > stretch.position and not is_to_the_end):
                    continue
            elif push.asked_at < stretch.since or not is_to_the_end:
                continue
            is_last = not offset or offset > highest
            is_first = not stretch.numbers or 0 < offset < lowest
            where: Where = "start" if is_first else "end" if is_last else "middle"
            self._found.append(Finding("lost", self._client.name, stream, push.number, offset, where, push.asked_at))


class _Cursor:
    """What the user acknowledged: by one client at a time, so its record has all of it.

    Attributes:
        asked, answered: the highest offset that was.
        unanswered: what was asked on this connection, and not answered yet.
    """

    def __init__(self) -> None:
        self.asked = self.answered = 0
        self.unanswered: list[int] = []

    def ask(self, offset: int) -> None:
        """The client acknowledges."""
        self.asked = max(self.asked, offset)
        self.unanswered.append(offset)

    def answer(self, offset: int) -> str:
        """The server says where the cursor is. Returns what is wrong with that; "" for nothing."""
        why = self.why_not(offset)
        if self.unanswered and offset < min(self.unanswered):
            why = f"{min(self.unanswered)} was asked"
        self.answered = max(self.answered, offset)
        self.unanswered = [asked for asked in self.unanswered if asked > offset]
        return why

    def why_not(self, offset: int) -> str:
        """Why the cursor cannot be there; "" if it can."""
        return "" if self.answered <= offset <= self.asked else f"answered was {self.answered}, asked {self.asked}"
