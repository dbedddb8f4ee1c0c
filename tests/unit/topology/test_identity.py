"""Who may come in, as the topology says it: what is read, what is refused, and that no secret is told in an error."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.topology.test_file import Tables, problems_of, small, text_of
from zim.errors import TopologyError
from zim.fabric.limits import PATTERN_BYTES, PATTERNS, ROOMS
from zim.fabric.principals import SCOPES, ApiKey
from zim.topology import ListenAddress, parse
from zim.topology.api_keys import MOST_KEYS
from zim.topology.identity import FAMILIES, Anonymous, Callout, Identity, Issuer, Secret

PATH = Path("/srv/zim/topology.toml")
ISSUER = {"issuer": "https://auth.example.com", "audience": "zim", "algorithms": ["RS256"]}
JWKS = {**ISSUER, "jwks": "https://auth.example.com/keys"}
HS = {**ISSUER, "algorithms": ["HS256"]}
HASH = sha256(b"zim_7").hexdigest()
API_KEY = {"id": "orders", "sha256": HASH, "scopes": ["push"]}
CALLOUT = {"connect": "https://app.example.com/zim/connect"}
PLANTED = "hunter2"


def with_tables(**tables: Any) -> Tables:
    return small() | tables


def identity_of(**tables: Any) -> Identity:
    return parse(text_of(with_tables(**tables)), PATH).identity


def problems(**tables: Any) -> list[str]:
    """They can be shown to anybody."""
    found = problems_of(with_tables(**tables))
    for problem in found:
        assert PLANTED not in problem
        assert problem.isprintable()
        assert len(problem) < 500
    return found


def without(table: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in keys}


# ---------------------------------------------------------------- what is read


def test_without_any_of_the_tables_everybody_is_believed() -> None:
    assert identity_of() == Identity()
    assert not identity_of().knows_clients
    assert not identity_of(api_key=[API_KEY]).knows_clients


def test_an_issuer_with_a_url() -> None:
    [issuer] = identity_of(issuer=[{**JWKS, "ca": "certs/ca.pem", "leeway_s": 0}]).issuers
    assert issuer == Issuer(
        "https://auth.example.com",
        ("zim",),
        ("RS256",),
        jwks="https://auth.example.com/keys",
        ca=Path("/srv/zim/certs/ca.pem"),
        leeway_s=0.0,
    )


def test_issuers_with_files_and_variables() -> None:
    one = {
        **HS,
        "secret_file": ["secrets/new", "/etc/old"],
        "audience": ["zim", "chat"],
        "algorithms": ["HS256", "HS512"],
    }
    two = {**HS, "issuer": "two", "secret_env": "ZIM_SECRET"}
    three = {**ISSUER, "issuer": "three", "public_key_file": "keys/auth.pem", "algorithms": ["PS256"]}
    found = identity_of(issuer=[one, two, three])
    assert found.issuers == (
        Issuer(
            "https://auth.example.com",
            ("zim", "chat"),
            ("HS256", "HS512"),
            secrets=(
                Secret("issuer[0].secret_file", Path("/srv/zim/secrets/new")),
                Secret("issuer[0].secret_file", Path("/etc/old")),
            ),
        ),
        Issuer("two", ("zim",), ("HS256",), secrets=(Secret("issuer[1].secret_env", variable="ZIM_SECRET"),)),
        Issuer(
            "three",
            ("zim",),
            ("PS256",),
            public_keys=(Secret("issuer[2].public_key_file", Path("/srv/zim/keys/auth.pem")),),
        ),
    )
    assert found.knows_clients


def test_a_file_in_the_users_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    [issuer] = identity_of(issuer=[{**HS, "secret_file": ["~/jwt", "~nobody-of-that-name/jwt"]}]).issuers
    assert [secret.file for secret in issuer.secrets] == [
        Path("/home/somebody/jwt"),
        Path("/srv/zim/~nobody-of-that-name/jwt"),
    ]


@pytest.mark.parametrize("algorithms", FAMILIES.values())
def test_all_algorithms_of_one_family(algorithms: tuple[str, ...]) -> None:
    way = {"secret_file": "jwt"} if algorithms[0].startswith("HS") else {"jwks": "https://auth.example.com/keys"}
    [issuer] = identity_of(issuer=[{**ISSUER, "algorithms": list(algorithms), **way}]).issuers
    assert issuer.algorithms == algorithms


def test_a_callout() -> None:
    table = {
        "connect": "https://app.example.com/zim/connect",
        "join": "http://127.0.0.1:8000/zim/join",
        "timeout_s": 0.5,
        "max_requests": 7,
        "ca": "ca.pem",
    }
    assert identity_of(callout=table).callout == Callout(
        "https://app.example.com/zim/connect", "http://127.0.0.1:8000/zim/join", 0.5, 7, Path("/srv/zim/ca.pem")
    )
    assert identity_of(callout=CALLOUT).callout == Callout("https://app.example.com/zim/connect")
    assert identity_of(callout=CALLOUT).knows_clients


def test_people_without_a_token() -> None:
    assert identity_of(anonymous={}).anonymous == Anonymous()
    assert identity_of(anonymous={}).knows_clients
    table = {"rooms": ["lobby"], "join": ["chat-*"], "read": ["r:news-*"]}
    assert identity_of(anonymous=table).anonymous == Anonymous(("lobby",), ("chat-*",), ("r:news-*",))


def test_api_keys() -> None:
    other = sha256(b"zim_8").hexdigest()
    found = identity_of(
        api_key=[
            {"id": "orders", "sha256": [HASH, other], "scopes": {"push": ["u:*", "r:orders-*"], "metrics": ["*"]}},
            {"id": "ops", "sha256": HASH[::-1], "scopes": list(SCOPES)},
        ]
    )
    assert found.api_keys == (
        ApiKey("orders", (HASH, other), {"push": ("u:*", "r:orders-*"), "metrics": ("*",)}),
        ApiKey("ops", (HASH[::-1],), dict.fromkeys(SCOPES, ("*",))),
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://app.example.com",
        "https://app.example.com:8443/a?b=c",
        "https://[2001:db8::1]/a",
        "http://127.0.0.1/a",
        "http://127.9.9.9:8000",
        "http://localhost:8000/a",
        "http://[::1]:8000/a",
        "HTTPS://app.example.com/a",
    ],
)
def test_urls_that_are_encrypted_or_stay_on_this_machine(url: str) -> None:
    found = identity_of(callout={"connect": url, "join": url}, issuer=[{**JWKS, "jwks": url}])
    assert found.callout == Callout(url, url)
    assert found.issuers[0].jwks == url


# ---------------------------------------------------------------- what is refused

# tables, the dotted key, what the sentence must say
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"issuer": JWKS}, "issuer", "right is [[issuer]]"),
    ({"issuer": []}, "issuer", "each written [[issuer]]"),
    ({"issuer": "x"}, "issuer", "each written [[issuer]]"),
    ({"issuer": [7]}, "issuer[0]", "is 7; right is a table"),
    ({"issuers": [JWKS]}, "issuers", "did you mean issuer?"),
    ({"issuer": [without(JWKS, "issuer")]}, "issuer[0].issuer", "is missing; right is what stands in iss"),
    ({"issuer": [without(JWKS, "audience")]}, "issuer[0].audience", "is missing; right is what stands in aud"),
    (
        {"issuer": [without(JWKS, "algorithms")]},
        "issuer[0].algorithms",
        'right is an array of one family, such as ["RS256"]',
    ),
    ({"issuer": [{**JWKS, "issuer": ""}]}, "issuer[0].issuer", "what stands in iss"),
    ({"issuer": [{**JWKS, "issuer": 7}]}, "issuer[0].issuer", "is 7"),
    ({"issuer": [{**JWKS, "issuer": "a\n"}]}, "issuer[0].issuer", 'is "a?"'),
    ({"issuer": [{**JWKS, "audience": []}]}, "issuer[0].audience", "is an empty array"),
    ({"issuer": [{**JWKS, "audience": ["a", ""]}]}, "issuer[0].audience", "what stands in aud"),
    ({"issuer": [{**JWKS, "audience": ["a"] * (MOST_KEYS + 1)}]}, "issuer[0].audience", "what stands in aud"),
    ({"issuer": [{**JWKS, "algorithms": []}]}, "issuer[0].algorithms", "is an empty array"),
    ({"issuer": [{**JWKS, "algorithms": "RS256"}]}, "issuer[0].algorithms", 'is "RS256"; right is an array of HS256'),
    ({"issuer": [{**JWKS, "algorithms": ["none"]}]}, "issuer[0].algorithms", 'has "none"; right is an array of HS256'),
    ({"issuer": [{**JWKS, "algorithms": ["rs256"]}]}, "issuer[0].algorithms", "right is an array of HS256"),
    ({"issuer": [{**JWKS, "algorithms": ["RS256", 7]}]}, "issuer[0].algorithms", "has 7; right is an array of HS256"),
    ({"issuer": [{**JWKS, "algorithms": ["RS256", {}]}]}, "issuer[0].algorithms", "right is an array of HS256"),
    ({"issuer": [{**JWKS, "algorithms": ["RS256", "HS256"]}]}, "issuer[0].algorithms", "are of the families HS, RS"),
    ({"issuer": [{**JWKS, "algorithms": ["RS256", "PS256"]}]}, "issuer[0].algorithms", "are of the families PS, RS"),
    ({"issuer": [ISSUER]}, "issuer[0]", "has no key; for RS256 right is one of public_key_file and jwks"),
    ({"issuer": [HS]}, "issuer[0]", "has no key; for HS256 right is one of secret_file and secret_env"),
    ({"issuer": [{**JWKS, "algorithms": ["HS256"]}]}, "issuer[0]", "has jwks; for HS256 right is one of secret_file"),
    ({"issuer": [{**HS, "public_key_file": "a"}]}, "issuer[0]", "has public_key_file; for HS256 right is one of"),
    ({"issuer": [{**ISSUER, "secret_file": "a"}]}, "issuer[0]", "has secret_file; for RS256 right is one of"),
    ({"issuer": [{**HS, "secret_file": "a", "secret_env": "A"}]}, "issuer[0]", "has secret_file and secret_env"),
    ({"issuer": [{**JWKS, "public_key_file": "a"}]}, "issuer[0]", "has public_key_file and jwks"),
    ({"issuer": [{**HS, "secret_file": []}]}, "issuer[0].secret_file", "is an empty array; right is a file"),
    ({"issuer": [{**HS, "secret_file": ["a"] * 5}]}, "issuer[0].secret_file", "right is a file"),
    ({"issuer": [{**HS, "secret_env": 7}]}, "issuer[0].secret_env", "is 7; right is a variable"),
    ({"issuer": [{**HS, "secret": PLANTED}]}, "issuer[0].secret", 'right is secret_file = "secrets/jwt"'),
    ({"issuer": [{**HS, "secret": [PLANTED], "secret_file": "a"}]}, "issuer[0].secret", "which others read too"),
    ({"issuer": [{**JWKS, "leeway_s": -1}]}, "issuer[0].leeway_s", "from 0 to 300"),
    ({"issuer": [{**JWKS, "leeway_s": 301}]}, "issuer[0].leeway_s", "from 0 to 300"),
    ({"issuer": [{**JWKS, "leeway_s": True}]}, "issuer[0].leeway_s", "from 0 to 300"),
    ({"issuer": [{**JWKS, "ca": ""}]}, "issuer[0].ca", "a file of certificates in PEM"),
    ({"issuer": [{**HS, "secret_file": "a", "ca": "b"}]}, "issuer[0].ca", "is for jwks alone"),
    ({"issuer": [{**JWKS, "jwk": "x"}]}, "issuer[0].jwk", "did you mean jwks?"),
    ({"issuer": [JWKS, JWKS]}, "issuer[1].issuer", "is that of issuer[0] already"),
    ({"callout": []}, "callout", "right is a table with connect"),
    ({"callout": "https://app.example.com"}, "callout", "right is a table with connect"),
    ({"callout": {}}, "callout", "has neither connect nor join"),
    ({"callout": {"timeout_s": 1}}, "callout", "has neither connect nor join"),
    ({"callout": {**CALLOUT, "timeout_s": 0}}, "callout.timeout_s", "from 0.1 to 30"),
    ({"callout": {**CALLOUT, "timeout_s": 31}}, "callout.timeout_s", "from 0.1 to 30"),
    ({"callout": {**CALLOUT, "max_requests": 0}}, "callout.max_requests", "from 1 to 10000"),
    ({"callout": {**CALLOUT, "max_requests": 1.5}}, "callout.max_requests", "from 1 to 10000"),
    ({"callout": {**CALLOUT, "secret": PLANTED}}, "callout.secret", "is not a key"),
    ({"anonymous": True}, "anonymous", "right is a table with rooms"),
    ({"anonymous": {"rooms": "lobby"}}, "anonymous.rooms", "an array of rooms"),
    ({"anonymous": {"rooms": ["*"]}}, "anonymous.rooms", "an array of rooms"),
    ({"anonymous": {"rooms": [7]}}, "anonymous.rooms", "an array of rooms"),
    ({"anonymous": {"rooms": ["a"] * (ROOMS + 1)}}, "anonymous.rooms", "an array of rooms"),
    ({"anonymous": {"join": ["a\n"]}}, "anonymous.join", "an array of patterns"),
    ({"anonymous": {"join": ["a"] * (PATTERNS + 1)}}, "anonymous.join", "an array of patterns"),
    ({"anonymous": {"read": ["x" * (PATTERN_BYTES + 1)]}}, "anonymous.read", "an array of patterns"),
    ({"anonymous": {"device": "phone"}}, "anonymous.device", "is not a key"),
    ({"api_key": [without(API_KEY, "id")]}, "api_key[0].id", "is missing; right is a name"),
    ({"api_key": [without(API_KEY, "sha256")]}, "api_key[0].sha256", "is missing; right is what zim api-key make"),
    ({"api_key": [without(API_KEY, "scopes")]}, "api_key[0].scopes", "is missing; right is an array of push"),
    ({"api_key": [{**API_KEY, "id": ""}]}, "api_key[0].id", "1 to 64 letters"),
    ({"api_key": [{**API_KEY, "id": "a b"}]}, "api_key[0].id", "1 to 64 letters"),
    ({"api_key": [{**API_KEY, "id": "x" * 65}]}, "api_key[0].id", "1 to 64 letters"),
    ({"api_key": [{**API_KEY, "id": "é"}]}, "api_key[0].id", "1 to 64 letters"),
    ({"api_key": [{**API_KEY, "id": 7}]}, "api_key[0].id", "1 to 64 letters"),
    ({"api_key": [{**API_KEY, "sha256": []}]}, "api_key[0].sha256", "64 hexadecimal digits"),
    ({"api_key": [{**API_KEY, "sha256": HASH.upper()}]}, "api_key[0].sha256", "64 hexadecimal digits"),
    ({"api_key": [{**API_KEY, "sha256": HASH[:-1]}]}, "api_key[0].sha256", "64 hexadecimal digits"),
    ({"api_key": [{**API_KEY, "sha256": [HASH] * (MOST_KEYS + 1)}]}, "api_key[0].sha256", "64 hexadecimal digits"),
    ({"api_key": [{**API_KEY, "sha256": [HASH, PLANTED]}]}, "api_key[0].sha256", "64 hexadecimal digits"),
    ({"api_key": [{**API_KEY, "key": PLANTED}]}, "api_key[0].key", "is not a key"),
    ({"api_key": [{**API_KEY, "scopes": []}]}, "api_key[0].scopes", "an array of push"),
    ({"api_key": [{**API_KEY, "scopes": {}}]}, "api_key[0].scopes", "is empty"),
    ({"api_key": [{**API_KEY, "scopes": "push"}]}, "api_key[0].scopes", "an array of push"),
    ({"api_key": [{**API_KEY, "scopes": ["push", 7]}]}, "api_key[0].scopes", "an array of push"),
    ({"api_key": [{**API_KEY, "scopes": ["pusch"]}]}, "api_key[0].scopes.pusch", "did you mean push?"),
    ({"api_key": [{**API_KEY, "scopes": {"push": []}}]}, "api_key[0].scopes.push", "an array of patterns of streams"),
    ({"api_key": [{**API_KEY, "scopes": {"push": "u:*"}}]}, "api_key[0].scopes.push", "an array of patterns of"),
    ({"api_key": [{**API_KEY, "scopes": {"push": [""]}}]}, "api_key[0].scopes.push", "an array of patterns of"),
    ({"api_key": [{**API_KEY, "scopes": {"metrics": ["u:*"]}}]}, "api_key[0].scopes.metrics", "is about no stream"),
    ({"api_key": [{**API_KEY, "scopes": {"operate": ["*", "*"]}}]}, "api_key[0].scopes.operate", "is about no stream"),
    ({"api_key": [{**API_KEY, "scopes": {"push": ["acme-*"]}}]}, "api_key[0].scopes.push", 'right is "u:acme-*" for'),
    ({"api_key": [API_KEY, API_KEY]}, "api_key[1].id", "is that of api_key[0] already"),
]


@pytest.mark.parametrize(("tables", "key", "words"), WRONG, ids=[f"{case[1]} {i}" for i, case in enumerate(WRONG)])
def test_wrong_values_are_named(tables: dict[str, Any], key: str, words: str) -> None:
    found = problems(**tables)
    assert [problem for problem in found if problem.startswith(f"{key}: ") and words in problem], found


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (7, "is 7"),
        ("", "is no URL"),
        ("app.example.com", "is no URL of http or https"),
        ("ftp://app.example.com", "is no URL of http or https"),
        ("file:///etc/passwd", "is no URL of http or https"),
        ("https://", "is no URL of http or https"),
        ("https:///a", "is no URL of http or https"),
        ("https://a b/", "is no URL of http or https"),
        ("https://a\n/", "is no URL of http or https"),
        ("https://a:port/", "is no URL"),
        ("https://a:70000/", "is no URL"),
        ("https://[::1/", "is no URL"),
        ("http://app.example.com/a", "is not encrypted, and leaves this machine"),
        ("http://10.0.0.1/a", "is not encrypted, and leaves this machine"),
        ("http://localhost.example.com/", "is not encrypted, and leaves this machine"),
        ("http://127.0.0.1.example.com/", "is not encrypted, and leaves this machine"),
        ("http://0.0.0.0/", "is not encrypted, and leaves this machine"),
        (f"https://me:{PLANTED}@app.example.com/", "password in it, which others read too"),
        (f"https://{PLANTED}@app.example.com/", "password in it, which others read too"),
        (f"http://me:{PLANTED}@127.0.0.1/", "password in it, which others read too"),
    ],
)
def test_urls_that_cannot_be(url: Any, words: str) -> None:
    found = problems(callout={"connect": url, "join": url}, issuer=[{**JWKS, "jwks": url}])
    assert [problem.partition(":")[0] for problem in found] == ["issuer[0].jwks", "callout.connect", "callout.join"]
    assert all(words in problem and "right is a URL" in problem for problem in found)


@pytest.mark.parametrize(
    "url",
    [
        f"ftp://me:{PLANTED}@app.example.com/",
        f"me:{PLANTED}@app.example.com",
        f"//me:{PLANTED}@app.example.com/",
        f"https://me:{PLANTED}@",
        f"https://me:{PLANTED}@app.example.com:70000/",
        f"https://me:{PLANTED}@app example.com/",
        f"https://me:{PLANTED}@[::1/",
        f"https://me:{PLANTED}@app.example.com\n/",
    ],
)
def test_a_password_is_not_told_even_if_the_rest_is_wrong(url: str) -> None:
    assert problems(callout={"connect": url})


def test_an_api_key_in_the_place_of_its_hash_is_not_told() -> None:
    """Who takes the one for the other would find it in every log."""
    assert problems(api_key=[{**API_KEY, "sha256": f"zim_{PLANTED}"}])


def test_of_two_with_one_name_those_two_are_named() -> None:
    """Also if one before them is wrong."""
    broken: dict[str, Any] = {**JWKS, "issuer": "x", "algorithms": ["none"]}
    words = 'issuer[2].issuer: "https://auth.example.com" is that of issuer[1] already; right is another one'
    assert words in problems(issuer=[broken, JWKS, JWKS])
    broken = {**API_KEY, "id": "x", "sha256": ""}
    words = 'api_key[2].id: "orders" is that of api_key[1] already; right is another one'
    assert words in problems(api_key=[broken, API_KEY, API_KEY])


def test_a_wrong_url_of_keys_is_one_problem() -> None:
    assert len(problems(issuer=[{**JWKS, "jwks": "ftp://a", "ca": "ca.pem"}])) == 1


def test_each_mistake_of_several_tables_is_told_at_once() -> None:
    found = problems(
        issuer=[{**JWKS, "leeway_s": 999}], callout={}, anonymous={"rooms": 7}, api_key=[{**API_KEY, "id": "!"}]
    )
    assert [problem.partition(":")[0] for problem in found] == [
        "issuer[0].leeway_s",
        "api_key[0].id",
        "callout",
        "anonymous.rooms",
    ]


# ---------------------------------------------------------------- listeners


def listening(node: str, key: str, value: Any, **tables: Any) -> Tables:
    found = with_tables(**tables)
    found[node][0][key] = value
    return found


@pytest.mark.parametrize("key", ["tcp", "ws"])
def test_clients_may_come_from_other_machines_once_they_must_say_who_they_are(key: str) -> None:
    tables: dict[str, Any]
    for tables in ({"issuer": [JWKS]}, {"callout": CALLOUT}, {"anonymous": {}}):
        [address] = getattr(parse(text_of(listening("comet", key, "0.0.0.0:9000", **tables)), PATH).comets[0], key)
        assert address == ListenAddress("0.0.0.0:9000")
    for tables in ({}, {"api_key": [API_KEY]}):
        [problem] = problems_of(listening("comet", key, "0.0.0.0:9000", **tables))
        assert problem.startswith(f"comet[0].{key}: 0.0.0.0:9000 can be reached from other machines")
        assert "there is no [[issuer]] and no [callout]" in problem
        assert f'{key} = {{ address = "0.0.0.0:9000", insecure = true }}' in problem


@pytest.mark.parametrize(("node", "key"), [("logic", "http"), ("job", "admin"), ("fabric", "admin")])
def test_backends_may_come_from_other_machines_once_they_must_show_a_key(node: str, key: str) -> None:
    tables: dict[str, Any]
    for tables, is_right in (({"api_key": [API_KEY]}, True), ({"issuer": [JWKS]}, False), ({}, False)):
        found = with_tables(**tables)
        (found[node] if node == "fabric" else found[node][0])[key] = "0.0.0.0:9000"
        if is_right:
            parse(text_of(found), PATH)
            continue
        [problem] = problems_of(found)
        assert "can be reached from other machines" in problem
        assert "there is no [[api_key]]" in problem


def test_links_between_nodes_are_not_encrypted_whoever_is_known() -> None:
    tables = with_tables(issuer=[JWKS], api_key=[API_KEY])
    tables["router"][0]["bind"] = "tcp://0.0.0.0:7270"
    assert any("links between nodes are not encrypted" in problem for problem in problems_of(tables))


@pytest.mark.parametrize("key", ["tcp", "ws"])
def test_a_listener_may_let_people_in_without_a_token(key: str) -> None:
    value = {"address": "127.0.0.1:9000", "anonymous": True}
    tables = listening("comet", key, [value, "127.0.0.1:9001"], anonymous={})
    one, other = getattr(parse(text_of(tables), PATH).comets[0], key)
    assert (one.anonymous, other.anonymous) == (True, False)
    [problem] = problems_of(listening("comet", key, [value], issuer=[JWKS]))
    assert problem.startswith(f"comet[0].{key}[0].anonymous: lets people in without a token")
    assert "right is a table [anonymous]" in problem


def test_a_token_may_be_in_a_cookie_of_pages_that_are_named() -> None:
    value = {"address": "127.0.0.1:9000", "cookie": "session", "origins": ["https://app.example.com"]}
    tables: dict[str, Any]
    for tables in ({"issuer": [JWKS]}, {"callout": CALLOUT}):
        [address] = parse(text_of(listening("comet", "ws", value, **tables)), PATH).comets[0].ws
        assert (address.cookie, address.origins) == ("session", ("https://app.example.com",))


def test_what_is_wrong_in_who_may_come_in_is_said_and_nothing_that_follows_from_it() -> None:
    value = {"address": "0.0.0.0:9000", "cookie": "session", "origins": ["https://app.example.com"], "anonymous": True}
    [problem] = problems_of(listening("comet", "ws", value, callout={"connect": "app.example.com/zim"}))
    assert problem.startswith("callout.connect: ")


@pytest.mark.parametrize(
    ("value", "tables", "words"),
    [
        ({"cookie": "session", "origins": ["https://a.example"]}, {}, "has a token that nobody knows"),
        ({"cookie": "session", "origins": ["https://a.example"]}, {"anonymous": {}}, "has a token that nobody knows"),
        (
            {"cookie": "session", "origins": ["https://a.example"]},
            {"callout": {"join": "https://app.example.com/join"}, "anonymous": {}},
            "has a token that nobody knows",
        ),
        ({"cookie": "session"}, {"issuer": [JWKS]}, "right is origins on this listener"),
        ({"cookie": "session", "origins": []}, {"issuer": [JWKS]}, "right is origins on this listener"),
        ({"cookie": "session", "origins": ["*"]}, {"issuer": [JWKS]}, "right is origins on this listener"),
        (
            {"cookie": "session", "origins": ["https://a.example", "*"]},
            {"issuer": [JWKS]},
            "right is origins on this listener",
        ),
        ({"cookie": ""}, {"issuer": [JWKS]}, "the name of a cookie"),
        ({"cookie": "a b"}, {"issuer": [JWKS]}, "the name of a cookie"),
        ({"cookie": "a;b"}, {"issuer": [JWKS]}, "the name of a cookie"),
        ({"cookie": "a=b"}, {"issuer": [JWKS]}, "the name of a cookie"),
        ({"cookie": "x" * 101}, {"issuer": [JWKS]}, "the name of a cookie"),
        ({"cookie": True}, {"issuer": [JWKS]}, "the name of a cookie"),
    ],
)
def test_a_cookie_that_cannot_be(value: dict[str, Any], tables: dict[str, Any], words: str) -> None:
    found = problems_of(listening("comet", "ws", [{"address": "127.0.0.1:9000", **value}], **tables))
    assert [problem for problem in found if problem.startswith("comet[0].ws[0].cookie: ") and words in problem], found


@pytest.mark.parametrize(
    ("node", "key", "name", "value"),
    [
        ("comet", "tcp", "cookie", "session"),
        ("logic", "http", "cookie", "session"),
        ("logic", "http", "anonymous", True),
        ("job", "admin", "anonymous", True),
        ("comet", "ws", "anonymous", "yes"),
        ("comet", "ws", "anonymous", 1),
    ],
)
def test_what_is_not_for_a_listener_is_refused(node: str, key: str, name: str, value: Any) -> None:
    table = {"address": "127.0.0.1:9000", name: value}
    found = problems_of(listening(node, key, table, issuer=[JWKS], anonymous={}))
    assert [problem for problem in found if problem.startswith(f"{node}[0].{key}.{name}: ")], found


# ---------------------------------------------------------------- whatever is written

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["zim", "https://a.example", "http://127.0.0.1", "push", "*", "RS256", "HS256", "EdDSA", "a/b", HASH, "lobby"]
)
VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
SECRETS = st.sampled_from(
    [PLANTED, f"{PLANTED}\n", f"zim_{PLANTED}", [PLANTED], {"value": PLANTED}, {PLANTED: 1}, [[PLANTED]]]
)
TABLES = {
    "issuer": {
        "issuer": TEXTS | VALUES,
        "audience": TEXTS | VALUES,
        "algorithms": st.lists(TEXTS, max_size=2) | VALUES,
        "secret_file": TEXTS | VALUES,
        "secret_env": TEXTS | VALUES,
        "public_key_file": TEXTS | VALUES,
        "jwks": TEXTS | VALUES,
        "ca": TEXTS | VALUES,
        "leeway_s": VALUES,
        "secret": SECRETS,
        "x": SECRETS,
    },
    "callout": {
        "connect": TEXTS | VALUES | st.just(f"https://me:{PLANTED}@app.example.com"),
        "join": TEXTS | VALUES,
        "timeout_s": VALUES,
        "max_requests": VALUES,
        "ca": VALUES,
        "secret": SECRETS,
    },
    "anonymous": {"rooms": VALUES, "join": VALUES, "read": VALUES, "x": SECRETS},
    "api_key": {
        "id": TEXTS | VALUES,
        "sha256": st.just(HASH) | VALUES,
        "scopes": st.lists(TEXTS, max_size=2)
        | st.dictionaries(TEXTS, st.lists(TEXTS, max_size=2) | VALUES, max_size=2),
        "key": SECRETS,
    },
}


def some(name: str) -> st.SearchStrategy[Any]:
    """A table of that name, or something else."""
    table = st.fixed_dictionaries({}, optional=TABLES[name])
    if name in ("issuer", "api_key"):
        whole = {"issuer": JWKS, "api_key": API_KEY}[name]
        return st.lists(table | table.map(lambda found: {**whole, **found}), max_size=3) | VALUES
    return table | VALUES


@given(
    st.fixed_dictionaries({}, optional={name: some(name) for name in TABLES}),
    st.booleans() | VALUES,
    st.just("session") | VALUES,
)
@example({"issuer": [{**JWKS, "issuer": "\ufffe"}]}, True, "session")
@example({"callout": {"connect": "https://" + "a" * 70_000}}, True, "session")
@example({"callout": {"connect": "https://\u2100.example"}}, True, "session")
@example({"issuer": [{**HS, "secret_file": "~\0"}]}, False, "x")
def test_whatever_is_written_is_a_topology_or_problems_without_a_secret(
    tables: dict[str, Any], anonymous: Any, cookie: Any
) -> None:
    value = {"address": "127.0.0.1:9000", "anonymous": anonymous, "cookie": cookie, "origins": ["https://a.example"]}
    try:
        found = parse(text_of(listening("comet", "ws", value, **tables)), PATH)
    except TopologyError as error:
        for problem in error.problems:
            assert PLANTED not in problem
            assert problem.isprintable()
        return
    for issuer in found.identity.issuers:
        assert len({name for name, members in FAMILIES.items() if set(issuer.algorithms) & set(members)}) == 1
        assert bool(issuer.secrets) + bool(issuer.public_keys) + bool(issuer.jwks) == 1
        assert bool(issuer.secrets) == issuer.algorithms[0].startswith("HS")
    assert PLANTED not in json.dumps(repr(found.identity))
