"""Links between nodes, as the topology says it: `[links]`, and the list of public keys that it names. Pure.

With link keys every link is encrypted (CURVE, RFC 26 of ZeroMQ), and who is at its other end is known by its key. A
folder has the list of all public keys, `public.toml`, and of each node that runs on this machine its secret key,
`comet-1.secret`. The list is part of the topology; the secrets are read by who needs them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from zim.topology.tables import Table, show, text

LIST = "public.toml"
KEY = "64 hexadecimal digits, as zim link-key make writes them"
_KEY = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"(router|logic|job|comet)-[1-9][0-9]{0,9}")


@dataclass(frozen=True)
class Links:
    """How nodes know each other.

    Attributes:
        keys: the folder of link keys, absolute; None if links are not encrypted.
        public: the public key of each node by its name, in hexadecimal. A node without one is let in nowhere.
    """

    keys: Path | None = None
    public: Mapping[str, str] = field(default_factory=dict)

    @property
    def list_file(self) -> Path:
        """The list of public keys."""
        assert self.keys is not None
        return self.keys / LIST

    def secret_file(self, name: str) -> Path:
        """Where a node's secret key is, on its machine."""
        assert self.keys is not None
        return self.keys / f"{name}.secret"


def read(file: Table, folder: Path) -> Links:
    """What `[links]` says, without the list. Notes problems in the table.

    Args:
        folder: that the path is relative to.
    """
    right = 'one table [links], with keys = "link-keys"'
    table = file.table("links", right) if "links" in file.values else None
    if table is None:
        return Links()
    what = 'the folder of link keys, such as "link-keys"; zim link-key make writes it'
    found = table.read({"keys": text(what)}, {"keys": what})
    if "keys" not in found:
        return Links()
    try:
        return Links((folder / Path(found["keys"]).expanduser()).absolute())
    except RuntimeError:
        table.add("keys", f"{found['keys']}: there is no such user")
        return Links()


def is_key(value: object) -> bool:
    """It may be a link key, public or secret: 32 bytes in hexadecimal."""
    return isinstance(value, str) and _KEY.fullmatch(value) is not None


def parse_list(content: str, file: Path) -> tuple[dict[str, str], list[str]]:
    """The list of public keys, as far as it is right.

    Args:
        content: TOML, `comet-1 = "…"`.
        file: stands in messages.

    Returns:
        keys by node name; and what is wrong, a sentence each.
    """
    try:
        values = tomllib.loads(content)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        return {}, [f"{file}: is not TOML: {str(error)[:200] or 'it is nested too deeply'}"]
    found: dict[str, str] = {}
    problems: list[str] = []
    first: dict[str, str] = {}
    for name, key in values.items():
        if not _NAME.fullmatch(name):
            problems.append(f"{file}: {show(name)} is not the name of a node; right is a name such as comet-1")
        elif not is_key(key):
            problems.append(f"{file}: what stands for {name} is no link key; right is {KEY}")
        elif (other := first.setdefault(key, name)) != name:
            problems.append(f"{file}: {name} has the key of {other}; right is a key of its own, for a key is who it is")
        else:
            found[name] = key
    return found, problems


def list_text(public: Mapping[str, str]) -> str:
    """The list of public keys as a file."""
    head = (
        "# The public link key of every node. Every machine has all of this file, and the secrets of its own nodes.\n"
    )
    return head + "".join(f'{name} = "{key}"\n' for name, key in public.items())


def differences(old: Links, new: Links) -> Iterator[str]:
    """What is new in the list of public keys."""
    for name in {**old.public, **new.public}:
        before, after = old.public.get(name), new.public.get(name)
        if before != after:
            what = "added" if before is None else "taken away" if after is None else "replaced"
            yield f"links.keys: the key of {name}, {what}"
