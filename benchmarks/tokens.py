"""Tokens that a fabric has to verify: an issuer for its topology, and what that issuer signs."""

from __future__ import annotations

import os
import secrets
import time

import jwt

_SECRET = "ZIM_BENCH_SECRET"

ISSUER = f"""
[[issuer]]
issuer = "https://bench.example"
audience = "zim"
algorithms = ["HS256"]
secret_env = "{_SECRET}"
"""


def make_secret() -> None:
    """One for every process that this one starts from now on."""
    os.environ[_SECRET] = secrets.token_urlsafe(48)


def sign(uid: int) -> bytes:
    """A token of user `uid`, who may join any room and is in room 1 from the start."""
    claims = {"iss": "https://bench.example", "aud": "zim", "exp": int(time.time()) + 3_600, "sub": str(uid)}
    return jwt.encode({**claims, "zim": {"rooms": ["1"], "join": ["*"]}}, os.environ[_SECRET], "HS256").encode()
