"""Connections: names, passwords, hosts; and a server that went away meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.postgresql import Postgres, cluster, place, wait_for
from tests.unit.nodes.router.log.contract import new, stored
from tests.unit.nodes.router.log.postgresql_support import FABRIC, Alone, database, opened, server
from zim.errors import Unavailable
from zim.nodes.router.log.postgresql import make
from zim.nodes.router.log.postgresql.administering import describe
from zim.topology import LogPlace


@pytest.fixture
def where() -> Iterator[LogPlace]:
    with database() as found:
        yield found


def name_of(where: LogPlace) -> str:
    return where.url.rpartition("/")[2].partition("?")[0]


def test_a_host_has_a_name_and_several_addresses(where: LogPlace) -> None:
    url = where.url.replace("127.0.0.1", "localhost")
    assert url != where.url
    opened(replace(where, url=url)).close()


def test_a_unix_socket(where: LogPlace) -> None:
    primary = server()
    url = f"postgresql:///{name_of(where)}?host={primary.folder}&port={primary.port}&user=postgres"
    opened(replace(where, url=url)).close()


def test_a_server_that_is_away_is_passed_over(where: LogPlace) -> None:
    port = server().port
    hosts = f"no-such-host.invalid:{port},127.0.0.1:1,127.0.0.1:{port}"
    url = f"postgresql://postgres@{hosts}/{name_of(where)}?target_session_attrs=read-write"
    opened(replace(where, url=url)).close()


def test_connections_that_were_cut_while_idle_are_not_noticed_by_who_reads(where: LogPlace) -> None:
    alone = Alone(where)
    lease = alone.log.acquire("router-1")
    assert alone.log.append(lease, [new()]) == stored(1)
    alone.log.read("u:1", 0, 9, 9, 1 << 20, 0)
    for _ in range(2):
        server().execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{name_of(where)}' AND pid <> pg_backend_pid()"
        )
        assert len(alone.log.read("u:1", 0, 9, 9, 1 << 20, 0).records) == 1
    alone.close()


def test_what_is_told_of_a_log(where: LogPlace) -> None:
    alone = Alone(where)
    lease = alone.log.acquire("router-1")
    alone.log.append(lease, [new()])
    with server().connect(name_of(where)) as other:
        other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT count(*) FROM zim.records")
        state = describe(where)
        other.execute("ROLLBACK")
    assert (state.format, state.newest_format, state.fabric, state.waits_for) == (1, 1, FABRIC, "")
    assert state.oldest_s > 0
    assert state.server.startswith("PostgreSQL ")
    assert {"records", "receipts", "positions"} <= {table.name for table in state.tables}
    assert sorted(state.standing.holdings) == ["shard-1", "shard-2"]
    alone.close()


@pytest.fixture(scope="module")
def guarded() -> Iterator[Postgres]:
    """A server that asks for a password."""
    with cluster() as (primary, _):
        primary.execute("CREATE ROLE zim LOGIN PASSWORD 'correct horse'", "CREATE DATABASE zim OWNER zim")
        hba = primary.data / "pg_hba.conf"
        hba.write_text(f"host zim zim 127.0.0.1/32 scram-sha-256\n{hba.read_text()}")
        primary.execute("SELECT pg_reload_conf()")
        yield primary


@pytest.mark.slow
def test_a_password_comes_from_a_file_or_the_environment(
    guarded: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = place(guarded, database="zim")
    where = replace(found, url=found.url.replace("postgres@", "zim@"))
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    def is_refused() -> bool:
        with pytest.raises(Unavailable, match="PostgreSQL cannot be reached") as caught:
            make(where, FABRIC)
        return "no password supplied" in str(caught.value)

    wait_for(is_refused, "it asks for no password")
    passfile = tmp_path / "pgpass"
    passfile.write_text("*:*:zim:zim:correct horse\n")
    passfile.chmod(0o600)
    make(replace(where, passfile=passfile), FABRIC)  # the role needs no more rights than to own its database
    alone = Alone(replace(where, passfile=passfile))
    lease = alone.log.acquire("router-1")
    assert alone.log.append(lease, [new()]) == stored(1)
    alone.close()
    passfile.write_text("*:*:zim:zim:wrong\n")
    with pytest.raises(Unavailable, match="password authentication failed") as caught:
        describe(replace(where, passfile=passfile))
    assert "wrong" not in str(caught.value)
    monkeypatch.setenv("PGPASSWORD", "correct horse")
    assert describe(where).fabric == FABRIC
    assert not describe(where).sees_others
    guarded.execute("GRANT pg_monitor TO zim")
    assert describe(where).sees_others
