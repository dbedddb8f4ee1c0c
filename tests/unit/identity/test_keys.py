"""Keys: which are taken and which are refused, and that nothing is verified but what they have signed."""

from __future__ import annotations

import hmac
import json
from contextlib import suppress
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.identity.signers import (
    OTHER_SECRET,
    PAYLOAD,
    SECRET,
    TokenSigner,
    b64,
    compact,
    key_set,
    pem,
    private_pem,
)
from zim.identity.keys import (
    ALGORITHMS,
    MAX_KEYS,
    BadSignature,
    Key,
    KeyProblem,
    family,
    read_jwks,
    read_pem,
    read_secret,
    sign,
    verified_payload,
)
from zim.topology.identity import FAMILIES

PUBLIC = [a for a in ALGORITHMS if not a.startswith("HS")]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def test_each_algorithm_has_one_family() -> None:
    for name, members in FAMILIES.items():
        assert {family(a) for a in members} == {name}
    assert [family(a) for a in ("none", "", "RS", "rs256", "HS1", "ES256K")] == [""] * 6


# ---------------------------------------------------------------- secrets


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_the_end_of_its_line_is_not_part_of_a_secret(end: bytes) -> None:
    assert read_secret(SECRET + end, ["HS256"]).by_algorithm == {"HS256": SECRET}


def test_a_secret_may_be_any_bytes() -> None:
    secret = bytes(range(256))
    assert read_secret(secret, ["HS512"]).by_algorithm == {"HS512": secret}
    assert read_secret(secret + b"\n\n", ["HS512"]).by_algorithm == {"HS512": secret + b"\n"}


@pytest.mark.parametrize(("algorithm", "least"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_secret_has_at_least_the_bytes_of_its_hash(algorithm: str, least: int) -> None:
    """RFC 7518 3.2."""
    assert read_secret(b"s" * least, [algorithm]).by_algorithm
    with pytest.raises(KeyProblem, match=str(least)) as problem:
        read_secret(b"s" * (least - 1), [algorithm])
    assert "ssss" not in str(problem.value)


def test_a_secret_serves_those_algorithms_that_it_is_long_enough_for() -> None:
    assert set(read_secret(b"s" * 48, ["HS256", "HS384", "HS512"]).by_algorithm) == {"HS256", "HS384"}


@pytest.mark.parametrize("secret", [b"", b"\n", b"\r\n"])
def test_no_secret_is_named(secret: bytes) -> None:
    with pytest.raises(KeyProblem, match="is empty"):
        read_secret(secret, ["HS256"])


@pytest.mark.parametrize("kind", ["RSA", "ES256", "EdDSA"])
def test_a_public_key_is_no_secret(kind: str) -> None:
    with pytest.raises(KeyProblem, match="cannot be used for HS256"):
        read_secret(pem(kind), ["HS256"])


@given(st.binary(max_size=100))
def test_any_bytes_are_a_secret_or_a_problem_that_does_not_tell_them(secret: bytes) -> None:
    try:
        key = read_secret(secret, FAMILIES["HS"])
    except KeyProblem as e:
        problem = str(e)
    else:
        assert key.kid == ""
        assert set(key.by_algorithm.values()) <= {secret, secret[:-1], secret[:-2]}
        return
    assert len(secret) < 34
    assert len(secret) < 4 or repr(secret)[2:-1] not in problem


# ---------------------------------------------------------------- public keys in PEM


@pytest.mark.parametrize("algorithm", PUBLIC)
def test_a_public_key_verifies_what_its_private_one_has_signed(algorithm: str) -> None:
    signer = TokenSigner(algorithm)
    key = read_pem(pem(signer.kind), [algorithm])
    assert json.loads(verified_payload(signer.token(), algorithm, [key])) == PAYLOAD


def test_a_key_of_rsa_serves_all_algorithms_of_its_family() -> None:
    key = read_pem(pem("RSA"), FAMILIES["PS"])
    assert tuple(key.by_algorithm) == FAMILIES["PS"]
    for algorithm in FAMILIES["PS"]:
        assert verified_payload(TokenSigner(algorithm).token(), algorithm, [key])


def test_a_key_on_a_curve_serves_the_algorithm_of_that_curve_alone() -> None:
    """RFC 7518 3.4."""
    assert list(read_pem(pem("ES384"), FAMILIES["ES"]).by_algorithm) == ["ES384"]


@pytest.mark.parametrize(
    ("kind", "algorithms"),
    [
        ("ES256", ["RS256"]),
        ("RSA", ["ES256"]),
        ("ES384", ["ES256"]),
        ("secp256k1", ["ES256", "ES384", "ES512"]),
        ("EdDSA", ["RS256"]),
        ("RSA", ["EdDSA"]),
        ("X25519", ["EdDSA"]),
        ("DSA", ["RS256", "RS384"]),
    ],
)
def test_a_key_of_another_kind_is_refused(kind: str, algorithms: list[str]) -> None:
    with pytest.raises(KeyProblem, match=f"cannot be used for {algorithms[-1]}"):
        read_pem(pem(kind), algorithms)


def test_a_small_key_of_rsa_is_refused() -> None:
    with pytest.raises(KeyProblem, match="2048"):
        read_pem(pem("small RSA"), ["RS256"])


def test_a_huge_key_of_rsa_is_refused() -> None:
    """It would make each token dear."""
    huge = RSAPublicNumbers(65537, (1 << 9_000) + 1).public_key()
    text = huge.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(KeyProblem, match="has 9001 bits; right is at most 8192"):
        read_pem(text, ["RS256"])


@pytest.mark.parametrize("kind", ["RSA", "ES256", "EdDSA"])
def test_a_private_key_is_refused_and_not_told(kind: str) -> None:
    text = private_pem(kind)
    for broken in (
        text,
        text[:-80],
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIF\n-----END ENCRYPTED PRIVATE KEY-----",
    ):
        with pytest.raises(KeyProblem, match="is a private key") as problem:
            read_pem(broken, ["RS256"])
        assert text.split(b"\n")[1].decode() not in str(problem.value)


@pytest.mark.parametrize(
    "text",
    [b"", b"7", pem("RSA")[:-80], b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----"],
    ids=["nothing", "a number", "cut", "empty"],  # keys are made anew by each process
)
def test_what_is_no_public_key_is_told_what_is(text: bytes) -> None:
    with pytest.raises(KeyProblem, match="is no public key in PEM; right begins with"):
        read_pem(text, ["RS256"])


@given(st.binary(max_size=60), st.integers(0, 400), st.integers(0, 20))
@example(b"\xff", 0, 0)
def test_any_bytes_are_a_public_key_or_a_problem(junk: bytes, at: int, removed: int) -> None:
    for text in (junk, pem("ES256")[:at] + junk + pem("ES256")[at + removed :]):
        with suppress(KeyProblem):
            assert read_pem(text, ["ES256"]).by_algorithm.keys() == {"ES256"}


# ---------------------------------------------------------------- sets of keys


@pytest.mark.parametrize("algorithm", PUBLIC)
def test_a_set_of_keys_is_read(algorithm: str) -> None:
    signer = TokenSigner(algorithm, "2026-11")
    [key] = read_jwks(key_set(signer.jwk()), [algorithm])
    assert key.kid == "2026-11"
    assert verified_payload(signer.token(), algorithm, [key])


def test_a_key_without_alg_serves_all_that_it_can_and_one_with_alg_that_one_alone() -> None:
    signer = TokenSigner("RS256", "a")
    [free] = read_jwks(key_set(signer.jwk(alg=None)), FAMILIES["RS"])
    [bound] = read_jwks(key_set(signer.jwk(alg="RS384")), FAMILIES["RS"])
    assert (tuple(free.by_algorithm), tuple(bound.by_algorithm)) == (FAMILIES["RS"], ("RS384",))


def test_two_keys_are_there_at_once_during_a_rotation() -> None:
    old, new = TokenSigner("ES256", "old"), TokenSigner("ES256", "new", 1)
    keys = read_jwks(key_set(old.jwk(), new.jwk()), ["ES256"])
    assert [key.kid for key in keys] == ["old", "new"]
    assert verified_payload(old.token(), "ES256", keys)
    assert verified_payload(new.token(), "ES256", keys)


def test_fields_that_nobody_knows_are_passed_over() -> None:
    jwk = TokenSigner("ES256", "a").jwk(x5t="abc", x5c=["MIIB"], use="sig", key_ops=["verify"], more={"a": [1]})
    assert len(read_jwks(json.dumps({"keys": [jwk], "more": 7}).encode(), ["ES256"])) == 1


RS, ES, ED = TokenSigner("RS256", "a"), TokenSigner("ES256", "a"), TokenSigner("EdDSA", "a")
UNUSABLE: list[tuple[str, Any, str]] = [
    ("for encryption", RS.jwk(use="enc"), "RS256"),
    ("of a use that nobody knows", RS.jwk(use=7), "RS256"),
    ("for encryption by its operations", RS.jwk(key_ops=["encrypt", "wrapKey"]), "RS256"),
    ("without operations", RS.jwk(key_ops=[]), "RS256"),
    ("with operations that are no list", RS.jwk(key_ops="verify"), "RS256"),
    ("with an alg of encryption", RS.jwk(alg="RSA-OAEP"), "RS256"),
    ("with another alg", RS.jwk(alg="RS512"), "RS256"),
    ("with alg none", RS.jwk(alg="none"), "RS256"),
    ("with an alg that is no text", RS.jwk(alg=["RS256"]), "RS256"),
    ("a private one of RSA", RS.private_jwk(), "RS256"),
    ("a private one on a curve", ES.private_jwk(), "ES256"),
    ("a private one of Ed25519", ED.private_jwk(), "EdDSA"),
    ("a secret", {"kty": "oct", "k": b64(SECRET).decode(), "kid": "a"}, "HS256"),
    ("a secret for RS256", {"kty": "oct", "k": b64(SECRET).decode(), "kid": "a", "alg": "RS256"}, "RS256"),
    ("of another family", ES.jwk(), "RS256"),
    ("of RSA, for ES256", RS.jwk(alg="ES256"), "ES256"),
    ("of no type", RS.jwk(kty=None), "RS256"),
    ("of a type that nobody knows", RS.jwk(kty="XYZ"), "RS256"),
    ("of a type that is no text", RS.jwk(kty=7), "RS256"),
    ("on another curve", TokenSigner("ES384", "a").jwk(), "ES256"),
    ("on a curve that nobody knows", ES.jwk(crv="secp256k1"), "ES256"),
    ("on a curve that is no text", ES.jwk(crv=["P-256"]), "ES256"),
    ("not on its curve", ES.jwk(y=ES.jwk()["x"]), "ES256"),
    ("with half a point", ES.jwk(y=None), "ES256"),
    ("for agreeing on keys", ED.jwk(crv="X25519"), "EdDSA"),
    ("small", TokenSigner("RS256").jwk(n=b64(b"\xff" * 128).decode()), "RS256"),
    ("huge", TokenSigner("RS256").jwk(n=b64(b"\xff" * 1_200).decode()), "RS256"),
    ("with a modulus of no bytes", RS.jwk(n=""), "RS256"),
    ("with a modulus that is no base64", RS.jwk(n="§"), "RS256"),
    ("with a modulus that is a number", RS.jwk(n=7), "RS256"),
    ("without an exponent", RS.jwk(e=None), "RS256"),
    ("with exponent 1", RS.jwk(e="AQ"), "RS256"),
    ("with an even exponent", RS.jwk(e="BA"), "RS256"),
    ("with a name that is no text", RS.jwk(kid=7), "RS256"),
    ("no object", [], "RS256"),
    ("nothing", None, "RS256"),
    ("a text", "RS256", "RS256"),
]


@pytest.mark.parametrize(("jwk", "algorithm"), [case[1:] for case in UNUSABLE], ids=[case[0] for case in UNUSABLE])
def test_a_key_that_cannot_be_used_is_passed_over(jwk: Any, algorithm: str) -> None:
    with pytest.raises(KeyProblem, match=f"has no key for {algorithm} among 1"):
        read_jwks(json.dumps({"keys": [jwk]}).encode(), [algorithm])
    if not algorithm.startswith("HS"):
        good = TokenSigner(algorithm, "good").jwk()
        assert [key.kid for key in read_jwks(json.dumps({"keys": [jwk, good]}).encode(), [algorithm])] == ["good"]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"", "is no JSON object"),
        (b"<html>", "is no JSON object"),
        (b"[]", "is no JSON object"),
        (b'{"keys":[]}\xff', "is no JSON object"),
        (b'{"keys":"\xff"}', "is no JSON object"),
        (b"[" * 100_000, "is no JSON object"),
        (b'{"keys":' + b"[" * 100_000, "is no JSON object"),
        (b"{}", 'has no array "keys"'),
        (b'{"keys":{}}', 'has no array "keys"'),
        (b'{"keys":null}', 'has no array "keys"'),
        (b'{"keys":[]}', "has no key for RS256 among 0"),
        (json.dumps({"keys": [{}] * (MAX_KEYS + 1)}).encode(), "has 101 keys; right is at most 100"),
    ],
)
def test_what_is_no_set_of_keys_is_named(document: bytes, words: str) -> None:
    with pytest.raises(KeyProblem, match=words):
        read_jwks(document, ["RS256"])


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
@example(b'{"keys":[{"kty":"RSA","n":1e999}]}')
def test_any_document_is_keys_or_a_problem(document: bytes) -> None:
    with pytest.raises(KeyProblem):
        read_jwks(document, ["RS256"])


@given(
    st.sampled_from(PUBLIC),
    st.dictionaries(st.sampled_from(["kty", "kid", "alg", "use", "key_ops", "crv", "x", "y", "n", "e", "d"]), JSON),
)
@example("RS256", {"n": "A" * 40_000})
@example("RS256", {"e": "A" * 40_000})
@example("ES256", {"x": "\ud800"})
def test_whatever_stands_in_a_key_is_a_key_or_a_problem(algorithm: str, fields: dict[str, Any]) -> None:
    try:
        keys = read_jwks(key_set({**TokenSigner(algorithm, "a").jwk(), **fields}), [algorithm])
    except KeyProblem:
        return
    for key in keys:
        assert isinstance(key.kid, str)
        assert set(key.by_algorithm) == {algorithm}


# ---------------------------------------------------------------- what is verified


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_signature_of_another_key_is_refused(algorithm: str) -> None:
    other = TokenSigner(algorithm, number=1)
    with pytest.raises(BadSignature, match="the signature is not the issuer's"):
        verified_payload(other.token(), algorithm, [TokenSigner(algorithm).key()])
    assert verified_payload(other.token(), algorithm, [TokenSigner(algorithm).key(), other.key()])


def test_without_a_key_for_its_algorithm_nothing_is_verified() -> None:
    for keys in ([], [TokenSigner("RS384").key()]):
        with pytest.raises(BadSignature, match="no key of the issuer is for RS256"):
            verified_payload(TokenSigner("RS256").token(), "RS256", keys)


def test_a_token_that_names_another_algorithm_than_was_looked_up_is_refused() -> None:
    key = read_pem(pem("RSA"), ["RS256", "RS384"])
    with pytest.raises(BadSignature):
        verified_payload(TokenSigner("RS384").token(), "RS256", [key])


@pytest.mark.parametrize("kind", ["RSA", "ES256", "EdDSA"])
@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_public_key_is_never_taken_for_a_secret(kind: str, algorithm: str) -> None:
    """RFC 8725 2.1: whoever knows the public key would sign tokens with it."""
    forged = compact({"alg": algorithm}, PAYLOAD, lambda text: hmac.digest(pem(kind), text, f"sha{algorithm[2:]}"))
    own = {"RSA": "RS256"}.get(kind, kind)
    keys = [read_pem(pem(kind), [own]), *read_jwks(key_set(TokenSigner(own).jwk()), [own])]
    for said in (algorithm, own):
        with pytest.raises(BadSignature):
            verified_payload(forged, said, keys)


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ES512"])
@pytest.mark.parametrize("byte", [b"\0", b"\xff", b"\1"])
def test_a_signature_of_nothing_is_refused(algorithm: str, byte: bytes) -> None:
    """A verifier that takes r = s = 0 takes every token (CVE-2022-21449)."""
    sizes = {"ES256": 64, "ES384": 96, "ES512": 132}
    forged = compact({"alg": algorithm}, PAYLOAD, lambda _: byte * sizes[algorithm])
    with pytest.raises(BadSignature):
        verified_payload(forged, algorithm, [TokenSigner(algorithm).key()])


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": None},
        {"alg": ["RS256"]},
        {"alg": "RS256", "kid": 7},
        {"alg": "RS256", "b64": False},
        {"alg": "RS256", "crit": ["exp"], "exp": 7},
    ],
)
def test_a_header_that_cannot_be_is_refused_though_it_is_signed(header: dict[str, Any]) -> None:
    signer = TokenSigner("RS256")
    token = compact(header, PAYLOAD, signer.sign)
    with pytest.raises(BadSignature):
        verified_payload(token, "RS256", [signer.key()])


@given(st.data())
def test_a_token_of_which_one_character_is_another_is_not_verified(data: Any) -> None:
    signer = TokenSigner(data.draw(st.sampled_from(["HS256", "RS256", "ES256", "EdDSA"])))
    token = signer.token()
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from(b"ABCzz09-_.=\n ").filter(lambda c: c != token[at]))
    changed = token[:at] + bytes([other]) + token[at + 1 :]
    with pytest.raises(BadSignature):
        verified_payload(changed, signer.algorithm, [signer.key()])


@given(st.binary(max_size=100) | st.lists(st.binary(max_size=40).map(b64), max_size=5).map(b".".join))
@example(b64(b"[" * 5_000) + b".e30.e30")
@example(b64(b'{"alg":"HS256","x":' + b"[" * 2_000 + b"]" * 2_000 + b"}") + b".e30.e30")
@example(b64(b'{"alg":' + b"9" * 5_000 + b"}") + b".e30.e30")
@example(b64(b'"alg"') + b".e30.e30")
def test_any_bytes_are_a_bad_signature(token: bytes) -> None:
    for algorithm in ("HS256", "RS256", "ES256"):
        with pytest.raises(BadSignature) as refused:
            verified_payload(token, algorithm, [TokenSigner(algorithm).key()])
        assert SECRET.decode() not in str(refused.value)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_signed_to_try_things_out_is_verified(algorithm: str) -> None:
    signer = TokenSigner(algorithm)
    key = SECRET if algorithm.startswith("HS") else private_pem(signer.kind)
    token = sign(PAYLOAD, key, algorithm, "2026-11").encode()
    assert json.loads(verified_payload(token, algorithm, [signer.key()])) == PAYLOAD


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(b"short", "HS256"), (b"", "RS256"), (pem("RSA"), "RS256")],
    ids=["short", "nothing", "public"],
)
def test_nothing_is_signed_with_what_is_no_key_for_it(key: bytes, algorithm: str) -> None:
    with pytest.raises(KeyProblem, match=f"the key cannot be used for {algorithm}"):
        sign(PAYLOAD, key, algorithm)


def test_what_is_said_of_a_bad_signature_tells_nothing_of_the_keys() -> None:
    token = TokenSigner("HS256", number=1).token()
    with pytest.raises(BadSignature) as refused:
        verified_payload(token, "HS256", [Key("", {"HS256": SECRET}), Key("", {"HS256": OTHER_SECRET[:-1] + b"!"})])
    assert str(refused.value) == "the signature is not the issuer's"
