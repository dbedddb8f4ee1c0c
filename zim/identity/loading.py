"""Reads the keys that a topology names, from files and the environment. Blocks for the disk: at start, at reload."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from zim.asking import HttpAsker
from zim.errors import ZimError
from zim.identity.keys import Key, KeyProblem, read_pem, read_secret, strip_line
from zim.topology.identity import Callout, Identity, Issuer, Secret

MAX_FILE_BYTES = 64 << 10  # a key has some hundreds


class NoKey(ZimError):
    """What a topology names is not there, or is no key. Its text never holds anything of a secret."""


def fixed_keys(issuer: Issuer) -> list[Key]:
    """The keys of an issuer that has no URL of them.

    Raises:
        NoKey: one of them cannot be had.
    """
    return [*_read(issuer.secrets, read_secret, issuer), *_read(issuer.public_keys, read_pem, issuer)]


class Loaded(NamedTuple):
    """What an identity names, read.

    Attributes:
        keys: of issuers that have no URL of them, by issuer.
        askers: who asks, by URL and by who signs the certificate of its server.
    """

    keys: Mapping[str, Sequence[Key]]
    askers: Mapping[tuple[str, Path | None], HttpAsker]


def load_identity(identity: Identity) -> Loaded:
    """Reads all that an identity names.

    Raises:
        ZimError: something cannot be had.
    """
    callout = identity.callout or Callout()
    urls = [(issuer.jwks, issuer.ca) for issuer in identity.issuers]
    urls += [(callout.connect, callout.ca), (callout.join, callout.ca)]
    keys = {issuer.issuer: fixed_keys(issuer) for issuer in identity.issuers}
    return Loaded(keys, {(url, ca): HttpAsker(url, ca) for url, ca in urls if url})


def file_problems(identity: Identity) -> list[str]:
    """Of the files that an identity names, those that cannot be used here, and why; variables are not looked at."""
    found = []
    for issuer in identity.issuers:
        for parse, kept in ((read_secret, issuer.secrets), (read_pem, issuer.public_keys)):
            for one in kept:
                if one.file is not None:
                    found += _problems(partial(_read, [one], parse, issuer))
    for where, url, ca in _asked(identity):
        if ca is not None:
            found += [f"{where}.ca: {text}" for text in _problems(partial(HttpAsker, url, ca))]
    return found


def _problems(read: Callable[[], object]) -> list[str]:
    try:
        read()
    except ZimError as e:
        return [str(e)]
    return []


def _asked(identity: Identity) -> list[tuple[str, str, Path | None]]:
    """The key of the topology, URL and `ca` of each who is asked over HTTP."""
    found = [(f"issuer[{i}]", issuer.jwks, issuer.ca) for i, issuer in enumerate(identity.issuers)]
    if (callout := identity.callout) is not None:
        found.append(("callout", callout.connect or callout.join, callout.ca))
    return found


def signing_secret(issuer: Issuer) -> bytes:
    """The first secret of an issuer, to sign with.

    Raises:
        NoKey: it has none, or it cannot be had.
    """
    if not issuer.secrets:
        raise NoKey(
            f"{issuer.issuer} signs with a private key, which the topology does not have; --private-key-file names it"
        )
    secret = issuer.secrets[0]
    try:
        return strip_line(_content(secret))
    except KeyProblem as e:
        raise NoKey(f"{secret.where}: {secret.what} {e}") from None
    except OSError as e:
        raise NoKey(f"{secret.where}: {secret.what} cannot be read: {e.strerror}") from None


def read_private_key(file: Path) -> bytes:
    """A private key, as it is in a file.

    Raises:
        NoKey: it cannot be read.
    """
    try:
        return _content(Secret("--private-key-file", file))
    except KeyProblem as e:
        raise NoKey(f"{file} {e}") from None
    except OSError as e:
        raise NoKey(f"{file} cannot be read: {e.strerror}") from None


def _read(secrets: Sequence[Secret], parse: Callable[[bytes, Sequence[str]], Key], issuer: Issuer) -> list[Key]:
    found = []
    for secret in secrets:
        try:
            found.append(parse(_content(secret), issuer.algorithms))
        except KeyProblem as e:
            raise NoKey(f"{secret.where}: {secret.what} {e}") from None
        except OSError as e:
            raise NoKey(f"{secret.where}: {secret.what} cannot be read: {e.strerror}") from None
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
