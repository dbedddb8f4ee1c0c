"""What a router decides: whom a push reaches, what a comet is told, whose lease is over. Third stop of a push.

In: messages of comets and logics, the log's verdicts, the time. Out: answers, and pushes for the jobs. Pure: it touches
no socket and no clock, so that a simulator can run it; zim.nodes.router.node talks.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from zim.nodes.router.directory import Directory, stream_of
from zim.nodes.router.feed import Body, Feed
from zim.nodes.router.log import Log, NewRecord
from zim.protocol.messages import (
    ENTRY_BYTES,
    ITEM_BYTES,
    Answer,
    Answers,
    Changes,
    Count,
    Counted,
    Fetch,
    Fetched,
    Forget,
    Forgotten,
    Item,
    Locate,
    Located,
    Publish,
    Published,
    Push,
    Put,
    Read,
    Records,
    Renew,
    Renewed,
    Target,
)
from zim.sharding import Shards

log = logging.getLogger(__name__)

LEASE_S = 2.5  # a comet that has not renewed for so long is given up
RENEW_S = 1.0  # how often comets renew; a tick that comes later than this found the router standing still
PATIENCE_S = 1.0  # how long a push waits for a comet that is behind
REMEMBER_S = 10.0  # how long a push id is known: logic's own retries come within seconds
PAGE_BYTES = 200 << 10  # of one answer to Fetch or Read
ITEMS = 2_000  # of one entry: a push to very many users is cut into several
QUESTIONS = 1_000  # that wait for the directory to be whole
ADMITTED_BYTES = 64 << 20  # of pushes that wait for their commit, or for a comet

Peer = TypeVar("Peer")  # whatever names the sender of a request; the shard only hands it back


@dataclass(slots=True)
class Admission(Generic[Peer]):
    """A push on its way into the log."""

    push: Publish
    askers: list[tuple[Peer, int]]  # who is to be answered, and to which request
    size: int
    deadline: float  # of waiting for a comet that is behind
    feeds: list[Feed] = field(default_factory=list)  # counted as behind by its size, until it is in the log
    is_stored: bool = False


def _publish_bytes(m: Publish) -> int:
    return ENTRY_BYTES + len(m.body) + ITEM_BYTES * len(m.streams)


class Shard(Generic[Peer]):
    """One router's part of all streams and sessions.

    Attributes:
        term: this run of the router.
        directory: who is online where.
        is_rebuilding: not every comet has had the time to register; counts and locate wait.
    """

    def __init__(
        self,
        name: str,
        term: int,
        shards: Shards,
        comets: Iterable[str],
        streams: Log,
        admit: Callable[[Admission[Peer], int], bool],
        now: float,
        max_behind_bytes: int,
        next_seq: int,
    ) -> None:
        """
        Args:
            name: of the router.
            shards: which router owns which stream.
            comets: names of all comets of the topology.
            streams: the log.
            admit: queues a push and its size for the next commit, or says that the queue is full.
            now: monotonic seconds, as everywhere below.
            next_seq: the first session number that may be given.
        """
        self.name, self.term = name, term
        self.directory = Directory(next_seq)
        self.is_rebuilding = True
        self._shards, self._comets, self._streams, self._admit = shards, tuple(comets), streams, admit
        self._max_behind_bytes = max_behind_bytes
        self._rebuilt_by = now + LEASE_S
        self._seen = now
        self._behind: deque[Admission[Peer]] = deque()  # they wait for a comet
        self._behind_bytes = 0
        self._recent: dict[str, Admission[Peer]] = {}
        self._ages: deque[tuple[float, str]] = deque()  # of what is in _recent
        self._questions: list[tuple[Peer, Locate | Count]] = []

    # -- publishing

    def publish(self, peer: Peer, m: Publish, now: float) -> Published | None:
        """Takes a push.

        Returns:
            The answer if it is known already. Otherwise it comes out of `committed` or `tick`.
        """
        if any(self._shards.owner(stream) != self.name for stream in m.streams):
            return self._published(m.req, "refused")
        known = self._recent.get(m.push_id)
        if known is not None:  # before any refusal: 503 to a repeat would deny what is stored
            if known.is_stored:
                return self._published(m.req, "ok")
            known.askers.append((peer, m.req))
            return None
        if m.attempt > 1 and m.term != self.term:
            return self._published(m.req, "unknown")  # an earlier run may have it, and its ids are forgotten
        admission = Admission(m, [(peer, m.req)], _publish_bytes(m), now + PATIENCE_S)
        if self._is_behind(m.streams, admission.size):
            if self._behind_bytes + admission.size > ADMITTED_BYTES:
                return self._published(m.req, "unavailable")
            self._behind.append(admission)
            self._behind_bytes += admission.size
        elif not self._enter(admission):
            return self._published(m.req, "unavailable")
        self._recent[m.push_id] = admission
        self._ages.append((now, m.push_id))
        return None

    def _published(self, req: int, status: Any) -> Published:
        return Published(req, self.name, self.term, status)

    def owner(self, stream: str) -> str:
        """The router that owns a stream."""
        return self._shards.owner(stream)

    def _feeds(self, streams: Sequence[str]) -> set[Feed]:
        return {feed for stream in streams for feed in self.directory.serving(stream)}

    def _is_behind(self, streams: Sequence[str], size: int) -> bool:
        """What is admitted and not committed yet counts too, else a slow disk lets everything in."""
        limit = self._max_behind_bytes - size
        return any(feed.behind_bytes + feed.admitted_bytes > limit for feed in self._feeds(streams))

    def _enter(self, admission: Admission[Peer]) -> bool:
        if not self._admit(admission, admission.size):
            return False
        admission.feeds = list(self._feeds(admission.push.streams))
        for feed in admission.feeds:
            feed.admitted_bytes += admission.size
        return True

    def records(self, batch: Sequence[Admission[Peer]]) -> list[NewRecord]:
        """What the log is to append for these pushes, in their order."""
        return [NewRecord(s, a.push.push_id, a.push.op, a.push.body) for a in batch for s in a.push.streams]

    def committed(
        self, batch: Sequence[Admission[Peer]], offsets: Sequence[int]
    ) -> tuple[list[Push], list[tuple[Peer, Published]]]:
        """The pushes are in the log. One step: targets are read, feeds get their entries, publishers their answer.

        Args:
            batch: as it was given to `records`.
            offsets: one for each of its records.

        Returns:
            Pushes for the jobs, and answers.
        """
        pushes: list[Push] = []
        answers: list[tuple[Peer, Published]] = []
        at = 0
        for admission in batch:
            m = admission.push
            items = list(zip(m.streams, offsets[at : at + len(m.streams)], strict=True))
            at += len(m.streams)
            for feed in admission.feeds:
                feed.admitted_bytes -= admission.size
            admission.is_stored, admission.feeds = True, []
            pushes += self._hand_down(m, items)
            answers += [(peer, self._published(req, "ok")) for peer, req in admission.askers]
            admission.askers = []
            admission.push = Publish(0, m.push_id, [], m.op, b"", 0, 0)  # what is remembered needs no body
        return pushes, answers

    def _hand_down(self, m: Publish, items: list[Item]) -> list[Push]:
        by_feed: dict[Feed, list[Item]] = {}
        for item in items:
            for feed in self.directory.serving(item[0]):
                by_feed.setdefault(feed, []).append(item)
        body = Body(m.push_id, m.op, m.body)
        pushes: list[Push] = []
        targets: list[Target] = []
        size = 0
        for feed, mine in by_feed.items():
            for start in range(0, len(mine), ITEMS):
                part = mine[start : start + ITEMS]
                if targets and size + len(part) > ITEMS:
                    pushes.append(self._push(body, targets))
                    targets, size = [], 0
                targets.append(Target(feed.comet, feed.inc, feed.enter(body, part), part))
                size += len(part)
        if targets:
            pushes.append(self._push(body, targets))
        return pushes

    def _push(self, body: Body, targets: list[Target]) -> Push:
        return Push(self.name, self.term, body.push_id, body.op, body.body, targets)

    # -- comets

    def changes(self, m: Changes, now: float) -> Answers | None:
        """Applies what can be applied. Each answer's head is read after its change: that one rule serves join,
        registration and a router's return, for the comet compares."""
        if m.term != self.term or m.comet not in self._comets:
            return None
        answers: list[Answer] = []
        for change in m.changes:
            feed = self.directory.apply(m, change, now + LEASE_S)
            if feed is None:
                continue
            stream = stream_of(change)
            epoch, head = self._streams.head(stream) if stream else ("", 0)
            seq = self.directory.seq(m.comet, change.conn) if isinstance(change, Put) else 0
            answers.append(Answer(change.n, feed.base, epoch, head, seq))
        return Answers(self.name, self.term, m.inc, answers) if answers else None

    def renew(self, m: Renew, now: float) -> Renewed | None:
        """A comet lives. Lower numbers are ignored."""
        feed = self.directory.feeds.get(m.comet)
        if m.comet not in self._comets:
            return None
        if feed is not None and m.inc < feed.inc:
            return self._renewed(m, "fenced", 0, feed.inc)
        if feed is None or not feed.is_alive or m.inc != feed.inc or m.term != self.term:
            self._rebuilt_by = max(self._rebuilt_by, now + LEASE_S)  # it lives; only our answer may have been lost
            return self._renewed(m, "register", 0, m.inc)
        if m.n <= feed.renewed:
            return None
        feed.renewed, feed.lease_end = m.n, now + LEASE_S
        if feed.handled(m.handled):
            self._retry_behind()
        return self._renewed(m, "ok", feed.made, m.inc)

    def _renewed(self, m: Renew, verdict: Any, made: int, known_inc: int) -> Renewed:
        return Renewed(self.name, self.term, m.inc, m.n, verdict, made, known_inc)

    def fetch(self, m: Fetch) -> Fetched | None:
        """Entries that did not come."""
        feed = self.directory.feeds.get(m.comet)
        if feed is None or not feed.is_alive or (m.inc, m.term) != (feed.inc, self.term):
            return None
        return Fetched(self.name, self.term, m.low, feed.page(self.name, self.term, m.low, m.high, PAGE_BYTES))

    def read(self, m: Read) -> Records:
        """A piece of a stream, for the repair of what no entry carries."""
        page = self._streams.read(m.stream, m.after, m.upto, PAGE_BYTES)
        return Records(m.req, self.name, m.stream, page.epoch, page.floor, page.head, page.records)

    # -- questions of logics

    def ask(self, peer: Peer, m: Locate | Count) -> Located | Counted | None:
        """The answer, or nothing while the directory is rebuilding: then it comes out of `tick`."""
        if not self.is_rebuilding:
            return self._answer(m)
        if len(self._questions) < QUESTIONS:
            self._questions.append((peer, m))
        return None

    def _answer(self, m: Locate | Count) -> Located | Counted:
        d = self.directory
        if isinstance(m, Locate):
            return Located(m.req, self.name, d.locate(m.uid))
        return Counted(m.req, self.name, d.rooms(), d.comets(), d.roomless())

    def forget(self, m: Forget) -> Forgotten:
        """Forgets a comet's sessions at once. One that lives registers anew with its next Renew."""
        feed = self.directory.feeds.get(m.comet)
        if feed is not None and feed.is_alive:
            log.info("sessions forgotten on request", extra={"comet": m.comet, "sessions": len(feed.sessions)})
            self.directory.end(feed)
        return Forgotten(m.req, self.name)

    # -- time

    def tick(self, now: float) -> list[tuple[Peer, Any]]:
        """Decides all that rests on the silence of others; returns answers that are due.

        A loop that stood still heard nobody: then nothing is decided before others had time to speak.
        """
        stood_still, self._seen = now - self._seen > RENEW_S, now
        if stood_still:
            log.warning("stood still, all leases extended")
            self._rebuilt_by = max(self._rebuilt_by, now + LEASE_S) if self.is_rebuilding else self._rebuilt_by
        for feed in self.directory.feeds.values():
            if not feed.is_alive:
                continue
            if stood_still:
                feed.lease_end = max(feed.lease_end, now + LEASE_S)
            elif feed.lease_end < now:
                log.warning("lease over", extra={"comet": feed.comet, "sessions": len(feed.sessions)})
                self.directory.end(feed)
        self._streams.trim(now, self.directory.is_served)
        while self._ages and self._ages[0][0] < now - REMEMBER_S:
            self._recent.pop(self._ages.popleft()[1], None)
        self._retry_behind()
        return [*self._give_up_behind(now), *self._end_rebuilding(now)]

    def _retry_behind(self) -> None:
        """Admits what waits for a comet that has caught up, or is gone."""
        for _ in range(len(self._behind)):
            admission = self._behind.popleft()
            if self._is_behind(admission.push.streams, admission.size) or not self._enter(admission):
                self._behind.append(admission)
            else:
                self._behind_bytes -= admission.size

    def _give_up_behind(self, now: float) -> Iterable[tuple[Peer, Published]]:
        while self._behind and self._behind[0].deadline < now:
            admission = self._behind.popleft()
            self._behind_bytes -= admission.size
            self._recent.pop(admission.push.push_id, None)
            for peer, req in admission.askers:
                yield peer, self._published(req, "unavailable")

    def _end_rebuilding(self, now: float) -> Iterable[tuple[Peer, Located | Counted]]:
        if self.is_rebuilding:
            feeds = self.directory.feeds
            told = all(c in feeds and feeds[c].is_alive and feeds[c].is_registered for c in self._comets)
            if not told and now <= self._rebuilt_by:
                return
            self.is_rebuilding = False
            log.info("directory whole", extra={"sessions": sum(len(f.sessions) for f in feeds.values())})
        questions, self._questions = self._questions, []
        for peer, m in questions:
            yield peer, self._answer(m)
