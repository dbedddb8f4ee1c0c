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

ANSWER_BYTES = 256 << 10  # of bodies in one answer, but for one that is larger alone


@dataclass(slots=True, eq=False)
class HistoryReader(PieceReader):
    """One question.

    Attributes:
        session: whose; seq: of its packet; view: of the stream.
    """

    session: Session
    seq: int
    view: View
    histories: Histories

    @property
    @override
    def is_wanted(self) -> bool:
        return self.histories.asked.get(self.session) is self

    def on_records(self, m: Records, now: float) -> HistoryRead:
        """What the client is told: all but what has expired, and what is for other sessions alone."""
        self.histories.forget(self.session)
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
    """All that is asked.

    Attributes:
        asked: the last question of each session that waits for an answer; another one takes its place.
    """

    def __init__(self, passes: Passes) -> None:
        self.asked: dict[Session, HistoryReader] = {}
        self._passes = passes

    def ask(self, session: Session, request: ReadHistory, seq: int, link: Link, now: float) -> None:
        """Its client wants to see a piece. link: to the stream's router; the comet need not serve the stream."""
        view = View(request.stream, "", link)
        reader = self.asked[session] = HistoryReader(session, seq, view, self)
        self._passes.read(view, reader, request.after, OFFSET, now, limit=request.limit)

    def forget(self, session: Session) -> None:
        """It does not wait for an answer any more."""
        self.asked.pop(session, None)
