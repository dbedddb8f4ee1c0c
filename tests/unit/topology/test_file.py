"""topology.toml: what is read, and that each error names its key and what would be right."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.errors import TopologyError
from zim.fabric.retention import Retention, Rule
from zim.topology import Comet, Job, ListenAddress, Logic, Router, Topology, load, parse
from zim.topology.file import resolve_folder
from zim.topology.nodes import CertificatePair

ROOT = Path(__file__).parents[3]
PATH = Path("/srv/zim/topology.toml")

Tables = dict[str, Any]


def small() -> Tables:
    """One of each kind, as plain values."""
    return {
        "fabric": {"name": "demo", "data_dir": "var"},
        "router": [{"id": 1, "bind": "tcp://127.0.0.1:7270"}],
        "logic": [{"id": 1, "http": "127.0.0.1:7172", "bind": "tcp://127.0.0.1:7170"}],
        "job": [{"id": 1, "bind": "tcp://127.0.0.1:7470"}],
        "comet": [{"id": 1, "tcp": "127.0.0.1:8080", "ws": "127.0.0.1:8090", "bind": "tcp://127.0.0.1:8092"}],
    }


def to_toml(value: Any) -> str:
    """Any TOML-shaped value, on one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {to_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else str(value)


def text_of(tables: Tables) -> str:
    return "\n".join(f"{json.dumps(key)} = {to_toml(value)}" for key, value in tables.items())


def problems_of(tables: Tables) -> list[str]:
    with pytest.raises(TopologyError) as caught:
        parse(text_of(tables), PATH)
    return caught.value.problems


def put(tables: Tables, dotted: str, value: Any) -> Tables:
    """Sets `comet[0].tcp`."""
    *parts, last = dotted.replace("[0]", ".0").split(".")
    at: Any = tables
    for part in parts:
        at = at[int(part)] if part.isdigit() else at.setdefault(part, {})
    at[last] = value
    return tables


def test_a_folder_of_the_users_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    text = '[fabric]\nname = "demo"\ndata_dir = "{}"\n[[router]]\nid = 1\nbind = "tcp://127.0.0.1:7270"\n'
    with pytest.raises(TopologyError) as failed:
        parse(text.format("~nobody-of-that-name/var"), Path("/srv/topology.toml"))
    assert "fabric.data_dir: ~nobody-of-that-name/var: there is no such user" in str(failed.value)
    assert resolve_folder("~/zim", Path("/srv")) == Path("/home/somebody/zim")
    assert resolve_folder("var", Path("/srv")) == Path("/srv/var")


def test_shipped_file() -> None:
    topology = load(ROOT / "topology.toml")
    assert [node.name for node in topology.nodes] == ["router-1", "job-1", "logic-1", "comet-1"]
    assert topology.data_dir == ROOT / "var"
    assert topology.path == ROOT / "topology.toml"
    assert topology.logics[0].http[0].host_port == ("127.0.0.1", 7172)


def test_example_with_two_of_each() -> None:
    topology = load(ROOT / "examples" / "two-of-each.toml")
    assert (len(topology.routers), len(topology.logics), len(topology.jobs), len(topology.comets)) == (2, 2, 2, 3)


def test_all_keys() -> None:
    tables = small()
    tables["fabric"] |= {"max_body_bytes": 1000, "idempotency_s": 60, "receipts_s": 1.5}
    tables["router"][0] |= {"host": "a", "max_behind_bytes": 5, "keep_s": 2, "keep_bytes": 7, "ballast_bytes": 0}
    tables["job"][0] |= {"host": "a", "queue_bytes": 9, "admin": "127.0.0.1:7271"}
    tables["logic"][0] |= {"host": "a", "http_timeout_s": 1.5, "http": {"address": "0.0.0.0:80", "insecure": True}}
    tables["comet"][0] |= {"host": "b", "advertise": "tcp://comet.example:8092", "max_connections": 10}
    tables["comet"][0] |= {"max_packet_bytes": 100, "handshake_timeout_s": 9, "heartbeat_s": 3, "keepalive_s": 0}
    tables["comet"][0] |= {"outbox_bytes": 1, "slow_consumer": "drop"}
    del tables["comet"][0]["ws"]
    assert parse(text_of(tables), PATH) == Topology(
        name="demo",
        data_dir=Path("/srv/zim/var"),
        max_body_bytes=1000,
        idempotency_s=60.0,
        receipts_s=1.5,
        path=PATH,
        routers=(Router(1, ListenAddress("tcp://127.0.0.1:7270"), "a", "", 5, 2.0, 7, 0),),
        jobs=(Job(1, ListenAddress("tcp://127.0.0.1:7470"), "a", "", 9, admin=(ListenAddress("127.0.0.1:7271"),)),),
        logics=(
            Logic(
                1,
                ListenAddress("tcp://127.0.0.1:7170"),
                "a",
                http=(ListenAddress("0.0.0.0:80", True),),
                http_timeout_s=1.5,
            ),
        ),
        comets=(
            Comet(
                1,
                ListenAddress("tcp://127.0.0.1:8092"),
                "b",
                "tcp://comet.example:8092",
                tcp=(ListenAddress("127.0.0.1:8080"),),
                max_connections=10,
                max_packet_bytes=100,
                handshake_timeout_s=9.0,
                heartbeat_s=3.0,
                keepalive_s=0,
                outbox_bytes=1,
                slow_consumer="drop",
            ),
        ),
    )


@pytest.mark.parametrize("address", ["tcp://127.9.9.9:1", "tcp://[::1]:1", "tcp://localhost:1", "ipc:///run/zim/r"])
def test_local_links(address: str) -> None:
    assert parse(text_of(put(small(), "router[0].bind", address)), PATH).routers[0].endpoint == address


# key, value, what the sentence must say
AT = {"address": "127.0.0.1:80"}
PAIR = {"certificate": "c.pem", "key": "k.pem"}

WRONG: list[tuple[str, Any, str]] = [
    ("fabric.nam", "x", "did you mean name? There are name, data_dir, max_body_bytes"),
    ("fabric.name", "", "a name for people"),
    ("fabric.data_dir", 7, 'such as "var"'),
    ("fabric.data_dir", "a\x00b", 'such as "var"'),
    ("fabric.max_body_bytes", (16 << 20) + 1, "from 1 to 16777216"),
    ("fabric.idempotency_s", 9, "from 10 to 2.592e+06"),
    ("fabric.idempotency_s", "1 day", "a number of seconds"),
    ("fabric.receipts_s", 0.5, "from 1 to 2.592e+06"),
    ("retention", 5, "a table with users, rooms, everybody"),
    ("retention.user", {}, "did you mean users? There are users, rooms, everybody"),
    ("retention.users", 1000, "a table, { count = 1000, age_s = 86400 }"),
    ("retention.rooms.counts", 1, "did you mean count? There are count, age_s"),
    ("retention.rooms.count", -1, "from 0 to 1000000000"),
    ("retention.rooms.count", 1.5, "a whole number"),
    ("retention.everybody.age_s", -1, "a number of seconds from 0"),
    ("room_class", {"name": "x"}, "right is [[room_class]]"),
    ("comets", [], "did you mean comet?"),
    ("router", {"id": 1}, "right is [[router]]"),
    ("router", 5, "each written [[router]]"),
    ("router[0].zzz", 1, "is not a key; there are id, bind, host"),
    ("router[0].id", 0, "from 1 to"),
    ("router[0].id", -1, "from 1 to"),
    ("router[0].id", True, "is true; right is a whole number"),
    ("router[0].id", 1.0, "a whole number"),
    ("router[0].id", 10**4000, "very many digits"),
    ("router[0].bind", 5, '"tcp://127.0.0.1:7270"'),
    ("router[0].bind", "127.0.0.1:7", 'has no scheme; right would be "tcp://127.0.0.1:7"'),
    ("router[0].bind", "udp://127.0.0.1:7", 'the unknown scheme "udp"'),
    ("router[0].bind", "router", "is not a link"),
    ("router[0].bind", "tcp://*:7", "0.0.0.0:7"),
    ("router[0].bind", "ipc://relative", "no absolute path"),
    ("router[0].bind", "ipc:///" + "x" * 200, "at most 103"),
    ("router[0].bind", "tcp://10.0.0.1:7", "links between nodes are not encrypted"),
    ("router[0].advertise", "tcp://0.0.0.0:7", "every address"),
    ("router[0].advertise", "10.0.0.1:7", "no scheme"),
    ("router[0].advertise", 1, "what other nodes connect to"),
    ("router[0].host", "", "the name of a machine"),
    ("router[0].max_behind_bytes", 0, "from 1"),
    ("router[0].keep_s", "10", "number of seconds"),
    ("router[0].keep_s", 0, "from 0.001"),
    ("router[0].keep_bytes", -1, "from 1"),
    ("router[0].ballast_bytes", -1, "from 0"),
    ("router[0].admin", "0.0.0.0:7271", "it tells everybody who reaches it how the node fares"),
    ("router[0].admin", "0.0.0.0:7271", 'admin = { address = "0.0.0.0:7271", insecure = true }'),
    ("router[0].admin", "tcp://127.0.0.1:7271", "host and port alone"),
    ("router[0].admin", 7271, '"127.0.0.1:7271"'),
    ("comet[0].admin", "127.0.0.1:8080", "comet[0].tcp: takes port 8080 as comet[0].admin does"),
    ("comet[0].admin", "127.0.0.1:7172", "comet[0].admin: takes port 7172 as logic[0].http does"),
    ("job[0].queue_bytes", -1, "from 1"),
    ("logic[0].http", "http://127.0.0.1:7", "host and port alone"),
    ("logic[0].http", "0.0.0.0:80", "the HTTP API believes everybody who reaches it"),
    ("logic[0].http", "0.0.0.0:80", 'http = { address = "0.0.0.0:80", insecure = true }'),
    ("logic[0].http", {"address": "0.0.0.0:80", "insecure": False}, "insecure = true"),
    ("logic[0].http_timeout_s", float("inf"), "number of seconds"),
    ("logic[0].http_timeout_s", float("nan"), "number of seconds"),
    ("comet[0].tcp", "127.0.0.1", "has no port"),
    ("comet[0].tcp", "127.0.0.1:", "from 1 to 65535"),
    ("comet[0].tcp", "127.0.0.1:0", "another one at each start"),
    ("comet[0].tcp", "127.0.0.1:65536", "1 to 65535"),
    ("comet[0].tcp", "127.0.0.1:٣", "1 to 65535"),
    ("comet[0].tcp", "256.0.0.1:80", "not an IPv4 address"),
    ("comet[0].tcp", "::1:80", "in brackets"),
    ("comet[0].tcp", "[::g]:80", "not an IPv6 address"),
    ("comet[0].tcp", "a b:80", "neither an address nor a host name"),
    ("comet[0].tcp", ":80", "has no host"),
    ("comet[0].tcp", "example.com:80", "the token handler believes everybody"),
    ("comet[0].ws", "[::]:80", "the token handler believes everybody"),
    ("comet[0].tcp", {}, "comet[0].tcp.address: is missing"),
    ("comet[0].tcp", {"address": 5}, "comet[0].tcp.address: is 5"),
    ("comet[0].tcp", {"address": "127.0.0.1:80", "insecur": True}, "comet[0].tcp.insecur: is not a key; did you mean"),
    ("comet[0].tcp", {"address": "127.0.0.1:80", "insecure": 1}, "comet[0].tcp.insecure: is 1; right is true or false"),
    ("comet[0].tcp", "127.0.0.1:8090", "comet[0].ws: takes port 8090 as comet[0].tcp does"),
    ("comet[0].tcp", "localhost:7270", "comet[0].tcp: takes port 7270 as router[0].bind does"),
    ("comet[0].tcp", {"address": "0.0.0.0:7270", "insecure": True}, "takes port 7270 as router[0].bind does"),
    ("comet[0].tcp", {"address": "[::]:7270", "insecure": True}, "takes port 7270 as router[0].bind does"),
    ("comet[0].tcp", 5, '{ address = "127.0.0.1:8080", insecure = true }, or an array of these'),
    ("comet[0].tcp", [], "comet[0].tcp: is an empty array; right is at least one address in it, or none and no tcp"),
    ("comet[0].tcp", [["127.0.0.1:80"]], 'comet[0].tcp[0]: is an array; right is "127.0.0.1:8080", or {'),
    ("comet[0].tcp", ["127.0.0.1:80", 5], 'comet[0].tcp[1]: is 5; right is "127.0.0.1:8080", or {'),
    ("comet[0].tcp", ["127.0.0.1:80", ""], 'comet[0].tcp[1]: is ""; right is'),
    ("comet[0].tcp", ["127.0.0.1:80", "127.0.0.1"], 'comet[0].tcp[1]: "127.0.0.1" has no port'),
    ("comet[0].tcp", ["127.0.0.1:80", "127.0.0.1:80"], "comet[0].tcp[1]: takes port 80 as comet[0].tcp[0] does"),
    ("comet[0].tcp", ["127.0.0.1:80", "localhost:7270"], "comet[0].tcp[1]: takes port 7270 as router[0].bind does"),
    ("comet[0].tcp", ["0.0.0.0:80"], "comet[0].tcp[0]: 0.0.0.0:80 can be reached from other machines"),
    ("comet[0].tcp", ["0.0.0.0:80"], 'answer for it: { address = "0.0.0.0:80", insecure = true }'),
    ("comet[0].tcp", [{"insecure": True}], "comet[0].tcp[0].address: is missing"),
    ("comet[0].tcp", [{"address": "127.0.0.1:80", "hosts": []}], "comet[0].tcp[0].hosts: is not a key"),
    ("comet[0].ws", [{"address": "127.0.0.1:80", "ws_frames": "both"}], 'comet[0].ws[0].ws_frames: is "both"; right'),
    (
        "comet[0].ws",
        {"address": "127.0.0.1:80", "origins": ["*", "App.example.com"]},
        'comet[0].ws.origins[1]: "app.example.com" has no scheme, so no page comes from there; right is "https://app.ex',
    ),
    (
        "comet[0].ws",
        [{"address": "127.0.0.1:80", "hosts": ["push.example.com:80"]}],
        'comet[0].ws[0].hosts[0]: "push.example.com:80" has a port, so no request names it; right is',
    ),
    (
        "comet[0].ws",
        AT | {"tls": "c.pem"},
        'comet[0].ws.tls: is "c.pem"; right is { certificate = "certificate.pem", key',
    ),
    ("comet[0].ws", AT | {"tls": []}, "comet[0].ws.tls: is an empty array; right is"),
    (
        "comet[0].ws",
        AT | {"tls": {"certificate": "c.pem"}},
        "comet[0].ws.tls.key: is missing; right is a file, such as",
    ),
    (
        "comet[0].ws",
        AT | {"tls": [PAIR, {"key": "k", "cert": "c", "certificate": "c"}]},
        "comet[0].ws.tls[1].cert: is not",
    ),
    ("comet[0].ws", AT | {"tls": PAIR | {"key": 5}}, "comet[0].ws.tls.key: is 5; right is a file"),
    ("comet[0].ws", AT | {"proxies": "10.0.0.7"}, "comet[0].ws.proxies: is"),
    (
        "comet[0].ws",
        AT | {"proxies": ["proxy.example.com"]},
        "comet[0].ws.proxies[0]: 'proxy.example.com' is no address",
    ),
    ("comet[0].ws", AT | {"proxies": ["0.0.0.0/0"]}, "is everybody"),
    ("comet[0].ws", AT | {"client_header": "Cookie"}, 'client_header: is "Cookie"; right is the name of a header'),
    ("comet[0].tcp", AT | {"client_header": "Forwarded"}, "comet[0].tcp.client_header: is not a key"),
    ("comet[0].tcp", AT | {"proxy_protocol": 2}, "comet[0].tcp.proxy_protocol: is 2; right is true or false"),
    ("comet[0].tcp", AT | {"proxies": ["10.0.0.7"], "insecure": True}, "right is proxy_protocol = true beside them"),
    (
        "comet[0].tcp",
        AT | {"proxy_protocol": True},
        "127.0.0.1:80 can be reached through a proxy, and the token handler",
    ),
    ("logic[0].http", AT | {"proxies": ["10.0.0.7"]}, "127.0.0.1:80 can be reached through a proxy, and the HTTP API"),
    (
        "comet[0].tcp",
        {"address": "0.0.0.0:80", "insecure": True, "proxy_protocol": True},
        "comet[0].tcp.proxy_protocol: is believed from anywhere; right is proxies on this listener",
    ),
    ("router[0].bind", {"address": "tcp://127.0.0.1:7270", "tls": PAIR}, "router[0].bind.tls: is not a key"),
    ("comet[0].ws", {"address": "127.0.0.1:80", "origins": "*"}, 'comet[0].ws.origins: is "*"; right is an array of'),
    ("logic[0].http", ["127.0.0.1:80", "http://x"], "logic[0].http[1]:"),
    ("router[0].admin", ["127.0.0.1:80", "127.0.0.1:7270"], "router[0].admin[1]: takes port 7270 as"),
    ("fabric.admin", ["127.0.0.1:80", "127.0.0.1:7270"], "fabric.admin[1]: takes port 7270 as router[0].bind does"),
    ("fabric.admin", ["127.0.0.1:80", "[::]:81"], "fabric.admin[1]: [::]:81 can be reached"),
    ("fabric.admin", ["127.0.0.1:80", "localhost:80"], "fabric.admin[1]: takes port 80 as fabric.admin[0] does"),
    ("router[0].bind", ["tcp://127.0.0.1:7270"], "router[0].bind: is an array; right is"),
    ("comet[0].max_connections", 0, "from 1"),
    ("comet[0].max_packet_bytes", 15, "from 16"),
    ("comet[0].handshake_timeout_s", -1, "number of seconds"),
    ("comet[0].heartbeat_s", 0, "number of seconds"),
    ("comet[0].keepalive_s", -1, "from 0"),
    ("comet[0].outbox_bytes", 0, "from 1"),
    ("comet[0].slow_consumer", "wait", '"close" or "drop"'),
    ("comet[0].slow_consumer", ["close"], '"close" or "drop"'),
]


@pytest.mark.parametrize(("key", "value", "says"), WRONG, ids=lambda v: str(v)[:30])
def test_each_problem_names_its_key(key: str, value: Any, says: str) -> None:
    (problem,) = problems_of(put(small(), key, value))
    assert key.partition(".")[0] in problem
    assert says in problem
    if not says.startswith(("comet[0].ws", "comet[0].tcp: takes port 8080")):
        assert problem.startswith(key)


# keys of the one room class, what the sentence must say
WRONG_CLASSES: list[tuple[Tables, str]] = [
    ({"rooms": ["t-*"]}, 'room_class[0].name: is missing; right is "ticker"'),
    ({"name": "t"}, 'room_class[0].rooms: is missing; right is an array of patterns, such as ["ticker-*"]'),
    ({"name": "", "rooms": ["t-*"]}, "room_class[0].name: is"),
    ({"name": "t", "rooms": "t-*"}, 'room_class[0].rooms: is "t-*"; right is an array of patterns'),
    ({"name": "t", "rooms": []}, "room_class[0].rooms: is an empty array"),
    ({"name": "t", "rooms": [1]}, "room_class[0].rooms: is an array; right is"),
    ({"name": "t", "rooms": ["t-*"], "counts": 1}, "room_class[0].counts: is not a key; did you mean count?"),
    ({"name": "t", "rooms": ["t-*"], "count": -1}, "room_class[0].count: is -1; right is"),
]


@pytest.mark.parametrize(("values", "says"), WRONG_CLASSES, ids=lambda v: str(v)[:40])
def test_each_problem_of_a_room_class_names_its_key(values: Tables, says: str) -> None:
    (problem,) = problems_of({**small(), "room_class": [values]})
    assert problem.startswith(says)


def test_retention_by_default() -> None:
    kept = parse(text_of(small()), PATH).retention
    assert kept == Retention()
    assert [kept.rule(stream).count for stream in ("u:7", "r:1", "*")] == [10_000, 100_000, 100_000]
    assert not any(kept.rule(stream).is_live_only for stream in ("u:7", "r:1", "*"))


def test_retention() -> None:
    tables = small()
    tables["retention"] = {"users": {"count": 5}, "everybody": {"age_s": 0}}
    tables["room_class"] = [
        {"name": "ticker", "rooms": ["ticker-*", "price"], "count": 0},
        {"name": "all else of it", "rooms": ["tick*"], "count": 7, "age_s": 60},
    ]
    kept = parse(text_of(tables), PATH).retention
    assert kept.users == Rule(5, Retention.users.age_s)
    assert kept.rooms == Retention.rooms
    assert kept.everybody == Rule(Retention.everybody.count, 0.0)
    assert kept.everybody.is_live_only
    assert kept.rule("r:ticker-1") == kept.rule("r:price") == Rule(0, Retention.rooms.age_s)
    assert kept.rule("r:ticker-1").is_live_only
    assert kept.rule("r:tickers") == Rule(7, 60.0)
    assert kept.rule("r:Ticker-1") == kept.rooms
    assert kept.rule("u:ticker-1") == kept.users
    assert kept.rule("*") == kept.everybody


@pytest.mark.parametrize("key", ["fabric", "router", "logic", "job", "comet"])
def test_missing_table(key: str) -> None:
    tables = small()
    del tables[key]
    (problem,) = problems_of(tables)
    assert problem.startswith(f"{key}: is missing; right is")


@pytest.mark.parametrize("key", ["router.id", "router.bind", "logic.http", "job.bind", "comet.bind"])
def test_missing_key(key: str) -> None:
    tables = small()
    kind, _, name = key.partition(".")
    del tables[kind][0][name]
    (problem,) = problems_of(tables)
    assert problem.startswith(f"{kind}[0].{name}: is missing; right is")


def test_comet_without_entrance() -> None:
    tables = small()
    del tables["comet"][0]["tcp"], tables["comet"][0]["ws"]
    (problem,) = problems_of(tables)
    assert problem.startswith("comet[0]: has neither tcp nor ws")


def test_several_listeners_of_one_key() -> None:
    second = {"address": "0.0.0.0:81", "insecure": True, "origins": ["*"], "ws_frames": "object"}
    tables = put(put(small(), "comet[0].ws", ["127.0.0.1:80", second]), "fabric.admin", ["127.0.0.1:1", "127.0.0.1:2"])
    topology = parse(text_of(tables), PATH)
    one, two = topology.comets[0].ws
    assert (one, two) == (ListenAddress("127.0.0.1:80"), ListenAddress("0.0.0.0:81", True, ("*",), (), "object"))
    assert [at.address for at in topology.admin] == ["127.0.0.1:1", "127.0.0.1:2"]
    tables["comet"][0]["ws"].append("127.0.0.1:x")
    tables["comet"][0]["ws"].append("127.0.0.1:y")
    assert [p.partition(":")[0] for p in problems_of(tables)] == ["comet[0].ws[2]", "comet[0].ws[3]"]


def test_tls_and_proxies() -> None:
    tables = put(
        small(), "comet[0].ws", AT | {"tls": PAIR, "proxies": ["10.0.0.9/8", "::ffff:192.0.2.1"], "insecure": True}
    )
    put(tables, "comet[0].tcp", [AT | {"address": "127.0.0.1:81", "tls": [PAIR, {"certificate": "d", "key": "e"}]}])
    comet = parse(text_of(tables), PATH).comets[0]
    assert comet.ws[0].tls == (CertificatePair("c.pem", "k.pem"),)
    assert comet.ws[0].proxies == ("10.0.0.0/8", "192.0.2.1/32")
    assert comet.tcp[0].tls == (CertificatePair("c.pem", "k.pem"), CertificatePair("d", "e"))
    assert list(comet.listeners) == ["tcp", "ws"]


def test_id_twice() -> None:
    tables = small()
    tables["job"].append({"id": 1, "bind": "tcp://127.0.0.1:1"})
    assert problems_of(tables) == ["job[1].id: 1 is the id of job[0] already; right is another one"]


def test_same_path_twice() -> None:
    tables = put(put(small(), "job[0].bind", "ipc:///run/x"), "router[0].bind", "ipc:///run/x")
    assert problems_of(tables) == ["job[0].bind: takes /run/x as router[0].bind does; right is another one"]


def on_two_hosts() -> Tables:
    tables = small()
    for kind, host in (("router", "a"), ("logic", "a"), ("job", "b"), ("comet", "b")):
        tables[kind][0]["host"] = host
    return tables


def test_same_port_on_another_host() -> None:
    tables = put(on_two_hosts(), "comet[0].tcp", "127.0.0.1:7270")
    assert parse(text_of(tables), PATH).comets[0].tcp == (ListenAddress("127.0.0.1:7270"),)


def test_wildcard_needs_advertise_where_others_connect() -> None:
    tables = put(on_two_hosts(), "router[0].bind", {"address": "tcp://0.0.0.0:7270", "insecure": True})
    (problem,) = problems_of(tables)
    assert problem.startswith("router[0].advertise: is missing; nodes on b cannot connect")
    tables["router"][0]["advertise"] = "tcp://10.0.0.1:7270"
    assert parse(text_of(tables), PATH).routers[0].endpoint == "tcp://10.0.0.1:7270"


def test_no_two_nodes_are_at_one_address() -> None:
    tables = put(on_two_hosts(), "job[0].advertise", "tcp://10.0.0.1:7270")
    tables["router"][0]["advertise"] = "tcp://10.0.0.1:7270"
    (problem,) = problems_of(tables)
    assert problem == (
        'job[0].advertise: "tcp://10.0.0.1:7270" is router[0].advertise already; right is where this node is reached'
    )


def test_wildcard_on_the_only_host() -> None:
    tables = put(small(), "router[0].bind", {"address": "tcp://0.0.0.0:7270", "insecure": True})
    assert parse(text_of(tables), PATH).routers[0].endpoint == "tcp://0.0.0.0:7270"


def test_host_of_some_nodes_only() -> None:
    tables = on_two_hosts()
    del tables["job"][0]["host"]
    (problem,) = problems_of(tables)
    assert problem.startswith("job[0].host: is missing")


def test_every_problem_is_listed() -> None:
    tables = put(put(put(small(), "router[0].id", 0), "comet[0].tcp", "x"), "fabric.nme", 1)
    assert [p.partition(":")[0] for p in problems_of(tables)] == ["fabric.nme", "router[0].id", "comet[0].tcp"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[fabric]\nname = ", "topology.toml"),
        ("[fabric]\nname = demo", ", line 2, column 8: is not TOML"),
        ("a = '''", ", at its end: is not TOML"),
        ("a = " + "[" * 10_000, "nested too deeply"),
        ("a = " + "9" * 10_000, "thousands of digits"),
    ],
)
def test_not_toml(text: str, says: str) -> None:
    with pytest.raises(TopologyError) as caught:
        parse(text, PATH)
    (problem,) = caught.value.problems
    assert problem.startswith(str(PATH))
    assert says in problem


def test_load_says_why_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    (tmp_path / "loop.toml").symlink_to(tmp_path / "loop.toml")
    for name, says in [
        ("none.toml", "there is no such file"),
        (".", "is a directory"),
        ("latin.toml", "is not UTF-8 from byte 8 on"),
        ("loop.toml", "cannot be read"),
        ("nul\0.toml", "cannot be read"),
    ]:
        with pytest.raises(TopologyError, match=says):
            load(tmp_path / name)


def only_topology_errors(text: str) -> None:
    problems = ["none"]
    try:
        parse(text, PATH)
    except TopologyError as error:
        problems = error.problems
    assert problems
    assert all(problem and "\n" not in problem for problem in problems)


CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\x7f")
KEYS = st.text(CHARACTERS, max_size=8)
VALUES = st.recursive(
    st.one_of(
        st.text(CHARACTERS, max_size=20),
        st.integers(),
        st.floats(),
        st.booleans(),
        st.dates(min_value=date(1, 1, 1)),
        st.sampled_from(["tcp://127.0.0.1:1", "127.0.0.1:1", "ipc:///x", "tcp://[::%1]:1", "[::1%]:5"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
NODE_KEYS = {kind: [f.name for f in fields(cls)] for kind, cls in (("logic", Logic), ("comet", Comet))}


@given(st.text())
def test_any_text(text: str) -> None:
    only_topology_errors(text)


TABLES = ["fabric", "router", "logic", "job", "comet", "retention", "room_class"]


@given(st.dictionaries(st.sampled_from(TABLES) | KEYS, VALUES, max_size=6))
def test_any_tables(tables: Tables) -> None:
    only_topology_errors(text_of(tables))


@given(
    st.sampled_from(sorted(NODE_KEYS)).flatmap(lambda k: st.tuples(st.just(k), st.sampled_from(NODE_KEYS[k]))), VALUES
)
def test_any_value(key: tuple[str, str], value: Any) -> None:
    kind, name = key
    only_topology_errors(text_of(put(small(), f"{kind}[0].{name}", value)))
