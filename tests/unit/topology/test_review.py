"""What a review says of a topology: nothing of a good one, and of each thing that is wrong with it just that."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.unit.topology.test_file import Tables, put, small, text_of
from zim.cli.check import findings_text
from zim.fabric.principals import SCOPES
from zim.topology import Topology, parse
from zim.topology.review import Finding, Machine, named_files, review

PATH = Path("/srv/zim/topology.toml")
HASH = [sha256(name.encode()).hexdigest() for name in "ab"]
HS = {"issuer": "https://a.example.com", "audience": "zim", "algorithms": ["HS256"], "secret_file": "jwt"}
KEY = {"issuer": "https://a.example.com", "audience": "zim", "algorithms": ["EdDSA"], "public_key_file": "a.pem"}
ORDERS = {"id": "orders", "sha256": HASH[0], "scopes": {"push": ["u:*"]}}
CHAT = {"id": "chat", "sha256": HASH[1], "scopes": ["push", "count"]}
WS = {"address": "127.0.0.1:8090", "origins": ["https://app.example.com"]}
FAR_WS = WS | {"address": "0.0.0.0:8090"}
RATE = {"per_s": 1_000_000, "burst": 1_000_000}
LIMITED = ("connects_per_address", "packets_per_connection", "logins_per_user", "pushes_per_key", "pushes_per_stream")
LIMITS = dict.fromkeys(LIMITED, RATE)


def good() -> Tables:
    """Nothing is wrong with it. No client comes from elsewhere but by TCP over loopback."""
    tables = small() | {"issuer": [dict(KEY)], "api_key": [dict(ORDERS), dict(CHAT)], "sessions": {"per_user": 20}}
    tables["limits"] = dict(LIMITS)
    tables["comet"][0]["max_memory_bytes"] = 1 << 30
    tables["router"].append({"id": 2, "bind": "tcp://127.0.0.1:7271"})
    del tables["comet"][0]["ws"]
    return tables


def topology(tables: Tables) -> Topology:
    return parse(text_of(tables), PATH)


def found(tables: Tables, machine: Machine | None = None) -> list[tuple[str, str]]:
    return [(one.severity, one.key) for one in review(topology(tables), machine or Machine())]


def changed(changes: dict[str, Any]) -> Tables:
    """The good one, with other values; None takes a key out."""
    tables = deepcopy(good())
    for key, value in changes.items():
        if value is None:
            del tables[key]
        elif "." in key:
            put(tables, key, value)
        else:
            tables[key] = value
    return tables


def test_nothing_is_said_of_a_good_one() -> None:
    assert review(topology(good()), Machine()) == []
    assert findings_text([]).startswith("Nothing to say")


PAIR = {"certificate": "c.pem", "key": "k.pem"}
FAR = {"address": "0.0.0.0:8080"}
INSECURE = FAR | {"insecure": True}
ANONYMOUS_TCP = {"address": "127.0.0.1:8080", "anonymous": True}

WRONG: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "everybody is believed": ({"issuer": None}, [("error", "issuer")]),
    "and from elsewhere": (
        {"issuer": None, "comet[0].tcp": INSECURE},
        [("error", "issuer"), ("error", "comet[0].tcp")],
    ),
    "no API keys": ({"api_key": None}, [("error", "api_key")]),
    "an open API": (
        {"api_key": None, "logic[0].http": {"address": "0.0.0.0:80", "hosts": ["a.example"], "insecure": True}},
        [("error", "api_key"), ("error", "logic[0].http")],
    ),
    "open metrics": (
        {"api_key": None, "router[0].admin": {"address": "10.0.0.1:80", "insecure": True}},
        [("error", "api_key"), ("error", "router[0].admin")],
    ),
    "no limit of sessions": ({"sessions": None}, [("note", "sessions")]),
    "a limit of each device is one": ({"sessions": {"per_device": 1}}, []),
    "tokens in clear": ({"comet[0].tcp": FAR}, [("warning", "comet[0].tcp")]),
    "tokens in TLS": ({"comet[0].tcp": FAR | {"tls": PAIR}}, []),
    "tokens in clear from a proxy": (
        {"comet[0].tcp": FAR | {"proxies": ["10.0.0.7"], "proxy_protocol": True}},
        [("note", "comet[0].tcp")],
    ),
    "a proxy on this machine": ({"comet[0].tcp": "127.0.0.1:8080", "comet[0].ws": WS | {"proxies": ["::1"]}}, []),
    "everybody is believed behind a proxy": (
        {"issuer": None, "comet[0].ws": WS | {"proxies": ["::1"], "insecure": True}},
        [("error", "issuer"), ("error", "comet[0].ws")],
    ),
    "one of two listeners": (
        {"comet[0].tcp": ["127.0.0.1:8080", FAR | {"address": "0.0.0.0:8081"}]},
        [("warning", "comet[0].tcp[1]")],
    ),
    "API keys in clear": (
        {"logic[0].http": {"address": "0.0.0.0:80", "hosts": ["push.example.com"]}},
        [("warning", "logic[0].http")],
    ),
    "an API with any name": (
        {"logic[0].http": "0.0.0.0:80"},
        [("warning", "logic[0].http"), ("warning", "logic[0].http.hosts")],
    ),
    "an API for any page": (
        {"logic[0].http": {"address": "127.0.0.1:80", "origins": ["*"]}},
        [("warning", "logic[0].http.origins")],
    ),
    "metrics in clear": ({"job[0].admin": "10.0.0.1:80"}, [("warning", "job[0].admin")]),
    "those of zim up": ({"fabric.admin": "10.0.0.1:80"}, [("warning", "fabric.admin")]),
    "publishers in clear": ({"logic[0].publish": "tcp://10.0.0.1:80"}, [("error", "logic[0].publish")]),
    "publishers on loopback": ({"logic[0].publish": "tcp://127.0.0.1:80"}, []),
    "links in clear": (
        {"job[0].bind": {"address": "tcp://10.0.0.1:80", "insecure": True}},
        [("error", "job[0].bind")],
    ),
    "insecure without need": ({"comet[0].tcp": INSECURE}, [("warning", "comet[0].tcp")] * 2),
    "insecure on loopback": (
        {"logic[0].http": {"address": "127.0.0.1:80", "insecure": True}},
        [("warning", "logic[0].http")],
    ),
    "named pages": ({"comet[0].ws": WS}, []),
    "no pages": ({"comet[0].ws": "127.0.0.1:8090"}, [("warning", "comet[0].ws.origins")]),
    "pages of its own name": ({"comet[0].ws": {"address": "127.0.0.1:8090", "hosts": ["push.example.com"]}}, []),
    "all pages": (
        {"comet[0].ws": FAR_WS | {"origins": ["*"]}},
        [("warning", "comet[0].ws"), ("warning", "comet[0].ws.origins")],
    ),
    "no pages named beyond loopback": (
        {"comet[0].ws": "0.0.0.0:8090"},
        [("warning", "comet[0].ws"), ("warning", "comet[0].ws.origins")],
    ),
    "a cookie": ({"comet[0].ws": WS | {"cookie": "session"}}, [("note", "comet[0].ws.cookie")]),
    "anonymous people": (
        {"anonymous": {"rooms": ["lobby"]}, "comet[0].tcp": ANONYMOUS_TCP},
        [("note", "comet[0].tcp.anonymous")],
    ),
    "anonymous people everywhere": (
        {"anonymous": {"join": ["*"], "read": ["*"]}, "comet[0].tcp": ANONYMOUS_TCP},
        [("warning", "anonymous.join"), ("warning", "anonymous.read"), ("note", "comet[0].tcp.anonymous")],
    ),
    "anonymous people nowhere": ({"anonymous": {"join": ["*"]}}, [("note", "anonymous")]),
    "a key for all": ({"api_key": [CHAT, ORDERS | {"scopes": list(SCOPES)}]}, [("warning", "api_key[1].scopes")]),
    "all, but of some": (
        {"api_key": [CHAT, ORDERS | {"scopes": {scope: ["*"] for scope in SCOPES} | {"push": ["u:*"]}}]},
        [],
    ),
    "one key": ({"api_key": [CHAT | {"scopes": ["push", "count", "ban"]}]}, [("note", "api_key[0]")]),
    "one key for little": ({"api_key": [CHAT]}, []),
    "one key twice": ({"api_key": [CHAT, ORDERS | {"sha256": HASH}]}, [("error", "api_key[1].sha256")]),
    "a secret for both": ({"issuer": [HS]}, [("note", "issuer[0].algorithms")]),
    "much leeway": ({"issuer": [KEY | {"leeway_s": 300}]}, [("note", "issuer[0].leeway_s")]),
    "for ever": (
        {"retention": {"users": {"count": 1_000_000_000, "age_s": 315_000_000}}},
        [("warning", "retention.users")],
    ),
    "few for ever": ({"retention": {"users": {"count": 1, "age_s": 315_000_000}}}, []),
    "a class for ever": (
        {"room_class": [{"name": "a", "rooms": ["*"], "count": 1_000_000_000, "age_s": 315_000_000}]},
        [("warning", "room_class[0]")],
    ),
    "one router": ({"router": [{"id": 1, "bind": "tcp://127.0.0.1:7270"}]}, [("note", "router")]),
    "no limits, and nobody from elsewhere": ({"limits": None}, []),
    "no limits of clients": (
        {"comet[0].ws": WS, "limits": {"pushes_per_key": RATE, "pushes_per_stream": RATE}},
        [
            ("warning", "limits.connects_per_address"),
            ("warning", "limits.packets_per_connection"),
            ("note", "limits.logins_per_user"),
        ],
    ),
    "a network is enough, and bytes are": (
        {
            "comet[0].ws": WS,
            "limits": {"connects_per_network": RATE, "bytes_per_connection": RATE, "logins_per_user": RATE},
        },
        [],
    ),
    "memory without end": (
        {"comet[0].ws": WS, "comet[0].max_memory_bytes": 0},
        [("note", "comet[0].max_memory_bytes")],
    ),
    "no limits of backends": (
        {"logic[0].http": {"address": "127.0.0.1:80", "hosts": ["push.example.com"]}, "limits": {}},
        [("warning", "limits.pushes_per_key"), ("note", "limits.pushes_per_stream")],
    ),
    "each backend has its own": (
        {
            "logic[0].http": {"address": "127.0.0.1:80", "hosts": ["push.example.com"]},
            "limits": {"pushes_per_stream": RATE},
            "api_key": [ORDERS | {"pushes": RATE}, CHAT | {"pushes": RATE}],
        },
        [],
    ),
    "the application is asked": ({"issuer": None, "callout": {"connect": "https://app.example.com"}}, []),
}


@pytest.mark.parametrize(("changes", "expected"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said(changes: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert found(changed(changes)) == expected


FILES: list[tuple[str, int | None, list[tuple[str, str]]]] = [
    ("topology.toml", 0o644, []),
    ("topology.toml", 0o666, [("error", "topology")]),
    ("var", 0o750, []),
    ("var", 0o755, [("warning", "fabric.data_dir")]),
    ("var", 0o777, [("error", "fabric.data_dir")]),
    ("var", None, [("warning", "fabric.data_dir")]),
    ("jwt", 0o640, []),
    ("jwt", 0o644, [("error", "issuer[0].secret_file")]),
    ("jwt", 0o602, [("error", "issuer[0].secret_file")]),
    ("jwt", None, [("error", "issuer[0].secret_file")]),
    ("a.pem", 0o644, []),
    ("a.pem", 0o646, [("error", "issuer[1].public_key_file")]),
    ("a.pem", None, [("error", "issuer[1].public_key_file")]),
    ("ca.pem", 0o644, []),
    ("ca.pem", 0o646, [("error", "issuer[2].ca")]),
]


@pytest.mark.parametrize(("name", "mode", "expected"), FILES)
def test_files_that_others_may_use(name: str, mode: int | None, expected: list[tuple[str, str]]) -> None:
    jwks = {"issuer": "c", "audience": "zim", "algorithms": ["ES256"], "jwks": "https://c.example.com", "ca": "ca.pem"}
    tables = changed({"issuer": [HS, KEY | {"issuer": "https://b.example.com"}, jwks]})
    assert PATH.parent / name in named_files(topology(tables))
    noted = ("note", "issuer[0].algorithms")
    assert found(tables, Machine({PATH.parent / name: mode})) == [*expected, noted]


@pytest.mark.parametrize(
    ("clients", "expected"), [(None, []), (1000, []), (999, [("warning", "comet[0].max_connections")])]
)
def test_open_files(clients: int | None, expected: list[tuple[str, str]]) -> None:
    assert found(changed({"comet[0].max_connections": 1000}), Machine(clients=clients)) == expected


def test_the_lines_are_narrow_and_say_once_what_is_said_of_many() -> None:
    tables = small()
    tables["comet"] += [tables["comet"][0] | {"id": 2, "tcp": "127.0.0.1:81", "ws": "127.0.0.1:82", "bind": "ipc:///x"}]
    text = findings_text(review(topology(tables), Machine({PATH.parent / "var": 0o777}, 7)))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert "warning  comet[0].ws.origins, comet[1].ws.origins" in lines
    assert sum("no pages are named" in line for line in lines) == 1
    assert lines[-2] == "3 errors, 4 warnings, 2 notes."
    order = [line.split()[0] for line in lines if line[:1].isalpha()][:-2]
    assert order == sorted(order, key=("error", "warning", "note").index)


def test_a_path_stays_whole() -> None:
    path = "/" + "x" * 100
    assert f"\n         {path}\n" in findings_text([Finding("error", "key", path, "none")])


@pytest.mark.parametrize(("mode", "expected"), [(0o600, []), (0o644, ["error"]), (None, ["error"])])
def test_the_key_of_a_certificate(mode: int | None, expected: list[str]) -> None:
    tables = changed({"comet[0].tcp": FAR | {"tls": PAIR}, "logic[0].http": {"address": "127.0.0.1:1", "tls": PAIR}})
    assert PATH.parent / "k.pem" in named_files(topology(tables))
    machine = Machine({PATH.parent / "k.pem": mode})
    found_there = [one for one in review(topology(tables), machine) if one.key.endswith(".tls.key")]
    assert [one.severity for one in found_there] == expected


# ---------------------------------------------------------------- link keys

KEYED = {"links": {"keys": "link-keys"}}


def keyed(
    changes: dict[str, Any] | None = None, modes: dict[Path, int | None] | None = None, without: str = ""
) -> list[tuple[str, str, str]]:
    """What is said of a good one with link keys."""
    bare = topology(changed(KEYED | (changes or {})))
    public = {node.name: f"{i:064x}" for i, node in enumerate(bare.nodes, 10) if node.name != without}
    fabric = replace(bare, links=replace(bare.links, public=public))
    assert set(modes or {}) <= set(named_files(fabric))
    return [(one.severity, one.key, one.right) for one in review(fabric, Machine(modes or {}))]


SECRET, LISTED = Path("/srv/zim/link-keys/comet-1.secret"), Path("/srv/zim/link-keys/public.toml")


def test_links_with_keys_may_be_anywhere() -> None:
    assert keyed({"job[0].bind": "tcp://10.0.0.1:80", "logic[0].publish": "tcp://10.0.0.1:81"}) == []
    insecure = {"address": "tcp://10.0.0.1:80", "insecure": True}
    assert keyed({"job[0].bind": insecure}) == [("warning", "job[0].bind", '"tcp://10.0.0.1:80" without it')]


def test_a_node_without_a_key_is_said() -> None:
    assert [one[:2] for one in keyed(without="comet-1")] == [("error", "comet[0]")]


@pytest.mark.parametrize(
    ("file", "mode", "right"),
    [
        (SECRET, 0o600, ""),
        (SECRET, 0o640, ""),
        (SECRET, None, ""),  # on another machine
        (SECRET, 0o604, f"chmod 600 {SECRET}"),
        (SECRET, 0o602, f"chmod 600 {SECRET}"),
        (LISTED, 0o644, ""),
        (LISTED, 0o646, f"chmod o-w {LISTED}"),
        (LISTED.parent, 0o755, ""),
        (LISTED.parent, 0o757, f"chmod o-w {LISTED.parent}"),
    ],
)
def test_who_can_read_or_change_link_keys(file: Path, mode: int | None, right: str) -> None:
    assert keyed(modes={file: mode}) == ([("error", "links.keys", right)] if right else [])
