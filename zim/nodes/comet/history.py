"""What clients ask to see of a stream's past: a piece at a time, one question a session. Pure: no socket, no clock."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from zim.fabric.limits import OFFSET
from zim.nodes.comet.effects import HistoryRead
from zim.nodes.comet.feed import Link
from zim.nodes.comet.passes import Passes, PieceReader
from zim.nodes.comet.views import Session, View
from zim.protocol.messages import Records
from zim.protocol.vocabularies.base import KeptRecord, Past, ReadHistory

READS = 8  # under way to one router
ANSWER_BYTES = 256 << 10  # of bodies in one answer, but for one that is larger alone


@dataclass(slots=True, eq=False)
class HistoryReader(PieceReader):
    """One question.

    Attributes:
        session: whose; seq: of its packet; view: of the stream.
        is_begun: its router is asked.
    """

    session: Session
    request: ReadHistory
    seq: int
    view: View
    histories: Histories
    is_begun: bool = False

    @property
    @override
    def is_wanted(self) -> bool:
        return self.histories.asked.get(self.session) is self

    def on_records(self, m: Records, now: float) -> HistoryRead:
        """What the client is told: all but what has expired, and what is for other sessions alone."""
        self.histories.forget(self.session, now)
        found: list[KeptRecord] = []
        last, size = m.last, 0
        for r in m.records:
            size += len(r.body)
            if found and size > ANSWER_BYTES:
                last = r.offset - 1
                break
            is_over = bool(r.expires_ms) and self.view.link.clock.is_over(r.expires_ms, now)
            if not is_over and (not r.only or self.session.key in r.only):
                found.append(KeptRecord(r.offset, r.time_ms, r.op, r.body))
        return HistoryRead(self.session, self.seq, Past(m.stream, m.epoch, m.floor + 1, m.head, last, found))


class Histories:
    """All that is asked. Few of them at a time: those who resume have the rest of what a router can read.

    Attributes:
        asked: the last question of each session that waits for an answer; another one takes its place.
    """

    def __init__(self, passes: Passes) -> None:
        self.asked: dict[Session, HistoryReader] = {}
        self._passes = passes
        self._begun: dict[Link, int] = {}
        self._later: dict[Link, dict[Session, HistoryReader]] = {}  # in their order

    def ask(self, session: Session, request: ReadHistory, seq: int, link: Link, now: float) -> None:
        """Its client wants to see a piece. link: to the stream's router; the comet need not serve the stream."""
        self.forget(session, now)
        reader = self.asked[session] = HistoryReader(session, request, seq, View(request.stream, "", link), self)
        self._later.setdefault(link, {})[session] = reader
        self._begin(link, now)

    def forget(self, session: Session, now: float) -> None:
        """It does not wait for an answer any more."""
        reader = self.asked.pop(session, None)
        if reader is None:
            return
        link = reader.view.link
        if reader.is_begun:
            self._begun[link] -= 1
            self._begin(link, now)
        else:
            del self._later[link][session]

    def _begin(self, link: Link, now: float) -> None:
        later = self._later[link]
        while later and self._begun.get(link, 0) < READS:
            reader = later.pop(next(iter(later)))
            reader.is_begun = True
            self._begun[link] = self._begun.get(link, 0) + 1
            request = reader.request
            self._passes.read(reader.view, reader, request.after, OFFSET, now, limit=request.limit, waits=False)
