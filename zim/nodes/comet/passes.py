"""What goes out next, and to whom: passes over subscribers, of live entries and of pages that somebody misses.

One pass at a time. Positions move and snapshots are taken in the step that makes a pass, before its first send; what
gathered while the last one ran becomes one write per connection and stream. Pure: no socket, no clock.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from typing_extensions import override

from zim.fabric.audience import ALL, audience, audiences
from zim.nodes.comet.effects import Gapped, Pass, Write
from zim.nodes.comet.feed import RETRY_S, Link
from zim.nodes.comet.results import Row
from zim.nodes.comet.views import Catchup, Subscribers, View
from zim.nodes.effects import WARNING, Effect, Note
from zim.protocol.messages import Entry, Read, Records
from zim.protocol.pushes import Content, Encoded, join
from zim.protocol.vocabularies.base import Missed

PASS_BYTES = 512 << 10  # of entries that one pass takes from one router
PAGE_RECORDS = 1_000  # of one Read
READS = 64  # under way to one router: more would only wait there


class PieceReader(Protocol):
    """Who wants a piece of a stream that no entry carries."""

    @property
    def is_wanted(self) -> bool:
        """It still is."""


@dataclass(slots=True, eq=False)
class PageTurn(PieceReader):
    """A catch-up wants its next page. number: counts them; one chain of pages, however often it is begun anew."""

    view: View
    catchup: Catchup
    number: int

    @property
    @override
    def is_wanted(self) -> bool:
        return self.catchup in self.view.catchups and self.catchup.turn == self.number


@dataclass(slots=True, eq=False)
class Reading:
    """A question for a piece of a stream, asked until it is answered or nobody wants it any more."""

    view: View
    reader: PieceReader
    after: int
    upto: int
    limit: int
    asked_at: float = 0.0


Fresh = tuple[list[Encoded], list[Row]]  # what is new in a stream, each with its row


class Passes:
    """The passes of one comet.

    Attributes:
        resumed: streams that sessions went on with where they had left off: all of what they missed was kept, or not.
    """

    def __init__(self, views: Mapping[str, View], links: Iterable[Link], out: list[Effect]) -> None:
        """
        Args:
            views: by stream, of all that the comet serves; it changes.
            links: to all routers.
            out: takes what clients are to be told.
        """
        self._out = out
        self._views, self._links = views, list(links)
        self._reqs = itertools.count(1)
        self._readings: dict[int, Reading] = {}  # under way, by request
        self._in_flight: dict[Link, int] = {}
        self._later: dict[Link, deque[Reading]] = {}  # they wait for one under way to be answered
        self._pages: deque[tuple[PageTurn, Records]] = deque()
        self._flushes: deque[tuple[View, Catchup]] = deque()
        self._stalled: dict[Catchup, View] = {}  # until the sockets of those who catch up take more
        self.resumed = {"true": 0, "false": 0}
        self._is_passing = False
        self._after_pass: list[Any] = []

    # -- passes

    def when_over(self, thing: Any) -> bool:
        """Keeps a thing until the pass under way is over: `end` returns it. Returns False if there is none."""
        if self._is_passing:
            self._after_pass.append(thing)
        return self._is_passing

    def next(self, now: float) -> Pass | None:
        """The next work for the fan-out, if there is any and none is under way."""
        if self._is_passing:
            return None
        found = self._catchup_pass(now) or self._entry_pass(now)
        self._is_passing = found is not None
        return found

    def end(self, done: Pass, now: float) -> list[Any]:
        """All writes of a pass are in a socket or an outbox. Returns what has waited for that."""
        self._is_passing = False
        for link, begin, entries in done.taken:
            if link.begin == begin and not link.is_registering:
                link.passed(entries)
        if done.catchup is not None:
            self.go_on(*done.catchup, now)
        things, self._after_pass = self._after_pass, []
        return things

    def _entry_pass(self, now: float) -> Pass | None:
        taken = [(link, link.begin, entries) for link in self._links if (entries := link.take(PASS_BYTES))]
        if not taken:
            return None
        fresh: dict[View, Fresh] = {}
        for link, _, entries in taken:
            for entry in entries:
                self._handle(link, entry, fresh, now)
        # What is for few goes first: it would wait for all writes to a large room, and they hardly wait for it.
        by_size = sorted(fresh.items(), key=lambda item: len(item[0].live))
        writes = [write for view, (pushes, rows) in by_size for write in _writes(view, view.live, pushes, rows)]
        return Pass(writes, taken)

    def _handle(self, link: Link, entry: Entry, fresh: dict[View, Fresh], now: float) -> None:
        """Moves positions; what is new and in time goes into fresh, for those who are live."""
        content = Content(entry.op, entry.body)
        row, to = Row(link.reports, entry.n), audiences(entry.only)
        is_expired = bool(entry.expires_ms) and link.clock.is_over(entry.expires_ms, now)
        for stream, offset in entry.items:
            view = self._views.get(stream)
            if view is None or (view.position is not None and offset <= view.position):
                continue
            view.position = offset
            push = Encoded(content, stream, offset, to.get(stream, ALL), entry.expires_ms)
            targeted = view.live.count(push.audience)
            row.targeted += targeted
            if is_expired:
                row.expire(targeted)
            else:
                pushes, rows = fresh.setdefault(view, ([], []))
                pushes.append(push)
                rows.append(row)
            for catchup in view.catchups:
                if offset > catchup.target and not is_expired:
                    catchup.put(push)
                if catchup.is_waiting:
                    catchup.is_waiting = False
                    self._flushes.append((view, catchup))
        row.changed()

    # -- reading what no entry carries

    def read(
        self,
        view: View,
        reader: PieceReader,
        after: int,
        upto: int,
        now: float,
        is_idle: bool = False,
        limit: int = PAGE_RECORDS,
        waits: bool = True,
    ) -> None:
        """Asks a stream's router for at most `limit` records in (after, upto] until it answers.

        Args:
            is_idle: not at once.
            waits: while many are under way; else whoever asks sees to it that it is not too many.
        """
        link, reading = view.link, Reading(view, reader, after, upto, limit)
        if waits and self._in_flight.get(link, 0) >= READS:
            self._later.setdefault(link, deque()).append(reading)
        else:
            self._begin(reading, now, is_idle)

    def _begin(self, reading: Reading, now: float, is_idle: bool = False) -> None:
        link, req = reading.view.link, next(self._reqs)
        self._readings[req] = reading
        self._in_flight[link] = self._in_flight.get(link, 0) + 1
        reading.asked_at = now
        if not is_idle:
            self._ask(req, reading)

    def _ask(self, req: int, reading: Reading) -> None:
        """Under the same number until it is answered: an answer that takes longer than the patience for it counts."""
        reading.view.link.ask(
            Read(reading.view.link.shard, req, reading.view.stream, reading.after, reading.upto, reading.limit)
        )

    def _end(self, req: int, now: float) -> Reading | None:
        """A reading is over; the next one of its link that somebody wants begins."""
        reading = self._readings.pop(req, None)
        if reading is not None:
            link = reading.view.link
            self._in_flight[link] -= 1
            later = self._later.get(link)
            while later and self._in_flight[link] < READS:
                following = later.popleft()
                if following.reader.is_wanted:
                    self._begin(following, now)
        return reading

    def catchup_bytes(self) -> int:
        """Live messages that wait while a catch-up reads older ones."""
        return sum(c.queue_bytes for view in self._views.values() for c in view.catchups)

    def on_records(self, m: Records, now: float) -> PieceReader | None:
        """A piece of a stream that somebody misses: a page for the next pass. Returns who else wanted it."""
        reading = self._end(m.req, now)
        if reading is None or not reading.reader.is_wanted:
            return None
        if isinstance(reading.reader, PageTurn):
            self._pages.append((reading.reader, m))
            return None
        return reading.reader

    def catch_up(self, view: View, head: int, now: float) -> None:
        """No entry will bring what is missing up to head."""
        for catchup in list(view.catch_up(head)):
            self.go_on(view, catchup, now)

    def go_on(self, view: View, catchup: Catchup, now: float, is_idle: bool = False) -> None:
        """The next step of a catch-up: a page, the queue, or live. No entry is handled between the queue and live.

        Args:
            is_idle: the last page brought nothing: the next one is asked for a little later.
        """
        if catchup not in view.catchups or self._is_stalled(view, catchup):
            return
        catchup.is_waiting = False
        if catchup.offset < catchup.target:
            catchup.turn += 1
            self.read(view, PageTurn(view, catchup, catchup.turn), catchup.offset, catchup.target, now, is_idle)
        elif catchup.queue:
            self._flushes.append((view, catchup))
        elif view.at < catchup.offset:
            catchup.is_waiting = True
        else:
            view.end_catchup(catchup)

    def _is_stalled(self, view: View, catchup: Catchup) -> bool:
        """Whether it waits for its clients. One page goes into an empty outbox, else every long resume would fill it;
        and who is slow waits alone."""
        self._stalled.pop(catchup, None)
        full = [session for session in catchup.subscribers if session.is_full]
        if not full:
            return False
        if len(catchup.subscribers) > 1:
            for session in full[: len(catchup.subscribers) - 1]:
                self._stalled[view.part(catchup, session)] = view
            return self._is_stalled(view, catchup)
        catchup.is_waiting = False
        self._stalled[catchup] = view
        return True

    def _catchup_pass(self, now: float) -> Pass | None:
        while self._pages:
            turn, page = self._pages.popleft()
            view, catchup = turn.view, turn.catchup
            if not turn.is_wanted or self._is_stalled(view, catchup):
                continue  # who is stalled asks again, later
            if page.epoch != view.epoch or page.last <= catchup.offset:
                self.go_on(view, catchup, now, is_idle=True)  # another history: the answer that is due will say so
                continue
            if page.floor > catchup.offset:
                self._trimmed(view, catchup, page.floor)
            pushes = [
                Encoded(Content(r.op, r.body), view.stream, r.offset, audience(r.only), r.expires_ms)
                for r in page.records
                if catchup.offset < r.offset <= catchup.target and not _is_over(view, r.expires_ms, now)
            ]
            catchup.offset = max(catchup.offset, min(page.last, catchup.target))
            return Pass(_writes(view, catchup.subscribers, pushes), catchup=(view, catchup))
        while self._flushes:
            view, catchup = self._flushes.popleft()
            if catchup not in view.catchups or self._is_stalled(view, catchup):
                continue
            if catchup.offset >= catchup.target:  # else it aims later by now, and reads
                pushes = [push for push in catchup.take_queue() if not _is_over(view, push.expires_ms, now)]
                return Pass(_writes(view, catchup.subscribers, pushes), catchup=(view, catchup))
        return None

    def _trimmed(self, view: View, catchup: Catchup, floor: int) -> None:
        """Retention has passed, or a live-only stream's memory."""
        last = min(floor, catchup.target)
        missed = Missed(view.stream, view.epoch, catchup.offset + 1, last, "trimmed")
        fields = {"stream": view.stream, "messages": last - catchup.offset}
        self._out.append(Note(WARNING, "no longer kept", fields))
        catchup.offset = last
        is_kept = not is_live_only(view.epoch)
        self._out += [Gapped(session, missed, is_kept) for session in catchup.subscribers]

    def tick(self, now: float) -> None:
        """Asks again what has not been answered, and goes on with those whose sockets take more."""
        stalled, self._stalled = self._stalled, {}
        for catchup, view in stalled.items():
            self.go_on(view, catchup, now)
        for req, reading in list(self._readings.items()):
            if not reading.reader.is_wanted:
                self._end(req, now)
            elif now - reading.asked_at > RETRY_S:
                reading.asked_at = now
                self._ask(req, reading)


def is_live_only(epoch: str) -> bool:
    """Whether an epoch is that of a stream which its router keeps in memory only."""
    return epoch.startswith("live-")


def _is_over(view: View, expires_ms: int, now: float) -> bool:
    """Whether a message is not worth being handed out any more: what may be late is not sent."""
    return bool(expires_ms) and view.link.clock.is_over(expires_ms, now)


def _writes(view: View, subscribers: Subscribers, pushes: Sequence[Encoded], rows: Sequence[Row] = ()) -> list[Write]:
    """One chunk for all pushes, or for each of them if not all are for all and for ever; per speech that somebody
    speaks."""
    batches = [(pushes, rows)] if pushes else []
    if any(push.audience.keys or push.expires_ms for push in pushes):
        batches = [(pushes[i : i + 1], rows[i : i + 1]) for i in range(len(pushes))]
    clock = view.link.clock
    return [
        Write(sessions, join(speech, batch), of, clock.until(batch[0].expires_ms) if batch[0].expires_ms else 0.0)
        for batch, of in batches
        for speech, sessions in subscribers.groups(batch[0].audience)
    ]
