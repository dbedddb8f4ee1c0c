"""What a router is asked for that is on its disk: over the real log and the real store of receipts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.nodes.router.log.sqlite_support import acquired, direct, opened, told
from zim.fabric.answers import Unread
from zim.fabric.questions import PushReceipt, UnreadCount
from zim.fabric.retention import Retention
from zim.fabric.sharding import Shards
from zim.fabric.tally import Tally
from zim.nodes.effects import Replies
from zim.nodes.router.effects import DiskEffect, ReadDisk
from zim.nodes.router.log.clock import LogClock
from zim.nodes.router.log.memory import MemoryLog
from zim.nodes.router.log.memory_store import MemoryStore
from zim.nodes.router.log.sqlite import SqliteReceipts
from zim.nodes.router.questions import STALE_S
from zim.nodes.router.receipts import RouterLedger
from zim.nodes.router.shard import Shard
from zim.nodes.router.shard_runner import ShardRunner
from zim.nodes.router.storage import Storage
from zim.nodes.router.streams import Streams
from zim.protocol.messages import Acknowledge, Acknowledged, Answered, Ask, Read, Records

COUNT = 20


class Desk:
    """Questions, and the answers to them in the order in which they came."""

    def __init__(self, folder: Path, forgotten: dict[str, int]) -> None:
        self.log = opened(folder, direct)
        live = MemoryLog(MemoryStore(), lambda: 0.0, lambda: 0.0)
        live_lease = live.acquire("router-1")
        streams = Streams(self.log, acquired(self.log), live, live_lease, Retention())
        self.receipts = SqliteReceipts(folder, 1, 60.0, direct)
        ledger = RouterLedger(Tally(), 0, 0, 0, 0)
        self.storage = Storage(streams, self.receipts)
        shard: Shard[str] = Shard("router-1", 1, Shards(["router-1"]), [], 0.0, 1, 1, ledger)
        self.runner = ShardRunner(shard, LogClock(0, 0.0, 0.0), 1 << 40, forgotten, [], [], 0.0)

    def ask(self, *asked: tuple[str, Read | Ask | Acknowledge]) -> list[tuple[str, Any]]:
        """What is answered to questions that come at once."""
        effects = [effect for peer, m in asked for effect in self.runner.on_messages(peer, [m], 0.0)]
        self.done: list[DiskEffect] = []
        answers: list[tuple[str, Any]] = []
        while effects:
            effect = effects.pop(0)
            if isinstance(effect, Replies):
                answers += effect.answers
            elif isinstance(effect, DiskEffect):
                self.done.append(effect)
                effects += self.runner.on_done(effect, self.storage.perform(effect, 0), 0.0)
        return answers

    def close(self) -> None:
        self.receipts.close()
        self.log.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    log = opened(tmp_path, direct)
    log.append(acquired(log), [told("u:7", n) for n in range(1, COUNT + 1)])
    log.close()
    return tmp_path


@pytest.fixture
def desk(folder: Path) -> Iterator[Desk]:
    found = Desk(folder, {"kept": 5})
    yield found
    found.close()


def test_who_asks_the_same_gets_the_same_under_a_number_of_its_own(desk: Desk) -> None:
    asked = [
        ("a", Read("router-1", 1, "u:7", 3, 9, 99)),
        ("b", Read("router-1", 2, "u:7", 3, 9, 99)),
        ("a", Read("router-1", 3, "u:7", 4, 9, 99)),
    ]
    answers = desk.ask(*asked)
    assert [(peer, m.req, [r.offset for r in m.records]) for peer, m in answers] == [
        ("a", 1, [4, 5, 6, 7, 8, 9]),
        ("b", 2, [4, 5, 6, 7, 8, 9]),
        ("a", 3, [5, 6, 7, 8, 9]),
    ]


def test_what_comes_while_the_disk_is_read_is_asked_of_it_once(desk: Desk) -> None:
    first = desk.runner.on_messages("a", [Read("router-1", 1, "u:7", 0, 9, 99)], 0.0)
    for n in range(2, 100):
        assert desk.runner.on_messages("b", [Read("router-1", n, "u:7", 3, 9, 99)], 0.0) == []
    (effect,) = first
    assert isinstance(effect, ReadDisk)
    _, second = desk.runner.on_done(effect, desk.storage.perform(effect, 0), 0.0)
    assert isinstance(second, ReadDisk)
    (answers,) = desk.runner.on_done(second, desk.storage.perform(second, 0), 0.0)
    assert isinstance(answers, Replies)
    assert [m.req for _, m in answers.answers] == list(range(2, 100))  # type: ignore[attr-defined]


def test_who_asks_again_is_answered_once_and_who_asked_long_ago_not_at_all(desk: Desk) -> None:
    (first,) = desk.runner.on_messages("a", [Read("router-1", 1, "u:7", 0, 9, 99)], 0.0)
    assert isinstance(first, ReadDisk)
    for at, asked in (
        (1.0, Read("router-1", 2, "u:7", 1, 9, 99)),
        (1.0, Read("router-1", 3, "u:7", 2, 9, 99)),
        (1.5, Read("router-1", 2, "u:7", 1, 9, 99)),
    ):
        assert desk.runner.on_messages("b", [asked], at) == []
    _, second = desk.runner.on_done(first, desk.storage.perform(first, 0), 1.2 + STALE_S)
    assert isinstance(second, ReadDisk)
    (answers,) = desk.runner.on_done(second, desk.storage.perform(second, 0), 1.2 + STALE_S)
    assert isinstance(answers, Replies)
    assert [m.req for _, m in answers.answers] == [2]  # type: ignore[attr-defined]
    assert desk.runner.questions.reads.dropped == 1
    (third,) = desk.runner.on_messages("c", [Read("router-1", 4, "u:7", 2, 9, 99)], 1.2 + STALE_S)
    assert isinstance(third, ReadDisk)


def test_cursors_move_together_and_only_forward(desk: Desk) -> None:
    epoch = desk.log.epoch
    asked = [("a", Acknowledge("router-1", 1, "u:7", epoch, 3)), ("b", Acknowledge("router-1", 2, "u:7", epoch, 9))]
    asked += [
        ("a", Acknowledge("router-1", 5, "u:7", epoch, 5)),
        ("c", Acknowledge("router-1", 6, "u:7", "another", 11)),
    ]
    answers = desk.ask(*asked)
    assert answers == [
        (peer, Acknowledged(m.req, "router-1", at)) for (peer, m), at in zip(asked, (3, 9, 9, 9), strict=True)
    ]
    assert len(desk.done) == 2  # what came while the first one was moved was one commit
    assert desk.ask(("a", Acknowledge("router-1", 3, "u:7", epoch, 4))) == [("a", Acknowledged(3, "router-1", 9))]
    ((_, unread),) = desk.ask(("l", Ask("router-1", 4, UnreadCount("7"))))
    assert unread == Answered(4, "router-1", Unread("u:7", desk.log.epoch, COUNT, 9, COUNT - 9))


def test_a_push_whose_receipt_went_with_a_crash_is_forgotten_and_not_unknown(desk: Desk) -> None:
    asked = [
        ("l", Ask("router-1", 1, PushReceipt("kept"))),
        ("l", Ask("router-1", 2, PushReceipt("never"))),
        ("m", Ask("router-1", 3, PushReceipt("kept"))),
    ]
    answers = desk.ask(*asked)
    assert [(peer, m.req) for peer, m in answers] == [("l", 1), ("l", 2), ("m", 3)]
    told = [(m.answer.is_known, m.answer.forgotten) for _, m in answers]
    assert told == [(True, ["router-1"]), (False, []), (True, ["router-1"])]


def test_a_damaged_message_is_passed_over_and_what_is_around_it_is_not(folder: Path) -> None:
    file = folder / "log.db"
    data = bytearray(file.read_bytes())
    data[data.index(b"u:7 9 ") + 20] ^= 1
    file.write_bytes(data)
    desk = Desk(folder, {})
    after, got, pages = 0, [], []
    while after < COUNT:
        ((_, page),) = desk.ask(("c", Read("router-1", 1, "u:7", after, COUNT, 99)))
        assert isinstance(page, Records)
        pages.append((page.floor, page.last))
        got += [r.offset for r in page.records]
        assert page.last > after
        after = page.last
    assert pages == [(0, 8), (9, 9), (0, COUNT)]
    assert got == [n for n in range(1, COUNT + 1) if n != 9]
    desk.close()
