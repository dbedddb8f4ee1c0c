"""Appends of several shards that go together: what one of them does is no harm to the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from tests.unit.nodes.router.log.contract import CONFLICT, duplicate, keyed, new, stored
from tests.unit.nodes.router.log.postgresql_support import database, opened
from zim.errors import Unknown
from zim.nodes.router.log import Damaged, Lease
from zim.nodes.router.log.postgresql import PostgresLog
from zim.nodes.router.log.postgresql.shard_log import ShardLog
from zim.nodes.router.log.standings import StreamStanding

Owned = tuple[ShardLog, Lease]


@pytest.fixture
def shared() -> Iterator[PostgresLog]:
    with database(shards=4) as where:
        found = opened(where)
        yield found
        found.close()


@pytest.fixture
def owned(shared: PostgresLog) -> list[Owned]:
    found = []
    for i, name in enumerate(shared.shards):
        log = shared.shard_log(name)
        lease = log.acquire("router-1")
        assert log.append(lease, [new(f"u:{i}", "first", b"d")]) == keyed(1)
        found.append((log, lease))
    return found


def together(shared: PostgresLog, owned: list[Owned], batches: list[list[Any]]) -> list[Any]:
    """Appends at all shards while the connection is busy: the first one goes alone, then all others at once."""
    with shared._process.appends.turn:
        calls = [gevent.spawn(log.append, lease, batch) for (log, lease), batch in zip(owned, batches, strict=True)]
        gevent.sleep(0.05)
    gevent.joinall(calls)
    return [call.exception or call.value for call in calls]


def test_they_go_in_two_commits(shared: PostgresLog, owned: list[Owned]) -> None:
    before = shared._process._appender.commits
    assert together(shared, owned, [[new(f"u:{i}", "a")] for i in range(4)]) == [stored(2)] * 4
    assert shared._process._appender.commits == before + 2


def test_one_that_is_damaged_fails_alone(shared: PostgresLog, owned: list[Owned]) -> None:
    log = owned[2][0]
    known = log._standings.get("u:2")
    assert known is not None
    log._standings.moved({"u:2": StreamStanding(known.id, 0, 0)}, 1)  # as if its first record was not there
    told = together(shared, owned, [[new(f"u:{i}", "a")] for i in range(4)])
    assert isinstance(told[2], Damaged)
    assert told[:2] + told[3:] == [stored(2)] * 3
    for i in (0, 1, 3):
        assert [r.push_id for r in owned[i][0].read(f"u:{i}", 0, 9, 9, 1 << 20, 0).records] == ["first", "a"]


def test_one_whose_key_is_known_goes_again_alone(shared: PostgresLog, owned: list[Owned]) -> None:
    batches = [
        [new("u:0", "a", b"d")],
        [new("u:1", "first", b"d"), new("u:1", "b", b"d")],
        [new("u:2", "first", b"other")],
        [new("u:3", "c")],
    ]
    at = 1_000_000
    assert together(shared, owned, batches) == [
        keyed(2), [duplicate(1, at=at), *keyed(2)], [CONFLICT], stored(2),
    ]  # fmt: skip


def test_one_whose_caller_is_killed_is_no_harm_to_others(shared: PostgresLog, owned: list[Owned]) -> None:
    with shared._process.appends.turn:
        calls = [gevent.spawn(log.append, lease, [new(f"u:{i}", "a")]) for i, (log, lease) in enumerate(owned)]
        gevent.sleep(0.05)
        calls[0].kill()  # the one that went alone, and waits for its turn
        calls[1].kill()
    gevent.joinall(calls)
    assert [call.value for call in calls[2:]] == [stored(2)] * 2
    for i in (0, 1):
        log, lease = owned[i]
        with pytest.raises(Unknown):
            log.append(lease, [new(f"u:{i}", "b")])
        settled = log.settle(lease, [])
        assert settled in (None, stored(2))
        head = log.heads([f"u:{i}"])[f"u:{i}"].head
        assert head == (1 if settled is None else 2)
        assert log.append(lease, [new(f"u:{i}", "b")]) == stored(head + 1)
