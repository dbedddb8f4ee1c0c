"""Durable and live-only streams side by side, each in its own log."""

from __future__ import annotations

import pytest

from zim.errors import Unavailable, Unknown
from zim.fabric.retention import Retention, RoomClass, Rule
from zim.nodes.router.log import Appended, NewPush
from zim.nodes.router.log.keys import KeyUse
from zim.nodes.router.log.memory import MemoryLog
from zim.nodes.router.log.memory_store import MemoryStore
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


def push(*streams: str, push_id: str = "id", key: KeyUse | None = None, body: bytes = b"x") -> NewPush:
    return NewPush(push_id, streams, 5, body, 1, key=key)


def stored(*offsets: int, home_ms: int = 0) -> Appended:
    return Appended("stored", offsets, home_ms)


def test_a_mixed_batch_is_answered_in_its_order() -> None:
    pair = Pair()
    batch = [push(LIVE), push(KEPT), push(KEPT, LIVE, "u:1"), push(LIVE), push("*")]
    assert pair.streams.append(batch) == [stored(1), stored(1), stored(2, 2, 1), stored(3), stored(1)]
    assert set(pair.durable.books) == {KEPT, "u:1", "*"}
    assert set(pair.live.books) == {LIVE}


@pytest.mark.parametrize("batch", [[], [KEPT], [LIVE], [LIVE, LIVE]])
def test_batches_of_one_kind(batch: list[str]) -> None:
    assert [a.outcome for a in Pair().streams.append([push(s) for s in batch])] == ["stored"] * len(batch)


def test_if_the_durable_part_fails_nothing_is_kept() -> None:
    pair = Pair()
    pair.durable.failures.append("unavailable")
    with pytest.raises(Unavailable):
        pair.streams.append([push(LIVE), push(KEPT)])
    assert pair.streams.heads([LIVE])[LIVE].head == 0


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_mixed_batch_is_settled(is_stored: bool) -> None:
    pair = Pair()
    pair.durable.failures.append("unknown, stored" if is_stored else "unknown, lost")
    batch = [push(LIVE), push(KEPT)]
    with pytest.raises(Unknown):
        pair.streams.append(batch)
    assert pair.streams.settle(batch) == ([stored(1)] * 2 if is_stored else None)
    assert {head.head for head in pair.streams.heads([LIVE, KEPT]).values()} == {int(is_stored)}


def test_a_key_is_where_the_durable_streams_are() -> None:
    pair = Pair()
    mixed = push(LIVE, KEPT, "u:1", key=KeyUse(b"d"))
    assert pair.streams.append([mixed]) == [stored(1, 1, 1, home_ms=1)]
    assert (list(pair.durable.keys), list(pair.live.keys)) == (["id"], [])
    again = Appended("duplicate", (1, 0, 1), 1)  # it is not sent to the live-only one again
    assert pair.streams.append([push(KEPT, LIVE, "u:1", key=KeyUse(b"d"))]) == [again]
    assert pair.streams.find(push(KEPT, LIVE, "u:1", key=KeyUse(b"d"))) == again
    other = push(LIVE, key=KeyUse(b"e"))
    assert pair.streams.append([other]) == [Appended("conflict")]
    assert pair.streams.find(other) == Appended("conflict")
    assert pair.streams.heads([LIVE])[LIVE].head == 1


def test_without_a_durable_stream_a_key_is_in_memory() -> None:
    pair = Pair()
    live = push(LIVE, key=KeyUse(b"d", is_live_only=True))
    assert pair.streams.append([live, live]) == [stored(1, home_ms=1), Appended("duplicate", (1,), 1)]
    assert pair.streams.find(live) == Appended("duplicate", (1,), 1)
    alone = push(push_id="b", key=KeyUse(b"d", is_live_only=True))
    assert pair.streams.append([alone]) == [stored(home_ms=1)]
    assert pair.durable.keys == {}


@pytest.mark.parametrize("is_live_first", [True, False])
def test_a_key_is_one_push_in_both_logs(is_live_first: bool) -> None:
    pair = Pair()
    live, kept = push(LIVE, key=KeyUse(b"d", is_live_only=True)), push(KEPT, LIVE, key=KeyUse(b"e"))
    first, second = (live, kept) if is_live_first else (kept, live)
    assert pair.streams.append([first])[0].outcome == "stored"
    assert pair.streams.find(second) == Appended("conflict")
    assert pair.streams.append([second]) == [Appended("conflict")]
    assert {h.head for h in pair.streams.heads([KEPT, LIVE]).values()} == ({0, 1} if is_live_first else {1})
    both = Pair()
    outcomes = [answer.outcome for answer in both.streams.append([first, second])]
    assert sorted(outcomes) == ["conflict", "stored"]


@pytest.mark.parametrize("streams", [(), (LIVE,)])
def test_the_home_of_a_push_with_durable_streams_elsewhere_keeps_its_key_durably(streams: tuple[str, ...]) -> None:
    pair = Pair()
    assert pair.streams.append([push(*streams, key=KeyUse(b"d"))]) == [stored(*[1] * len(streams), home_ms=1)]
    assert (list(pair.durable.keys), list(pair.live.keys)) == (["id"], [])
    assert pair.streams.find(push(push_id="b", key=KeyUse(b"d"))) is None


def test_elsewhere_a_live_only_part_is_known_by_when_home_stored_its_key() -> None:
    pair = Pair()
    pair.clock = 5.0
    part = push(LIVE, key=KeyUse(b"d", home_ms=40, is_fresh=True))
    assert pair.streams.append([part, part]) == [stored(1, home_ms=40), Appended("duplicate", (1,), 40)]
    assert pair.durable.keys == {}


def test_each_tells_its_own_epoch() -> None:
    pair = Pair()
    heads = pair.streams.heads([KEPT, LIVE, "r:live-2"])
    assert heads[KEPT].epoch == "a"
    assert heads[LIVE].epoch.startswith("live-")
    assert heads[LIVE].epoch != heads["r:live-2"].epoch
    pair.streams.append([push(KEPT), push(LIVE)])
    for stream in (KEPT, LIVE):
        page = pair.streams.read(stream, 0, 9, 10, 10_000, 1)
        assert (page.epoch, page.head, [r.offset for r in page.records]) == (heads[stream].epoch, 1, [1])


def test_only_what_is_kept_has_a_cursor() -> None:
    retention = Retention(users=Rule(0, 0))
    pair = Pair()
    pair.streams.append([push("u:1"), push(LIVE)])
    assert pair.streams.acknowledge({"u:1": 5, LIVE: 1}) == {"u:1": 1, LIVE: 0}
    assert pair.streams.acknowledged([LIVE, "u:1", "u:2"]) == {"u:1": 1, "u:2": 0, LIVE: 0}
    assert pair.streams.acknowledge({LIVE: 1}) == {LIVE: 0}
    assert retention.rule("u:1").is_live_only


def test_live_records_go_after_some_seconds_and_durable_ones_by_rule() -> None:
    pair = Pair()
    pair.streams.append([push(KEPT), push(LIVE)])
    pair.clock = 11.0
    pair.streams.forget(pair.clock, 1, lambda _: True)
    live, kept = (pair.streams.read(s, 0, 9, 10, 10_000, 1) for s in (LIVE, KEPT))
    assert (live.floor, live.head, live.records) == (1, 1, [])
    assert (kept.floor, kept.head) == (0, 1)
    assert pair.streams.trim(2_000_000, 2_000_000, 10).records == 1
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
