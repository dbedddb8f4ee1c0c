"""What the disk does not do comes back to the runner as a result, whoever of the two has raised it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from typing_extensions import override

from zim.errors import Unavailable, Unknown
from zim.fabric.questions import PushReceipt
from zim.fabric.retention import Retention
from zim.fabric.tally import Tally
from zim.nodes.router.effects import Append, DiskEffect, ReadDisk, ReserveSeqs, StoreReceipts
from zim.nodes.router.log import Appended, Fenced, NewPush
from zim.nodes.router.log.memory import MemoryLog
from zim.nodes.router.log.memory_receipts import MemoryReceipts, ReceiptBook
from zim.nodes.router.log.memory_store import MemoryStore
from zim.nodes.router.log.receipts import RouterReceipt
from zim.nodes.router.storage import Storage
from zim.nodes.router.streams import Streams
from zim.protocol.messages import Ask

PUSH = NewPush("p", ["u:1"], 5, b"x", 1)
APPEND = Append([], [PUSH])


class FullDisk(MemoryReceipts):
    """A store that takes nothing, and tells nothing."""

    @override
    def write(self, receipts: Sequence[RouterReceipt], tally: Tally, offline: int, pushes: int, now_ms: int) -> None:
        raise Unavailable("the receipts", "full")

    @override
    def find(self, push_id: str) -> list[RouterReceipt]:
        raise Unavailable("the receipts", "full")


def storage(store: MemoryStore, receipts: MemoryReceipts) -> Storage:
    log, live = (MemoryLog(s, lambda: 0.0, lambda: 0.0) for s in (store, MemoryStore()))
    return Storage(Streams(log, log.acquire("router-1"), live, live.acquire("router-1"), Retention()), receipts)


def test_what_the_log_raises_is_a_result() -> None:
    store = MemoryStore("e")
    kept = storage(store, MemoryReceipts(ReceiptBook(), 1))
    store.failures += ["unavailable", "unknown, lost"]
    result = kept.perform(APPEND, 1)
    assert isinstance(result, Unavailable)
    assert str(result) == "the log: it cannot be written: as the store was told"
    result = kept.perform(APPEND, 1)
    assert isinstance(result, Unknown)
    assert str(result) == "the log: it cannot be told what was written: as the store was told"
    assert kept.streams.settle([PUSH]) is None
    assert kept.perform(APPEND, 1) == [Appended("stored", (1,))]
    store.term += 1
    assert isinstance(kept.perform(APPEND, 1), Fenced)
    assert isinstance(kept.perform(ReserveSeqs(1), 1), Fenced)


@pytest.mark.parametrize(
    "effect", [StoreReceipts([], Tally(), 0, 0, 1), ReadDisk(Ask("router-1", 0, PushReceipt("p")), [("logic-1", 1)])]
)
def test_what_the_store_of_receipts_raises_is_a_result(effect: DiskEffect) -> None:
    result = storage(MemoryStore("e"), FullDisk(ReceiptBook(), 1)).perform(effect, 1)
    assert isinstance(result, Unavailable)
    assert result.who == "the receipts"


def test_a_defect_is_no_result() -> None:
    kept = storage(MemoryStore("e"), MemoryReceipts(ReceiptBook(), 1))
    with pytest.raises(TypeError):
        kept.perform(Append([], None), 1)  # type: ignore[arg-type]
