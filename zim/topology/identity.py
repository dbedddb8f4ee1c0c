"""Who may come in, as the topology says it: `[[issuer]]`, `[callout]`, `[anonymous]`, `[[api_key]]`. Pure.

No secret stands in a topology: it names files, or variables of the environment, which are read by who needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from zim.fabric.grants import ANY_NUMBER, SessionPolicy
from zim.fabric.limits import PATTERNS, ROOMS, SESSIONS
from zim.fabric.patterns import ANY, PATTERN, is_pattern
from zim.fabric.principals import ApiKey
from zim.fabric.streams import is_room
from zim.topology.api_keys import MOST_KEYS, read_api_key
from zim.topology.endpoints import Endpoint
from zim.topology.tables import Reader, Table, checked, choice, seconds, show, text, whole

# Names as in RFC 7518 3.1 and RFC 8037 3.1. One family an issuer: a public key must never be taken for a secret.
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "HS": ("HS256", "HS384", "HS512"),
    "RS": ("RS256", "RS384", "RS512"),
    "PS": ("PS256", "PS384", "PS512"),
    "ES": ("ES256", "ES384", "ES512"),
    "EdDSA": ("EdDSA",),
}


KEYS = ("issuer", "callout", "anonymous", "api_key", "sessions")  # of the file


@dataclass(frozen=True)
class Secret:
    """Where a key is kept.

    Attributes:
        where: the key of the topology that says so, `issuer[0].secret_file`.
        file: absolute; None for a variable of the environment.
        variable: its name; "" for a file.
    """

    where: str
    file: Path | None = None
    variable: str = ""

    @property
    def what(self) -> str:
        """For people."""
        return str(self.file) if self.file else f"the variable {self.variable}"


@dataclass(frozen=True)
class Issuer:
    """One who signs tokens of clients.

    Attributes:
        issuer: what stands in `iss`.
        audiences: one of them stands in `aud`.
        algorithms: of one family.
        secrets: for HS; public_keys: for the others; jwks: instead of them, a URL of a set of keys.
        ca: of those who sign the certificate of that URL's server; None for the system's.
        leeway_s: how far clocks may differ.
        users, rooms: patterns of those that it may sign for.
    """

    issuer: str
    audiences: tuple[str, ...]
    algorithms: tuple[str, ...]
    secrets: tuple[Secret, ...] = ()
    public_keys: tuple[Secret, ...] = ()
    jwks: str = ""
    ca: Path | None = None
    leeway_s: float = 5.0
    users: tuple[str, ...] = ANY
    rooms: tuple[str, ...] = ANY


@dataclass(frozen=True)
class Callout:
    """The application, which is asked over HTTP.

    Attributes:
        connect: URL that is asked whose a token is; "" for nobody.
        join: URL that is asked whether a user may be in rooms; "" for nobody.
        timeout_s: for an answer.
        max_requests: under way at once, of one logic.
        ca: see Issuer.
    """

    connect: str = ""
    join: str = ""
    timeout_s: float = 2.0
    max_requests: int = 64
    ca: Path | None = None


@dataclass(frozen=True)
class Anonymous:
    """What people without a token may do; see Grant."""

    rooms: tuple[str, ...] = ()
    join: tuple[str, ...] = ()
    read: tuple[str, ...] = ()


@dataclass(frozen=True)
class Identity:
    """Who may come in.

    Attributes:
        issuers, callout, anonymous: of clients; without any of them goim's token handler believes everybody.
        sessions: how many a user may have.
        api_keys: of backends; without any, whoever reaches the API may do all.
    """

    issuers: tuple[Issuer, ...] = ()
    callout: Callout | None = None
    anonymous: Anonymous | None = None
    api_keys: tuple[ApiKey, ...] = ()
    sessions: SessionPolicy = ANY_NUMBER

    @property
    def knows_clients(self) -> bool:
        """Clients must say who they are, and are not believed without proof."""
        return self.knows_tokens or self.anonymous is not None

    @property
    def knows_tokens(self) -> bool:
        """There is somebody who can tell whose a token is."""
        return bool(self.issuers) or (self.callout is not None and self.callout.connect != "")


def read(file: Table, folder: Path) -> Identity:
    """All of it, as far as it is right. Notes problems in the table.

    Args:
        folder: that paths are relative to.
    """
    issuers = _read_each(file, "issuer", "issuer", lambda table: _issuer(table, folder))
    keys = _read_each(file, "api_key", "id", read_api_key)
    callout = _read_one(file, "callout", _CALLOUT_RIGHT)
    if callout is not None and "connect" not in callout.values and not {"issuer", "anonymous"} & file.values.keys():
        callout.add("join", "is asked about users, and nobody says who they are; right is connect, or an [[issuer]]")
    anonymous = _read_one(file, "anonymous", _ANONYMOUS_RIGHT)
    return Identity(
        tuple(issuers),
        None if callout is None else _callout(callout, folder),
        None if anonymous is None else Anonymous(**anonymous.read(_ANONYMOUS, {})),
        tuple(keys),
        _session_policy(file),
    )


def _read_each(file: Table, key: str, name: str, make: Any) -> list[Any]:
    """name: the key of what may be there once only."""
    tables = file.tables(key) if key in file.values else []
    first: dict[str, Table] = {}
    for table in tables:
        said = table.values.get(name)
        if isinstance(said, str) and first.setdefault(said, table) is not table:
            table.add(name, f"{show(said)} is that of {first[said].key} already; right is another one")
    return [found for table in tables if (found := make(table)) is not None]


def _read_one(file: Table, key: str, right: str) -> Table | None:
    return file.table(key, right) if key in file.values else None


# ---------------------------------------------------------------- issuers


def _issuer(table: Table, folder: Path) -> Issuer | None:
    if "secret" in table.values:
        del table.values["secret"]  # it is not shown, not even in an error
        table.add("secret", 'stands in the topology, which others read too; right is secret_file = "secrets/jwt"')
        return None
    found = table.read(_ISSUER, _ISSUER_REQUIRED)
    if len(found.keys() & _ISSUER_REQUIRED.keys()) < len(_ISSUER_REQUIRED):
        return None
    families = {name for name, members in FAMILIES.items() for a in found["algorithms"] if a in members}
    if len(families) > 1:
        table.add("algorithms", f"are of the families {', '.join(sorted(families))}; right is one family an issuer")
        return None
    ways = [way for way in _WAYS if way in table.values]
    wanted = ("secret_file", "secret_env") if families == {"HS"} else ("public_key_file", "jwks")
    if len(ways) != 1 or ways[0] not in wanted:
        has = f"has {' and '.join(ways)}" if ways else "has no key"
        table.add("", f"{has}; for {found['algorithms'][0]} right is one of {' and '.join(wanted)}")
        return None
    if "ca" in table.values and "jwks" not in table.values:
        table.add("ca", "is for jwks alone")
    at = table.path(ways[0])
    return Issuer(
        found["issuer"],
        found["audience"],
        found["algorithms"],
        secrets=tuple(
            [Secret(at, file=_path(name, folder)) for name in found.get("secret_file", ())]
            + [Secret(at, variable=name) for name in found.get("secret_env", ())]
        ),
        public_keys=tuple(Secret(at, file=_path(name, folder)) for name in found.get("public_key_file", ())),
        jwks=found.get("jwks", ""),
        ca=_ca(found, folder),
        leeway_s=found.get("leeway_s", Issuer.leeway_s),
        users=found.get("users", ANY),
        rooms=found.get("rooms", ANY),
    )


def _algorithms(table: Table, key: str) -> tuple[str, ...] | None:
    value = table.values.get(key)
    named = value if isinstance(value, list) else []
    known = [name for members in FAMILIES.values() for name in members]
    wrong = [name for name in named if name not in known]
    if named and not wrong:
        return tuple(named)
    said = f"has {show(wrong[0])}" if wrong else f"is {show(value)}"
    table.add(key, f"{said}; right is an array of {', '.join(known)}, all of one family")
    return None


def _path(name: str, folder: Path) -> Path:
    try:
        return (folder / Path(name).expanduser()).absolute()
    except RuntimeError:  # there is no such user
        return (folder / name).absolute()


def _ca(found: Mapping[str, Any], folder: Path) -> Path | None:
    return _path(found["ca"], folder) if "ca" in found else None


def _one_or_more(right: str) -> Reader:
    """Reads a text, or an array of some."""

    def is_right(value: Any) -> bool:
        values = value if isinstance(value, list) else [value]
        return 0 < len(values) <= MOST_KEYS and all(isinstance(v, str) and v and v.isprintable() for v in values)

    return checked(is_right, right, lambda v: tuple(v) if isinstance(v, list) else (v,))


def _url(table: Table, key: str) -> str | None:
    value = table.values[key]
    problem = _url_problem(value) if isinstance(value, str) else f"is {show(value)}"
    if problem:
        table.add(key, f'{problem}; right is a URL, "https://app.example.com/zim", or http:// on this machine')
        return None
    return str(value)


def _url_problem(url: str) -> str:
    if "@" in url:  # it is not shown, not even in an error
        return "has a name or a password in it, which others read too"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return f"{show(url)} is no URL"
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        return f"{show(url)} is no URL of http or https"
    if parts.scheme == "http" and not Endpoint("tcp", host, 80).is_local:
        return f"{show(url)} is not encrypted, and leaves this machine"
    return ""


# ---------------------------------------------------------------- callout


def _callout(table: Table, folder: Path) -> Callout | None:
    found = table.read(_CALLOUT, {})
    if not {"connect", "join"} & table.values.keys():
        table.add("", f"has neither connect nor join; right is {_CALLOUT_RIGHT}")
        return None
    ca = _ca(found, folder)
    found.pop("ca", None)
    return Callout(**found, ca=ca)


# ---------------------------------------------------------------- sessions


def _session_policy(file: Table) -> SessionPolicy:
    table = _read_one(file, "sessions", _SESSIONS_RIGHT)
    found = {} if table is None else table.read(_SESSIONS, {})
    wins = found.pop("wins", "newest")
    return SessionPolicy(**found, newest_wins=wins == "newest")


_CALLOUT_RIGHT = 'a table with connect = "https://app.example.com/zim/connect", or join, or both'
_ANONYMOUS_RIGHT = 'a table with rooms = ["lobby"], join and read, or none of them'
_PATTERNS_RIGHT = f'an array of patterns, ["chat-*"]; a pattern has {PATTERN}'

_WAYS: dict[str, Reader] = {
    "secret_file": _one_or_more('a file that holds the secret, such as "secrets/jwt", or an array of them'),
    "secret_env": _one_or_more('a variable of the environment, such as "ZIM_JWT_SECRET", or an array of them'),
    "public_key_file": _one_or_more('a file with a public key in PEM, such as "keys/auth.pem", or an array of them'),
    "jwks": _url,
}
_ISSUER_REQUIRED = {
    "issuer": 'what stands in iss, such as "https://auth.example.com"',
    "audience": 'what stands in aud, such as "zim", or an array',
    "algorithms": 'an array of one family, such as ["RS256"]',
}
_CA: dict[str, Reader] = {"ca": text("a file of certificates in PEM")}
_PATTERNS = checked(
    lambda v: isinstance(v, list) and len(v) <= PATTERNS and all(map(is_pattern, v)), _PATTERNS_RIGHT, tuple
)
_ISSUER: dict[str, Reader] = {
    "issuer": text(_ISSUER_REQUIRED["issuer"]),
    "audience": _one_or_more(_ISSUER_REQUIRED["audience"]),
    "algorithms": _algorithms,
    "leeway_s": seconds(0, 300),
    "users": _PATTERNS,
    "rooms": _PATTERNS,
    **_WAYS,
    **_CA,
}
_CALLOUT: dict[str, Reader] = {
    "connect": _url,
    "join": _url,
    "timeout_s": seconds(0.1, 30),
    "max_requests": whole(1, 10_000),
    **_CA,
}
_ANONYMOUS: dict[str, Reader] = {
    "rooms": checked(
        lambda v: isinstance(v, list) and len(v) <= ROOMS and all(isinstance(r, str) and is_room(r) for r in v),
        'an array of rooms, such as ["lobby"]',
        tuple,
    ),
    "join": _PATTERNS,
    "read": _PATTERNS,
}
_SESSIONS_RIGHT = "a table such as { per_user = 5, per_device = 1 }"
_SESSIONS: dict[str, Reader] = {
    "per_user": whole(0, SESSIONS),
    "per_device": whole(0, SESSIONS),
    "wins": choice("newest", "oldest"),
}
