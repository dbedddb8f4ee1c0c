"""Performs what a router's runner wants from the disk, on the log and the store of receipts. It decides nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from zim.errors import ZimError
from zim.net.fairness import give_way
from zim.nodes.router.answering import read_stored
from zim.nodes.router.effects import (
    Append,
    CountOn,
    DiskEffect,
    DiskQuestion,
    KeepBans,
    LookUp,
    MoveCursors,
    ReadDisk,
    ReadHeads,
    ReserveSeqs,
    Settle,
    StoreReceipts,
    Trim,
)
from zim.nodes.router.log import Damaged, StreamPage
from zim.nodes.router.log.receipts import ReceiptStore
from zim.nodes.router.shard import PAGE_BYTES
from zim.nodes.router.streams import Streams
from zim.protocol.messages import Read

log = logging.getLogger(__name__)


class Storage:
    """All that one shard has on disk, or in memory instead of it."""

    def __init__(self, streams: Streams, receipts: ReceiptStore) -> None:
        self.streams, self.receipts = streams, receipts

    def perform(self, effect: DiskEffect, now_ms: int) -> Any:
        """The effect's result; or the error that the log, or the store of receipts, has raised.

        Args:
            now_ms: log time.

        Switches: until it is done.
        """
        try:
            return self._perform(effect, now_ms)
        except ZimError as error:
            return error

    def _perform(self, effect: DiskEffect, now_ms: int) -> Any:
        streams = self.streams
        match effect:
            case Append(pushes=pushes):
                return streams.append(pushes)
            case Settle(pushes=pushes):
                return streams.settle(pushes)
            case LookUp(push=push):
                return streams.find(push)
            case ReadHeads():
                return streams.heads(effect.streams), streams.acknowledged(effect.with_cursors)
            case ReadDisk(question=question):
                return self._read(question, now_ms)
            case MoveCursors(offsets=offsets):
                return self._move_cursors(offsets)
            case StoreReceipts():
                return self.receipts.write(effect.receipts, effect.tally, effect.offline, effect.pushes, effect.now_ms)
            case Trim():
                return streams.trim(effect.now_ms, effect.before_ms, effect.budget)
            case ReserveSeqs(count=count):
                return streams.reserve_seqs(count)
            case KeepBans(bans=bans, lifted=lifted):
                return streams.ban(bans, lifted)
            case CountOn():
                return give_way()
        raise AssertionError(effect)

    def _move_cursors(self, offsets: Mapping[tuple[str, str], int]) -> Mapping[str, int]:
        """What was said of another epoch moves nothing: it was another history."""
        heads = self.streams.heads([stream for stream, _ in offsets])
        moves = {stream: 0 for stream, _ in offsets}
        for (stream, epoch), offset in offsets.items():
            if epoch == heads[stream].epoch:
                moves[stream] = max(moves[stream], offset)
        return self.streams.acknowledge(moves)

    def _read(self, m: DiskQuestion, now_ms: int) -> Any:
        streams = self.streams
        if isinstance(m, Read):
            try:
                return streams.read(m.stream, m.after, m.upto, m.limit, PAGE_BYTES, now_ms)
            except Damaged as error:
                if not error.offset:
                    raise
                # As if it were not kept any more: whoever asks is told of a gap, and goes on behind it.
                log.error("a damaged message is passed over", extra={"error": str(error)})
                head = streams.heads([m.stream])[m.stream]
                return StreamPage(head.epoch, error.offset, head.head, [], error.offset)
        return read_stored(m.question, streams, self.receipts)
