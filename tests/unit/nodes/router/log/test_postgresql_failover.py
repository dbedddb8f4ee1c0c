"""What becomes of appends when PostgreSQL fails: nothing that was acknowledged is lost, nothing is there twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import gevent
import pytest
from gevent.event import Event

from tests.postgresql import Postgres, cluster, place, replicate, wait_for
from tests.unit.nodes.router.log.contract import found, keyed, new, stored
from tests.unit.nodes.router.log.postgresql_support import FABRIC, database, opened, server
from zim.errors import Unavailable, Unknown
from zim.nodes.router.log import Appended, Fenced, Lease, Log, NewPush
from zim.nodes.router.log.postgresql import PostgresLog, make, process, shard_log
from zim.topology import LogPlace

T = TypeVar("T")

AGAIN_S = 0.02


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "APPEND_S", 0.5)
    monkeypatch.setattr(process, "ASIDE_S", 0.5)


class Owner:
    """Who appends as a router does: what is not known is asked for until it is."""

    def __init__(self, log: Log, lease: Lease) -> None:
        self.log, self.lease = log, lease
        self.unknown = self.refused = 0

    def append(self, batch: list[NewPush]) -> list[Appended]:
        """Until it is stored."""
        while True:
            try:
                return self.log.append(self.lease, batch)
            except Unavailable:
                self.refused += 1
                gevent.sleep(AGAIN_S)
            except Unknown:
                self.unknown += 1
                settled = self.settle(batch)
                if settled is not None:
                    return settled

    def settle(self, batch: list[NewPush]) -> list[Appended] | None:
        """Until it can be told."""
        while True:
            try:
                return self.log.settle(self.lease, batch)
            except (Unavailable, Unknown):
                gevent.sleep(AGAIN_S)


def own(shared: PostgresLog, router: str = "router-1") -> dict[str, Owner]:
    """Takes all shards."""
    run = shared.enter(router)
    owners: dict[str, Owner] = {}
    for shard in shared.shards:
        lease = shared.take(shared.look().holdings[shard], router, run)
        assert lease is not None
        owners[shard] = Owner(shared.open(lease).log, lease)
    return owners


def check_all(log: Log, stream: str, count: int) -> None:
    """There is each push once, in its order."""
    page = log.read(stream, 0, 1 << 30, 1 << 20, 1 << 30, 0)
    assert [r.offset for r in page.records] == list(range(1, page.head + 1))
    assert [r.push_id for r in page.records] == [f"{stream} {i}" for i in range(count)]


def again(call: Callable[[], T]) -> T:
    """Until the engine answers."""
    while True:
        try:
            return call()
        except (Unavailable, Unknown):
            gevent.sleep(AGAIN_S)


@contextmanager
def two_servers(shards: int = 2) -> Iterator[tuple[Postgres, Postgres, LogPlace]]:
    with cluster(standby=True) as (primary, second):
        assert second is not None
        primary.execute("CREATE DATABASE zim")
        where = place(primary, second, database="zim", shards=shards)
        make(where, FABRIC)
        yield primary, second, where


@pytest.mark.slow
@pytest.mark.parametrize("has_keys", [False, True])
def test_the_primary_is_killed_under_load_and_its_standby_promoted(has_keys: bool) -> None:
    with two_servers(shards=4) as (primary, second, where):
        shared = opened(where)
        owners = own(shared)
        counts, is_over = dict.fromkeys(owners, 0), Event()

        def append(shard: str) -> None:
            while not is_over.is_set():
                first = counts[shard]
                names = [f"{shard} {i}" for i in range(first, first + 1 + first % 7)]
                batch = [new(shard, name, b"d" if has_keys else b"") for name in names]
                answers = owners[shard].append(batch)
                assert [a.offsets for a in answers] == [(i,) for i in range(first + 1, first + len(batch) + 1)]
                counts[shard] += len(batch)

        loads = [gevent.spawn(append, shard) for shard in owners]
        wait_for(lambda: min(counts.values()) > 300, "no load")
        primary.kill()
        gevent.sleep(0.2)
        second.promote()
        before = dict(counts)
        wait_for(lambda: all(counts[s] > before[s] + 300 for s in counts), "no load after the promotion")
        is_over.set()
        gevent.joinall(loads, raise_error=True)
        for shard, owner in owners.items():
            check_all(owner.log, shard, counts[shard])
        assert sum(owner.unknown + owner.refused for owner in owners.values()) > 0
        shared.close()
        shared = opened(where)
        for shard, owner in own(shared).items():
            check_all(owner.log, shard, counts[shard])
            assert owner.append([new(shard, "last")]) == stored(counts[shard] + 1)
        shared.close()


@pytest.mark.slow
def test_a_standby_that_stops_makes_commits_wait_and_none_is_told_before() -> None:
    with two_servers() as (_, second, where):
        shared = opened(where)
        owner = own(shared)["shard-1"]
        assert owner.append([new(push_id="a")]) == stored(1)
        second.signal(signal.SIGSTOP)
        with pytest.raises(Unknown):
            owner.log.append(owner.lease, [new(push_id="b")])
        with pytest.raises(Unknown):
            owner.log.append(owner.lease, [new(push_id="c")])  # nothing before that is settled
        for _ in range(2):
            with pytest.raises((Unknown, Unavailable)):
                owner.log.settle(owner.lease, [new(push_id="b")])
        second.signal(signal.SIGCONT)
        assert owner.settle([new(push_id="b")]) == stored(2)
        assert owner.append([new(push_id="c")]) == stored(3)
        shared.close()


@pytest.mark.slow
def test_a_wait_that_is_cancelled_is_no_success() -> None:
    """The server answers that it has committed, with a warning. A failover would forget it."""
    with two_servers() as (primary, second, where):
        shared = opened(where)
        owner = own(shared)["shard-1"]
        assert owner.append([new(push_id="a")]) == stored(1)
        second.signal(signal.SIGSTOP)
        waiting = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        process_s = gevent.spawn(wait_for, lambda: bool(primary.execute(waiting)), "nobody waits for the standby")
        with pytest.raises(Unknown, match="canceling wait for synchronous replication"):
            owner.log.append(owner.lease, [new(push_id="b")])
        process_s.get()
        assert primary.execute("SELECT count(*) FROM zim.records", database="zim") == [(2,)]
        with pytest.raises((Unknown, Unavailable)):
            owner.log.settle(owner.lease, [new(push_id="b")])
        primary.kill()
        second.signal(signal.SIGCONT)
        second.promote()
        settled = owner.settle([new(push_id="b")])
        page = owner.log.read("u:1", 0, 9, 9, 1 << 20, 0)
        assert [r.push_id for r in page.records] == (["a"] if settled is None else ["a", "b"])
        shared.close()


@pytest.mark.slow
def test_who_was_deposed_says_nothing_that_counts() -> None:
    """The primary lives on, cut off from its standby, which was promoted: another process goes on there."""
    with two_servers() as (primary, second, where):
        before = opened(where)
        old = own(before)["shard-1"]
        assert old.append([new(push_id="a")]) == stored(1)
        second.execute("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
        wait_for(lambda: not primary.execute("SELECT 1 FROM pg_stat_replication"), "the standby still follows")
        second.promote()
        with pytest.raises(Unknown):
            old.log.append(old.lease, [new(push_id="b")])
        after = opened(where)  # finds the deposed one first
        run = again(lambda: after.enter("router-2"))

        def take() -> Owner | None:
            holding = after.look().holdings["shard-1"]
            lease = after.take(holding, "router-2", run)
            return None if lease is None else Owner(after.open(lease).log, lease)

        fresh = again(take)
        assert fresh is not None
        assert fresh.append([new(push_id="c")]) == stored(2)
        assert old.settle([new(push_id="b")]) is None  # another owner has that number, where it is asked now
        with pytest.raises(Fenced):
            old.log.append(old.lease, [new(push_id="b")])
        assert [r.push_id for r in fresh.log.read("u:1", 0, 9, 9, 1 << 20, 0).records] == ["a", "c"]
        before.close()
        after.close()


@pytest.mark.slow
def test_appends_are_refused_once_commits_have_no_standby_any_more() -> None:
    with cluster(standby=True) as (primary, second):
        assert second is not None
        primary.execute("CREATE DATABASE zim")
        where = place(primary, second, database="zim", single_copy=False)
        make(where, FABRIC)
        shared = opened(where)
        run = shared.enter("router-1")
        owner = own(shared)["shard-1"]
        run = shared.look().beats["router-1"].run
        assert owner.append([new(push_id="a")]) == stored(1)
        shared.beat("router-1", run, 1, 0)
        assert shared.is_replicated
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()")

        def is_alone() -> bool:
            shared.beat("router-1", run, 1, 0)
            return not shared.is_replicated

        wait_for(is_alone, "it is not noticed")
        with pytest.raises(Unavailable, match="not synchronously replicated"):
            owner.log.append(owner.lease, [new(push_id="b")])
        replicate(primary, second.name)
        assert owner.append([new(push_id="c")]) == stored(2)
        shared.close()


# ---------------------------------------------------------------- one server


@pytest.fixture
def shared() -> Iterator[PostgresLog]:
    with database() as where:
        found = opened(where)
        yield found
        found.close()


def pid_of_appends(shared: PostgresLog) -> int:
    connection = shared._process.appends._connection
    assert connection is not None
    return connection.info.backend_pid


@pytest.mark.parametrize("has_key", [False, True])
def test_a_batch_that_hangs_in_the_server_and_was_settled_is_never_written(shared: PostgresLog, has_key: bool) -> None:
    owner = own(shared)["shard-1"]
    digest = b"d" if has_key else b""
    batch = [new(push_id="b", digest=digest)]
    # Its statement is prepared, so all of it is on its way to the server when that stands still.
    assert [a.offsets for i in range(3) for a in owner.append([new(push_id=f"a{i}", digest=digest)])] == [
        (1,),
        (2,),
        (3,),
    ]
    pid = pid_of_appends(shared)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(Unknown):
            owner.log.append(owner.lease, batch)
        assert owner.log.settle(owner.lease, batch) is None
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: not server().execute(f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}"), "the server goes on")
    if has_key:
        assert found(owner.log, batch[0]) is None
    assert [a.offsets for a in owner.append(batch)] == [(4,)]
    check = owner.log.read("u:1", 0, 9, 9, 1 << 20, 0)
    assert [r.push_id for r in check.records] == ["a0", "a1", "a2", "b"]


def test_a_batch_of_the_owner_before_that_hangs_is_never_written(shared: PostgresLog) -> None:
    owner = own(shared)["shard-1"]
    assert [owner.append([new(push_id=f"a{i}")]) for i in range(3)] == [stored(1), stored(2), stored(3)]
    pid = pid_of_appends(shared)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(Unknown):
            owner.log.append(owner.lease, [new(push_id="b")])
        after = own(shared, "router-2")["shard-1"]
        assert after.append([new(push_id="c")]) == stored(4)
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: not server().execute(f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}"), "the server goes on")
    assert owner.log.settle(owner.lease, [new(push_id="b")]) is None  # the next owner has that number
    with pytest.raises(Fenced):
        owner.log.append(owner.lease, [new(push_id="b")])
    assert [r.push_id for r in after.log.read("u:1", 0, 9, 9, 1 << 20, 0).records] == ["a0", "a1", "a2", "c"]


@pytest.mark.parametrize("is_stored", [False, True])
def test_a_connection_that_breaks_leaves_a_question_and_an_answer(shared: PostgresLog, is_stored: bool) -> None:
    """A lock keeps the batch from its end; then the connection is cut, from either side."""
    owner = own(shared)["shard-1"]
    assert owner.append([new(push_id="a")]) == stored(1)
    pid = pid_of_appends(shared)
    name = shared._process._server.place.url.rpartition("/")[2].partition("?")[0]
    with server().connect(name) as other:
        other.execute("BEGIN")
        other.execute("LOCK TABLE zim.records IN SHARE MODE")
        appending = gevent.spawn(owner.append, [new(push_id="b")])
        locked = f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid} AND wait_event_type = 'Lock'"
        wait_for(lambda: bool(server().execute(locked)), "it does not wait")
        if not is_stored:
            server().execute(f"SELECT pg_terminate_backend({pid})")
            wait_for(lambda: owner.unknown + owner.refused > 0, "it is not noticed")
        other.execute("ROLLBACK")
    assert appending.get() == stored(2)
    check = owner.log.read("u:1", 0, 9, 9, 1 << 20, 0)
    assert [r.push_id for r in check.records] == ["a", "b"]


def test_settling_may_be_repeated(shared: PostgresLog) -> None:
    """Whoever settles may be cut off, too, when it has read and written."""
    owner = own(shared)["shard-1"]
    for is_stored in (False, True):
        head = owner.log.heads(["u:1"])["u:1"].head
        unsettle(owner, [new(push_id="x")], is_stored=is_stored)
        for _ in range(3):
            copied = owner.log._unsettled  # type: ignore[attr-defined]
            settled = owner.log.settle(owner.lease, [])
            assert settled == (stored(head + 1) if is_stored else None)
            owner.log._unsettled = copied  # type: ignore[attr-defined]
        owner.log._unsettled = None  # type: ignore[attr-defined]
        assert owner.append([new(push_id="y")]) == stored(head + 1 + is_stored)


def unsettle(owner: Owner, batch: list[NewPush], *, is_stored: bool) -> None:
    """An append of which nobody was told how it ended."""
    shared_process = owner.log._process  # type: ignore[attr-defined]
    append = shared_process.append

    def unsure(claim: object) -> None:
        if is_stored:
            append(claim)
        raise Unknown("the log", "a test")

    shared_process.append = unsure
    try:
        with pytest.raises(Unknown):
            owner.log.append(owner.lease, batch)
    finally:
        shared_process.append = append


@pytest.mark.parametrize("how", ["settle", "open"])
def test_lost_commits_are_noticed_whoever_looks_first(
    shared: PostgresLog, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The owner asks what became of a batch; or the shard was closed, and is opened again by the same process."""
    owner = own(shared)["shard-1"]
    for i in range(5):
        assert owner.append([new(push_id=str(i))]) == stored(i + 1)
    epoch = owner.log.heads(["u:1"])["u:1"].epoch
    unsettle(owner, [new(push_id="x")], is_stored=False)
    name = shared._process._server.place.url.rpartition("/")[2].partition("?")[0]
    server().execute(
        'DELETE FROM zim.records WHERE "offset" > 3', "DELETE FROM zim.positions WHERE number > 4", database=name
    )

    def look() -> None:
        if how == "settle":
            owner.log.settle(owner.lease, [new(push_id="x")])
        else:
            shared.open(owner.lease)

    with pytest.raises(Unavailable, match="deposed"):
        look()
    monkeypatch.setattr(shard_log, "LOST_S", 0.0)
    with pytest.raises(Fenced):
        look()
    holding = shared.look().holdings["shard-1"]
    assert (holding.router, holding.term > owner.lease.term) == ("router-1", True)
    lease = Lease("shard-1", holding.term)
    log = shared.open(lease).log
    head = log.heads(["u:1"])["u:1"]
    assert (head.epoch, head.head) == (f"{epoch}-1", 3)
    assert log.append(lease, [new(push_id="5")]) == stored(4)


def test_commits_that_are_lost_begin_another_history(shared: PostgresLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not know what we know: after a while it is believed, and all epochs of the shard are new."""
    owner = own(shared)["shard-1"]
    for i in range(5):
        assert owner.append([new(push_id=str(i))]) == stored(i + 1)
    epoch = owner.log.heads(["u:1"])["u:1"].epoch
    name = shared._process._server.place.url.rpartition("/")[2].partition("?")[0]
    server().execute(
        'DELETE FROM zim.records WHERE "offset" > 3',
        "DELETE FROM zim.positions WHERE number > 4",
        database=name,
    )
    with pytest.raises(Unavailable, match="deposed"):
        owner.log.append(owner.lease, [new(push_id="5")])
    with pytest.raises(Unavailable):
        owner.log.read("u:1", 0, 9, 9, 1 << 20, 0)
    monkeypatch.setattr(shard_log, "LOST_S", 0.0)
    with pytest.raises(Fenced):
        owner.log.append(owner.lease, [new(push_id="5")])
    holding = shared.look().holdings["shard-1"]
    assert (holding.router, holding.term > owner.lease.term) == ("router-1", True)
    lease = Lease("shard-1", holding.term)
    log = shared.open(lease).log
    head = log.heads(["u:1", "u:9"])
    assert {name: (h.epoch, h.head) for name, h in head.items()} == {"u:1": (f"{epoch}-1", 3), "u:9": (f"{epoch}-1", 0)}
    assert log.append(lease, [new(push_id="5", digest=b"d")]) == keyed(4)


def test_the_hub_goes_on_while_the_server_does_not(shared: PostgresLog) -> None:
    owner = own(shared)["shard-1"]
    assert owner.append([new(push_id="a")]) == stored(1)
    pid, ticks = pid_of_appends(shared), 0
    os.kill(pid, signal.SIGSTOP)
    try:
        appending = gevent.spawn(owner.log.append, owner.lease, [new(push_id="b")])
        while not appending.ready():
            ticks += 1
            gevent.sleep(0.001)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert ticks > 50
    with pytest.raises(Unknown):
        appending.get()
