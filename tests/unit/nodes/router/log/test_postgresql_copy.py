"""`zim log`: the log is made, looked at, and logs of routers are copied into it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.unit.nodes.router.log.contract import FOR_EVER, KEY_WINDOW_S, NOW, rules
from tests.unit.nodes.router.log.postgresql_support import FABRIC, database, server
from tests.unit.nodes.router.log.sqlite_support import direct
from tests.unit.topology.test_file import small, text_of
from zim.cli import main
from zim.fabric.bans import Ban, Banned
from zim.fabric.sharding import Shards
from zim.nodes.router.log import Appended, Fenced, Head, NewPush
from zim.nodes.router.log.keys import KeyUse
from zim.nodes.router.log.postgresql import PostgresLog, copying
from zim.nodes.router.log.postgresql.shard_log import ShardLog
from zim.nodes.router.log.sqlite import SqliteLog
from zim.nodes.state import StateDir
from zim.topology import LogPlace

ROUTERS = ("router-1", "router-2")
BEFORE, AFTER = Shards(ROUTERS), Shards([f"shard-{i}" for i in range(1, 5)])
STREAMS = [*(f"u:{i}" for i in range(40)), *(f"r:{i}" for i in range(5)), "*"]
KEYED = [
    NewPush(
        f"{i:032x}" if i % 2 else f"key {i}", STREAMS[i : i + 1 + i % 6], 5, b"k%d" % i, NOW + i, key=KeyUse(b"%d" % i)
    )
    for i in range(30)
]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["log", *arguments])


def name_of(where: LogPlace) -> str:
    return where.url.rpartition("/")[2].partition("?")[0]


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LogPlace]:
    """A database without a log, two topologies, and the logs of two routers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ZIM_TOPOLOGY", raising=False)
    with database(shards=4) as found:
        server().execute("DROP SCHEMA zim CASCADE", database=name_of(found))
        tables: dict[str, Any] = small()
        tables["fabric"]["name"] = FABRIC
        tables["router"] = [{"id": i, "bind": f"tcp://127.0.0.1:727{i}"} for i in (1, 2)]
        Path("old.toml").write_text(text_of(tables))
        place = {"url": found.url, "shards": found.shards, "single_copy": True}
        Path("topology.toml").write_text(text_of(tables | {"log": place}))
        yield found


def sqlite(name: str) -> SqliteLog:
    folder = Path("var", name)
    folder.mkdir(parents=True, exist_ok=True)
    return SqliteLog(folder, ROUTERS, direct, key_window_s=KEY_WINDOW_S, ballast_bytes=0)


def fill() -> dict[str, Any]:
    """Two logs with all that there can be in them. What is read of each stream."""
    pages: dict[str, Any] = {}
    for number, name in enumerate(ROUTERS):
        log = sqlite(name)
        lease = log.acquire(name)
        mine = [stream for stream in STREAMS if BEFORE.of(stream) == name]
        for i in range(8):
            log.append(lease, [NewPush(f"{i} {s}", [s], i, b"%d" % i, NOW, 0, {s: ("7_1",)}, None, i) for s in mine])
            log.append(lease, [NewPush(f"{i:032x}", mine, i, b"to all", NOW + 50, NOW + 10**9)])
        log.trim(lease, rules(count=12), NOW + 60_000, FOR_EVER, 10_000)
        for push in KEYED:
            ours = [stream for stream in push.streams if BEFORE.of(stream) == name]
            home = BEFORE.home(push.push_id)
            key = push.key
            assert key is not None
            if home != name:
                key = key._replace(home_ms=push.time_ms)
            if ours or home == name:
                log.append(lease, [push._replace(streams=ours, key=key)])
        log.acknowledge(lease, dict.fromkeys(mine[::3], 3 + number))
        log.reserve_seqs(lease, 100 * (number + 1))
        log.ban(lease, [Ban(Banned(f"bob-{number}"), made_ms=5), Ban(Banned(network="203.0.113.0/24"), made_ms=number)])
        for stream in mine:
            page = log.read(stream, 0, 1_000, 1_000, 1 << 30, 0)
            pages[stream] = page, log.acknowledged([stream])[stream]
        log.close()
    return pages


def opened(where: LogPlace) -> tuple[PostgresLog, dict[str, ShardLog], dict[str, Any]]:
    shared = PostgresLog(where, FABRIC, KEY_WINDOW_S, 60.0)
    logs = {name: shared.shard_log(name) for name in shared.shards}
    return shared, logs, {name: log.acquire("x") for name, log in logs.items()}


def check_copy(where: LogPlace, pages: dict[str, Any]) -> None:
    shared, logs, leases = opened(where)
    for stream, (page, cursor) in pages.items():
        log = logs[AFTER.of(stream)]
        assert log.read(stream, 0, 1_000, 1_000, 1 << 30, 0) == page
        assert log.acknowledged([stream]) == {stream: cursor}
    for push in KEYED:
        assert push.key is not None
        home = AFTER.home(push.push_id)
        shares = {shard: [s for s in push.streams if AFTER.of(s) == shard] for shard in AFTER.names}
        again = push._replace(streams=shares[home], time_ms=NOW + 60, key=push.key)
        (answer,) = logs[home].append(leases[home], [again])
        offsets = tuple(_offset(pages, stream, push) for stream in shares[home])
        assert answer == Appended("duplicate", offsets, push.time_ms)
        (other,) = logs[home].append(leases[home], [again._replace(key=KeyUse(b"other"))])
        assert other == Appended("conflict")
        for shard, streams in shares.items():
            if streams and shard != home:
                key = push.key._replace(home_ms=answer.home_ms, age_ms=60)
                (told,) = logs[shard].append(leases[shard], [push._replace(streams=streams, key=key)])
                assert told == Appended("duplicate", tuple(_offset(pages, s, push) for s in streams), push.time_ms)
    for name, log in logs.items():
        assert log.reserve_seqs(leases[name], 1) >= 201
        assert log.last_time_ms >= NOW + 50
        users = {ban.banned.user for ban in log.bans() if ban.banned.user}
        assert users == {f"bob-{i}" for i in range(2) if AFTER.of(f"u:bob-{i}") == name}
        assert [ban.made_ms for ban in log.bans() if ban.banned.network] == [1]
    assert max(beat.time_ms for beat in shared.look().beats.values()) >= NOW + 50
    stream, (page, _) = next(iter(pages.items()))
    shard = AFTER.of(stream)
    (stored,) = logs[shard].append(leases[shard], [NewPush("new", [stream], 5, b"new", NOW + 99)])
    assert stored.offsets == (page.head + 1,)
    assert logs[shard].newest(NOW + 99, 0, 9) == [("new", NOW + 99)]
    shared.close()


def _offset(pages: dict[str, Any], stream: str, push: NewPush) -> int:
    (offset,) = [r.offset for r in pages[stream][0].records if (r.push_id, r.body) == (push.push_id, push.body)]
    return int(offset)


def test_a_log_is_made_and_looked_at(where: LogPlace) -> None:
    missing = run("status")
    assert (missing.exit_code, "zim log init makes it" in missing.output) == (1, True)
    made = run("init")
    assert made.exit_code == 0, made.output
    assert "The log of demo is made, with 4 shards." in made.output
    assert "SINGLE COPY" in made.output
    again = run("init")
    assert (again.exit_code, "there is a log already" in again.output) == (1, True)
    assert "The log has format 1." in run("migrate").output
    status = run("status")
    assert status.exit_code == 0
    for text in ("the log of demo, format 1", "standbys: none", "SINGLE COPY", "records"):
        assert text in status.output
    without = run("status", "--topology", "old.toml")
    assert (without.exit_code, "old.toml: has no [log]" in without.output) == (1, True)


def test_a_log_that_was_restored_begins_another_history(where: LogPlace) -> None:
    run("init")
    shared, logs, leases = opened(where)
    log, lease = logs["shard-1"], leases["shard-1"]
    log.append(lease, [NewPush("a", ["u:1"], 5, b"a", NOW)])
    epoch, first = log.heads(["u:1"])["u:1"].epoch, log.reserve_seqs(lease, 10)
    said = run("restored")
    assert (said.exit_code, said.output) == (0, "All streams of demo go on with new epochs.\n")
    with pytest.raises(Fenced):
        log.append(lease, [NewPush("b", ["u:1"], 5, b"b", NOW)])
    shared.close()
    shared, logs, leases = opened(where)
    log, lease = logs["shard-1"], leases["shard-1"]
    assert log.heads(["u:1"])["u:1"] == Head(f"{epoch}-1", 0, 1)
    assert log.reserve_seqs(lease, 1) == first + 10 + (1 << 32)
    (stored,) = log.append(lease, [NewPush("b", ["u:1"], 5, b"b", NOW)])
    assert stored.offsets == (2,)
    shared.close()
    alone = CliRunner().invoke(main, ["restored", "router-1"])
    assert (alone.exit_code, "right is zim log restored" in alone.output) == (1, True)


def test_logs_are_copied(where: LogPlace) -> None:
    pages = fill()
    run("init")
    copied = run("copy", "old.toml", "topology.toml")
    assert copied.exit_code == 0, copied.output
    records = sum(len(page.records) for page, _ in pages.values())
    assert f"Copied and compared: {len(STREAMS)} streams with {records} records, " in copied.output
    check_copy(where, pages)
    again = run("copy", "old.toml", "topology.toml")
    assert (again.exit_code, "the log is not empty" in again.output) == (1, True)


@pytest.mark.parametrize("broken_at", [1, 2, 3, 4, 6])
def test_a_copy_that_is_broken_off_goes_on(where: LogPlace, monkeypatch: pytest.MonkeyPatch, broken_at: int) -> None:
    pages = fill()
    run("init")
    monkeypatch.setattr(copying, "RECORDS_AT_ONCE", 50)
    monkeypatch.setattr(copying, "STREAMS_AT_ONCE", 7)
    monkeypatch.setattr(copying, "KEYS_AT_ONCE", 5)
    flush, left = copying._Copy._write, [broken_at * 3]

    def breaking(self: Any, job: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return flush(self, job)

    with monkeypatch.context() as patched:
        patched.setattr(copying._Copy, "_write", breaking)
        assert run("copy", "old.toml", "topology.toml").exit_code == 130
    status = run("status")
    assert "half a copy of demo" in status.output
    Path("other.toml").write_text(Path("old.toml").read_text())
    other = run("copy", "other.toml", "topology.toml")
    assert (other.exit_code, "the log has half a copy of demo" in other.output) == (1, True)
    copied = run("copy", "old.toml", "topology.toml")
    assert copied.exit_code == 0, copied.output
    check_copy(where, pages)


def test_a_copy_that_differs_is_noticed(where: LogPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    fill()
    run("init")
    begin = copying._Copy._begin_shards

    def spoiling(self: Any, c: Any) -> None:
        begin(self, c)
        c.execute(
            "UPDATE records SET body = 'other' WHERE \"offset\" = 14 AND stream = (SELECT min(stream) FROM records)"
        )

    monkeypatch.setattr(copying._Copy, "_begin_shards", spoiling)
    copied = run("copy", "old.toml", "topology.toml")
    assert copied.exit_code == 1
    assert "the log is damaged: the copy of " in copied.output


def test_what_cannot_be_copied_is_said(where: LogPlace) -> None:
    assert "topology.toml: has [log]" in run("copy", "topology.toml", "topology.toml").output
    missing = run("copy", "old.toml", "topology.toml")
    assert "right is the folder of router-1, on this machine" in missing.output
    fill()
    no_log = run("copy", "old.toml", "topology.toml")
    assert "zim log init makes it" in no_log.output
    run("init")
    state = StateDir(Path("var").absolute(), "router-2")
    runs = run("copy", "old.toml", "topology.toml")
    state.close()
    assert runs.exit_code == 1
    assert "router-2 runs (pid" in runs.output
