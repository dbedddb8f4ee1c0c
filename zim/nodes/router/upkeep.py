"""What a router does from time to time: receipts to disk, trimming, numbers for sessions. Pure: no socket, no clock."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from zim.nodes.effects import ERROR, WARNING, Effect, Note
from zim.nodes.router.effects import ForgetIdle, ReserveSeqs, StoreReceipts, Trim
from zim.nodes.router.shard import Shard

RECEIPTS_S = 1.0  # between two times that receipts are stored: a crash loses no more of them
WAITING_RECEIPTS = 100_000  # while the disk does not take them: some 50 MB. Above it the oldest are lost
TRIM_S = 0.1  # between two calls of trimming, if the last one left nothing that may go
TRIM_AGAIN_S = 1.0  # after one that failed
TRIM_RECORDS = 10_000  # that one call lets go, in many steps with commits between any two
SEQS = 1 << 20  # session numbers reserved at a time


class Upkeep:
    """What is due, and what is under way.

    Attributes:
        trimmed: records that were let go.
    """

    def __init__(self, shard: Shard[Any], seqs_end: int, now: float) -> None:
        """
        Args:
            seqs_end: session numbers from here on are not reserved.
            now: monotonic seconds, as everywhere below.
        """
        self.trimmed = 0
        self._shard, self._seqs_end = shard, seqs_end
        self._store_at = now + RECEIPTS_S
        self._trim_at = now + TRIM_S
        self._is_storing = self._is_trimming = self._is_reserving = False

    def begin(self, now: float, now_ms: int) -> list[Effect]:
        """What is due."""
        directory = self._shard.directory
        left, directory.left = directory.left, []
        found: list[Effect] = [ForgetIdle(now, now_ms, left)]
        if now >= self._store_at and not self._is_storing and (receipts := self.receipts(now_ms)):
            self._is_storing, self._store_at = True, now + RECEIPTS_S
            found.append(receipts)
        if now >= self._trim_at and not self._is_trimming:
            found += self._trim(now, now_ms)
        next_seq = self._shard.directory.next_seq
        if next_seq > self._seqs_end - SEQS // 2 and not self._is_reserving:  # long before they are used up
            self._is_reserving = True
            found.append(ReserveSeqs(max(SEQS, next_seq - self._seqs_end + SEQS)))
        return found

    def receipts(self, now_ms: int) -> StoreReceipts | None:
        """All that has changed of receipts, to be stored; nothing if nothing has."""
        ledger = self._shard.ledger
        changed = ledger.take_changed()
        if not changed:
            return None
        return StoreReceipts(changed, replace(ledger.tally), ledger.offline, ledger.pushes, now_ms)

    def on_receipts(self, effect: StoreReceipts, result: Any) -> list[Effect]:
        """What the disk does not take waits for the next time."""
        self._is_storing = False
        if not isinstance(result, Exception):
            self._shard.ledger.stored(effect.receipts)
            return []
        lost = self._shard.ledger.put_back(effect.receipts, WAITING_RECEIPTS)
        fields = {"receipts": len(effect.receipts), "lost": lost, "error": str(result)}
        return [Note(WARNING, "receipts cannot be stored", fields)]

    def _trim(self, now: float, now_ms: int) -> list[Effect]:
        before_ms = self._shard.trim_before(now, now_ms)
        self._is_trimming, self._trim_at = bool(before_ms), now + TRIM_S
        return [Trim(now_ms, before_ms, TRIM_RECORDS)] if before_ms else []

    def on_trimmed(self, result: Any, now: float, now_ms: int) -> list[Effect]:
        """One call is done: the next follows at once, if there is more."""
        self._is_trimming = False
        if isinstance(result, Exception):
            self._trim_at = now + TRIM_AGAIN_S
            return [Note(WARNING, "the log cannot be trimmed", {"error": str(result)})]
        self.trimmed += result.records
        return self._trim(now, now_ms) if result.has_more else []

    def on_reserved(self, effect: ReserveSeqs, result: Any) -> list[Effect]:
        """More numbers; or they are asked for with the next tick."""
        self._is_reserving = False
        if isinstance(result, Exception):
            return [Note(ERROR, "session numbers cannot be reserved", {"error": str(result)})]
        self._seqs_end += effect.count
        return []
