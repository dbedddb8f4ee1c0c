"""Link keys in files: who a node is for other nodes. Blocks for the disk.

A key pair is one of Curve25519, as ZeroMQ's CURVE takes it. Both halves are written in hexadecimal.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from zim.errors import ZimError
from zim.program import zim_command
from zim.topology.links import KEY, Links, is_key, list_text

MAX_FILE_BYTES = 4_096  # a key has 64


class NoLinkKey(ZimError):
    """A link key is not there, or is none, or is not the one of the list. Its text never holds a secret."""


def public_of(secret: str) -> str:
    """The public half of a secret key."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey  # 8 MB that nodes do not need

    return X25519PrivateKey.from_private_bytes(bytes.fromhex(secret)).public_key().public_bytes_raw().hex()


def make_secret() -> str:
    """A new secret key, 256 random bits."""
    return os.urandom(32).hex()


def read_secret(links: Links, name: str) -> str:
    """A node's secret key.

    Raises:
        NoLinkKey: it cannot be had.
    """
    file = links.secret_file(name)
    try:
        with file.open("rb") as f:
            content = f.read(MAX_FILE_BYTES)
    except FileNotFoundError:
        raise NoLinkKey(
            f"{file}: there is no such file, and {name} needs its secret link key;"
            f" {zim_command()} link-key make writes it, or bring it from the machine where that was"
        ) from None
    except OSError as e:
        raise NoLinkKey(f"{file}: cannot be read: {e.strerror}") from None
    secret = content.decode("ascii", "replace").strip()
    if not is_key(secret):
        raise NoLinkKey(f"{file}: is no secret link key; right is {KEY}")
    return secret


def own_secret(links: Links, name: str, derive: Callable[[str], str] = public_of) -> str:
    """The secret key of a node that may come in: the list has its public half.

    Args:
        derive: `public_of`, or what does the same.

    Raises:
        NoLinkKey: it cannot be had, or is not the one of the list.
    """
    secret = read_secret(links, name)
    listed = links.public.get(name)
    if listed is None:
        raise NoLinkKey(
            f"{links.list_file}: has no key of {name}, so no other node lets it in; {zim_command()} link-key make"
            " puts it there"
        )
    if derive(secret) != listed:
        raise NoLinkKey(
            f"{links.secret_file(name)}: is not the secret of the key that {links.list_file} has for {name}; right is"
            " the secret that was made with it, or a new pair: take both away and make them anew"
        )
    return secret


def is_seen_by_others(file: Path) -> bool:
    """Others on this machine than its owner and group may read it, as far as its mode says."""
    try:
        return bool(file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH))
    except OSError:
        return False


class Found(Enum):
    """What was to be done for the key of a node."""

    MADE = "made"
    KEPT = "kept"
    LISTED = "put into the list: its secret was there"
    ELSEWHERE = "in the list; its secret is not here, so it is on another machine"


class Made(NamedTuple):
    """What `make_keys` has done.

    Attributes:
        links: with all keys.
        found: by node.
    """

    links: Links
    found: Mapping[str, Found]


def make_keys(links: Links, names: Iterable[str]) -> Made:
    """Makes the keys that are missing, and writes them. What is there stays.

    Args:
        links: with the list as it is.
        names: of the nodes.

    Raises:
        NoLinkKey: a key that is there is wrong, or does not fit the list: then nothing is written.
        OSError: a file cannot be written.
    """
    public, found, new = dict(links.public), dict[str, Found](), dict[str, str]()
    for name in names:
        if not os.path.lexists(links.secret_file(name)):
            found[name] = Found.ELSEWHERE if name in public else Found.MADE
            if name not in public:
                new[name] = make_secret()
                public[name] = public_of(new[name])
        elif name in public:
            own_secret(links, name)
            found[name] = Found.KEPT
        else:
            public[name] = public_of(read_secret(links, name))
            found[name] = Found.LISTED
    assert links.keys is not None
    links.keys.mkdir(parents=True, exist_ok=True)
    for name, secret in new.items():
        _write_secret(links.secret_file(name), secret)
    if public != links.public:
        _write_list(links.list_file, list_text(public))
    return Made(replace(links, public=public), found)


def _write_secret(file: Path, secret: str) -> None:
    """It is there whole, or not at all; never in the place of another one."""
    fresh = file.with_name(f"{file.name}.new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as f:
        f.write(secret + "\n")
        f.flush()
        os.fsync(fd)
    os.link(fresh, file)  # unlike a rename it does not replace what is there
    fresh.unlink()


def _write_list(file: Path, content: str) -> None:
    fresh = file.with_name(f"{file.name}.new")
    with fresh.open("w") as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())
    fresh.replace(file)
