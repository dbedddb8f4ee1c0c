"""Reads the keys that a topology names, from files and the environment. Blocks for the disk: at start, at reload."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from zim.errors import ZimError
from zim.identity.keys import Key, KeyProblem, read_pem, read_secret
from zim.topology.identity import Issuer, Secret

MAX_FILE_BYTES = 64 << 10  # a key has some hundreds


class NoKey(ZimError):
    """What a topology names is not there, or is no key. Its text never holds anything of a secret."""


def fixed_keys(issuer: Issuer) -> list[Key]:
    """The keys of an issuer that has no URL of them.

    Raises:
        NoKey: one of them cannot be had.
    """
    return [*_read(issuer.secrets, read_secret, issuer), *_read(issuer.public_keys, read_pem, issuer)]


def _read(secrets: Sequence[Secret], parse: Callable[[bytes, Sequence[str]], Key], issuer: Issuer) -> list[Key]:
    found = []
    for secret in secrets:
        what = f"{secret.file}" if secret.file else f"the variable {secret.variable}"
        try:
            found.append(parse(_content(secret), issuer.algorithms))
        except KeyProblem as e:
            raise NoKey(f"{secret.where}: {what} {e}") from None
        except OSError as e:
            raise NoKey(f"{secret.where}: {what} cannot be read: {e.strerror}") from None
    return found


def _content(secret: Secret) -> bytes:
    if secret.file is None:
        value = os.environb.get(secret.variable.encode())
        if value is None:
            raise KeyProblem("is not set in the environment")
        return value
    with secret.file.open("rb") as f:
        content = f.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise KeyProblem(f"has more than {MAX_FILE_BYTES} bytes")
    return content
