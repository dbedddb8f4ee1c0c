from __future__ import annotations

import pytest
from hypothesis import settings

from tests.unit.nodes.router.log.contract import KEY_WINDOW_S, NOW, Contract, duplicate, many, new, stored
from tests.unit.nodes.router.log.model import LogMachine
from zim.errors import Unavailable, Unknown
from zim.nodes.router.log import Lease, Log, NewPush
from zim.nodes.router.log.keys import KeyUse
from zim.nodes.router.log.memory import BOOK_BYTES, IDLE_S, MemoryLog
from zim.nodes.router.log.memory_store import MemoryStore


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def over(store: MemoryStore) -> MemoryLog:
    return MemoryLog(store, lambda: 0.0, lambda: 1.0, key_window_s=KEY_WINDOW_S)


class TestOverAStore(Contract):
    store: MemoryStore

    def reopen(self, log: Log) -> Log:
        return over(self.store)

    @pytest.fixture
    def log(self) -> Log:
        self.store = MemoryStore(epoch="e")
        return over(self.store)

    def test_the_store_names_the_epoch(self, log: Log) -> None:
        assert log.heads(["u:1"])["u:1"].epoch == "e"

    def test_a_store_can_be_told_to_fail(self, log: Log, lease: Lease) -> None:
        self.store.failures += ["unavailable", "unknown, lost", "unknown, stored"]
        with pytest.raises(Unavailable):
            log.append(lease, [new()])
        with pytest.raises(Unknown):
            log.append(lease, [new()])
        with pytest.raises(Unknown):
            log.append(lease, [new()])  # not before settle
        assert log.settle(lease, [new()]) is None
        with pytest.raises(Unknown):
            log.append(lease, [new(), new("u:2")])
        assert log.settle(lease, [new(), new("u:2")]) == stored(1, 1)
        assert log.append(lease, [new()]) == stored(2)


class _Machine(LogMachine):
    def make(self) -> Log:
        self.store = MemoryStore(epoch="e")
        return over(self.store)

    def reopen(self) -> Log:
        return over(self.store)


TestModel = _Machine.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


class Live:
    """A live-only log as a router has it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.log = MemoryLog(MemoryStore(), self.clock, lambda: 1.0, keep_s=10, keep_bytes=10_000)
        lease = self.log.acquire("router-1")
        self.lease = lease

    def append(self, stream: str, *bodies: bytes) -> list[int]:
        batch = [NewPush(f"push {i}", [stream], 5, body, NOW) for i, body in enumerate(bodies)]
        return [answer.offsets[0] for answer in self.log.append(self.lease, batch)]


@pytest.fixture
def live() -> Live:
    return Live()


def test_old_messages_go_and_the_head_stays(live: Live) -> None:
    live.append("u:1", b"old")
    live.clock.now = 6
    live.append("u:1", b"new")
    live.clock.now = 11
    live.log.forget(live.clock.now, NOW, lambda stream: False)
    page = live.log.read("u:1", 0, 9, 9, 9999, NOW)
    assert (page.floor, [r.body for r in page.records], page.head) == (1, [b"new"], 2)


def test_memory_is_bounded(live: Live) -> None:
    for _ in range(100):
        live.append("u:1", b"x" * 700)
    page = live.log.read("u:1", 0, 999, 999, 1 << 20, NOW)
    assert page.head == 100
    assert len(page.records) == 9  # of 1,000 bytes each, and as many for the stream


def test_so_are_streams_however_they_come(live: Live) -> None:
    live.log.forget(0.0, NOW, lambda stream: stream == "u:served")
    epoch = live.log.heads(["u:served"])["u:served"].epoch
    for n in range(1_000):
        live.append(f"u:{n}", b"x")
        live.log.heads([f"r:{n}"])
        live.log.read(f"r:other{n}", 0, 9, 9, 9_999, NOW)
    assert len(live.log._store.books) <= 10_000 // BOOK_BYTES
    assert live.log.heads(["u:served"])["u:served"].epoch == epoch
    assert live.log.read("u:999", 0, 9, 9, 9_999, NOW).head == 1


def test_a_stream_is_remembered_for_a_minute_after_the_last_one_has_left(live: Live) -> None:
    live.append("u:1", b"a")
    epoch = live.log.heads(["u:1"])["u:1"].epoch
    for now, served, left, is_there in (
        (500.0, True, [], True),
        (555.0, False, ["u:1", "u:unknown"], True),
        (555.0 + IDLE_S - 1, False, [], True),
        (555.0 + IDLE_S + 1, False, [], False),
    ):
        live.clock.now = now
        live.log.forget(now, NOW, lambda _, served=served: served, left)  # type: ignore[misc]
        assert ("u:1" in live.log._store.books) is is_there
    assert live.log.heads(["u:1"])["u:1"].epoch != epoch


def test_each_live_stream_has_an_epoch_of_its_own_and_of_the_term(live: Live) -> None:
    epochs = [live.log.heads([stream])[stream].epoch for stream in ("u:1", "u:2", "u:1")]
    assert epochs[0] == epochs[2] != epochs[1]
    assert epochs[0] == f"live-{live.lease.term:x}.1"
    live.append("u:1", b"a")
    assert live.log.heads(["u:1"])["u:1"].epoch == epochs[0]


def test_streams_that_nobody_uses_are_forgotten_and_come_back_in_a_new_epoch(live: Live) -> None:
    live.append("u:1", b"a")
    live.append("u:2", b"a")
    epoch = live.log.heads(["u:1"])["u:1"].epoch
    for _ in range(3):
        live.clock.now += IDLE_S + 11
        live.log.forget(live.clock.now, NOW, lambda stream: stream == "u:2")
    heads = live.log.heads(["u:1", "u:2"])
    assert (heads["u:2"].head, heads["u:1"].head) == (1, 0)
    assert heads["u:1"].epoch != epoch


def test_keys_go_after_their_window_and_are_bounded() -> None:
    clock = Clock()
    log = MemoryLog(MemoryStore(), clock, lambda: 1.0, key_window_s=60, keep_s=10, keys_bytes=1_000)
    lease = log.acquire("router-1")
    outcomes = [log.append(lease, [new(push_id=str(i), digest=b"1")])[0].outcome for i in range(5)]
    assert outcomes == ["stored", "stored", "stored", "no room", "no room"]
    assert log.append(lease, [new(push_id="x"), new(push_id="0", digest=b"1")]) == [*stored(4), duplicate(1)]
    log.forget(0.0, NOW + 120_000, lambda _: True)
    assert log.append(lease, [new(push_id="9", digest=b"1", at=NOW + 120_000)])[0].outcome == "stored"


def test_home_may_have_forgotten_what_is_known_here(live: Live) -> None:
    """A push for live-only streams has its key in memory at home, too; home was started anew, and takes a repeat."""
    first = KeyUse(b"d", 1_000, is_fresh=True, is_live_only=True)
    again = KeyUse(b"d", 9_000, is_fresh=True, is_live_only=True)
    other = KeyUse(b"e", 9_000, is_fresh=True, is_live_only=True)
    pushes = [many("a", "u:1")._replace(key=key) for key in (first, again, other)]
    assert [a.outcome for a in live.log.append(live.lease, pushes)] == ["stored", "duplicate", "conflict"]


def test_nobody_can_tell_what_an_earlier_run_had_under_a_key(live: Live) -> None:
    old = many("a", "u:1", home_ms=1)
    fresh = old._replace(key=KeyUse(b"d", 1, is_fresh=True))
    assert [live.log.append(live.lease, [push])[0].outcome for push in (old, fresh, old)] == [
        "unknown", "stored", "duplicate",
    ]  # fmt: skip
