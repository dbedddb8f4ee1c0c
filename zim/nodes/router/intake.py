"""Which pushes a router takes, and what their publishers hear. Pure: no socket, no clock.

In: Publish, and the log's verdict. Out: what the log is to append, and answers: one for each push, and an honest one.
"unavailable" means surely not stored; a push that was taken before is known before it may be refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence
from math import inf
from typing import Any, Generic

import msgspec

from zim.fabric.sharding import Shards
from zim.net.batches import Batches
from zim.nodes.router.admission import Admission, Known, Peer, Stored, is_same
from zim.nodes.router.directory import Directory
from zim.nodes.router.feed import Feed
from zim.nodes.router.log import Appended
from zim.nodes.router.stream_limit import StreamLimit
from zim.protocol.messages import Publish, PublishReply
from zim.protocol.publication import Outcome, Publication

PATIENCE_S = 1.0  # how long a push waits for a comet that is behind
RETRIES = 1_000  # of waiting pushes that are looked at at once
REMEMBER_S = 10.0  # how long a push id is known here: logic's own retries come within seconds
REFUSED = 20_000  # pushes that are not taken when they are asked for again
STATUSES = ("ok", "unavailable", "unknown", "conflict", "refused")
ADMITTED_BYTES = 64 << 20  # of pushes that wait for their commit, or for a comet


Answers = list[tuple[Peer, PublishReply]]


class Intake(Generic[Peer]):
    """The publishers' side of a router.

    Attributes:
        commits: pushes that the log is to append.
        lookups: pushes with a key that would be refused: they may be in the log already. `looked_up` is told.
        answered: how many publishers have heard what, by status.
        waiting_bytes: of pushes that wait for a comet that is behind.
        dropped: how many pushes found no room to wait there.
        limit: of pushes into each stream.
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
            max_behind_bytes: of what one comet has not handled; one push may be larger alone.
            admitted_bytes: of pushes that wait for their commit, and of those that wait to be looked up.
        """
        self.name, self.term = name, term
        self._shards, self._directory = shards, directory
        self.commits: Batches[Admission[Peer]] = Batches(admitted_bytes)
        self.lookups: Batches[Admission[Peer]] = Batches(admitted_bytes, cut_bytes=0)  # one by one
        self._max_behind_bytes = max_behind_bytes
        self.answered = dict.fromkeys(STATUSES, 0)
        self.waiting_bytes = self.dropped = 0
        self.limit = StreamLimit()
        self._behind: deque[Admission[Peer]] = deque()  # they wait for a comet
        self._waiting_for: set[str] = set()  # their streams, in which none may overtake them
        self._coming: dict[str, Admission[Peer]] = {}  # on their way into the log, by push id
        self._recent: dict[str, Known] = {}  # there
        self._ages: deque[tuple[float, str]] = deque()  # of what is in _recent
        self._outcomes: dict[tuple[Peer, int], list[Outcome]] = {}  # to be told, by asker and request
        self._refused: dict[str, None] = {}  # ids of the last pushes that were not taken
        self._recalled: Container[str] = ()  # ids that owners before have stored in their last seconds
        self._recalls_until = -inf
        self._is_live_only: Callable[[str], bool] = bool

    def recall(self, ids: Container[str], is_live_only: Callable[[str], bool], now: float) -> None:
        """From a log that outlives its owner: for some seconds a push that was stored before is known.

        Args:
            ids: of all that was stored in the last REMEMBER_S.
            is_live_only: whether a stream is: what is in memory was forgotten.
            now: monotonic seconds.
        """
        self._recalled, self._recalls_until, self._is_live_only = ids, now + REMEMBER_S, is_live_only

    @property
    def is_busy(self) -> bool:
        """Pushes are on their way into the log, or wait for a comet that is behind."""
        return bool(self._coming)

    # -- publishers

    def publish(self, peer: Peer, m: Publish, now: float, now_ms: int, wall_ms: int) -> PublishReply | None:
        """Takes pushes, in their order.

        Returns:
            What is known already of some of them. The rest comes out of other methods.
        """
        may_be_stored = m.attempt > 1 and m.term != self.term  # by an earlier run, whose ids are forgotten
        for at, push in enumerate(m.pushes):
            if may_be_stored and push.is_fresh:
                push = msgspec.structs.replace(push, is_fresh=False)
            if m.term != self.term and push.expires_ms:  # in the log time of another run
                push = msgspec.structs.replace(push, expires_ms=0)
            admission = Admission(push, [(peer, m.req, at)], push.size, now + PATIENCE_S, now_ms, wall_ms)
            if m.attempt > 1 and push.key_id in self._refused:
                self._refuse(admission)  # again, though nobody has heard of it: what came after it may be in the log
            else:
                self._publish(admission, may_be_stored, now)
        return next((reply for _, reply in self._take()), None)

    def _publish(self, admission: Admission[Peer], may_be_stored: bool, now: float) -> None:
        push, owner, name = admission.push, self._shards.of, self.name
        for stream in push.streams:
            if owner(stream) != name:
                self._answer(admission, "refused")
                return
        push_id = push.key_id
        known, coming = self._recent.get(push_id), self._coming.get(push_id)
        if known is not None and known.is_same(push):
            self._confirm(admission, known.offsets, known.home_ms)
        elif coming is not None and is_same(coming.push, push):
            coming.askers += admission.askers
        elif may_be_stored and not push.digest and push_id in self._recalled and self._can_tell(push, now):
            self._confirm(admission, (), 0)
        elif may_be_stored and not self._can_tell(push, now):
            self._answer(admission, "unknown")
        elif self._is_within(admission, now) and self._admit(admission):
            if coming is None:
                self._coming[push_id] = admission
        else:
            self._refuse(admission)

    def _can_tell(self, push: Publication, now: float) -> bool:
        """Whether a push that an owner before may have stored is known to be here, or not."""
        if push.digest:
            return not push.is_live_only
        return now < self._recalls_until and push.parts == 1 and not any(map(self._is_live_only, push.streams))

    def _is_within(self, admission: Admission[Peer], now: float) -> bool:
        """Whether all of its streams may get one more."""
        admission.over, admission.retry_s = self.limit.over(admission.push.streams, now)
        return not admission.over

    def _admit(self, admission: Admission[Peer]) -> bool:
        """On its way into the log, or waiting for a comet that is behind. False: there is no room for it."""
        streams, size = admission.push.streams, admission.size
        if not self._is_behind(streams, size) and self._waiting_for.isdisjoint(streams):
            return self._enter(admission)
        if self.waiting_bytes + size > ADMITTED_BYTES:
            self.dropped += 1
            return False
        self._behind.append(admission)
        self._waiting_for.update(streams)
        self.waiting_bytes += size
        return True

    def _refuse(self, admission: Admission[Peer]) -> None:
        """It is surely not stored now. With a key it may have been before, by an earlier run or long ago."""
        if admission.push.digest:
            self._look_up(admission)
        else:
            self._answer(admission, "unavailable")

    def _look_up(self, admission: Admission[Peer]) -> None:
        if not self.lookups.put(admission, admission.size):
            self._answer(admission, "unknown")

    def _answer(
        self,
        admission: Admission[Peer],
        status: Any,
        offsets: Sequence[int] = (),
        home_ms: int = 0,
        age_ms: int = 0,
        is_fresh: bool = False,
    ) -> None:
        """To all who ask. Only the first of them is told that it is fresh."""
        askers, admission.askers = admission.askers, []
        self.answered[status] += len(askers)
        if status == "unavailable":
            self._refused[admission.push.key_id] = None
            if len(self._refused) > REFUSED:
                del self._refused[next(iter(self._refused))]
        over = admission.over if status == "unavailable" else 0
        retry_ms = int(admission.retry_s * 1000) + 1 if over else 0
        for peer, req, at in askers:
            outcome = Outcome(at, status, tuple(offsets), home_ms, age_ms, is_fresh, over, retry_ms)
            self._outcomes.setdefault((peer, req), []).append(outcome)
            is_fresh = False

    def _confirm(
        self, admission: Admission[Peer], offsets: Sequence[int], home_ms: int, is_fresh: bool = False
    ) -> None:
        age_ms = max(0, admission.time_ms - home_ms) if home_ms else 0
        self._answer(admission, "ok", offsets, home_ms, age_ms, is_fresh)

    def _take(self) -> Answers[Peer]:
        """All that is to be told, one message to each request."""
        outcomes, self._outcomes = self._outcomes, {}
        return [(peer, PublishReply(req, self.name, self.term, told)) for (peer, req), told in outcomes.items()]

    def _feeds(self, streams: Sequence[str]) -> Iterable[Feed]:
        serving = self._directory.serving
        if len(streams) == 1:
            return serving(streams[0])
        return {feed for stream in streams for feed in serving(stream)}

    def _is_behind(self, streams: Sequence[str], size: int) -> bool:
        """What is admitted and not committed yet counts too, else a slow disk lets everything in. A comet that has
        handled all takes any push, also one that is larger than the limit: it would never get a better time."""
        limit = max(0, self._max_behind_bytes - size)
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
        push_id = admission.push.key_id
        if self._coming.get(push_id) is admission:
            del self._coming[push_id]

    # -- the log

    def stored(
        self, batch: Sequence[Admission[Peer]], appended: Sequence[Appended], now: float
    ) -> tuple[list[Stored], Answers[Peer]]:
        """A batch is in the log.

        Args:
            batch: as it was taken from `commits`.
            appended: one for each of its pushes.
            now: monotonic seconds.

        Returns:
            What is new in it, to be handed down in this step; and answers.
        """
        fresh: list[Stored] = []
        for admission, (outcome, offsets, home_ms, is_sure) in zip(batch, appended, strict=True):
            push = admission.push
            self._left(admission)
            if outcome in ("stored", "duplicate"):
                push_id = push.key_id
                self._recent[push_id] = Known(push.digest, tuple(push.streams), offsets, home_ms)
                self._ages.append((now, push_id))
                if is_sure:
                    self._confirm(admission, offsets, home_ms, outcome == "stored" and home_ms > 0)
                else:
                    self._answer(admission, "unknown")
                if outcome == "stored" and offsets:
                    items = list(zip(push.streams, offsets, strict=True))
                    fresh.append(Stored(push, items, admission.time_ms, admission.expires_ms))
            else:
                self._answer(admission, "unavailable" if outcome == "no room" else outcome)
        return fresh, self._take()

    def not_stored(self, batch: Sequence[Admission[Peer]]) -> Answers[Peer]:
        """A batch is surely not in the log; those of it with a key may have been there before, and are looked up."""
        for admission in batch:
            self._left(admission)
            self._refuse(admission)
        return self._take()

    def not_told(self, batch: Sequence[Admission[Peer]]) -> Answers[Peer]:
        """Nobody can say whether a batch is in the log."""
        for admission in batch:
            self._left(admission)
            self._answer(admission, "unknown")
        return self._take()

    def looked_up(self, admission: Admission[Peer], found: Appended | None) -> Answers[Peer]:
        """What the log has of its key: only if it has nothing may the answer be "unavailable"."""
        push = admission.push
        push_id = push.key_id
        known, twin = self._recent.get(push_id), self._coming.get(push_id)  # it may have come meanwhile
        if known is not None and known.is_same(push):
            self._confirm(admission, known.offsets, known.home_ms)
        elif twin is not None and is_same(twin.push, push):
            twin.askers += admission.askers
        elif found is None:
            self._answer(admission, "unavailable")
        elif found.outcome == "duplicate":
            self._confirm(admission, found.offsets, found.home_ms)
        else:
            self._answer(admission, found.outcome)
        return self._take()

    # -- time

    def tick(self, now: float) -> Answers[Peer]:
        """Forgets old push ids, and gives up waiting for comets that stay behind."""
        while self._ages and self._ages[0][0] < now - REMEMBER_S:
            self._recent.pop(self._ages.popleft()[1], None)
        self.retry()
        is_over = False
        while self._behind and self._behind[0].deadline < now:
            is_over = True
            admission = self._behind.popleft()
            self.waiting_bytes -= admission.size
            self._left(admission)
            self._refuse(admission)
        if is_over:
            self._forget_streams()
        return self._take()

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
