"""What a router decides for comets: whom a push reaches, what a comet is told, whose lease is over.

In: messages of comets and logics, what the log has stored, the time. Out: answers, and pushes for the jobs. The
router's runner makes effects of them. Pure: no socket, no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple

from zim.fabric.audience import ALL, audiences
from zim.fabric.sharding import Shards
from zim.fabric.streams import EVERYBODY
from zim.nodes.effects import INFO, WARNING, Note, topologies_differ
from zim.nodes.router.admission import Admission, Peer, Stored
from zim.nodes.router.answering import AT_ONCE, WHOLE, answer_from_memory
from zim.nodes.router.control import Control
from zim.nodes.router.directory import Directory, stream_of
from zim.nodes.router.feed import Body, Feed
from zim.nodes.router.intake import ADMITTED_BYTES, Intake
from zim.nodes.router.log import Appended, Head
from zim.nodes.router.log.receipts import RouterReceipt
from zim.nodes.router.receipts import PushRow, RouterLedger
from zim.protocol.fields import Item
from zim.protocol.messages import (
    Answer,
    Answered,
    Answers,
    Ask,
    Changes,
    Fetch,
    Fetched,
    PublishReply,
    Push,
    Put,
    Renew,
    Renewed,
    Target,
)

LEASE_S = 2.5  # a comet that has not renewed for so long is given up
RENEW_S = 1.0  # how often comets renew; a tick that comes later than this found the router standing still
SPARE_S = 4 * LEASE_S  # see Shard: several leases
PAGE_BYTES = 200 << 10  # of one answer to Fetch or Read
ITEMS = 2_000  # of one entry: a push to very many users is cut into several
UNDECIDED = 100_000  # streams of pushes made while rebuilding, of which it is decided later whether nobody is there
DECIDED_AT_ONCE = 5_000  # of them, in one tick
QUESTIONS = 1_000  # that wait for the directory to be whole


class Applied(NamedTuple):
    """A change that is to be answered as soon as its stream's head has been read.

    Attributes:
        n, base, seq: see Answer.
        stream: whose head; "" for none, and for one of another router.
        is_put: the cursor of the stream belongs into the answer.
    """

    n: int
    base: int
    seq: int
    stream: str
    is_put: bool


class Shard(Generic[Peer]):
    """One router's part of all streams and sessions.

    Attributes:
        term: this run of the router.
        directory: who is online where.
        intake: the publishers' side.
        control: who must go.
        ledger: what became of pushes.
        is_rebuilding: not every comet has had the time to register; counts and locate wait.
        dropped_questions: how many found no room to wait; they are asked again.
        notes: for the log; whoever takes them clears them.
    """

    def __init__(
        self,
        name: str,
        term: int,
        shards: Shards,
        comets: Iterable[str],
        now: float,
        max_behind_bytes: int,
        next_seq: int,
        ledger: RouterLedger,
        spare_s: float = SPARE_S,
        admitted_bytes: int = ADMITTED_BYTES,
    ) -> None:
        """
        Args:
            name: of the router.
            shards: which router owns which stream.
            comets: names of all comets of the topology.
            max_behind_bytes, admitted_bytes: see Intake.
            now: monotonic seconds, as everywhere below.
            next_seq: the first session number that may be given.
            ledger: keeps what becomes of pushes.
            spare_s: what is younger is not trimmed; nor is anything for so long after a start or a standstill.
        """
        self.name, self.term = name, term
        self.directory = Directory(next_seq)
        self.intake: Intake[Peer] = Intake(name, term, shards, self.directory, max_behind_bytes, admitted_bytes)
        self.control = Control(name, term, self.directory, shards.of(EVERYBODY) == name)
        self.is_rebuilding = True
        self.shard_of = shards.of
        self.ledger = ledger
        self._comets = tuple(comets)
        self._undecided: deque[tuple[RouterReceipt, list[str]]] = deque()  # streams that may be served
        self._n_undecided = 0  # streams of all of these
        self._rebuilt_by = now + LEASE_S
        self._seen = now
        self._spare_s = spare_s
        self._spare_until = now + spare_s
        self.dropped_questions = 0
        self.notes: list[Note] = []
        self._questions: list[tuple[Peer, Ask]] = []

    # -- pushes

    def committed(
        self, batch: Sequence[Admission[Peer]], appended: Sequence[Appended], now: float, now_ms: int
    ) -> tuple[list[Push], list[tuple[Peer, PublishReply]]]:
        """Pushes are in the log. One step: targets are read, feeds get their entries, publishers their answer.

        Args:
            batch, appended: see Intake.stored.

        Returns:
            Pushes for the jobs, and answers.
        """
        fresh, answers = self.intake.stored(batch, appended, now)
        return [push for stored in fresh for push in self._hand_down(stored, now_ms)], answers

    def _hand_down(self, stored: Stored, now_ms: int) -> list[Push]:
        by_feed: dict[Feed, list[Item]] = {}
        for item in stored.items:
            for feed in self.directory.serving(item[0]):
                by_feed.setdefault(feed, []).append(item)
        m = stored.push
        receipt = self.ledger.open(m.push_id, stored.time_ms, now_ms, is_first=not m.part)
        self._see_unserved(receipt, self._unserved(s for s, _ in stored.items))
        body = Body(m.push_id, m.op, m.body, stored.time_ms, stored.expires_ms, m.only)
        pushes: list[Push] = []
        targets: list[Target] = []
        to = audiences(m.only)
        size = 0
        for feed, mine in by_feed.items():
            for start in range(0, len(mine), ITEMS):
                part = mine[start : start + ITEMS]
                if targets and size + len(part) > ITEMS:
                    pushes.append(self._push(body, targets))
                    targets, size = [], 0
                n = feed.enter(body, part)
                targeted = sum(self.directory.targets(feed, s, to.get(s, ALL)) for s, _ in part)
                feed.rows[n] = PushRow(self.ledger, receipt, targeted)
                targets.append(Target(feed.comet, feed.inc, feed.begin, n, part))
                size += len(part)
        if targets:
            pushes.append(self._push(body, targets))
        return pushes

    def _unserved(self, streams: Iterable[str]) -> list[str]:
        """Those of users and rooms that no comet has told of."""
        is_served = self.directory.is_served
        return [s for s in streams if s != EVERYBODY and not is_served(s)]

    def _see_unserved(self, receipt: RouterReceipt, streams: list[str]) -> None:
        """Streams of a push that no comet has told of. While rebuilding, one may yet do so."""
        if not streams:
            return
        if self.is_rebuilding and self._n_undecided < UNDECIDED:
            self._undecided.append((receipt, streams))
            self._n_undecided += len(streams)
        else:
            self.ledger.count_unserved(receipt, streams)

    def _decide_unserved(self) -> None:
        """All comets have told: for some of the streams that were not decided of nobody is there indeed."""
        left = DECIDED_AT_ONCE
        while self._undecided and left > 0:
            receipt, streams = self._undecided.popleft()
            left -= len(streams)
            self._n_undecided -= len(streams)
            self._see_unserved(receipt, self._unserved(streams))

    def _push(self, body: Body, targets: list[Target]) -> Push:
        return Push(self.name, body.push_id, body.op, body.body, targets, body.expires_ms, body.only)

    # -- comets

    def know(self, comets: Iterable[str]) -> None:
        """All comets of the topology, which may be more than before."""
        self._comets = tuple(comets)

    def changes(self, m: Changes, now: float) -> list[Applied]:
        """Applies what can be applied. Each is answered with the head of its stream, read after it was applied: that
        one rule serves join, registration and a router's return, for the comet compares."""
        applied: list[Applied] = []
        if m.term != self.term or m.comet not in self._comets:
            return applied
        for change in m.changes:
            if not self.directory.is_possible(m, change):
                self.note(WARNING, "a change that cannot be", comet=m.comet, inc=m.inc, n=change.n)
                continue
            stream = stream_of(change)
            is_ours = not stream or self.owns(stream, m.comet)
            feed = self.directory.apply(m, change, now + LEASE_S, is_ours)
            if feed is None:
                continue
            is_put = is_ours and isinstance(change, Put)
            seq = self.directory.seq(m.comet, change.conn) if is_ours and isinstance(change, Put) else 0
            applied.append(Applied(change.n, feed.base, seq, stream if is_ours else "", is_put))
        return applied

    def owns(self, stream: str, asker: str) -> bool:
        """Whether it may speak for a stream. If not, whoever asks has another topology, and the log says so."""
        if self.shard_of(stream) == self.name:
            return True
        self.notes.append(topologies_differ(asker=asker, stream=stream, owner=self.shard_of(stream)))
        return False

    def answers(
        self, inc: int, applied: Sequence[Applied], heads: Mapping[str, Head], cursors: Mapping[str, int]
    ) -> Answers:
        """The answers to changes that were applied.

        Args:
            inc: of the comet.
            heads: of their streams, read after they were applied.
            cursors: of the users' streams.
        """
        answers: list[Answer] = []
        for n, base, seq, stream, is_put in applied:
            if not stream:
                answers.append(Answer(n, base, "", 0, 0))
                continue
            epoch, _, head = heads[stream]
            answers.append(Answer(n, base, epoch, head, seq, cursors.get(stream, 0) if is_put else 0))
        return Answers(self.name, self.term, inc, answers)

    def hears(self, peer: Peer, comet: str, inc: int) -> None:
        """A comet has said something: what it is ordered goes there."""
        feed = self.directory.feeds.get(comet)
        if feed is not None and feed.inc == inc:
            feed.peer = peer

    def renew(self, m: Renew, now: float, now_ms: int) -> Renewed | None:
        """A comet lives. Lower numbers are ignored."""
        feed = self.directory.feeds.get(m.comet)
        if m.comet not in self._comets:
            return None
        if feed is not None and m.inc < feed.inc:
            return self._renewed(m, "fenced", now_ms, feed)
        if feed is None or not feed.is_alive or m.inc != feed.inc or m.term != self.term:
            self._rebuilt_by = max(self._rebuilt_by, now + LEASE_S)  # it lives; only our answer may have been lost
            return self._renewed(m, "register", now_ms, feed if feed is not None and feed.inc == m.inc else None)
        if m.n <= feed.renewed:
            return None
        feed.renewed, feed.lease_end = m.n, now + LEASE_S
        feed.report(m.results, now_ms)
        if m.begin == feed.begin:
            feed.obeyed(m.obeyed)
        if feed.handled(m.handled):
            self.intake.retry()
        return self._renewed(m, "ok", now_ms, feed)

    def _renewed(self, m: Renew, verdict: Any, now_ms: int, feed: Feed | None = None) -> Renewed:
        stands = (feed.made, feed.inc, feed.begin, feed.applied) if feed is not None else (0, m.inc, 0, 0)
        return Renewed(self.name, self.term, m.inc, m.n, verdict, *stands, now_ms)

    def fetch(self, m: Fetch) -> Fetched | None:
        """Entries that did not come."""
        feed = self.directory.feeds.get(m.comet)
        if feed is None or not feed.is_alive or (m.inc, m.term) != (feed.inc, self.term):
            return None
        page = feed.page(self.name, m.low, m.high, PAGE_BYTES)
        return Fetched(self.name, self.term, m.low, page)

    # -- questions of logics

    def pending(self) -> int:
        """Sessions of which nothing is known yet. Counted by themselves, so that the ledger can be checked."""
        return sum(row.pending for feed in self.directory.feeds.values() for row in feed.rows.values())

    def ask(self, peer: Peer, m: Ask) -> Answered | None:
        """The answer, or nothing while the directory is rebuilding: then it comes out of `tick`."""
        if not self.is_rebuilding or not isinstance(m.question, WHOLE):
            return self._answer(m)
        if len(self._questions) < QUESTIONS:
            self._questions.append((peer, m))
        else:
            self.dropped_questions += 1
        return None

    def _answer(self, m: Ask) -> Answered:
        assert isinstance(m.question, AT_ONCE | WHOLE)
        return Answered(m.req, self.name, answer_from_memory(m.question, self))

    def note(self, level: int, event: str, **fields: Any) -> None:
        """A line for the log."""
        self.notes.append(Note(level, event, fields))

    # -- time

    def tick(self, now: float) -> list[tuple[Peer, Any]]:
        """Decides all that rests on the silence of others; returns answers that are due.

        A loop that stood still heard nobody: then nothing is decided before others had time to speak.
        """
        paused_s, self._seen = now - self._seen, now
        stood_still = paused_s > RENEW_S
        if stood_still:
            self.intake.stood_still(paused_s)
            self.note(WARNING, "stood still, all leases extended", seconds=round(paused_s, 3))
            self._rebuilt_by = max(self._rebuilt_by, now + LEASE_S) if self.is_rebuilding else self._rebuilt_by
            self._spare_until = now + self._spare_s
        for feed in self.directory.feeds.values():
            if not feed.is_alive:
                continue
            if stood_still:
                feed.lease_end = max(feed.lease_end, now + LEASE_S)
            elif feed.lease_end < now:
                level = WARNING if feed.sessions else INFO  # a comet that was drained has nobody any more
                self.note(level, "lease over", comet=feed.comet, sessions=len(feed.sessions))
                self.directory.end(feed)
        return [*self.intake.tick(now), *self._end_rebuilding(now)]

    def trim_before(self, now: float, now_ms: int) -> int:
        """Log time before which records may be trimmed: nothing that a comet with a lease has not handled, nothing
        young, and nothing at all soon after a start or a standstill, when comets have yet to say what they miss."""
        if now < self._spare_until:
            return 0
        owed = [feed.oldest_ms for feed in self.directory.feeds.values() if feed.is_alive]
        return min([now_ms - int(self._spare_s * 1000), *(ms for ms in owed if ms is not None)])

    def _end_rebuilding(self, now: float) -> Iterable[tuple[Peer, Answered]]:
        if self.is_rebuilding:
            feeds = self.directory.feeds
            told = all(c in feeds and feeds[c].is_alive and feeds[c].is_registered for c in self._comets)
            if not told and now <= self._rebuilt_by:
                return
            self.is_rebuilding = False
            self.note(INFO, "directory whole", sessions=sum(len(f.sessions) for f in feeds.values()))
        self._decide_unserved()
        questions, self._questions = self._questions, []
        for peer, m in questions:
            yield peer, self._answer(m)
