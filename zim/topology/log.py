"""Where the log is, as the topology says it: `[log]`. Without that table each router has a log of its own. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, unquote

from zim.topology.tables import Reader, Table, checked, text, whole

EXAMPLE = "postgresql://zim@db-1,db-2/zim?target_session_attrs=read-write"
SHARDS, MOST_SHARDS = 16, 256

# https://www.postgresql.org/docs/current/libpq-connect.html: those that neither zim sets nor hold a secret.
PARAMETERS = (
    "channel_binding", "connect_timeout", "dbname", "gssencmode", "host", "hostaddr", "krbsrvname", "port",
    "require_auth", "requirepeer", "service", "sslcert", "sslcompression", "sslcrl", "sslcrldir", "sslkey", "sslmode",
    "sslnegotiation", "sslrootcert", "sslsni", "ssl_max_protocol_version", "ssl_min_protocol_version",
    "target_session_attrs", "user",
)  # fmt: skip
_SECRETS = ("password", "sslpassword", "passfile", "oauth_client_secret")
_OWN = ("localhost", "127.0.0.1", "::1")
_PROVEN = ("verify-ca", "verify-full")
_WRITABLE = ("read-write", "primary")
# As libpq reads it: user and password before the last @ of what stands before the first / or ?; hosts between commas.
_URL = re.compile(r"postgres(?:ql)?://(?:(?P<who>[^/?]*)@)?(?P<hosts>[^/?@]*)(?:/(?P<db>[^?]*))?(?:\?(?P<query>.*))?")


@dataclass(frozen=True)
class LogPlace:
    """A log that all routers share.

    Attributes:
        url: of PostgreSQL; several hosts of one cluster, of which one takes writes. Never a password.
        passfile: where libpq finds the password, absolute; None for PGPASSFILE, PGPASSWORD or ~/.pgpass.
        shards: in how many parts the streams are; as the log was made.
        single_copy: commits may be on one machine alone.
    """

    url: str
    passfile: Path | None = None
    shards: int = SHARDS
    single_copy: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its shards."""
        return tuple(f"shard-{i}" for i in range(1, self.shards + 1))

    @property
    def hosts(self) -> tuple[str, ...]:
        """Hosts of the URL, or folders of Unix sockets; none for libpq's default."""
        found = _URL.fullmatch(self.url)
        assert found is not None
        query = dict(parse_qsl(found["query"] or "", keep_blank_values=True))
        named = [_host(one) for one in found["hosts"].split(",")]
        return tuple(one for one in [*named, *query.get("host", "").split(",")] if one)

    @property
    def parameters(self) -> dict[str, str]:
        """Those of the URL's query."""
        found = _URL.fullmatch(self.url)
        assert found is not None
        return dict(parse_qsl(found["query"] or "", keep_blank_values=True))


def read(file: Table, folder: Path) -> LogPlace | None:
    """What `[log]` says; None without it, or if its URL is wrong. Notes problems in the table.

    Args:
        folder: that the path is relative to.
    """
    table = file.table("log", f'one table [log], with url = "{EXAMPLE}"') if "log" in file.values else None
    if table is None:
        return None
    found = table.read(_READERS, {"url": f'"{EXAMPLE}"'})
    if "passfile" in found:
        try:
            found["passfile"] = (folder / Path(found["passfile"]).expanduser()).absolute()
        except RuntimeError:
            table.add("passfile", f"{found['passfile']}: there is no such user")
    return LogPlace(**found) if "url" in found else None


def differences(old: LogPlace | None, new: LogPlace | None) -> Iterator[str]:
    """The keys that differ."""
    if old is None or new is None:
        if old is not new:
            yield "log"
        return
    yield from (f"log.{f.name}" for f in fields(LogPlace) if getattr(old, f.name) != getattr(new, f.name))


class Concern(NamedTuple):
    """A finding of a review, see there."""

    severity: Literal["error", "warning", "note"]
    key: str
    what: str
    right: str


def concerns(place: LogPlace, routers: int, modes: Mapping[Path, int | None]) -> Iterator[Concern]:
    """What a review says of it.

    Args:
        routers: how many there are.
        modes: permissions of files, None for one that is not there.
    """
    if place.single_copy:
        what = "single_copy = true: a commit may be on one machine alone, and what was accepted is lost with it"
        yield Concern("warning", "log.single_copy", what, "a synchronous standby, docs/postgresql.md")
    away = [host for host in place.hosts if not host.startswith(("/", "@")) and host not in _OWN]
    if away and place.parameters.get("sslmode") not in _PROVEN:
        what = f"{away[0]} need not prove who it is, and messages may go to it in clear"
        yield Concern("warning", "log.url", what, "sslmode=verify-full and sslrootcert=FILE in the URL")
    if routers == 1:
        what = "one router owns all shards, and nobody takes them over while it is away"
        yield Concern("note", "router", what, "two or more, on machines of their own")
    if place.passfile is not None and place.passfile in modes:
        mode = modes[place.passfile]
        if mode is None:
            yield Concern("error", "log.passfile", f"{place.passfile} is not there: no router starts", "it, mode 600")
        elif mode & 0o77:
            what = f"{place.passfile} can be read by others, and so libpq does not take it"
            yield Concern("error", "log.passfile", what, f"chmod 600 {place.passfile}")


def _read_url(table: Table, key: str) -> str | None:
    """The URL, if libpq would take it. It is never repeated: it may hold what is nobody's business."""
    url: str | None = text(f'where PostgreSQL is, such as "{EXAMPLE}"')(table, key)
    problem = None if url is None else url_problem(url)
    if problem is not None:
        table.add(key, problem)
        return None
    return url


def url_problem(url: str) -> str | None:
    """What is wrong with a URL of PostgreSQL, without what is in it; None for nothing."""
    found = _URL.fullmatch(url)
    if found is None:
        return f'is no URL of PostgreSQL; right is one such as "{EXAMPLE}"'
    where = "right is log.passfile, or PGPASSFILE or PGPASSWORD in the environment of routers"
    if ":" in (found["who"] or ""):
        return f"has a password, and this file may be read by many; {where}"
    for name, value in parse_qsl(found["query"] or "", keep_blank_values=True):
        if name in _SECRETS:
            return f"has a {name}; {where}"
        if name not in PARAMETERS:
            return f"has a parameter that zim does not take; there are {', '.join(PARAMETERS)}"
        if not value:
            return f"has a {name} without a value; right is {name}=VALUE, or none"
    parameters = dict(parse_qsl(found["query"] or ""))
    for part in (found["who"] or "", found["hosts"], found["db"] or "", *parameters.values()):
        if not unquote(part).isprintable():
            return "has a control character behind a %"
    ports = [_port(one) for one in found["hosts"].split(",")] + parameters.get("port", "").split(",")
    if not all(port == "" or (port.isdecimal() and 0 < int(port[:9]) < 65_536) for port in ports):
        return "has a port that is none; right is a number from 1 to 65535"
    several = max(len(found["hosts"].split(",")), len(parameters.get("host", "").split(",")))
    if several > 1 and parameters.get("target_session_attrs") not in _WRITABLE:
        return "has several hosts; right is target_session_attrs=read-write with them, or zim might write to a standby"
    return None


def _host(text_: str) -> str:
    """The host of `host:port`, `[::1]:5432` or `%2Fvar%2Frun`."""
    return unquote(text_[1:].partition("]")[0] if text_.startswith("[") else text_.partition(":")[0])


def _port(text_: str) -> str:
    rest = text_.partition("]")[2] if text_.startswith("[") else text_
    return rest.partition(":")[2]


_READERS: dict[str, Reader] = {
    "url": _read_url,
    "passfile": text('a file in the form of ~/.pgpass, such as "pgpass"'),
    "shards": whole(1, MOST_SHARDS),
    "single_copy": checked(lambda v: isinstance(v, bool), "true or false"),
}
