"""Who owns what: beats, deaths, takeovers; and a log that is not ours is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import gevent
import pytest

from tests.postgresql import place, wait_for
from tests.unit.nodes.router.log.contract import NOW, keyed, new, stored
from tests.unit.nodes.router.log.postgresql_support import FABRIC, database, opened, server
from zim.errors import NodeError, NotNow
from zim.nodes.router.log import Appended, Fenced, Lease
from zim.nodes.router.log.durable import open_shared
from zim.nodes.router.log.postgresql import PostgresLog, make
from zim.nodes.router.log.shared import Beat, Holding
from zim.topology import LogPlace

ONE = "shard-1"


@pytest.fixture
def where() -> Iterator[LogPlace]:
    with database() as found:
        yield found


@pytest.fixture
def log(where: LogPlace) -> Iterator[PostgresLog]:
    found = opened(where)
    yield found
    found.close()


def take(log: PostgresLog, router: str, run: int, shard: str = ONE) -> Lease:
    lease = log.take(log.look().holdings[shard], router, run)
    assert lease is not None
    return lease


def test_a_router_enters_beats_and_leaves(log: PostgresLog) -> None:
    assert log.look().beats == {}
    assert log.look().holdings == {name: Holding(name, "", 0, 0) for name in ("shard-1", "shard-2")}
    run = log.enter("router-1")
    assert run > 1_600_000_000_000
    assert log.look().beats == {"router-1": Beat("router-1", run, 0, 0, 0)}
    assert log.beat("router-1", run, 77, 3).beats == {"router-1": Beat("router-1", run, 1, 77, 3)}
    other = log.enter("router-2")
    standing = log.beat("router-2", other, 88, 4)
    assert standing.beats == {
        "router-1": Beat("router-1", run, 1, 77, 3),
        "router-2": Beat("router-2", other, 1, 88, 4),
    }
    assert standing == log.look()
    log.leave("router-1", run)
    assert log.look().beats["router-1"].is_dead
    with pytest.raises(Fenced):
        log.beat("router-1", run, 99, 3)
    again = log.enter("router-1")
    assert again > run
    assert not log.look().beats["router-1"].is_dead
    with pytest.raises(Fenced):
        log.beat("router-1", run, 99, 3)


def test_who_is_seen_to_beat_is_not_buried(log: PostgresLog) -> None:
    run = log.enter("router-1")
    seen = log.look().beats["router-1"]
    log.beat("router-1", run, 1, 0)
    assert not log.bury(seen)
    seen = log.look().beats["router-1"]
    assert log.bury(seen)
    assert not log.bury(seen)
    with pytest.raises(Fenced):
        log.beat("router-1", run, 2, 0)


def test_a_beat_that_meets_its_own_burial_is_none(log: PostgresLog, where: LogPlace) -> None:
    """Its statement began when the run lived, and waits for who buries it."""
    run = log.enter("router-1")
    log.beat("router-1", run, 1, 0)
    with server().connect(where.url.rpartition("/")[2].partition("?")[0]) as other:
        other.execute("BEGIN")
        other.execute("UPDATE zim.routers SET is_dead = true")
        beating = gevent.spawn(log.beat, "router-1", run, 2, 0)
        waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_for(lambda: bool(server().execute(waits)), "it does not wait")
        other.execute("COMMIT")
    with pytest.raises(Fenced):
        beating.get()


def test_a_shard_is_taken_by_who_saw_it_last(log: PostgresLog) -> None:
    one, two = log.enter("router-1"), log.enter("router-2")
    free = log.look().holdings[ONE]
    lease = log.take(free, "router-1", one)
    assert lease is not None
    assert lease.term > 1_600_000_000_000
    assert log.take(free, "router-2", two) is None
    assert log.look().holdings[ONE] == Holding(ONE, "router-1", one, lease.term)
    assert log.take(log.look().holdings["shard-2"], "router-2", two + 1) is None  # no such run
    after = take(log, "router-2", two)
    assert after.term > lease.term


def test_the_owner_before_is_fenced_in_every_call(log: PostgresLog) -> None:
    one, two = log.enter("router-1"), log.enter("router-2")
    before = take(log, "router-1", one)
    durable = log.open(before)
    assert durable.log.append(before, [new()]) == stored(1)
    after = take(log, "router-2", two)
    with pytest.raises(Fenced):
        durable.log.append(before, [new()])
    with pytest.raises(Fenced):
        durable.log.reserve_seqs(before, 1)
    with pytest.raises(Fenced):
        durable.log.acknowledge(before, {"u:1": 1})
    with pytest.raises(Fenced):
        log.open(before)
    assert log.open(after).log.append(after, [new()]) == stored(2)


def test_a_shard_is_given(log: PostgresLog) -> None:
    one, two = log.enter("router-1"), log.enter("router-2")
    lease = take(log, "router-1", one)
    assert log.open(lease).log.append(lease, [new()]) == stored(1)
    assert log.give(lease, "router-3", 5) is None
    after = log.give(lease, "router-2", two)
    assert after is not None
    assert after.term > lease.term
    assert log.give(lease, "router-2", two) is None
    assert log.look().holdings[ONE] == Holding(ONE, "router-2", two, after.term)
    assert log.open(after).log.append(after, [new()]) == stored(2)


def test_shards_do_not_mix(log: PostgresLog) -> None:
    run = log.enter("router-1")
    one, two = take(log, "router-1", run), take(log, "router-1", run, "shard-2")
    first, second = log.open(one).log, log.open(two).log
    assert first.append(one, [new("u:1", "p", b"1")]) == keyed(1)
    assert second.append(two, [new("u:2", "p", b"2")]) == keyed(1)
    assert first.newest(0, 0, 9) == second.newest(0, 0, 9)
    assert first.append(one, [new("u:1", "p", b"2")]) == [Appended("conflict")]
    assert (first.reserve_seqs(one, 3), second.reserve_seqs(two, 3)) == (1, 1)
    assert first.heads(["u:1"])["u:1"].epoch != second.heads(["u:2"])["u:2"].epoch


def test_the_last_seconds_are_those_of_the_owners_however_their_clocks_differ(log: PostgresLog) -> None:
    at, month_ms = NOW, 30 * 86_400_000
    for name, first, last in (("a", 0, 8_000), ("b", month_ms, 1_000), ("c", 1, 2_000)):
        owned = log.open(take(log, "router-1", log.enter("router-1")))
        at += first
        owned.log.append(owned.lease, [new(push_id=f"{name} begins", at=at)])
        at += last
        owned.log.append(owned.lease, [new(push_id=f"{name} ends", at=at)])
    newest = log.open(take(log, "router-1", log.enter("router-1"))).log
    found = [push_id for push_id, _ in newest.newest(newest.last_time_ms, 10_000, 9)]
    assert found == ["c ends", "c begins", "b ends", "b begins", "a ends"]


def test_appends_of_several_shards_go_together_and_are_fenced_each_on_its_own() -> None:
    with database(shards=8) as where:
        log = opened(where)
        run = log.enter("router-1")
        leases = [take(log, "router-1", run, shard) for shard in log.shards]
        logs = [log.open(lease).log for lease in leases]
        taken = log.look().holdings["shard-3"]
        assert log.take(taken, "router-1", run) is not None  # behind the back of the third one
        results: dict[str, list[object]] = {lease.shard: [] for lease in leases}

        def append(at: int) -> None:
            for i in range(20):
                try:
                    results[leases[at].shard] += logs[at].append(leases[at], [new(f"u:{at}", f"{i}", body=b"%d" % i)])
                except Fenced as e:
                    results[leases[at].shard].append(type(e))

        gevent.joinall([gevent.spawn(append, at) for at in range(8)], raise_error=True)
        appender = log._process._appender
        for at, lease in enumerate(leases):
            if lease.shard == "shard-3":
                assert results[lease.shard] == [Fenced] * 20
            else:
                assert results[lease.shard] == stored(*range(1, 21))
                page = logs[at].read(f"u:{at}", 0, 99, 99, 1 << 20, 0)
                assert [r.body for r in page.records] == [b"%d" % i for i in range(20)]
        assert appender.claims == 160
        assert appender.commits < 100  # others waited while one was under way
        log.close()


# ---------------------------------------------------------------- a log that is not ours


def refusal(where: LogPlace, fabric: str = FABRIC) -> str:
    with pytest.raises(NodeError) as caught:
        open_shared(where, fabric, 60.0, 60.0)
    return str(caught.value)


def test_a_log_that_is_made_twice(where: LogPlace) -> None:
    with pytest.raises(NodeError, match="there is a log already, of the fabric demo, with 2 shards"):
        make(where, "other")
    open_shared(where, FABRIC, 60.0, 60.0).close()


def test_a_database_without_a_log(where: LogPlace) -> None:
    server().execute("DROP SCHEMA zim CASCADE", database=where.url.rpartition("/")[2].partition("?")[0])
    assert "this database has no log: zim log init makes it" in refusal(where)


def test_half_a_log(where: LogPlace) -> None:
    name = where.url.rpartition("/")[2].partition("?")[0]
    server().execute("DELETE FROM zim.meta", database=name)
    assert "half a log" in refusal(where)
    server().execute("DROP TABLE zim.meta", database=name)
    assert "half a log" in refusal(where)


def test_a_database_of_another_encoding() -> None:
    server().execute("CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0")
    with pytest.raises(NodeError, match="has the encoding SQL_ASCII; right is UTF8"):
        make(place(server(), database="ascii"), FABRIC)
    server().execute("DROP DATABASE ascii")


def test_another_number_of_shards(where: LogPlace) -> None:
    assert "made with 2 shards, and the topology says 16" in refusal(replace(where, shards=16))


def test_another_fabric(where: LogPlace) -> None:
    assert "of the fabric demo, and the topology's is other" in refusal(where, "other")


def test_another_format(where: LogPlace) -> None:
    name = where.url.rpartition("/")[2].partition("?")[0]
    server().execute("UPDATE zim.meta SET format = 9", database=name)
    assert "the log has format 9, and this zim knows format 1" in refusal(where)
    server().execute("UPDATE zim.meta SET format = 0", database=name)
    assert "zim log migrate" in refusal(where)


def test_half_a_copy(where: LogPlace) -> None:
    name = where.url.rpartition("/")[2].partition("?")[0]
    server().execute("UPDATE zim.meta SET copying = 'old'", database=name)
    assert "half a copy of old" in refusal(where)


def test_commits_that_are_not_replicated(where: LogPlace) -> None:
    with pytest.raises(NotNow, match="synchronous_standby_names is empty"):
        open_shared(replace(where, single_copy=False), FABRIC, 60.0, 60.0)


def test_a_server_that_is_not_there() -> None:
    primary = server()
    nowhere = place(primary, database="nothing_of_that_name")
    with pytest.raises(NotNow, match="PostgreSQL cannot be reached"):
        open_shared(nowhere, FABRIC, 60.0, 60.0)
    url = "postgresql://127.0.0.1:1/x"
    with pytest.raises(NotNow, match="PostgreSQL cannot be reached"):
        open_shared(LogPlace(url), FABRIC, 60.0, 60.0)
    with pytest.raises(NotNow, match="PostgreSQL cannot be reached"):
        open_shared(LogPlace("postgresql://no-such-host.invalid/x"), FABRIC, 60.0, 60.0)
