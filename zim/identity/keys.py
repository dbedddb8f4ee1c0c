"""Keys that tokens are verified with, and the verification itself. The only importer of PyJWT and cryptography. Pure.

An issuer's algorithms stand in the topology, never in the token: they are of one family, so that a public key can never
be taken for a secret (RFC 8725 2.1, 3.1). A key is prepared once for each algorithm that it can do.
Source: RFC 7515 (signatures), RFC 7517 (JWK), RFC 7518 3 (algorithms and the least lengths of keys).
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from jwt.algorithms import get_default_algorithms
from msgspec import UNSET, UnsetType

from zim.errors import ZimError
from zim.fabric.names import shown
from zim.topology.identity import FAMILIES

ALGORITHMS = tuple(algorithm for family in FAMILIES.values() for algorithm in family)

MAX_KEYS = 100  # of one set
MAX_RSA_BITS = 8_192  # each bit more costs whoever verifies

_BY_NAME = get_default_algorithms()
_JWS = jwt.PyJWS(ALGORITHMS, {"enforce_minimum_key_length": True})
_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "EdDSA": "OKP"}  # RFC 7518 6.1, RFC 8037 2
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}


class KeyProblem(ZimError):
    """A key cannot be used. Its text goes on after the place where the key is: "is empty"."""


class BadSignature(ZimError):
    """A token was not signed by the keys that it should be. Its text never holds anything of a key."""


class Key(NamedTuple):
    """One key.

    Attributes:
        kid: its name in tokens; "" for none.
        by_algorithm: what verifies, by the algorithms that it can do.
    """

    kid: str
    by_algorithm: Mapping[str, Any]


def family(algorithm: str) -> str:
    """The family of an algorithm; "" for one that is not known."""
    return next((name for name, members in FAMILIES.items() if algorithm in members), "")


def read_secret(secret: bytes, algorithms: Sequence[str]) -> Key:
    """A secret that both sides know, for HS. The end of its line is not part of it.

    Raises:
        KeyProblem: it is none, or too short.
    """
    secret = strip_line(secret)
    if not secret:
        raise KeyProblem("is empty")
    return _prepared("", secret, algorithms)


def strip_line(secret: bytes) -> bytes:
    """A secret without the end of its line."""
    return secret.removesuffix(b"\n").removesuffix(b"\r")


def read_pem(pem: bytes, algorithms: Sequence[str]) -> Key:
    """A public key in PEM.

    Raises:
        KeyProblem: it is none, or none for these algorithms.
    """
    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if _is_private(pem):
            raise KeyProblem("is a private key; zim verifies only, right is the public one") from None
        raise KeyProblem('is no public key in PEM; right begins with "-----BEGIN PUBLIC KEY-----"') from None
    return _prepared("", key, algorithms)


def _is_private(pem: bytes) -> bool:
    if b"PRIVATE KEY-----" in pem:
        return True
    try:
        load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def read_jwks(document: bytes, algorithms: Sequence[str]) -> list[Key]:
    """The keys of a set (RFC 7517 5) that these algorithms can use. Others in it, and what is no key, are passed over.

    Raises:
        KeyProblem: it is no set, or there is no such key in it.
    """
    try:
        found = msgspec.json.decode(document, type=dict[str, Any]).get("keys")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise KeyProblem("is no JSON object") from None
    if not isinstance(found, list):
        raise KeyProblem('has no array "keys"')
    if len(found) > MAX_KEYS:
        raise KeyProblem(f"has {len(found)} keys; right is at most {MAX_KEYS}")
    keys = [key for jwk in found if isinstance(jwk, dict) and (key := _read_jwk(jwk, algorithms)) is not None]
    if not keys:
        raise KeyProblem(f"has no key for {', '.join(algorithms)} among {len(found)}")
    return keys


def _read_jwk(jwk: Mapping[str, Any], algorithms: Sequence[str]) -> Key | None:
    kid = jwk.get("kid", "")
    mine = [a for a in algorithms if jwk.get("alg", a) == a and jwk.get("kty") == _TYPES.get(family(a))]
    if jwk.get("kty") == "EC":
        mine = [a for a in mine if _CURVES.get(str(jwk.get("crv"))) == a]
    uses = jwk.get("key_ops", ["verify"])
    if not mine or not isinstance(kid, str) or jwk.get("use", "sig") != "sig":
        return None
    if not isinstance(uses, list) or "verify" not in uses or "d" in jwk:  # d: somebody publishes a private key
        return None
    try:
        return _prepared(kid, jwt.PyJWK(dict(jwk), mine[0]).key, mine)
    except (KeyProblem, jwt.PyJWTError, ValueError, TypeError, UnsupportedAlgorithm):
        return None


def _prepared(kid: str, key: Any, algorithms: Sequence[str]) -> Key:
    if isinstance(key, RSAPublicKey) and key.key_size > MAX_RSA_BITS:
        raise KeyProblem(f"has {key.key_size} bits; right is at most {MAX_RSA_BITS}")
    found = {}
    why = "no algorithm is named"
    for name in algorithms:
        algorithm = _BY_NAME[name]
        try:
            prepared = algorithm.prepare_key(key)
            why = algorithm.check_key_length(prepared) or ""
        except (jwt.PyJWTError, TypeError, ValueError) as e:
            why = f"cannot be used for {name}: {e}"
        if not why:
            found[name] = prepared
    if not found:
        raise KeyProblem(why[0].lower() + why[1:])
    return Key(kid, found)


class _Header(msgspec.Struct):
    alg: str
    kid: str = ""
    b64: bool = True  # RFC 7797: if not, the payload is not in base64url
    crit: UnsetType = UNSET  # what must be understood: there is nothing


def verified_payload(token: bytes, algorithm: str, keys: Sequence[Key]) -> bytes:
    """The payload of a token in the compact form, signed by one of these keys.

    PyJWT's own way in reads the header, and each character, once more, and prepares the key anew: that is half of what
    a login costs.

    Args:
        algorithm: one of the issuer's, which the token names too.
        keys: those that may have signed it; each that can do the algorithm is tried.

    Raises:
        BadSignature: it was not.
    """
    signed, _, last = token.rpartition(b".")
    head, _, body = signed.partition(b".")
    try:
        header = msgspec.json.decode(unpack(head), type=_Header)
        payload, signature = unpack(body), unpack(last)
    except (ValueError, RecursionError) as e:  # msgspec's errors, and those of base64, are among them
        raise BadSignature(f"it is not in the compact form: {e}") from None
    if not header.b64:
        raise BadSignature("its header says b64, and its payload is in base64url")
    if header.alg != algorithm:
        raise BadSignature(f"its header says {shown(header.alg)}, and not {algorithm}")
    why = f"no key of the issuer is for {algorithm}"
    for key in keys:
        if (prepared := key.by_algorithm.get(algorithm)) is None:
            continue
        why = "the signature is not the issuer's"
        try:
            if _BY_NAME[algorithm].verify(signed, prepared, signature):
                return payload
        except (ValueError, TypeError) as e:
            raise BadSignature(str(e)) from None
    raise BadSignature(why)


def unpack(part: bytes) -> bytes:
    """What stands in a part of a token, base64url without padding (RFC 7515 2), in its one spelling.

    Raises:
        ValueError: it is not.
    """
    found = urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    if urlsafe_b64encode(found).rstrip(b"=") != part:
        raise ValueError("a part is not in base64url")
    return found


def sign(payload: Mapping[str, Any], key: Any, algorithm: str, kid: str = "") -> str:
    """A token in the compact form, for trying things out.

    Args:
        key: a secret, or a private key in PEM.

    Raises:
        KeyProblem: it is none for this algorithm.
    """
    try:
        return _JWS.encode(msgspec.json.encode(payload), key, algorithm, {"kid": kid} if kid else None)
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, UnsupportedAlgorithm) as e:
        raise KeyProblem(f"the key cannot be used for {algorithm}: {e}") from None
