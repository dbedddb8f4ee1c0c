"""What comets and logics ask of the disk: heads, pieces of streams, cursors, receipts. Pure: no socket, no clock.

Each kind waits in a queue of its own, and what gathers while one is answered is answered together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec

from zim.net.batches import Batches
from zim.nodes.effects import ERROR, Effect, Note, Replies
from zim.nodes.router.answering import answer_from_disk
from zim.nodes.router.effects import AppliedChanges, DiskQuestion, MoveCursors, ReadDisk, ReadHeads
from zim.nodes.router.shard import Applied, Shard
from zim.protocol.messages import Acknowledge, Acknowledged, Answered, Ask, Changes, Read, Records

QUEUE_BYTES = 16 << 20  # of each kind; above it questions are dropped, and asked again
QUESTION_BYTES, CHANGE_BYTES = 750, 200  # what one takes, with its numbers and names; measured
STALE_S = 5.0  # who has waited for longer has given up, or asked again


class Questions:
    """What waits for the disk, and what is asked of it now.

    Attributes:
        changes, reads, acks: the queues, for the metrics.
    """

    def __init__(self, shard: Shard[Any], forgotten: Mapping[str, int]) -> None:
        """
        Args:
            forgotten: pushes that an earlier run kept, and may have crashed too soon to store a receipt of.
        """
        self._shard, self._forgotten = shard, forgotten
        self.changes: Batches[AppliedChanges] = Batches(QUEUE_BYTES)
        self.reads: Batches[tuple[Any, DiskQuestion, float]] = Batches(QUEUE_BYTES)
        self.acks: Batches[tuple[Any, Acknowledge]] = Batches(QUEUE_BYTES)
        self._to_read: deque[tuple[float, ReadDisk]] = deque()  # of the batch under way; when it was asked for last

    def tell_heads(self, asker: Any, m: Changes, applied: list[Applied]) -> None:
        """Changes that were applied: they are answered with the heads of their streams."""
        self.changes.put(AppliedChanges(asker, m.inc, applied), CHANGE_BYTES * len(applied))

    def ask(self, asker: Any, m: DiskQuestion, now: float) -> None:
        """A question for something that is stored."""
        self.reads.put((asker, m, now), QUESTION_BYTES)

    def acknowledge(self, asker: Any, m: Acknowledge) -> None:
        """A cursor is to be moved."""
        self.acks.put((asker, m), QUESTION_BYTES)

    def begin(self, now: float) -> list[Effect]:
        """What can be asked of the disk now. now: monotonic seconds, as everywhere here."""
        found: list[Effect] = []
        if changes := self.changes.begin():
            streams = list({a.stream for c in changes for a in c.applied if a.stream})
            puts = list({a.stream for c in changes for a in c.applied if a.is_put})
            found.append(ReadHeads(changes, streams, puts))
        while reads := self.reads.begin():  # until there is one that somebody still waits for
            self._group(reads)
            found += self._read_next(now)
        if acks := self.acks.begin():
            offsets: dict[tuple[str, str], int] = {}
            for _, m in acks:
                place = m.stream, m.epoch
                offsets[place] = max(m.offset, offsets.get(place, 0))
            found.append(MoveCursors(offsets, acks))
        return found

    def _group(self, reads: list[tuple[Any, DiskQuestion, float]]) -> None:
        """When a comet has died, thousands resume from one place: what they all ask is put to the disk once. Who asks
        again gets one answer."""
        askers: dict[DiskQuestion, dict[tuple[Any, int], float]] = {}
        for asker, m, at in reads:
            askers.setdefault(msgspec.structs.replace(m, req=0), {})[asker, m.req] = at
        self._to_read.extend((max(who.values()), ReadDisk(question, [*who])) for question, who in askers.items())

    def _read_next(self, now: float) -> list[Effect]:
        """The next question that somebody still waits for."""
        while self._to_read:
            asked_at, effect = self._to_read.popleft()
            if now - asked_at <= STALE_S:
                return [effect]
            self.reads.dropped += len(effect.askers)
        self.reads.end()
        return []

    # -- results

    def on_heads(self, effect: ReadHeads, result: Any) -> list[Effect]:
        """Answers to changes; if the disk gave none the comets ask again."""
        self.changes.end()
        if isinstance(result, Exception):
            return [Note(ERROR, "heads cannot be read", {"error": str(result)})]
        heads, cursors = result
        answers = [(c.asker, self._shard.answers(c.inc, c.applied, heads, cursors)) for c in effect.changes]
        return [Replies(answers)]

    def on_read(self, effect: ReadDisk, result: Any, now: float) -> list[Effect]:
        """The answer, for each who asked; and the next question."""
        found: list[Effect] = []
        if isinstance(result, Exception):
            asked = effect.question.question if isinstance(effect.question, Ask) else effect.question
            fields = {"question": type(asked).__name__, "error": str(result)}
            found.append(Note(ERROR, "a question cannot be answered", fields))
        else:
            answer = self._answer(effect.question, result)
            found.append(Replies([(asker, msgspec.structs.replace(answer, req=req)) for asker, req in effect.askers]))
        return found + self._read_next(now)

    def _answer(self, m: DiskQuestion, result: Any) -> Records | Answered:
        name = self._shard.name
        if isinstance(m, Read):
            return Records(0, name, m.stream, result.epoch, result.floor, result.head, result.records, result.last)
        return Answered(0, name, answer_from_disk(m.question, result, self._shard, self._forgotten))

    def on_cursors(self, effect: MoveCursors, result: Any) -> list[Effect]:
        """Where the cursors are; if the disk did not move them the comets ask again."""
        self.acks.end()
        if isinstance(result, Exception):
            return [Note(ERROR, "cursors cannot be moved", {"error": str(result)})]
        name = self._shard.name
        return [Replies([(asker, Acknowledged(m.req, name, result[m.stream])) for asker, m in effect.asked])]
