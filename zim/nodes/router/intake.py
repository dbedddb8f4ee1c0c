"""Which pushes a router takes, and what their publishers hear. Pure: no socket, no clock.

In: Publish, and the log's verdict. Out: what the log is to append, and answers: one for each Publish, and an honest
one. "unavailable" means surely not stored; a push that was taken before is known before it may be refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from zim.fabric.audience import ALL, audiences
from zim.fabric.sharding import Shards
from zim.net.batches import Batches
from zim.nodes.router.directory import Directory
from zim.nodes.router.feed import Feed
from zim.nodes.router.log import Appended, NewRecord
from zim.protocol.messages import ENTRY_BYTES, ITEM_BYTES, Item, Publish, PublishReply

PATIENCE_S = 1.0  # how long a push waits for a comet that is behind
RETRIES = 1_000  # of waiting pushes that are looked at at once
REMEMBER_S = 10.0  # how long a push id is known here: logic's own retries come within seconds
ADMITTED_BYTES = 64 << 20  # of pushes that wait for their commit, or for a comet

Peer = TypeVar("Peer")  # whatever names the sender of a request; it is only handed back


@dataclass(slots=True)
class Admission(Generic[Peer]):
    """A push on its way into the log.

    Attributes:
        push: as it came.
        askers: who is to be answered, and to which request.
        size: in bytes, in every limit.
        deadline: of waiting for a comet that is behind; monotonic.
        time_ms: log time.
        feeds: counted as behind by its size, until it is in the log.
    """

    push: Publish
    askers: list[tuple[Peer, int]]
    size: int
    deadline: float
    time_ms: int
    feeds: Sequence[Feed] = ()

    @property
    def expires_ms(self) -> int:
        """Log time at which it is not worth being handed out any more; 0 for never."""
        return self.time_ms + self.push.ttl_ms if self.push.ttl_ms else 0


class Known(NamedTuple):
    """What is remembered of a push that is in the log. Atoms only, so that the garbage collector looks at it once."""

    digest: bytes
    streams: tuple[str, ...]
    offsets: tuple[int, ...]


class Stored(NamedTuple):
    """What a push has put into the log.

    Attributes:
        push: what came of its publisher.
        items: stream and offset of each new record.
        time_ms, expires_ms: log time.
    """

    push: Publish
    items: list[Item]
    time_ms: int
    expires_ms: int


Answers = list[tuple[Peer, PublishReply]]


class Intake(Generic[Peer]):
    """The publishers' side of a router.

    Attributes:
        commits: pushes that the log is to append.
        lookups: pushes with a key that would be refused: they may be in the log already. `looked_up` is told.
        answered: how many publishers have heard what, by status.
        waiting_bytes: of pushes that wait for a comet that is behind.
        dropped: how many pushes found no room to wait there.
    """

    def __init__(
        self,
        name: str,
        term: int,
        shards: Shards,
        directory: Directory,
        max_behind_bytes: int,
        admitted_bytes: int = ADMITTED_BYTES,
    ) -> None:
        """
        Args:
            name, term: of the router and this run of it.
            shards: which router owns which stream.
            directory: says which comets serve a stream.
            max_behind_bytes: of what one comet has not handled.
            admitted_bytes: of pushes that wait for their commit, and of those that wait to be looked up.
        """
        self.name, self.term = name, term
        self._shards, self._directory = shards, directory
        self.commits: Batches[Admission[Peer]] = Batches(admitted_bytes)
        self.lookups: Batches[Admission[Peer]] = Batches(admitted_bytes, cut_bytes=0)  # one by one
        self._max_behind_bytes = max_behind_bytes
        self.answered = {"ok": 0, "unavailable": 0, "unknown": 0, "conflict": 0, "refused": 0}
        self.waiting_bytes = self.dropped = 0
        self._behind: deque[Admission[Peer]] = deque()  # they wait for a comet
        self._waiting_for: set[str] = set()  # their streams, in which none may overtake them
        self._coming: dict[str, Admission[Peer]] = {}  # on their way into the log, by push id
        self._recent: dict[str, Known] = {}  # there
        self._ages: deque[tuple[float, str]] = deque()  # of what is in _recent

    # -- publishers

    def publish(self, peer: Peer, m: Publish, now: float, now_ms: int) -> PublishReply | None:
        """Takes a push.

        Returns:
            The answer if it is known already. Otherwise it comes out of another method.
        """
        owner, name = self._shards.owner, self.name
        for stream in m.streams:
            if owner(stream) != name:
                return self._published(m.req, "refused")
        known = self._recent.get(m.push_id)
        if known is not None and known.digest == m.digest and known.streams == tuple(m.streams):
            return self._published(m.req, "ok", known.offsets)
        coming = self._coming.get(m.push_id)
        if coming is not None and coming.push.digest == m.digest and coming.push.streams == m.streams:
            coming.askers.append((peer, m.req))
            return None
        if m.attempt > 1 and m.term != self.term and not m.digest:
            return self._published(m.req, "unknown")  # an earlier run may have it, and its ids are forgotten
        size = ENTRY_BYTES + len(m.body) + ITEM_BYTES * len(m.streams)
        admission = Admission(m, [(peer, m.req)], size, now + PATIENCE_S, now_ms)
        if self._is_behind(m.streams, size) or not self._waiting_for.isdisjoint(m.streams):
            if self.waiting_bytes + size > ADMITTED_BYTES:
                self.dropped += 1
                return self._refuse(admission)
            self._behind.append(admission)
            self._waiting_for.update(m.streams)
            self.waiting_bytes += size
        elif not self._enter(admission):
            return self._refuse(admission)
        if coming is None:
            self._coming[m.push_id] = admission
        return None

    def _refuse(self, admission: Admission[Peer]) -> PublishReply | None:
        """To one asker. With a key the push may be stored already, by an earlier run or long ago."""
        req = admission.askers[0][1]
        if not admission.push.digest:
            return self._published(req, "unavailable")
        if self.lookups.put(admission, admission.size):
            return None
        return self._published(req, "unknown")

    def _published(self, req: int, status: Any, offsets: Sequence[int] = ()) -> PublishReply:
        self.answered[status] += 1
        return PublishReply(req, self.name, self.term, status, list(offsets))

    def _answer(self, admission: Admission[Peer], status: Any, offsets: Sequence[int] = ()) -> Answers[Peer]:
        askers, admission.askers = admission.askers, []
        return [(peer, self._published(req, status, offsets)) for peer, req in askers]

    def _feeds(self, streams: Sequence[str]) -> Iterable[Feed]:
        serving = self._directory.serving
        if len(streams) == 1:
            return serving(streams[0])
        return {feed for stream in streams for feed in serving(stream)}

    def _is_behind(self, streams: Sequence[str], size: int) -> bool:
        """What is admitted and not committed yet counts too, else a slow disk lets everything in."""
        limit = self._max_behind_bytes - size
        for feed in self._feeds(streams):  # noqa: SIM110 any() would cost a generator for each push
            if feed.behind_bytes + feed.admitted_bytes > limit:
                return True
        return False

    def _enter(self, admission: Admission[Peer]) -> bool:
        if not self.commits.put(admission, admission.size):
            return False
        admission.feeds = tuple(self._feeds(admission.push.streams))
        for feed in admission.feeds:
            feed.admitted_bytes += admission.size
        return True

    def _left(self, admission: Admission[Peer]) -> None:
        """It does not wait for its commit any more."""
        for feed in admission.feeds:
            feed.admitted_bytes -= admission.size
        admission.feeds = ()
        if self._coming.get(admission.push.push_id) is admission:
            del self._coming[admission.push.push_id]

    # -- the log

    def records(self, batch: Sequence[Admission[Peer]]) -> list[NewRecord]:
        """What the log is to append for these pushes, in their order."""
        found: list[NewRecord] = []
        for a in batch:
            m, expires_ms = a.push, a.expires_ms
            to = audiences(m.only)
            for s in m.streams:
                only = tuple(to.get(s, ALL).keys)
                found.append(NewRecord(s, m.push_id, m.digest, m.op, m.body, a.time_ms, expires_ms, only))
        return found

    def stored(
        self, batch: Sequence[Admission[Peer]], appended: Sequence[Appended], now: float
    ) -> tuple[list[Stored], Answers[Peer]]:
        """A batch is in the log.

        Args:
            batch: as it was given to `records`.
            appended: one for each of its records.
            now: monotonic seconds.

        Returns:
            What is new in it, to be handed down in this step; and answers.
        """
        fresh: list[Stored] = []
        answers: Answers[Peer] = []
        at = 0
        for admission in batch:
            m = admission.push
            mine = appended[at : at + len(m.streams)]
            at += len(mine)
            self._left(admission)
            items = [(s, a.offset) for s, a in zip(m.streams, mine, strict=True) if a.outcome == "stored"]
            if items:
                fresh.append(Stored(m, items, admission.time_ms, admission.expires_ms))
            if any(a.outcome == "conflict" for a in mine):
                answers += self._answer(admission, "conflict")
                continue
            offsets = [a.offset for a in mine]
            answers += self._answer(admission, "ok", offsets)
            self._recent[m.push_id] = Known(m.digest, tuple(m.streams), tuple(offsets))
            self._ages.append((now, m.push_id))
        return fresh, answers

    def not_stored(self, batch: Sequence[Admission[Peer]]) -> Answers[Peer]:
        """A batch is surely not in the log; parts of it with a key may have been there before, and are looked up."""
        answers: Answers[Peer] = []
        for admission in batch:
            self._left(admission)
            if not admission.push.digest:
                answers += self._answer(admission, "unavailable")
            elif not self.lookups.put(admission, admission.size):
                answers += self._answer(admission, "unknown")
        return answers

    def not_told(self, batch: Sequence[Admission[Peer]]) -> Answers[Peer]:
        """Nobody can say whether a batch is in the log."""
        answers: Answers[Peer] = []
        for admission in batch:
            self._left(admission)
            answers += self._answer(admission, "unknown")
        return answers

    def looked_up(self, admission: Admission[Peer], found: Sequence[Appended | None]) -> Answers[Peer]:
        """The log knows these of its streams: only if it knows none may the answer be "unavailable"."""
        m = admission.push
        known, twin = self._recent.get(m.push_id), self._coming.get(m.push_id)  # it may have come meanwhile
        if known is not None and known.digest == m.digest and known.streams == tuple(m.streams):
            return self._answer(admission, "ok", known.offsets)
        if twin is not None and twin.push.digest == m.digest and twin.push.streams == m.streams:
            twin.askers += admission.askers
            return []
        if any(a is not None and a.outcome == "conflict" for a in found):
            return self._answer(admission, "conflict")
        offsets = [a.offset for a in found if a is not None]
        if len(offsets) == len(found):
            return self._answer(admission, "ok", offsets)
        return self._answer(admission, "unknown" if offsets else "unavailable")

    # -- time

    def tick(self, now: float) -> Answers[Peer]:
        """Forgets old push ids, and gives up waiting for comets that stay behind."""
        while self._ages and self._ages[0][0] < now - REMEMBER_S:
            self._recent.pop(self._ages.popleft()[1], None)
        self.retry()
        answers: Answers[Peer] = []
        is_over = False
        while self._behind and self._behind[0].deadline < now:
            is_over = True
            admission = self._behind.popleft()
            self.waiting_bytes -= admission.size
            self._left(admission)
            if not admission.push.digest:
                answers += self._answer(admission, "unavailable")
            elif not self.lookups.put(admission, admission.size):
                answers += self._answer(admission, "unknown")
        if is_over:
            self._forget_streams()
        return answers

    def retry(self) -> None:
        """Admits what waits for a comet that has caught up, or is gone; of each stream in order."""
        if not self._behind:
            return
        stay: deque[Admission[Peer]] = deque()
        blocked: set[str] = set()
        while self._behind and len(stay) < RETRIES:
            admission = self._behind.popleft()
            streams = admission.push.streams
            if (
                not blocked.isdisjoint(streams)
                or self._is_behind(streams, admission.size)
                or not self._enter(admission)
            ):
                blocked.update(streams)
                stay.append(admission)
            else:
                self.waiting_bytes -= admission.size
        self._behind.extendleft(reversed(stay))
        self._forget_streams()

    def _forget_streams(self) -> None:
        if not self._behind:
            self._waiting_for.clear()
        elif len(self._behind) < RETRIES:
            self._waiting_for = {stream for admission in self._behind for stream in admission.push.streams}

    def stood_still(self, for_s: float) -> None:
        """Nothing could come in for so long: no retry of what is remembered, and no news of a comet that is behind."""
        self._ages = deque((at + for_s, push_id) for at, push_id in self._ages)
        for admission in self._behind:
            admission.deadline += for_s
