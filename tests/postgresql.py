"""PostgreSQL for tests: a cluster of our own in a folder of its own, with a standby if one is wanted.

PostgreSQL never runs as root: as root, it is started as the user that its package has made.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from zim.topology import LogPlace

USER = "postgres"
WAIT_S = 60.0
# Tests kill processes, not machines: what the kernel has is safe.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "200",
    "max_wal_senders": "6",
    "wal_keep_size": "512MB",
    "max_wal_size": "512MB",
    "hot_standby": "on",
    "log_min_messages": "warning",
}


def folder_of_programs() -> Path | None:
    """Where PostgreSQL's programs are; None if there are none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    program = shutil.which("initdb")
    return None if program is None else Path(program).parent


def require() -> Path:
    """The folder of its programs. Without it the test is skipped; with CI=true it fails."""
    found = folder_of_programs()
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("PostgreSQL is not installed: apt-get install postgresql")
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    return found


def _as_user() -> dict[str, Any]:
    if os.geteuid():
        return {}
    who = _user()
    return {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}


def _user() -> pwd.struct_passwd:
    for name in (USER, "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise AssertionError("there is no user that could run PostgreSQL")


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def wait_for(is_so: Callable[[], bool], what: str) -> None:
    """Waits for a fact."""
    end = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < end, what
        time.sleep(0.02)


class Postgres:
    """One server, on loopback.

    Attributes:
        port: of TCP.
        data: its folder.
        process: while it runs.
    """

    def __init__(self, folder: Path, name: str, programs: Path, **settings: str) -> None:
        self.folder, self.name, self.programs = folder, name, programs
        self.data, self.port = folder / name, _free_port()
        self.settings = {**SETTINGS, **settings}
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, program: str, *arguments: str) -> None:
        """One of PostgreSQL's programs, to its end."""
        command = [str(self.programs / program), *arguments]
        done = subprocess.run(command, capture_output=True, cwd=self.folder, check=False, **_as_user())
        assert done.returncode == 0, done.stderr.decode()

    def make(self) -> None:
        """An empty cluster."""
        self.run("initdb", "-D", str(self.data), "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "-N")

    def copy(self, of: Postgres) -> None:
        """A standby of another one."""
        where = f"host=127.0.0.1 port={of.port} user={USER} application_name={self.name}"
        self.run("pg_basebackup", "-D", str(self.data), "-d", where, "-R", "-X", "stream", "-c", "fast", "-N")

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        options = {**self.settings, "port": str(self.port), "unix_socket_directories": str(self.folder)}
        options["listen_addresses"] = "127.0.0.1"
        command = [str(self.programs / "postgres"), "-D", str(self.data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True, **_as_user()
            )
        wait_for(self.answers, f"{self.name} does not answer")

    def answers(self) -> bool:
        """Whether one can connect."""
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / f"{self.name}.log").read_text()[-2_000:]
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def execute(self, *statements: str, database: str = USER) -> list[Any]:
        """Statements on a connection of their own; the rows of the last one, if it has any."""
        with self.connect(database) as connection:
            rows: list[Any] = []
            for statement in statements:
                cursor = connection.execute(statement.encode())
                rows = cursor.fetchall() if cursor.description else []
            return rows

    def connect(self, database: str = USER) -> psycopg.Connection[Any]:
        """As a superuser."""
        where = f"host=127.0.0.1 port={self.port} user={USER} dbname={database} connect_timeout=5"
        return psycopg.connect(where, autocommit=True)

    def promote(self) -> None:
        """A standby becomes a primary."""
        self.execute("SELECT pg_promote(true, 60)")

    def pids(self) -> list[int]:
        """Of all its processes, the postmaster first."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children()
        return [self.process.pid, *(child.pid for child in children)]

    def signal(self, number: int) -> None:
        """To all its processes."""
        for pid in self.pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def kill(self) -> None:
        """As a machine that is switched off."""
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait()

    def stop(self) -> None:
        """At once, in order."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()


@contextmanager
def cluster(*, standby: bool = False, **settings: str) -> Iterator[tuple[Postgres, Postgres | None]]:
    """A primary, and a standby that its commits wait for."""
    programs = require()
    folder = Path(tempfile.mkdtemp(prefix="zim-pg-", dir="/tmp"))
    if not os.geteuid():
        who = _user()
        os.chown(folder, who.pw_uid, who.pw_gid)
    primary = Postgres(folder, "primary", programs, **settings)
    second = Postgres(folder, "second", programs, **settings)
    try:
        primary.make()
        primary.start()
        if standby:
            second.copy(primary)
            second.start()
            replicate(primary, second.name)
        yield primary, second if standby else None
    finally:
        second.stop()
        primary.stop()
        shutil.rmtree(folder, ignore_errors=True)


def replicate(primary: Postgres, standby: str) -> None:
    """Commits wait for that standby from now on."""
    primary.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{standby}'", "SELECT pg_reload_conf()")

    def is_sync() -> bool:
        rows = primary.execute("SELECT sync_state FROM pg_stat_replication")
        return ("sync",) in rows

    wait_for(is_sync, "the standby does not follow")


def place(*servers: Postgres, database: str, shards: int = 2, single_copy: bool = True) -> LogPlace:
    """`[log]` of a database of these servers."""
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    url = f"postgresql://{USER}@{hosts}/{database}?target_session_attrs=read-write"
    return LogPlace(url, shards=shards, single_copy=single_copy)
