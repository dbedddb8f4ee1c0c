"""What a fabric that runs takes over from a changed topology, and what it names as waiting."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.topology.test_file import small, text_of
from tests.unit.topology.test_identity import API_KEY, HASH, JWKS
from zim.errors import TopologyError
from zim.fabric.retention import Retention, RoomClass, Rule
from zim.topology import Topology, believed_from_now_on, compare, pack, parse, unpack

PATH = Path("/srv/zim/topology.toml")
KEPT, LIVE = Rule(10, 60.0), Rule(0, 0.0)


def made(change: dict[str, dict[str, Any]] | None = None, **tables: Any) -> Topology:
    """The small topology. change: keys of the first node of a kind, or of [fabric]."""
    found = small() | tables
    for table, keys in (change or {}).items():
        at = found[table]
        (at if isinstance(at, dict) else at[0]).update(keys)
    return parse(text_of(found), PATH)


def test_nothing_has_changed() -> None:
    changes = compare(made(), made())
    assert changes == (made(), (), ())


TAKEN: dict[str, tuple[dict[str, dict[str, Any]], dict[str, Any], str]] = {
    "a log level": ({"fabric": {"log_level": "warning"}}, {}, "fabric.log_level"),
    "an API key": ({}, {"api_key": [API_KEY]}, "api_key orders, added"),
    "an issuer": ({}, {"issuer": [JWKS]}, f"issuer {JWKS['issuer']}, added"),
    "a callout": ({}, {"callout": {"connect": "https://app.example.com/"}}, "callout"),
    "sessions": ({}, {"sessions": {"per_user": 3}}, "sessions"),
    "connections": ({"comet": {"max_connections": 7}}, {}, "comet-1.max_connections"),
    "slow consumers": ({"comet": {"slow_consumer": "drop"}}, {}, "comet-1.slow_consumer"),
    "a header": ({"logic": {"goim_key_header": "X-Key"}}, {}, "logic-1.goim_key_header"),
    "a time limit": ({"logic": {"http_timeout_s": 3}}, {}, "logic-1.http_timeout_s"),
    "retention": ({}, {"retention": {"users": {"count": 7}}}, "retention"),
}


@pytest.mark.parametrize(("change", "tables", "key"), TAKEN.values(), ids=TAKEN)
def test_what_takes_effect(change: dict[str, dict[str, Any]], tables: dict[str, Any], key: str) -> None:
    new = made(change, **tables)
    assert compare(made(), new) == (new, (key,), ())


WAITING = {
    "a limit of all nodes": ({"fabric": {"max_body_bytes": 7_000}}, "fabric.max_body_bytes"),
    "where a node is bound": ({"router": {"bind": "tcp://127.0.0.1:9999"}}, "router-1.bind"),
    "a job's queue": ({"job": {"queue_bytes": 7_000}}, "job-1.queue_bytes"),
    "another number": ({"comet": {"id": 7}}, "comet-1, which is no more there"),
}


@pytest.mark.parametrize(("change", "key"), WAITING.values(), ids=WAITING)
def test_what_waits_for_a_restart(change: dict[str, dict[str, Any]], key: str) -> None:
    old, new = made(), made(change)
    changes = compare(old, new)
    assert key in changes.waiting
    assert changes.taken == ()
    assert changes.topology == old
    assert changes.topology.digest == new.digest


CALLOUT, ANONYMOUS = {"connect": "https://app.example.com/"}, {"rooms": ["lobby"]}
BELIEVED: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "the last issuer goes": ({"issuer": [JWKS]}, {}, ["every client"]),
    "the callout goes": ({"callout": CALLOUT}, {}, ["every client"]),
    "strangers need no name any more": ({"anonymous": ANONYMOUS}, {}, ["every client"]),
    "the last API key goes": ({"api_key": [API_KEY]}, {}, ["whoever reaches the HTTP API"]),
    "all go": ({"issuer": [JWKS], "api_key": [API_KEY]}, {}, ["every client", "whoever reaches the HTTP API"]),
    "nobody had to prove anything": ({}, {"sessions": {"per_user": 3}}, []),
    "keys come": ({}, {"issuer": [JWKS], "api_key": [API_KEY]}, []),
    "another way stays": ({"issuer": [JWKS], "callout": CALLOUT}, {"callout": CALLOUT}, []),
}


@pytest.mark.parametrize(("old", "new", "who"), BELIEVED.values(), ids=BELIEVED)
def test_who_is_believed_from_now_on(old: dict[str, Any], new: dict[str, Any], who: list[str]) -> None:
    found = believed_from_now_on(made(**old).identity, made(**new).identity)
    assert len(found) == len(who)
    assert all(map(str.startswith, found, who)), found


LOG = {"url": "postgresql://db.example.com/zim", "shards": 4, "passfile": "pass"}


@pytest.mark.parametrize(
    ("kind", "tables"),
    [("comet", {}), ("logic", {}), ("job", {}), ("router", {"log": LOG})],
)
def test_a_node_is_added(kind: str, tables: dict[str, Any]) -> None:
    old, more = made(**tables), small() | tables
    keys = {"comet": "tcp", "logic": "http"}
    listeners = {keys[kind]: "127.0.0.1:9998"} if kind in keys else {}
    more[kind] = [*more[kind], {"id": 7, "bind": "tcp://127.0.0.1:9999", **listeners}]
    new = parse(text_of(more), PATH)
    assert compare(old, new) == (new, (f"{kind}-7, added",), ())
    assert compare(new, new) == (new, (), ())


def test_a_router_is_not_added_to_others_with_logs_of_their_own() -> None:
    more = small()
    more["router"] = [*more["router"], {"id": 7, "bind": "tcp://127.0.0.1:9999"}]
    new = parse(text_of(more), PATH)
    with pytest.raises(TopologyError, match="router-7: no such router can be added"):
        compare(made(), new)
    changes = compare(made(), parse(text_of(more | {"log": LOG}), PATH))  # which others have to be moved to first
    assert "router-7, which is new: it is for the new log" in changes.waiting
    assert changes.taken == ()


def test_a_node_at_the_address_of_another_one_waits() -> None:
    changes = compare(made(), made({"comet": {"id": 7}}))
    assert changes.waiting == ("comet-1, which is no more there", "comet-7, which is new: comet-1 has its address")


def test_what_waits_is_named_again() -> None:
    new = made({"fabric": {"max_body_bytes": 7_000, "log_level": "debug"}})
    first = compare(made(), new)
    assert (first.taken, first.waiting) == (("fabric.log_level",), ("fabric.max_body_bytes",))
    assert compare(first.topology, new)[1:] == ((), ("fabric.max_body_bytes",))


def test_a_listener_is_taken_over_where_it_is() -> None:
    at = made().comets[0].ws[0].address
    page = {"address": at, "origins": ["https://app.example.com"]}
    changes = compare(made(), made({"comet": {"ws": page}}))
    assert (changes.taken, changes.waiting) == (("comet-1.ws",), ())
    assert changes.topology.comets[0].ws[0].origins == ("https://app.example.com",)


@pytest.mark.parametrize(
    "ws", ["127.0.0.1:9998", ["127.0.0.1:9998", "127.0.0.1:9999"], {"address": "127.0.0.1:9998", "origins": ["*"]}]
)
def test_a_listener_somewhere_else_waits(ws: object) -> None:
    changes = compare(made(), made({"comet": {"ws": ws}}))
    assert (changes.taken, changes.waiting) == ((), ("comet-1.ws",))
    assert changes.topology.comets == made().comets


def test_an_api_key_that_is_replaced_or_taken_away_is_named_without_its_hash() -> None:
    old = made(api_key=[API_KEY, {**API_KEY, "id": "bills", "sha256": HASH[::-1]}])
    new = made(api_key=[{**API_KEY, "sha256": HASH[1:] + HASH[:1]}])
    changes = compare(old, new)
    assert changes.taken == ("api_key orders", "api_key bills, taken away")
    assert changes.topology.identity == new.identity


CLASSES = {
    "none": (),
    "kept": (RoomClass("news", ("news-*",), KEPT),),
    "live": (RoomClass("ticker", ("ticker-*",), LIVE),),
    "other live": (RoomClass("ticker", ("price-*",), LIVE),),
}
RULES = st.builds(
    Retention,
    st.sampled_from([KEPT, LIVE]),
    st.sampled_from([KEPT, LIVE]),
    st.sampled_from([KEPT, LIVE]),
    st.lists(st.sampled_from([c for classes in CLASSES.values() for c in classes]), max_size=3).map(tuple),
)
STREAMS = ["u:7", "*", "r:lobby", "r:news-1", "r:ticker-1", "r:price-1"]


@given(RULES, RULES)
def test_no_stream_becomes_live_only_or_durable_while_it_is_served(old: Retention, new: Retention) -> None:
    changes = compare(replace(made(), retention=old), replace(made(), retention=new))
    found = changes.topology.retention
    for stream in STREAMS:
        assert found.rule(stream).is_live_only == old.rule(stream).is_live_only
    assert found == (new if changes.taken or old == new else old)
    assert bool(changes.taken or changes.waiting) == (old != new)


@pytest.mark.parametrize(
    ("old", "new", "is_taken"),
    [
        ("none", "kept", True),
        ("kept", "none", True),
        ("none", "live", False),
        ("live", "other live", False),
    ],
)
def test_classes_of_rooms(old: str, new: str, is_taken: bool) -> None:
    before, after = (replace(made(), retention=Retention(classes=CLASSES[name])) for name in (old, new))
    changes = compare(before, after)
    assert (changes.topology.retention == after.retention) == is_taken
    assert bool(changes.waiting) != is_taken


@pytest.mark.parametrize(
    ("kind", "listener", "more"),
    [
        ("logic", {"http": "0.0.0.0:7172"}, {"api_key": [API_KEY]}),
        ("logic", {"publish": "tcp://0.0.0.0:7176"}, {"api_key": [API_KEY]}),
        ("comet", {"tcp": "0.0.0.0:8080"}, {"issuer": [JWKS]}),
        ("comet", {"ws": ["127.0.0.1:8090", "0.0.0.0:8091"]}, {"issuer": [JWKS]}),
        ("fabric", {"admin": "0.0.0.0:7000"}, {"api_key": [API_KEY]}),
        ("job", {"admin": "0.0.0.0:7001"}, {"api_key": [API_KEY]}),
    ],
)
def test_nothing_that_knew_who_comes_is_left_open_until_the_restart(
    kind: str, listener: dict[str, Any], more: dict[str, Any]
) -> None:
    """Both files are right: the new one moves to loopback, where everybody may come. But it waits for that."""
    old, new = made({kind: listener}, **more), made()
    with pytest.raises(TopologyError) as caught:
        compare(old, new)
    [(key, _)] = listener.items()
    assert f".{key}: " in str(caught.value)
    assert "stays until a restart, and " in str(caught.value)
    assert compare(new, old).topology.identity == old.identity


def test_a_topology_is_handed_on_as_it_is() -> None:
    whole = made(api_key=[API_KEY], issuer=[JWKS], retention={"users": {"count": 7}})
    assert unpack(pack(whole)) == whole


@pytest.mark.parametrize("data", [b"", b"\x80", pickle.dumps("a topology"), pack(made())[:-9]])
def test_what_is_no_topology_is_not_taken_for_one(data: bytes) -> None:
    with pytest.raises(TopologyError, match="what zim up says of the topology"):
        unpack(data)


def test_certificates_and_proxies_are_taken_over() -> None:
    """By who listens already: how a connection begins is looked at when it comes."""
    tls = {"tls": {"certificate": "c.pem", "key": "k.pem"}}
    ws = {"address": "127.0.0.1:8090", "insecure": True, "proxies": ["127.0.0.1"], "proxy_protocol": True}
    new = made({"comet": {"tcp": {"address": "127.0.0.1:8080"} | tls, "ws": ws}})
    changes = compare(made(), new)
    assert (changes.taken, changes.waiting) == (("comet-1.tcp", "comet-1.ws"), ())
    assert changes.topology.comets == new.comets
