"""What is gone takes little room, and no time, even while somebody's transaction is open."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest

from tests.postgresql import wait_for
from tests.unit.nodes.router.log.contract import FOR_EVER, NOW, new, rules, stored
from tests.unit.nodes.router.log.postgresql_support import Alone, database, server
from zim.fabric.retention import Retention
from zim.nodes.router.log import Lease
from zim.topology import LogPlace


@pytest.fixture
def where() -> Iterator[LogPlace]:
    with database() as found:
        yield found


@pytest.fixture
def alone(where: LogPlace) -> Iterator[Alone]:
    found = Alone(where)
    yield found
    found.close()


def name_of(where: LogPlace) -> str:
    return where.url.rpartition("/")[2].partition("?")[0]


def looked_at(alone: Alone, database: str) -> int:
    """Blocks of `positions` that were looked at so far."""

    def flush(connection: object) -> None:
        alone.shared._process.appends._connection.execute("SELECT pg_stat_force_next_flush()")  # type: ignore[union-attr]

    alone.shared._process.appends.read(flush)
    alone.shared._process.appends.read(lambda c: c.execute("SELECT 1").fetchall())
    ((count,),) = server().execute(
        "SELECT heap_blks_hit + idx_blks_hit + heap_blks_read + idx_blks_read FROM pg_statio_user_tables"
        " WHERE schemaname = 'zim' AND relname = 'positions'",
        database=database,
    )
    return int(count)


@pytest.mark.slow
def test_an_append_looks_at_as_much_as_ever_while_a_transaction_is_open(where: LogPlace, alone: Alone) -> None:
    """Rows that are gone stay, and one that each commit had updated would be looked for among all its versions."""
    log, lease = alone.log, alone.log.acquire("router-1")
    name = name_of(where)
    for i in range(30):
        log.append(lease, [new(push_id=f"{i}")])

    def cost() -> float:
        before = looked_at(alone, name)
        for i in range(20):
            log.append(lease, [new(push_id=f"x{i}")])
        return (looked_at(alone, name) - before) / 20

    at_first = cost()
    with server().connect(name) as other:
        other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT count(*) FROM zim.records")
        first = log._number
        server().execute(
            f"""DO $$ DECLARE n bigint := {first}; BEGIN
                FOR i IN 1..20000 LOOP
                    n := n + 1;
                    INSERT INTO zim.positions VALUES (1, n, {lease.term}, 1, 0);
                    IF i % 1000 = 0 THEN DELETE FROM zim.positions WHERE shard = 1 AND number < n AND kind = 0; END IF;
                    COMMIT;
                END LOOP; END $$""",
            database=name,
        )
        log._number = first + 20_000
        log.append(lease, [new(push_id="y")])
        assert cost() <= at_first + 4  # a level more of the index
        other.execute("ROLLBACK")


def churn(alone: Alone, lease: Lease, retention: Retention, streams: int, rounds: int, step_ms: int) -> None:
    """As a router does it: appends, and a trim now and then."""
    now = NOW
    for i in range(rounds):
        now += step_ms
        alone.log.append(lease, [new(f"u:{n}", f"{i}", body=b"x" * 100, at=now) for n in range(streams)])
        if i % 5 == 4:
            alone.log.trim(lease, retention, now, FOR_EVER, 100_000)
            wait_for(lambda: not alone.shared._process.vacuum._is_running, "VACUUM does not end")


@pytest.mark.slow
@pytest.mark.parametrize("by", ["count", "age"])
def test_after_ten_times_the_retention_the_table_is_not_twice_its_live_bytes(
    where: LogPlace, alone: Alone, by: str
) -> None:
    lease = alone.log.acquire("router-1")
    retention = rules(count=50) if by == "count" else rules(count=1_000_000, age_s=50.0)
    churn(alone, lease, retention, streams=200, rounds=600, step_ms=1_000)
    vacuum = alone.shared._process.vacuum
    wait_for(lambda: not vacuum._is_running, "it does not end")
    sizes = [_size(where)]
    server().execute("VACUUM FULL zim.records", database=name_of(where))
    sizes.append(_size(where))
    assert vacuum.runs > 0
    live = server().execute("SELECT count(*) FROM zim.records", database=name_of(where))[0][0]
    assert 9_000 < live < 15_000
    assert sizes[0] <= 2 * sizes[1], sizes


def _size(where: LogPlace) -> int:
    ((size,),) = server().execute("SELECT pg_total_relation_size('zim.records')", database=name_of(where))
    return int(size)


def test_trimming_does_not_hold_up_appends_of_streams_that_are_known(alone: Alone) -> None:
    """What comes while rows are deleted is not forgotten: offsets go on, and the floor is the new one."""
    log, lease = alone.log, alone.log.acquire("router-1")
    log.append(lease, [new(push_id=f"{i}") for i in range(500)])
    log.trim(lease, rules(count=1_000), NOW, FOR_EVER, 10)
    log.append(lease, [new(push_id="500")])
    trimming = gevent.spawn(log.trim, lease, rules(count=10), NOW + 60_000, FOR_EVER, 10_000)
    offset = 501
    while not trimming.ready():
        offset += 1
        assert log.append(lease, [new(push_id=f"{offset}")]) == stored(offset)
    trimming.get()
    floor, head = log.heads(["u:1"])["u:1"][1:]
    assert head == offset
    assert floor >= 501 - 10 - 130
    log.load(lease)
    assert log.heads(["u:1"])["u:1"][1:] == (floor, head)
