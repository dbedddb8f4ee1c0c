"""Connections to PostgreSQL: which host, by what options, and what becomes of a connection that hangs.

Under gevent psycopg waits with the patched `select`; names are resolved here, because libpq would hold up the hub.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import gevent
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.string import StrBinaryDumper

from zim.errors import Unavailable, ZimError
from zim.nodes.router.log import Damaged, unavailable, unknown
from zim.nodes.router.log.postgresql import failures, packing
from zim.nodes.router.log.shared import WhereShared
from zim.nodes.router.log.turn import Turn

log = logging.getLogger(__name__)

T = TypeVar("T")
Connection = psycopg.Connection[tuple[Any, ...]]

CONNECT_S = 1.5  # to one address
SCHEMA = "zim"

# A cut link is noticed within these: https://www.postgresql.org/docs/current/libpq-connect.html
_WATCHED = {
    "keepalives_idle": "2",
    "keepalives_interval": "1",
    "keepalives_count": "3",
    "tcp_user_timeout": "4000",  # ms
    "connect_timeout": "3",
    "gssencmode": "disable",  # it asks Kerberos, and the hub would wait
}
# Plans are made once, for parameters are arrays of which the planner knows nothing; JIT takes longer than any of them.
_SETTINGS = {
    "search_path": SCHEMA,
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",  # tables that were empty when a plan was made do not stay so
    "enable_mergejoin": "off",
    "enable_hashjoin": "off",
    "default_transaction_isolation": "read\\ committed",
    "client_encoding": "UTF8",
    "TimeZone": "UTC",
}
_WARNING = "01000"


def _options(given: str, settings: dict[str, str]) -> str:
    ours = " ".join(f"-c {name}={value}" for name, value in settings.items())
    return f"{given} {ours}".strip()


@dataclass
class PostgresServer:
    """Where PostgreSQL is.

    Attributes:
        place: what the topology says.
        last: the address that answered last: it is tried first.
        shunned: one that hangs, or does not know what it should: it is tried last.
    """

    place: WhereShared
    last: str = ""
    shunned: str = ""
    name: str = field(default="zim", kw_only=True)

    def connect(self, *, commits: str = "on", limit_s: float = 0.0) -> Connection:
        """A connection to a server that takes writes, in autocommit mode. Switches.

        Args:
            commits: of synchronous_commit; "on" waits for the standby.
            limit_s: of a statement, in the server: a commit that waits is never cut off by it. 0 for none.

        Raises:
            Unavailable: there is none.
        """
        settings = {**_SETTINGS, "synchronous_commit": commits, "statement_timeout": str(int(limit_s * 1000))}
        why = "it has no address"
        for address, parameters in self._attempts(settings):
            patience = gevent.Timeout(CONNECT_S)
            try:
                with patience:
                    connection = psycopg.connect(make_conninfo(**parameters), autocommit=True, prepare_threshold=0)
            except psycopg.Error as e:
                why = failures.text_of(e)
                continue
            except gevent.Timeout as e:
                if e is not patience:
                    raise
                why = f"{address} does not answer"
                continue
            self.last = address
            _adapt(connection)
            return connection
        raise unavailable(f"PostgreSQL cannot be reached: {why}")

    def distrust(self) -> None:
        """The server that answered last does not do what it should: it may have been deposed."""
        self.shunned, self.last = self.last or self.shunned, ""

    def _attempts(self, settings: dict[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Parameters of one address each, the one that answered last first. Switches."""
        given = conninfo_to_dict(self.place.url)
        options = _options(str(given.pop("options", "")), settings)
        common: dict[str, Any] = {**_WATCHED, "application_name": self.name, **given, "options": options}
        if self.place.passfile is not None:
            common["passfile"] = str(self.place.passfile)
        hosts = _listed(common.pop("host", None) or os.environ.get("PGHOST"))
        ports = _listed(common.pop("port", None) or os.environ.get("PGPORT"))
        addresses = _listed(common.pop("hostaddr", None))
        count = max(len(hosts), len(addresses), 1)
        found: list[tuple[str, dict[str, Any]]] = []
        for i in range(count):
            host, port = hosts[i] if i < len(hosts) else "", ports[i] if len(ports) == count else (ports or [""])[0]
            where = {**common, **({"port": port} if port else {}), **({"host": host} if host else {})}
            known = addresses[i] if i < len(addresses) else ""
            if known or not host or host.startswith(("/", "@")):
                found.append((f"{host or known}:{port}", {**where, **({"hostaddr": known} if known else {})}))
                continue
            found += [(f"{address}:{port}", {**where, "hostaddr": address}) for address in _resolved(host)]
        yield from sorted(found, key=lambda one: (one[0] == self.shunned, one[0] != self.last))


def _listed(value: object) -> list[str]:
    return str(value).split(",") if value else []


def _resolved(host: str) -> list[str]:
    """Addresses of a name; none for one that nobody knows now. Switches."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as e:
        log.warning("a host of the log cannot be resolved", extra={"host": host, "error": str(e)})
        return []
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def _adapt(connection: Connection) -> None:
    for of, dumper in (
        (int, packing.NumberDumper),
        (str, StrBinaryDumper),
        (packing.Whole, packing.WholeDumper),
        (packing.Blobs, packing.BlobsDumper),
        (packing.Texts, packing.TextsDumper),
    ):
        connection.adapters.register_dumper(of, dumper)


class ServerLine:
    """One connection, made when it is needed, for one greenlet at a time.

    Attributes:
        turn: to use it.
        made: how many connections there were.
        is_full: the engine's disk had no room for the last call.
    """

    def __init__(self, server: PostgresServer, limit_s: float, *, commits: str = "on") -> None:
        """
        Args:
            limit_s: a call that takes longer is given up, and its connection closed.
            commits: see PostgresServer.connect.
        """
        self.turn, self.made, self.is_full = Turn(), 0, False
        self._server, self._limit_s, self._commits = server, limit_s, commits
        self._connection: Connection | None = None
        self._is_closed = self._is_doomed = self._is_broken = False
        self._warned = ""

    def write(self, job: Callable[[Connection], T]) -> T:
        """What the job returns. Switches: until it is committed on the standby, too.

        Raises:
            Unavailable, Unknown, Damaged: see Log.
        """
        return self._run(job, failures.of_write, unknown)

    def read(self, job: Callable[[Connection], T]) -> T:
        """What the job returns, which changes nothing. Switches.

        Raises:
            Unavailable, Damaged: see Log.
        """
        made = self.made
        try:
            return self._run(job, failures.of_read, unavailable)
        except Unavailable:
            # A connection that was idle while its server died: there may be another server by now.
            if not self._is_broken or self.made != made:
                raise
        return self._run(job, failures.of_read, unavailable)

    def _run(
        self,
        job: Callable[[Connection], T],
        meaning: Callable[[psycopg.Error], ZimError],
        cut: Callable[[str], ZimError],
    ) -> T:
        with self.turn:
            connection = self._connected()
            is_whole, patience = False, gevent.Timeout(self._limit_s)
            self._warned, self._is_broken = "", False
            try:
                with patience:
                    result = job(connection)
                if self._warned:
                    raise failures.CommitUnsureError(self._warned)
                is_whole, self.is_full = True, False
                return result
            except psycopg.Error as e:
                self.is_full = failures.is_full(e)
                if isinstance(e, failures.StaleServerError):
                    self._server.distrust()
                is_whole = not failures.ends_connection(e) and not connection.closed
                self._is_broken = not is_whole
                raise meaning(e) from None
            except gevent.Timeout as e:
                if e is not patience:
                    raise
                self._server.distrust()
                raise cut(f"no answer in {self._limit_s:g} s") from None
            except UnicodeDecodeError as e:
                is_whole = True
                raise Damaged("PostgreSQL", f"a row is not readable ({e})") from None
            except ZimError:
                is_whole = True
                raise
            finally:
                if self._is_doomed or not is_whole:
                    self._close()

    def _connected(self) -> Connection:
        if self._is_closed:
            raise unavailable("it is closed")
        found = self._connection
        if found is None or found.closed:
            found = self._server.connect(commits=self._commits, limit_s=self._limit_s)
            if self._is_closed:
                found.close()
                raise unavailable("it is closed")
            self._connection = found
            found.add_notice_handler(self._on_notice)
            self.made += 1
        return found

    def _on_notice(self, notice: psycopg.errors.Diagnostic) -> None:
        """A wait for the standby that was cut off answers success, with a warning. SyncRepWaitForLSN in syncrep.c."""
        if notice.sqlstate == _WARNING:
            self._warned = notice.message_primary or "a commit did not wait for the standby"

    def drop(self) -> None:
        """The connection is of no use any more. Who uses it now closes it: libpq would crash, if others did.

        Never cancels what runs: a commit would stop waiting for the standby.
        """
        if self.turn.load:
            self._is_doomed = True
        else:
            self._close()

    def _close(self) -> None:
        connection, self._connection, self._is_doomed = self._connection, None, False
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """Ends it. Switches: until who uses it is done."""
        self._is_closed = True
        with self.turn:
            self._close()


class Pool:
    """Some lines, for calls that may wait for each other."""

    def __init__(self, server: PostgresServer, size: int, limit_s: float) -> None:
        self._lines = [ServerLine(server, limit_s) for _ in range(size)]

    @property
    def made(self) -> int:
        """How many connections there were."""
        return sum(line.made for line in self._lines)

    def _least(self) -> ServerLine:
        return min(self._lines, key=lambda line: line.turn.load)

    def write(self, job: Callable[[Connection], T]) -> T:
        """See ServerLine."""
        return self._least().write(job)

    def read(self, job: Callable[[Connection], T]) -> T:
        """See ServerLine."""
        return self._least().read(job)

    def drop(self) -> None:
        """They may lead to a server that was deposed."""
        for line in self._lines:
            line.drop()

    def close(self) -> None:
        """Ends them."""
        for line in self._lines:
            line.close()
