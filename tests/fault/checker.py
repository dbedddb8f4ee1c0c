"""A history → what is wrong with it. Pure, in the style of Jepsen's queue tests.

What is owed:

- A client of zim's dialect gets of each stream, from where its first reply says on, every message, once, in order,
  with contiguous offsets, over all its connections: a reply to a resume goes on where the client was, or says
  `recovered: false`; a hole is told by a gap packet.
- A goim client is owed, for each of its connections, every push that was asked after its auth reply and accepted while
  it was connected, once, in order. What was on its way when the connection ended is lost to it by design: so only the
  end of a connection that was open to the end counts.
- What was never pushed, or answered 503, reaches nobody.
- The log has every accepted push once, with contiguous offsets, and what clients got stands where the log has it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from tests.fault.history import Broken, Client, Closed, Connected, History, Joined, Left, Log, Push, Received, Told

Kind = Literal["lost", "duplicate", "reordered", "unexpected", "untold", "disagreement", "broken", "told"]
Where = Literal["", "start", "middle", "end"]

FAULTS: tuple[Kind, ...] = ("lost", "duplicate", "reordered", "unexpected", "untold", "disagreement", "broken")


@dataclass(frozen=True)
class Finding:
    """One thing that should not be.

    Attributes:
        kind: lost: owed and not received. duplicate: received, or stored, twice. reordered: came after one that it
            stands before. unexpected: never pushed, answered 503, of a stream that it is not in. untold: offsets jump,
            and nobody said so. disagreement: the same offset is another message elsewhere, or an answer told another
            offset. broken: the protocol was. told: the client was told of a gap, or `recovered: false`; no fault in
            itself.
        where: of what is lost, in the client's time on that stream.
        who: the client's name, or `log`.
        at: when the client was told, or the push was asked.
    """

    kind: Kind
    who: str
    stream: str
    number: int = 0
    offset: int = 0
    where: Where = ""
    at: float = 0.0
    detail: str = ""

    @property
    def is_fault(self) -> bool:
        """It breaks a promise."""
        return self.kind in FAULTS

    def __str__(self) -> str:
        kind = f"{self.kind} at the {self.where}" if self.where else self.kind
        number = f" push {self.number}" if self.number > 0 else ""
        offset = f" offset {self.offset}" if self.offset else ""
        return f"{kind}: {self.who} {self.stream}{number}{offset} at {self.at:.2f} s  {self.detail}".rstrip()


def check(history: History) -> list[Finding]:
    """All that is wrong in a history; empty for one that kept every promise."""
    world = _World(history)
    found = list(_check_logs(world))
    for client in history.clients:
        found += (_ZimChecker if client.dialect == "zim" else _GoimChecker)(world, client).run()
    return found


def summary(findings: list[Finding]) -> dict[str, int]:
    """How many of each kind, lost ones by where; kinds without any are 0."""
    kinds = [kind for kind in (*FAULTS, "told") if kind != "lost"] + ["lost start", "lost middle", "lost end"]
    counts = Counter(f"lost {f.where}" if f.kind == "lost" else f.kind for f in findings)
    return {kind: counts[kind] for kind in sorted(kinds)}


class _World:
    """What is known of the pushes from all sides.

    Attributes:
        offsets: (stream, number) → offset, as the log, an answer or any zim client has it.
        accepted: by stream, in the order in which they were asked.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.pushes = {push.number: push for push in history.pushes}
        self.logs = {log.stream: log for log in history.logs}
        self.offsets: dict[tuple[str, int], int] = {}
        self.accepted: dict[str, list[Push]] = defaultdict(list)
        for client in history.clients:
            for event in client.events:
                if isinstance(event, Received) and event.stream and event.number > 0:
                    self.offsets.setdefault((event.stream, event.number), event.offset)
        for push in history.pushes:
            for stream, offset in push.offsets.items():
                self.offsets[stream, push.number] = offset
            if push.verdict == "accepted":
                for stream in push.streams:
                    self.accepted[stream].append(push)
        for log in history.logs:
            for entry in log.entries:
                self.offsets.setdefault((log.stream, entry.number), entry.offset)

    def why_unexpected(self, number: int, stream: str) -> str:
        """Why nobody should ever get that; "" if it is right."""
        push = self.pushes.get(number)
        if push is None:
            return "was never pushed"
        if push.verdict == "refused":
            return "was answered 503"
        if stream and stream not in push.streams:
            return f"was pushed to {', '.join(push.streams)}"
        return ""


def _check_logs(world: _World) -> Iterator[Finding]:
    at_offset: dict[tuple[str, str, int], tuple[int, str]] = {}
    for log in world.history.logs:
        yield from _check_log(world, log)
        for entry in log.entries:
            at_offset[log.stream, log.epoch, entry.offset] = (entry.number, "the log")
    for client in world.history.clients:
        epochs: dict[str, str] = {}
        for event in client.events:
            if isinstance(event, Joined | Told):
                epochs[event.stream] = event.epoch
            elif isinstance(event, Received) and event.stream in epochs:
                key = (event.stream, epochs[event.stream], event.offset)
                number, who = at_offset.setdefault(key, (event.number, client.name))
                if number != event.number:
                    detail = f"{who} has push {number} there"
                    yield Finding(
                        "disagreement", client.name, event.stream, event.number, event.offset, "", event.at, detail
                    )


def _check_log(world: _World, log: Log) -> Iterator[Finding]:
    stored: dict[int, int] = {}
    expected = log.first
    for entry in log.entries:
        if entry.offset != expected:
            yield Finding("untold", "log", log.stream, entry.number, entry.offset, detail=f"{expected} was expected")
        expected = entry.offset + 1
        if entry.number in stored:
            detail = f"stored at {stored[entry.number]} already"
            yield Finding("duplicate", "log", log.stream, entry.number, entry.offset, detail=detail)
        stored.setdefault(entry.number, entry.offset)
        if why := world.why_unexpected(entry.number, log.stream):
            yield Finding("unexpected", "log", log.stream, entry.number, entry.offset, detail=why)
    if log.entries and expected != log.head + 1:
        yield Finding("untold", "log", log.stream, 0, log.head, detail=f"the last one that it has is {expected - 1}")
    for push in world.accepted[log.stream]:
        told = push.offsets.get(log.stream)
        offset = stored.get(push.number)
        if offset is None and (told is None or told >= log.first):
            where: Where = "end" if told and told > log.head else "middle"
            yield Finding("lost", "log", log.stream, push.number, told or 0, where, push.asked_at, "is not stored")
        elif told is not None and offset is not None and told != offset:
            detail = f"the answer said {told}"
            yield Finding("disagreement", "log", log.stream, push.number, offset, "", push.asked_at, detail)


@dataclass
class _Stretch:
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


class _ZimChecker:
    """One client's life, event by event. A stretch survives reconnects, and leaving a room if the return resumes it."""

    def __init__(self, world: _World, client: Client) -> None:
        self._world, self._client = world, client
        self._found: list[Finding] = []
        self._stretches: list[_Stretch] = []
        self._open: dict[str, _Stretch] = {}  # by stream, also those that wait to be resumed
        self._in: set[str] = set()  # streams of which the server may send now
        self._seen: dict[tuple[str, str], set[int]] = defaultdict(set)  # numbers by stream and epoch

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
                case Broken():
                    self._add("broken", "", event.at, detail=event.what)
        for stretch in self._stretches:
            self._check_lost(stretch)
        return self._found

    def _add(self, kind: Kind, stream: str, at: float, number: int = 0, offset: int = 0, detail: str = "") -> None:
        self._found.append(Finding(kind, self._client.name, stream, number, offset, "", at, detail))

    def _join(self, event: Joined) -> None:
        self._in.add(event.stream)
        stretch = self._open.get(event.stream)
        if stretch is None or event.resume is None:
            self._start(event.stream, event.epoch, event.offset, event.at)
        elif not event.recovered:
            detail = f"not recovered: from {stretch.position} of {stretch.epoch} on"
            self._add("told", event.stream, event.at, offset=event.offset, detail=detail)
            self._start(event.stream, event.epoch, event.offset, event.at)
        elif (event.epoch, event.offset) != (stretch.epoch, stretch.position):
            detail = f"recovered, but it had {stretch.position} of {stretch.epoch}"
            self._add("untold", event.stream, event.at, offset=event.offset, detail=detail)
            if event.epoch != stretch.epoch:
                self._start(event.stream, event.epoch, event.offset, event.at)

    def _start(self, stream: str, epoch: str, offset: int, at: float) -> None:
        self._end(stream, at)
        self._open[stream] = _Stretch(stream, epoch, offset, offset, at)
        self._stretches.append(self._open[stream])

    def _end(self, stream: str, at: float) -> None:
        if stretch := self._open.pop(stream, None):
            stretch.is_closed, stretch.until = True, at

    def _receive(self, event: Received) -> None:
        if why := self._world.why_unexpected(event.number, event.stream):
            self._add("unexpected", event.stream, event.at, event.number, event.offset, why)
        stretch = self._open.get(event.stream)
        if stretch is None or event.stream not in self._in:
            why = "of a stream that it is not in"
            self._add("unexpected", event.stream, event.at, event.number, event.offset, why)
            return
        seen = self._seen[event.stream, stretch.epoch]
        is_repeated = event.number in seen
        if is_repeated:
            self._add("duplicate", event.stream, event.at, event.number, event.offset)
        elif event.offset <= stretch.position:
            detail = f"after {stretch.position}"
            self._add("reordered", event.stream, event.at, event.number, event.offset, detail)
        elif event.offset > stretch.position + 1:
            detail = f"{stretch.position + 1} was expected"
            self._add("untold", event.stream, event.at, event.number, event.offset, detail)
        seen.add(event.number)
        stretch.numbers.add(event.number)
        stretch.position = max(stretch.position, event.offset)

    def _told(self, event: Told) -> None:
        stretch = self._open.get(event.stream)
        detail = f"{event.first} to {event.last}, {event.reason}"
        self._add("told", event.stream, event.at, offset=event.last, detail=detail)
        if stretch is None or event.stream not in self._in:
            self._add("unexpected", event.stream, event.at, detail="a gap in a stream that it is not in")
        elif event.epoch == stretch.epoch and event.first != stretch.position + 1:
            detail = f"the gap begins at {event.first}, it had {stretch.position}"
            self._add("untold", event.stream, event.at, offset=event.first, detail=detail)
        self._start(event.stream, event.epoch, event.last, event.at)

    def _check_lost(self, stretch: _Stretch) -> None:
        """What was accepted and lies in this stretch, but did not come.

        A push is in it by its offset, if anybody knows that; else if it was asked after the client was in, and the
        stretch never ended.
        """
        if stretch.numbers:
            offsets = [self._world.offsets[stretch.stream, n] for n in stretch.numbers if n > 0]
            lowest, highest = min(offsets, default=0), max(offsets, default=0)
        else:
            lowest = highest = 0
        is_to_the_end = not stretch.is_closed and stretch.stream in self._in and self._world.history.is_settled
        log = self._world.logs.get(stretch.stream)
        for push in self._world.accepted[stretch.stream]:
            if push.number in stretch.numbers or (log and log.epoch != stretch.epoch):
                continue
            offset = self._world.offsets.get((stretch.stream, push.number), 0)
            if offset:
                if offset <= stretch.start or (offset > stretch.position and not is_to_the_end):
                    continue
            elif push.asked_at < stretch.since or not is_to_the_end:
                continue
            is_last = not offset or offset > highest
            is_first = not stretch.numbers or 0 < offset < lowest
            where: Where = "start" if is_first else "end" if is_last else "middle"
            self._found.append(
                Finding("lost", self._client.name, stretch.stream, push.number, offset, where, push.asked_at)
            )


class _GoimChecker:
    """One client's connections, each for itself. Its messages name no stream, so their pushes do."""

    def __init__(self, world: _World, client: Client) -> None:
        self._world, self._client = world, client
        self._found: list[Finding] = []

    def run(self) -> list[Finding]:
        connection: Connected | None = None
        received: list[Received] = []
        for event in self._client.events:
            match event:
                case Connected():
                    connection, received = event, []
                case Received():
                    received.append(event)
                case Closed():
                    if connection:
                        self._check(connection, received, None)
                    connection = None
                case Broken():
                    self._found.append(Finding("broken", self._client.name, "", at=event.at, detail=event.what))
                case _:
                    pass
        if connection:
            self._check(connection, received, connection)
        return self._found

    def _check(self, connection: Connected, received: list[Received], still: Connected | None) -> None:
        counts: Counter[int] = Counter()
        order: dict[str, list[Received]] = {stream: [] for stream in connection.streams}
        for event in received:
            counts[event.number] += 1
            push = self._world.pushes.get(event.number)
            streams = [s for s in connection.streams if push and s in push.streams]
            if why := self._world.why_unexpected(event.number, ""):
                self._add("unexpected", event, "", why)
            elif not streams:
                self._add("unexpected", event, "", "of a stream that it is not in")
            elif counts[event.number] > len(streams):
                self._add("duplicate", event, streams[0])
            if len(streams) == 1 and counts[event.number] == 1:  # of several streams: nobody can tell which copy it is
                order[streams[0]].append(event)
        owed: Counter[int] = Counter()
        for stream, events in order.items():
            self._check_order(stream, events)
            is_to_the_end = still is not None and self._world.history.is_settled
            for finding in self._missing(connection, stream, events, is_to_the_end):
                owed[finding.number] += 1
                if owed[finding.number] > counts[finding.number]:
                    self._found.append(finding)

    def _add(self, kind: Kind, event: Received, stream: str, detail: str = "") -> None:
        self._found.append(Finding(kind, self._client.name, stream, event.number, 0, "", event.at, detail))

    def _check_order(self, stream: str, events: list[Received]) -> None:
        """By offset, where it is known."""
        highest: Received | None = None
        top = 0
        for event in events:
            offset = self._world.offsets.get((stream, event.number), 0)
            if offset and offset < top and highest:
                self._add("reordered", event, stream, f"after push {highest.number}")
            if offset > top:
                top, highest = offset, event
        self._check_causal_order(stream, events)

    def _check_causal_order(self, stream: str, events: list[Received]) -> None:
        """What had been answered before another was asked comes before it, where offsets cannot tell."""
        unknown = [e for e in events if (stream, e.number) not in self._world.offsets]
        latest_asked, latest = -1.0, 0
        for event in unknown:
            push = self._world.pushes[event.number]
            if push.verdict == "accepted" and push.answered_at < latest_asked:
                self._add("reordered", event, stream, f"after push {latest}, which was asked after its answer")
            if push.asked_at > latest_asked:
                latest_asked, latest = push.asked_at, event.number

    def _missing(
        self, connection: Connected, stream: str, events: list[Received], is_to_the_end: bool
    ) -> Iterator[Finding]:
        """What this stream owes, whether or not it came: accepted, and before something that came, or to the end."""
        numbers = {event.number for event in events}
        got = [self._world.pushes[number] for number in numbers]
        offsets = [o for n in numbers if (o := self._world.offsets.get((stream, n), 0))]
        lowest, highest = min(offsets, default=0), max(offsets, default=0)
        first_asked = min((push.asked_at for push in got), default=0.0)
        last_asked = max((push.asked_at for push in got), default=0.0)
        for push in self._world.accepted[stream]:
            if push.asked_at < connection.at:
                continue
            offset = self._world.offsets.get((stream, push.number), 0)
            is_before_another = offset <= highest if offset and highest else push.answered_at < last_asked
            if not is_before_another and not is_to_the_end and push.number not in numbers:
                continue
            is_first = offset < lowest if offset and lowest else bool(got) and push.answered_at < first_asked
            where: Where = "start" if is_first else "middle" if is_before_another else "end"
            yield Finding("lost", self._client.name, stream, push.number, offset, where, push.asked_at)
