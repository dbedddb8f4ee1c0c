"""Tokens of clients: what is a grant, and of everything that is none, why."""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from string import ascii_letters
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.identity.signers import ISSUER, NOW, PAYLOAD, SECRET, TokenSigner, b64, compact, issuer, pem
from zim.fabric.grants import LIFETIME_S, Denial, Grant, grant_problem
from zim.fabric.limits import NAME_BYTES, PATTERN_BYTES, PATTERNS, ROOMS, TOKEN_BYTES
from zim.fabric.patterns import covers, first_unmatched, matches
from zim.identity.keys import Key
from zim.identity.tokens import Claim, fields_of, look_at, read_claim, read_token
from zim.topology.identity import Issuer

RS, HS, ES = TokenSigner("RS256", "a"), TokenSigner("HS256"), TokenSigner("ES256", "a")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
NAMES = [a + b for a, b in product(ascii_letters, repeat=2)]


def judge(token: bytes, by: Issuer | None = None, keys: Sequence[Key] | None = None) -> Grant | Denial:
    """What comes of a token that names an issuer. by: that it is shown for; keys: of it."""
    found = look_at(token)
    assert found is not None
    by = by or issuer([found.algorithm])
    return read_token(found, by, [TokenSigner(a).key() for a in by.algorithms] if keys is None else keys, NOW)


def grant_of(token: bytes, **more: Any) -> Grant:
    found = judge(token, **more)
    assert isinstance(found, Grant), found
    return found


def denial_of(token: bytes, **more: Any) -> Denial:
    """Also checks that its reason can be shown to anybody."""
    found = judge(token, **more)
    assert isinstance(found, Denial), found
    assert found.reason.isprintable()
    assert len(found.reason) < 300
    assert SECRET.decode() not in found.reason + found.detail
    return found


# ---------------------------------------------------------------- what is a grant


@pytest.mark.parametrize("algorithm", ["HS256", "HS512", "RS256", "PS384", "ES256", "ES512", "EdDSA"])
def test_a_token_is_its_user_for_as_long_as_it_says(algorithm: str) -> None:
    assert grant_of(TokenSigner(algorithm).token()) == Grant("7", lifetime_ms=60_000)


def test_the_claim_zim_says_what_its_user_may() -> None:
    claim = {"rooms": ["lobby", "7"], "join": ["chat-*"], "read": ["r:news-*", "u:8"], "device": "phone"}
    assert grant_of(RS.token(zim=claim)) == Grant(
        "7", ("lobby", "7"), ("chat-*",), ("r:news-*", "u:8"), "phone", 60_000
    )


@pytest.mark.parametrize("claim", [None, {}, {"rooms": [], "join": [], "read": [], "device": ""}])
def test_without_the_claim_zim_its_user_is_in_no_room(claim: Any) -> None:
    assert grant_of(compact({"alg": "RS256"}, {**PAYLOAD, "zim": claim}, RS.sign)) == Grant("7", lifetime_ms=60_000)


def test_a_room_that_is_named_twice_is_one() -> None:
    assert grant_of(RS.token(zim={"rooms": ["b", "a", "b"]})).rooms == ("b", "a")


def test_other_claims_and_fields_of_the_header_are_passed_over() -> None:
    token = RS.token(header={"typ": "JWT", "cty": "x", "more": [1]}, zim=None, jti="abc", iat="later", Zim={"rooms": 7})
    assert grant_of(token) == Grant("7", lifetime_ms=60_000)


@pytest.mark.parametrize("audience", ["zim", ["zim"], ["other", "zim"], [7, None, "zim"], "chat"])
def test_one_audience_of_the_issuers_is_enough(audience: Any) -> None:
    by = Issuer(ISSUER, ("zim", "chat"), ("RS256",))
    assert grant_of(RS.token(aud=audience), by=by).user == "7"


@pytest.mark.parametrize(
    ("exp", "lifetime_ms"),
    [
        (int(NOW) + 1, 1_000),
        (NOW + 0.5, 500),
        (NOW + 0.0001, 1),
        (NOW, 1),
        (NOW - 4.9, 1),
        (NOW + LIFETIME_S, int(LIFETIME_S * 1000)),
        (NOW + LIFETIME_S + 1, int(LIFETIME_S * 1000)),
        (1 << 52, int(LIFETIME_S * 1000)),
    ],
)
def test_a_grant_ends_with_its_token_and_never_later_than_in_a_year(exp: float, lifetime_ms: int) -> None:
    """0 would be for ever; clocks may differ by 5 s."""
    assert grant_of(RS.token(exp=exp)).lifetime_ms == lifetime_ms


def test_clocks_may_differ_as_far_as_the_topology_says() -> None:
    exact = issuer(leeway_s=0.0)
    for exp, nbf, by in ((NOW - 4.9, NOW + 5, issuer()), (NOW + 0.1, NOW, exact)):
        assert grant_of(RS.token(exp=exp, nbf=nbf), by=by).user == "7"
    for claims in ({"exp": NOW}, {"nbf": NOW + 0.1}):
        denial_of(RS.token(**claims), by=exact)
    for claims in ({"exp": NOW - 5}, {"nbf": NOW + 5.1}):
        denial_of(RS.token(**claims), by=issuer())


def test_a_token_that_is_as_long_as_it_may_be() -> None:
    fill = "x" * ((TOKEN_BYTES - len(RS.token(fill=""))) * 3 // 4 - 1)
    assert grant_of(RS.token(fill=fill)).user == "7"
    token = RS.token(fill=fill)
    assert TOKEN_BYTES - 4 <= len(token) <= TOKEN_BYTES
    assert look_at(token + b"A" * (TOKEN_BYTES + 1 - len(token))) is None


# ---------------------------------------------------------------- attacks

EVIL = TokenSigner("RS256", "a", number=1)  # who is not the issuer, and says so
RS_AS_SECRET = compact({"alg": "HS256"}, PAYLOAD, lambda text: hmac.digest(pem("RSA"), text, "sha256"))
ES_AS_SECRET = compact({"alg": "HS256"}, PAYLOAD, lambda text: hmac.digest(pem("ES256"), text, "sha256"))
NONE = {name: compact({"alg": name}, PAYLOAD, lambda _: b"") for name in ("none", "None", "NONE", "nOnE", "")}

# What it is; the token, or claims and header of one by the issuer; the code; what the reason must say
ATTACKS: list[tuple[str, bytes | dict[str, Any], str, str]] = [
    ("expired", {"exp": NOW - 5}, "expired", "expired 5 s ago"),
    ("expired long ago", {"exp": 0}, "expired", "expired"),
    ("expired before 1970", {"exp": -1.0}, "expired", "expired"),
    ("not yet valid", {"nbf": NOW + 60}, "refused", "not valid yet, but in 60 s (nbf)"),
    ("for another audience", {"aud": "other"}, "refused", "aud is 'other'; right is zim"),
    ("for other audiences", {"aud": ["a", "b"]}, "refused", "aud is "),
    ("for an audience that is nearly ours", {"aud": "zim "}, "refused", "aud is 'zim '"),
    ("for no audience", {"aud": []}, "refused", "aud is "),
    ("for an audience that is a number", {"aud": 7}, "refused", "aud is "),
    ("for an audience that is an object", {"aud": {"zim": "zim"}}, "refused", "aud is "),
    ("of another issuer", {"iss": "https://evil.example.com"}, "refused", "iss is 'https://evil.example.com'"),
    ("of an issuer that is nearly ours", {"iss": ISSUER + "/"}, "refused", "iss is 'https://auth.example.com/'"),
    ("without aud", {"aud": None}, "refused", "has no aud; required are iss, aud, exp, sub"),
    ("without exp", {"exp": None}, "refused", "has no exp; required are iss, aud, exp, sub"),
    ("without sub", {"sub": None}, "refused", "has no sub; required are iss, aud, exp, sub"),
    ("exp as text", {"exp": "1764192060"}, "refused", "exp is no number of seconds"),
    ("exp as a huge number", {"exp": 10**400}, "refused", "exp is no number of seconds"),
    ("exp as a number with no end", {"exp": 1 << 53}, "refused", "exp is no number of seconds"),
    ("exp as a large fraction", {"exp": 1e308}, "refused", "exp is no number of seconds"),
    ("exp as true", {"exp": True}, "refused", "exp is no number of seconds"),
    ("exp as a list", {"exp": [NOW + 60]}, "refused", "exp is no number of seconds"),
    ("nbf as text", {"nbf": "0"}, "refused", "nbf is no number of seconds"),
    ("nbf as false", {"nbf": False}, "refused", "nbf is no number of seconds"),
    ("nbf as a huge number", {"nbf": -(10**400)}, "refused", "nbf is no number of seconds"),
    ("a user that is a number", {"sub": 7}, "refused", "sub is no string"),
    ("a user that is a list", {"sub": ["7"]}, "refused", "sub is no string"),
    ("a user that is true", {"sub": True}, "refused", "sub is no string"),
    ("a user without a name", {"sub": ""}, "refused", "nobody can be called ''"),
    ("a user with a line break", {"sub": "7\n"}, "refused", r"nobody can be called '7\n'"),
    ("a user with a zero", {"sub": "7\0"}, "refused", r"nobody can be called '7\x00'"),
    ("a user of a long name", {"sub": "x" * (NAME_BYTES + 1)}, "refused", "nobody can be called 'xxx"),
    ("a misspelt field", {"zim": {"roms": ["a"]}}, "refused", "claim zim: no field is called 'roms'; there are rooms"),
    ("a long misspelt field", {"zim": {"x\n" * 900: 1}}, "refused", "claim zim: no field is called"),
    ("a field of a callout", {"zim": {"cache_s": 1}}, "refused", "no field is called 'cache_s'"),
    ("a claim that is a text", {"zim": "rooms"}, "refused", "claim zim: "),
    ("a claim that is a list", {"zim": []}, "refused", "claim zim: "),
    ("a claim that is false", {"zim": False}, "refused", "claim zim: "),
    ("rooms that are a text", {"zim": {"rooms": "lobby"}}, "refused", "rooms"),
    ("a room that is a number", {"zim": {"rooms": [7]}}, "refused", "rooms"),
    ("rooms that are null", {"zim": {"rooms": None}}, "refused", "rooms"),
    ("a device that is a number", {"zim": {"device": 7}}, "refused", "device"),
    ("too many rooms", {"zim": {"rooms": NAMES[: ROOMS + 1]}}, "refused", "1001 rooms; right is at most 1000"),
    ("the room of everybody", {"zim": {"rooms": ["*"]}}, "refused", "no room can be called '*'"),
    ("a room without a name", {"zim": {"rooms": [""]}}, "refused", "no room can be called ''"),
    ("a room with a line break", {"zim": {"rooms": ["a\n"]}}, "refused", r"no room can be called 'a\n'"),
    ("a room of a long name", {"zim": {"rooms": ["x" * (NAME_BYTES + 1)]}}, "refused", "no room can be called"),
    ("too many patterns", {"zim": {"join": ["a"] * (PATTERNS + 1)}}, "refused", "101 patterns; right is at most 100"),
    ("too many to read", {"zim": {"read": ["a"] * (PATTERNS + 1)}}, "refused", "101 patterns; right is at most 100"),
    ("a pattern of nothing", {"zim": {"join": [""]}}, "refused", "'' is no pattern"),
    ("a pattern with a control character", {"zim": {"read": ["a\x1b"]}}, "refused", r"'a\x1b' is no pattern"),
    ("a long pattern", {"zim": {"join": ["x" * (PATTERN_BYTES + 1)]}}, "refused", "is no pattern"),
    ("a device with a line break", {"zim": {"device": "a\n"}}, "refused", r"'a\n' is no class of devices"),
    *(
        (f"alg {name!r}", token, "refused", f"is signed by {name!r}; right is RS256 or ES256")
        for name, token in NONE.items()
    ),
    ("without alg", compact({}, PAYLOAD, RS.sign), "refused", "is signed by ''; right is RS256 or ES256"),
    ("alg as a list", compact({"alg": ["RS256"]}, PAYLOAD, RS.sign), "refused", "is signed by ''"),
    ("alg of another family", HS.token(), "refused", "is signed by 'HS256'; right is"),
    ("alg of another length", TokenSigner("RS384", "a").token(), "refused", "is signed by 'RS384'; right is"),
    ("a long alg", compact({"alg": "x\n" * 900}, PAYLOAD, RS.sign), "refused", r"is signed by 'x\n"),
    ("an RSA key as a secret", RS_AS_SECRET, "refused", "is signed by 'HS256'; right is"),
    ("a key on a curve as a secret", ES_AS_SECRET, "refused", "is signed by 'HS256'; right is"),
    ("a key in the header", EVIL.token(header={"jwk": EVIL.jwk()}), "refused", "has jwk; keys are the issuer's"),
    ("a URL of keys", EVIL.token(header={"jku": "https://evil.example.com"}), "refused", "has jku; keys are the"),
    ("a URL of a certificate", EVIL.token(header={"x5u": "https://evil.example.com"}), "refused", "has x5u; keys are"),
    ("jwk of null", RS.token(header={"jwk": None}), "refused", "has jwk"),
    ("a certificate in the header", EVIL.token(header={"x5c": ["MIIB"]}), "refused", "signature is not right"),
    ("crit", RS.token(header={"crit": ["exp"], "exp": 1}), "refused", "has crit"),
    ("crit of what the library knows", RS.token(header={"crit": ["b64"], "b64": True}), "refused", "has crit"),
    ("crit of nothing", RS.token(header={"crit": []}), "refused", "has crit"),
    ("a payload that is not in it", RS.token(header={"b64": False}), "refused", "signature is not right"),
    ("signed by somebody else", EVIL.token(), "refused", "signature is not right"),
    ("without a signature", RS.token().rpartition(b".")[0] + b".", "refused", "signature is not right"),
    ("half a signature", RS.token()[:-100], "refused", "signature is not right"),
    ("a signature of more", RS.token() + b"AAAA", "refused", "signature is not right"),
    ("a kid that is a number", RS.token(header={"kid": 7}), "refused", "signature is not right"),
]


@pytest.mark.parametrize(("token", "code", "words"), [a[1:] for a in ATTACKS], ids=[a[0] for a in ATTACKS])
def test_attacks(token: bytes | dict[str, Any], code: str, words: str) -> None:
    by = Issuer(ISSUER, ("zim",), ("RS256", "ES256"))  # the topology has one family each; here both keys are in danger
    token = token if isinstance(token, bytes) else RS.token(**token)
    denial = denial_of(token, by=by, keys=[RS.key(), ES.key()])
    assert (denial.code, words in denial.reason) == (code, True), denial


@pytest.mark.parametrize("fields", [{"alg": "none"}, {"jwk": {}}, {"crit": ["exp"]}, {"alg": "HS256"}])
def test_what_its_header_says_is_refused_before_a_key_is_looked_for(fields: dict[str, Any]) -> None:
    assert denial_of(RS.token(header=fields), by=issuer(), keys=[]).detail == ""


def test_the_log_is_told_more_of_a_signature_than_the_client() -> None:
    denial = denial_of(EVIL.token(), keys=[RS.key()])
    assert denial == Denial("refused", "the token's signature is not right", "the signature is not the issuer's")


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b".",
        b"..",
        b"...",
        b"a.b.c",
        b"7",
        b"opaque-token",
        RS.token() + b".",
        RS.token() + b".AAAA",
        b"." + RS.token(),
        RS.token().replace(b".", b"..", 1),
        RS.token() + b"=",
        RS.token() + b"\n",
        b" " + RS.token(),
        RS.token().replace(b"e", b"+", 1),
        RS.token()[:20] + "é".encode() + RS.token()[20:],
        b"A" + RS.token(),
        RS.token().partition(b".")[0],
        compact(b"", PAYLOAD, RS.sign),
        compact(b"{", PAYLOAD, RS.sign),
        compact(b"[]", PAYLOAD, RS.sign),
        compact(b'"alg"', PAYLOAD, RS.sign),
        compact(b"null", PAYLOAD, RS.sign),
        compact(b'{"alg":"RS256"}\xff', PAYLOAD, RS.sign),
        compact(b'{"alg":NaN}', PAYLOAD, RS.sign),
        compact(b"[" * 4_000, PAYLOAD, RS.sign),
        compact(b'{"alg":' + b"[" * 4_000, PAYLOAD, RS.sign),
        compact({"alg": "RS256"}, [], RS.sign),
        compact({"alg": "RS256"}, "7", RS.sign),
        compact({"alg": "RS256"}, b'{"iss":"\xff"}', RS.sign),
        compact({"alg": "RS256"}, b"[" * 4_000, RS.sign),
        compact({"alg": "RS256"}, b'{"exp":NaN,"iss":"%b"}' % ISSUER.encode(), RS.sign),
        RS.token(fill="x" * TOKEN_BYTES),
        b"e30.e30." + b"A" * TOKEN_BYTES,
    ],
    ids=lambda token: repr(token[:24]),
)
def test_what_is_no_token_in_three_parts_is_nobodys(token: bytes) -> None:
    assert look_at(token) is None


@pytest.mark.parametrize("number", ["NaN", "-NaN", "Infinity", "-Infinity", "1e999", "9" * 4_400, "0x10", "01"])
def test_a_moment_that_is_no_number_of_json_is_refused(number: str) -> None:
    for name in ("exp", "nbf"):
        rest = {key: value for key, value in PAYLOAD.items() if key != name}
        token = compact({"alg": "RS256"}, json.dumps(rest)[:-1].encode() + f',"{name}":{number}}}'.encode(), RS.sign)
        assert look_at(token) is None or denial_of(token).code == "refused"


def test_a_payload_that_is_json_up_to_the_issuer_alone_is_refused() -> None:
    """Numbers that are passed over at first are read later."""
    denial = denial_of(compact({"alg": "RS256"}, b'{"iss":"%b","aud":1e999}' % ISSUER.encode(), RS.sign))
    assert (denial.code, denial.reason) == ("refused", "the token's payload is no JSON object")


@pytest.mark.parametrize(
    ("document", "user"),
    [
        ('{"iss":"%s","aud":"zim","sub":"7","sub":"8","exp":%d}', "8"),
        ('{"iss":"%s","aud":"zim","sub":"7","\\u0073ub":"8","exp":%d}', "8"),
        ('{"iss":"x","iss":"%s","aud":"zim","sub":"7","exp":%d}', "7"),
        ('{"iss":"%s","iss":"x","aud":"zim","sub":"7","exp":%d}', ""),
        ('{"iss":"%s","aud":"zim","sub":"7","exp":%d,"exp":0}', ""),
        ('{"iss":"%s","aud":"zim","sub":"7","exp":0,"exp":%d}', "7"),
        ('{"iss":"%s","aud":"zim","aud":"other","sub":"7","exp":%d}', ""),
        ('{"iss":"%s","aud":"zim","sub":"7","exp":%d,"zim":{"rooms":["a"]},"zim":{}}', "7"),
    ],
)
def test_of_a_key_that_is_there_twice_the_last_one_counts_for_all(document: str, user: str) -> None:
    """One reader that took the first, and another that took the last, would not speak of the same token."""
    token = compact({"alg": "RS256"}, (document % (ISSUER, NOW + 60)).encode(), RS.sign)
    found = judge(token)
    assert (found.user if isinstance(found, Grant) else "") == user
    if isinstance(found, Grant):
        assert found.rooms == ()


@pytest.mark.parametrize(
    ("header", "is_right"),
    [
        (b'{"alg":"none","alg":"RS256"}', True),
        (b'{"alg":"RS256","alg":"none"}', False),
        (b'{"alg":"RS256","\\u0061lg":"none"}', False),
        (b'{"alg":"HS256","alg":"RS256"}', True),
        (b'{"alg":"RS256","alg":"HS256"}', False),
        (b'{"alg":"RS256","kid":"x","kid":"a"}', True),
        (b'{"alg":"RS256","\\u006awk":{}}', False),
        (b'{"alg":"RS256","\\u0063rit":["exp"]}', False),
    ],
)
def test_so_it_is_in_the_header(header: bytes, is_right: bool) -> None:
    assert isinstance(judge(compact(header, PAYLOAD, RS.sign), by=issuer()), Grant) == is_right


def test_whatever_is_nested_however_deeply_is_a_grant_or_a_denial() -> None:
    """Each reader has a depth of its own at which it gives up."""
    for depth in (*range(1, 1_100), 1_500, 2_000, 2_500):
        deep = b"[" * depth + b"]" * depth
        payload = json.dumps(PAYLOAD).encode()
        for token in (
            compact(b'{"alg":"HS256","x":' + deep + b"}", payload, HS.sign),
            compact(b'{"alg":"HS256"}', payload[:-1] + b',"x":' + deep + b"}", HS.sign),
            compact(b'{"alg":"HS256"}', payload[:-1] + b',"aud":' + deep + b"}", HS.sign),
            compact(b'{"alg":"HS256"}', payload[:-1] + b',"zim":{"rooms":' + deep + b"}}", HS.sign),
        ):
            if (found := look_at(token)) is not None:
                assert isinstance(read_token(found, issuer(["HS256"]), [HS.key()], NOW), Grant | Denial)


# ---------------------------------------------------------------- whatever comes


@given(st.binary(max_size=80) | st.lists(st.binary(max_size=30).map(b64), min_size=2, max_size=4).map(b".".join))
def test_any_bytes_are_nobodys_token_or_are_denied(token: bytes) -> None:
    found = look_at(token)
    if found is not None:
        assert isinstance(read_token(found, issuer([found.algorithm]), [RS.key()], NOW), Denial)


HEADERS = st.fixed_dictionaries({}, optional=dict.fromkeys(("kid", "crit", "jwk", "typ", "b64", "cty", "x"), JSON))
CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("aud", "sub", "nbf", "exp", "x"), JSON),
        "exp": st.integers() | st.floats(NOW - 10, NOW + 10) | JSON,
        "nbf": st.integers() | st.floats(NOW - 10, NOW + 10) | JSON,
        "zim": JSON
        | st.fixed_dictionaries({}, optional=dict.fromkeys(("rooms", "join", "read"), st.lists(st.text(max_size=3)))),
    },
)


@given(HEADERS, CLAIMS, st.floats(0, 4e9))
@example({}, {"aud": "\ud800"}, NOW)
@example({"kid": "\ud800"}, {}, NOW)
def test_whatever_is_signed_is_a_grant_or_a_denial(
    header: dict[str, Any], claims: dict[str, Any], wall_s: float
) -> None:
    token = compact({"alg": "HS256", **header}, {**PAYLOAD, **claims}, HS.sign)
    if (seen := look_at(token)) is None:
        return
    found = read_token(seen, issuer(["HS256"]), [HS.key()], wall_s)
    if isinstance(found, Grant):
        assert grant_problem(found) == ""
        assert 1 <= found.lifetime_ms <= LIFETIME_S * 1000
    else:
        assert found.reason.isprintable()
        assert len(found.reason) < 300


@given(JSON | st.dictionaries(st.sampled_from(["rooms", "join", "read", "device", "roms"]), JSON, max_size=4))
def test_any_json_is_a_claim_or_what_is_wrong_with_it(document: Any) -> None:
    found = read_claim(document, Claim)
    if isinstance(found, str):
        assert found
        assert found.isprintable()
    else:
        rooms, join, read, device = fields_of(found)
        assert all(isinstance(text, str) for text in (*rooms, *join, *read, device))
        assert len(set(rooms)) == len(rooms)


def test_what_a_header_says_is_looked_at_but_not_believed() -> None:
    found = look_at(TokenSigner("HS256", "2026-11", number=1).token(header={"typ": "JWT"}))
    assert found is not None
    assert (found.algorithm, found.kid, found.issuer) == ("HS256", "2026-11", ISSUER)
    assert found.header == {"alg": "HS256", "kid": "2026-11", "typ": "JWT"}
    nameless = look_at(compact({"alg": 7, "kid": ["a"]}, PAYLOAD, HS.sign))
    assert nameless is not None
    assert (nameless.algorithm, nameless.kid) == ("", "")


# ---------------------------------------------------------------- for whom an issuer may sign


LIMITED = replace(issuer(["HS256"]), users=("acme-*", "ops"), rooms=("acme-*", "lobby", "[ab]-*"))


@pytest.mark.parametrize(
    ("sub", "claim"),
    [
        ("acme-1", {}),
        ("ops", {"rooms": ["acme-1", "lobby", "b-1"], "join": ["acme-*", "acme-x?", "lobby", "[ab]-*"]}),
        ("acme-1", {"read": ["r:acme-*", "u:acme-1*", "u:ops", "r:[ab]-*", "r:lobby"]}),
    ],
)
def test_an_issuer_signs_for_those_that_it_may_sign_for(sub: str, claim: dict[str, Any]) -> None:
    assert grant_of(HS.token(sub=sub, zim=claim), by=LIMITED).user == sub


@pytest.mark.parametrize(
    ("sub", "claim", "said"),
    [
        ("beta-1", {}, "the token's sub is 'beta-1'; this issuer may sign for 'acme-*', 'ops'"),
        ("ops2", {}, "the token's sub is 'ops2'"),
        ("ops", {"rooms": ["lobby2"]}, "the token's rooms has 'lobby2'; this issuer may sign for 'acme-*', 'lobby', "),
        ("ops", {"rooms": ["[ab]-*"]}, "the token's rooms has '[ab]-*'"),  # a room of that name, which no pattern means
        ("ops", {"join": ["*"]}, "the token's join has '*'"),
        ("ops", {"join": ["acme*"]}, "the token's join has 'acme*'"),
        ("ops", {"join": ["[a]cme-*"]}, "the token's join has '[a]cme-*'"),
        ("ops", {"join": ["?-*"]}, "the token's join has '?-*'"),
        ("ops", {"join": ["lobby*"]}, "the token's join has 'lobby*'"),
        ("ops", {"read": ["u:acme-1", "u:beta-1"]}, "the token's read has 'u:beta-1'"),
        ("ops", {"read": ["*"]}, "the token's read has '*'"),
        ("ops", {"read": ["[ru]:acme-*"]}, "the token's read has '[ru]:acme-*'"),
    ],
)
def test_an_issuer_signs_for_nobody_else(sub: str, claim: dict[str, Any], said: str) -> None:
    found = denial_of(HS.token(sub=sub, zim=claim), by=LIMITED)
    assert found.code == "refused"
    assert found.reason.startswith(said)


def test_an_issuer_of_nobody_signs_for_nobody() -> None:
    found = denial_of(HS.token(sub="7"), by=replace(LIMITED, users=()))
    assert found.reason == "the token's sub is '7'; this issuer may sign for nobody"


@given(
    st.lists(st.text("ab*?[]!-", min_size=1, max_size=4), max_size=4),
    st.lists(st.text("ab*?[]!-", min_size=1, max_size=4), max_size=4),
)
def test_the_first_of_many_names_that_is_not_meant(names: list[str], patterns: list[str]) -> None:
    assert first_unmatched(names, patterns) == next((one for one in names if not matches(one, patterns)), None)


@given(
    st.text("ab*?[]!-", min_size=1, max_size=6),
    st.lists(st.text("ab*?[]!-", min_size=1, max_size=5), max_size=3),
    st.text("ab-!", min_size=1, max_size=5),
)
def test_what_is_covered_means_nothing_that_the_others_do_not(pattern: str, by: list[str], name: str) -> None:
    if covers(by, pattern) and matches(name, [pattern]):
        assert matches(name, by)
