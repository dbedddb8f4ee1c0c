"""Durable and live-only streams side by side, each in its own log."""

from __future__ import annotations

import pytest

from zim.errors import Unavailable, Unknown
from zim.fabric.retention import Retention, RoomClass, Rule
from zim.nodes.router.log import Appended, NewRecord
from zim.nodes.router.log.memory import MemoryLog, MemoryStore
from zim.nodes.router.streams import Streams

RETENTION = Retention(Rule(100, 1000), Rule(100, 1000), Rule(100, 1000), (RoomClass("live", ("live-*",), Rule(0, 0)),))
KEPT, LIVE = "r:kept", "r:live-1"


class Pair:
    """Streams over two logs in memory."""

    def __init__(self) -> None:
        self.durable, self.live = MemoryStore("a"), MemoryStore()
        self.clock = 0.0
        logs = [
            MemoryLog(s, lambda: self.clock, lambda: 0.0, keep_s=k)
            for s, k in ((self.durable, None), (self.live, 10.0))
        ]
        leases = [log.acquire("router-1") for log in logs]
        self.streams = Streams(logs[0], leases[0], logs[1], leases[1], RETENTION)


def record(stream: str, push_id: str = "id", digest: bytes = b"", body: bytes = b"x", time_ms: int = 1) -> NewRecord:
    return NewRecord(stream, push_id, digest, 5, body, time_ms)


def test_a_mixed_batch_is_answered_in_its_order() -> None:
    pair = Pair()
    batch = [record(LIVE), record(KEPT), record(KEPT), record("u:1"), record(LIVE), record("*")]
    assert pair.streams.append(batch) == [Appended("stored", n) for n in (1, 1, 2, 1, 2, 1)]
    assert set(pair.durable.books) == {KEPT, "u:1", "*"}
    assert set(pair.live.books) == {LIVE}


@pytest.mark.parametrize("batch", [[], [KEPT], [LIVE], [LIVE, LIVE]])
def test_batches_of_one_kind(batch: list[str]) -> None:
    assert [a.outcome for a in Pair().streams.append([record(s) for s in batch])] == ["stored"] * len(batch)


def test_if_the_durable_part_fails_nothing_is_kept() -> None:
    pair = Pair()
    pair.durable.failures.append("unavailable")
    with pytest.raises(Unavailable):
        pair.streams.append([record(LIVE), record(KEPT)])
    assert pair.streams.heads([LIVE])[LIVE].head == 0


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_mixed_batch_is_settled(is_stored: bool) -> None:
    pair = Pair()
    pair.durable.failures.append("unknown, stored" if is_stored else "unknown, lost")
    batch = [record(LIVE), record(KEPT)]
    with pytest.raises(Unknown):
        pair.streams.append(batch)
    assert pair.streams.settle(batch) == ([Appended("stored", 1)] * 2 if is_stored else None)
    assert {head.head for head in pair.streams.heads([LIVE, KEPT]).values()} == {int(is_stored)}


def test_keys_are_known_in_both() -> None:
    pair = Pair()
    streams = [LIVE, KEPT, "u:1"]
    pair.streams.append([record(s, digest=b"d") for s in streams[:2]])
    assert pair.streams.append([record(s, digest=b"d") for s in streams]) == [
        Appended("duplicate", 1),
        Appended("duplicate", 1),
        Appended("stored", 1),
    ]
    assert pair.streams.find("id", b"e", ["u:1", LIVE, KEPT]) == [Appended("conflict", 1)] * 3
    assert pair.streams.find("another", b"d", [LIVE, KEPT]) == [None, None]
    assert pair.streams.find("id", b"d", [LIVE]) == [Appended("duplicate", 1)]


def test_each_tells_its_own_epoch() -> None:
    pair = Pair()
    heads = pair.streams.heads([KEPT, LIVE, "r:live-2"])
    assert heads[KEPT].epoch == "a"
    assert heads[LIVE].epoch.startswith("live-")
    assert heads[LIVE].epoch != heads["r:live-2"].epoch
    pair.streams.append([record(KEPT), record(LIVE)])
    for stream in (KEPT, LIVE):
        page = pair.streams.read(stream, 0, 9, 10, 10_000, 1)
        assert (page.epoch, page.head, [r.offset for r in page.records]) == (heads[stream].epoch, 1, [1])


def test_only_what_is_kept_has_a_cursor() -> None:
    retention = Retention(users=Rule(0, 0))
    pair = Pair()
    pair.streams.append([record("u:1"), record(LIVE)])
    assert pair.streams.acknowledge({"u:1": 5, LIVE: 1}) == {"u:1": 1, LIVE: 0}
    assert pair.streams.acknowledged([LIVE, "u:1", "u:2"]) == {"u:1": 1, "u:2": 0, LIVE: 0}
    assert pair.streams.acknowledge({LIVE: 1}) == {LIVE: 0}
    assert retention.rule("u:1").is_live_only


def test_live_records_go_after_some_seconds_and_durable_ones_by_rule() -> None:
    pair = Pair()
    pair.streams.append([record(KEPT), record(LIVE)])
    pair.clock = 11.0
    pair.streams.forget(pair.clock, lambda _: True)
    live, kept = (pair.streams.read(s, 0, 9, 10, 10_000, 1) for s in (LIVE, KEPT))
    assert (live.floor, live.head, live.records) == (1, 1, [])
    assert (kept.floor, kept.head) == (0, 1)
    assert pair.streams.trim(2_000_000, 2_000_000, 10) == 1
    assert pair.streams.heads([KEPT])[KEPT].floor == 1


def test_session_numbers_are_durable() -> None:
    pair = Pair()
    assert pair.streams.reserve_seqs(10) == 1
    assert pair.streams.reserve_seqs(10) == 11
    assert pair.durable.next_seq == 21


def test_very_many_streams_are_told_apart() -> None:
    pair = Pair()
    for n in range((1 << 16) + 10):
        assert pair.streams._is_live_only(f"r:live-{n}") == (n >= 0)
    assert pair.streams._is_live_only(LIVE)
    assert not pair.streams._is_live_only(KEPT)
