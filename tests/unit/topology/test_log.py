"""`[log]`: what is right, what is said of what is not, what a review says, and that a reload changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.topology.test_file import PATH, problems_of, small, text_of
from zim.topology import LogPlace, Topology, compare, parse
from zim.topology.log import url_problem
from zim.topology.review import Machine, review

URL = "postgresql://zim@db-1,db-2:5433/zim?target_session_attrs=read-write"


def read(**values: Any) -> Topology:
    return parse(text_of(small() | {"log": values}), PATH)


def test_without_it_each_router_has_its_own_shard() -> None:
    two = [{"id": 1, "bind": "tcp://127.0.0.1:7270"}, {"id": 7, "bind": "tcp://127.0.0.1:7271"}]
    topology = parse(text_of(small() | {"router": two}), PATH)
    assert topology.log is None
    assert topology.shards == ("router-1", "router-7")


def test_defaults() -> None:
    topology = read(url=URL)
    assert topology.log == LogPlace(URL)
    assert topology.log is not None
    assert topology.log.hosts == ("db-1", "db-2")
    assert topology.shards == tuple(f"shard-{i}" for i in range(1, 17))


def test_all_of_it() -> None:
    topology = read(url="postgresql:///zim?host=/run/postgresql", passfile="pgpass", shards=3, single_copy=True)
    assert topology.log == LogPlace(
        "postgresql:///zim?host=/run/postgresql", Path("/srv/zim/pgpass"), shards=3, single_copy=True
    )
    assert topology.log is not None
    assert topology.log.hosts == ("/run/postgresql",)
    assert topology.shards == ("shard-1", "shard-2", "shard-3")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no url": ({"shards": 4}, 'log.url: is missing; right is "postgresql://'),
    "another engine": ({"url": "mysql://db/zim"}, "log.url: is no URL of PostgreSQL; right is one such as"),
    "a password": ({"url": "postgresql://zim:s3cret@db/zim"}, "log.url: has a password, and this file"),
    "no password, but a place for one": ({"url": "postgresql://zim:@db/zim"}, "log.url: has a password"),
    "a password behind": ({"url": "postgresql://zim@db/zim?password=s3cret"}, "log.url: has a password; right is log."),
    "another passfile": ({"url": "postgresql://db/zim?passfile=/x"}, "log.url: has a passfile; right is log.passfile"),
    "a typo": ({"url": "postgresql://db/zim?sslmod=require"}, "log.url: has a parameter that zim does not take"),
    "a parameter of nothing": ({"url": "postgresql://db/zim?sslmode="}, "log.url: has a sslmode without a value"),
    "any of several": ({"url": "postgresql://a,b/zim"}, "log.url: has several hosts; right is target_session_attrs="),
    "a port": ({"url": "postgresql://a:99999/zim"}, "log.url: has a port that is none"),
    "a NUL": ({"url": "postgresql://a/z%00m"}, "log.url: has a control character behind a %"),
    "no text": ({"url": 5}, "log.url: is 5; right is where PostgreSQL is"),
    "shards of none": ({"url": URL, "shards": 0}, "log.shards: is 0; right is a whole number from 1 to 256"),
    "too many shards": ({"url": URL, "shards": 257}, "log.shards: is 257; right is a whole number from 1 to 256"),
    "no claim": ({"url": URL, "single_copy": 1}, "log.single_copy: is 1; right is true or false"),
    "another key": ({"url": URL, "replicas": 2}, "log.replicas: is not a key; there are url, passfile"),
    "nobody's folder": ({"url": URL, "passfile": "~no-such-user/x"}, "log.passfile: ~no-such-user/x: there is no such"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_named(what: str) -> None:
    values, problem = WRONG[what]
    (found,) = problems_of(small() | {"log": values})
    assert problem in found
    assert "s3cret" not in found


@given(st.text())
def test_any_text_is_a_url_or_says_what_is_wrong(url: str) -> None:
    problem = url_problem(url)
    assert problem is None or "\n" not in problem


hosts = st.lists(
    st.tuples(st.sampled_from(["db-1", "10.0.0.1", "[::1]", "%2Frun%2Fpg"]), st.sampled_from(["", ":5432"])),
    min_size=1,
    max_size=3,
)


@given(hosts, st.text(st.characters(categories=("L", "N")), max_size=8), st.text(min_size=1, max_size=8))
def test_a_right_url_is_taken_and_a_password_never(at: list[tuple[str, str]], db: str, secret: str) -> None:
    where = ",".join(host + port for host, port in at)
    rest = f"{where}/{quote(db)}?target_session_attrs=read-write"
    assert url_problem(f"postgresql://zim@{rest}") is None
    assert len(LogPlace(f"postgresql://zim@{rest}").hosts) == len(at)
    hidden = quote(secret, "")
    for with_secret in (f"postgresql://zim:{hidden}@{rest}", f"postgresql://{rest}&password={hidden}"):
        assert "has a password" in str(url_problem(with_secret))


def test_a_reload_changes_nothing_of_it() -> None:
    old, new = read(url=URL), read(url=URL, shards=4, single_copy=True)
    found = compare(old, new)
    assert found.topology.log == old.log
    assert found.waiting == ("log.shards", "log.single_copy")
    without = parse(text_of(small()), PATH)
    assert compare(without, old).waiting == ("log",)
    assert compare(old, without).topology.log == old.log


def said(topology: Topology, machine: Machine | None = None) -> set[tuple[str, str]]:
    return {(one.severity, one.key) for one in review(topology, machine or Machine())}


def test_what_a_review_says() -> None:
    plain = said(read(url=URL))
    assert ("warning", "log.url") in plain
    assert ("warning", "log.single_copy") not in plain
    assert ("warning", "log.single_copy") in said(read(url=URL, single_copy=True))
    assert ("warning", "log.url") not in said(read(url=f"{URL}&sslmode=verify-full&sslrootcert=ca.pem"))
    assert ("warning", "log.url") not in said(read(url="postgresql:///zim?host=/run/postgresql"))
    with_file = read(url=URL, passfile="pgpass")
    for mode, is_wrong in ((0o600, False), (0o640, True), (None, True)):
        found = said(with_file, Machine({Path("/srv/zim/pgpass"): mode}))
        assert (("error", "log.passfile") in found) == is_wrong
