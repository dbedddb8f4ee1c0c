"""What comets and logics ask of the disk: heads, pieces of streams, cursors, receipts.

Each kind waits in a queue of its own, and what gathers while one is answered is answered together.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gevent
import msgspec

from zim.net.gather import Gatherer
from zim.net.links import MESSAGE_BYTES
from zim.nodes.queues import Queue
from zim.nodes.router.answering import STORED, answer_from_disk
from zim.nodes.router.log import Damaged, LogError
from zim.nodes.router.receipt_store import ReceiptStore
from zim.nodes.router.shard import PAGE_BYTES, Applied, Shard
from zim.nodes.router.streams import Streams
from zim.protocol.messages import Acknowledge, Acknowledged, Answered, Ask, Changes, Read, Records

log = logging.getLogger(__name__)

QUEUE_BYTES = 16 << 20  # of each kind; above it questions are dropped, and asked again

Stored = Read | Ask


class _Told(NamedTuple):
    """Changes of a comet that were applied, and wait for the heads of their streams."""

    peer: Any
    inc: int
    applied: list[Applied]


class Questions:
    """See the module.

    Attributes:
        queues: by kind, for the metrics.
    """

    def __init__(
        self,
        shard: Shard[Any],
        streams: Streams,
        receipts: ReceiptStore,
        forgotten: Mapping[str, int],
        now_ms: Callable[[], int],
        answer: Callable[[list[tuple[Any, Any]]], None],
    ) -> None:
        """
        Args:
            forgotten: pushes that an earlier run kept, and may have crashed too soon to store a receipt of.
            now_ms: log time.
            answer: sends answers to whoever asked.
        """
        self._shard, self._streams, self._receipts, self._forgotten = shard, streams, receipts, forgotten
        self._now_ms, self._answer = now_ms, answer
        self._changes: Gatherer[_Told] = Gatherer(self._tell_heads, QUEUE_BYTES)
        self._reads: Gatherer[tuple[Any, Stored]] = Gatherer(self._read, QUEUE_BYTES)
        self._acks: Gatherer[tuple[Any, Acknowledge]] = Gatherer(self._acknowledge, QUEUE_BYTES)
        self.queues: dict[str, Queue] = {"change": self._changes, "read": self._reads, "acknowledge": self._acks}

    def spawn(self, spawn: Callable[..., object]) -> None:
        """Starts the greenlets."""
        for gatherer in (self._changes, self._reads, self._acks):
            spawn(gatherer.run)

    def changes(self, peer: Any, m: Changes, applied: list[Applied]) -> None:
        """Changes that were applied. Does not switch, nor do the next two."""
        self._changes.put(_Told(peer, m.inc, applied), MESSAGE_BYTES * len(applied))

    def ask(self, peer: Any, m: Stored) -> None:
        """A question for something that is stored."""
        self._reads.put((peer, m), MESSAGE_BYTES)

    def acknowledge(self, peer: Any, m: Acknowledge) -> None:
        """A cursor is to be moved."""
        self._acks.put((peer, m), MESSAGE_BYTES)

    def _tell_heads(self, batch: list[_Told]) -> None:
        streams = list({a.stream for told in batch for a in told.applied if a.stream})
        puts = list({a.stream for told in batch for a in told.applied if a.is_put})
        try:
            heads, cursors = self._streams.heads(streams), self._streams.acknowledged(puts)
        except LogError as e:
            log.error("heads cannot be read", extra={"error": str(e)})
            return  # the comets ask again
        self._answer([(t.peer, self._shard.answers(t.inc, t.applied, heads, cursors)) for t in batch])

    def _read(self, batch: list[tuple[Any, Stored]]) -> None:
        """When a comet has died, thousands resume from one place: what they all ask is put to the disk once."""
        known: dict[Stored, Records | Answered] = {}
        for peer, m in batch:
            question = msgspec.structs.replace(m, req=0)
            try:
                found = known.get(question) or self._read_one(question)
            except (LogError, sqlite3.Error) as e:
                log.error("a question cannot be answered", extra={"question": type(m).__name__, "error": str(e)})
                continue
            known[question] = found
            self._answer([(peer, msgspec.structs.replace(found, req=m.req))])
            gevent.sleep(0)  # publishers do not wait for thousands who resume

    def _read_one(self, m: Stored) -> Records | Answered:
        name = self._shard.name
        if isinstance(m, Ask):
            assert isinstance(m.question, STORED)
            answer = answer_from_disk(m.question, self._shard, self._streams, self._receipts, self._forgotten)
            return Answered(m.req, name, answer)
        try:
            p = self._streams.read(m.stream, m.after, m.upto, m.limit, PAGE_BYTES, self._now_ms())
        except Damaged as e:
            if not e.offset:
                raise
            # As if it were not kept any more: whoever asks is told of a gap, and goes on behind it.
            log.error("a damaged message is passed over", extra={"error": str(e)})
            epoch, _, head = self._streams.heads([m.stream])[m.stream]
            return Records(m.req, name, m.stream, epoch, e.offset, head, [], e.offset)
        return Records(m.req, name, m.stream, p.epoch, p.floor, p.head, p.records, p.last)

    def _acknowledge(self, batch: list[tuple[Any, Acknowledge]]) -> None:
        """Many cursors in one commit."""
        offsets: dict[str, int] = {}
        for _, m in batch:
            offsets[m.stream] = max(m.offset, offsets.get(m.stream, 0))
        try:
            cursors = self._streams.acknowledge(offsets)
        except LogError as e:
            log.error("cursors cannot be moved", extra={"error": str(e)})
            return  # the comets ask again
        self._answer([(peer, Acknowledged(m.req, self._shard.name, cursors[m.stream])) for peer, m in batch])
