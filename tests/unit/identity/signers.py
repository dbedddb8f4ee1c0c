"""Who signs tokens in tests, and tokens made by hand, so that wrong ones can be made too."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jwt.algorithms import get_default_algorithms

from zim.identity.keys import Key, read_jwks, read_secret
from zim.topology.identity import Issuer

NOW = 1_764_192_000.0  # of the wall clock, in all tests
ISSUER = "https://auth.example.com"
SECRET = b"a secret of sixty-four bytes, so that it will do for each of HS*"
OTHER_SECRET = SECRET[::-1]
PAYLOAD = {"iss": ISSUER, "aud": "zim", "sub": "7", "exp": NOW + 60}

_ALGORITHMS = get_default_algorithms()
_CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}
_KEYS: dict[str, Callable[[], Any]] = {
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "small RSA": lambda: rsa.generate_private_key(65537, 1024),
    "DSA": lambda: dsa.generate_private_key(1024),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
    "X25519": x25519.X25519PrivateKey.generate,
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    **{name: lambda curve=curve: ec.generate_private_key(curve()) for name, curve in _CURVES.items()},  # type: ignore[misc]
}


@cache
def private_key(kind: str, number: int = 0) -> Any:
    """The same one for the same kind and number: they take time to make."""
    return _KEYS[kind]()


def pem(kind: str, number: int = 0) -> bytes:
    """A public key."""
    key = private_key(kind, number).public_key()
    found: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return found


def private_pem(kind: str) -> bytes:
    """A key that is nobody's business."""
    found: bytes = private_key(kind, 0).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return found


class TokenSigner:
    """One key of an issuer.

    Attributes:
        algorithm: that it signs with.
        kid: its name in its tokens; "" for none.
    """

    def __init__(self, algorithm: str = "RS256", kid: str = "", number: int = 0) -> None:
        self.algorithm, self.kid, self._number = algorithm, kid, number

    @property
    def kind(self) -> str:
        """Of its key."""
        return "RSA" if self.algorithm[:2] in ("RS", "PS") else self.algorithm

    def sign(self, text: bytes) -> bytes:
        """The signature of any bytes."""
        if self.algorithm.startswith("HS"):
            key: Any = SECRET if self._number == 0 else OTHER_SECRET
        else:
            key = private_key(self.kind, self._number)
        return _ALGORITHMS[self.algorithm].sign(text, key)

    def jwk(self, **more: Any) -> dict[str, Any]:
        """Its public key, as it stands in a set. more: fields of it; None takes one away."""
        key = private_key(self.kind, self._number).public_key()
        found = dict(_ALGORITHMS[self.algorithm].to_jwk(key, as_dict=True))
        found.pop("key_ops", None)
        found |= {"kid": self.kid} if self.kid else {}
        return {name: value for name, value in (found | more).items() if value is not None}

    def private_jwk(self) -> dict[str, Any]:
        """The one that it signs with, published by mistake."""
        return {
            **_ALGORITHMS[self.algorithm].to_jwk(private_key(self.kind, self._number), as_dict=True),
            "key_ops": None,
        }

    def key(self) -> Key:
        """As zim knows it."""
        if self.algorithm.startswith("HS"):
            return read_secret(SECRET if self._number == 0 else OTHER_SECRET, [self.algorithm])
        return read_jwks(key_set(self.jwk()), [self.algorithm])[0]

    def token(self, payload: Any = None, header: Any = None, **claims: Any) -> bytes:
        """A token of it.

        Args:
            payload: all of it, as JSON's value or as bytes; PAYLOAD if left out.
            header: fields on top of alg and kid, or all of it as bytes.
            claims: on top of the payload; None takes one away.
        """
        if not isinstance(header, bytes):
            header = {"alg": self.algorithm, **({"kid": self.kid} if self.kid else {}), **(header or {})}
        if payload is None or claims:
            payload = {name: value for name, value in ({**(payload or PAYLOAD), **claims}).items() if value is not None}
        return compact(header, payload, self.sign)


def compact(header: Any, payload: Any, sign: Callable[[bytes], bytes]) -> bytes:
    """A token in three parts. header and payload: JSON's values, or bytes as they are."""
    parts = (part if isinstance(part, bytes) else to_json(part) for part in (header, payload))
    text = b".".join(map(b64, parts))
    return text + b"." + b64(sign(text))


def to_json(value: Any) -> bytes:
    """As few bytes as can be, but NaN and the like too."""
    return json.dumps(value, separators=(",", ":")).encode()


def b64(data: bytes) -> bytes:
    """In base64url, without padding (RFC 7515 2)."""
    return urlsafe_b64encode(data).rstrip(b"=")


def key_set(*jwks: Mapping[str, Any]) -> bytes:
    """What stands at an issuer's URL."""
    return to_json({"keys": jwks})


def issuer(algorithms: Sequence[str] = ("RS256",), jwks: str = "", name: str = ISSUER, leeway_s: float = 5.0) -> Issuer:
    """One who signs for zim."""
    return Issuer(name, ("zim",), tuple(algorithms), jwks=jwks, leeway_s=leeway_s)
