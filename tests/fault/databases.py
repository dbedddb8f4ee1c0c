"""PostgreSQL on two machines: a primary, a standby that its commits wait for, and who operates them.

What an operator does here is what a cluster manager does, with a third machine as a witness. A primary that neither the
witness nor the standby hears for some seconds is fenced and deposed, if its standby has all that was committed, and the
standby is promoted. A standby that is away for some seconds, while the witness hears the primary, is waited for no
more: from then on there is a single copy, and until there are two again nobody is promoted. Who was deposed becomes a
standby, from a copy. The operator gives orders to all machines that have power, whatever is cut between them: fencing
is of no use without that.

PostgreSQL never runs as root, and its clock is ours. What it has written its disk keeps when the power fails.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import gevent

from tests.fault.machines import Machine
from tests.harness import wait_until
from tests.postgresql import SETTINGS, USER, folder_of_programs

PORT = 5432
DATABASE = "zim"
GONE_S = 3.0  # without an answer, before something is done about it
LOOK_S = 0.5
COPY_S = 30.0  # for a copy of the primary, which is begun anew then

Say = Callable[[str], None]


class DatabaseServer:
    """One server, on a machine.

    Attributes:
        is_deposed: another one has been promoted in its place: it starts from a copy of that one alone.
    """

    def __init__(self, machine: Machine, programs: Path) -> None:
        self.machine, self.is_deposed = machine, False
        self.name = machine.name
        self._programs = programs
        self._folder = machine.folder / "postgresql"
        self._data = self._folder / "data"
        self._folder.mkdir()
        who = pwd.getpwnam(USER)
        os.chown(self._folder, who.pw_uid, who.pw_gid)

    def command(self, program: str, *words: str) -> list[str]:
        """One of PostgreSQL's programs, there."""
        who = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
        return self.machine.command(*who, str(self._programs / program), *words)

    def run(self, program: str, *words: str, timeout_s: float = 60.0) -> str | None:
        """What it prints, to its end; None if it fails, or takes too long."""
        return self._output(self.command(program, *words), timeout_s)

    def _output(self, command: list[str], timeout_s: float) -> str | None:
        try:
            done = subprocess.run(
                command, capture_output=True, check=False, text=True, cwd=self._folder, timeout=timeout_s
            )
        except subprocess.TimeoutExpired:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    def make(self) -> None:
        """An empty cluster, which lets everybody in: nobody else is in this network."""
        assert (
            self.run("initdb", "-D", str(self._data), "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C") is not None
        )
        with (self._data / "pg_hba.conf").open("a") as file:
            file.write("host all all 0.0.0.0/0 trust\nhost replication all 0.0.0.0/0 trust\n")

    def copy(self, of: DatabaseServer) -> bool:
        """Becomes a standby of another one. Whether it could be copied."""
        shutil.rmtree(self._data, ignore_errors=True)
        where = f"host={of.machine.ip} port={PORT} user={USER} application_name={self.name} connect_timeout=3"
        where += " keepalives_idle=1 keepalives_interval=1 keepalives_count=3 tcp_user_timeout=3000"
        words = ("-D", str(self._data), "-d", where, "-R", "-X", "stream", "-c", "fast", "-N")
        return self.run("pg_basebackup", *words, timeout_s=COPY_S) is not None

    def start(self) -> None:
        """Starts it; it may take a while until it answers."""
        if self.is_deposed or not self.machine.is_on or not (self._data / "PG_VERSION").exists():
            return
        (self._data / "postmaster.pid").unlink(missing_ok=True)  # of processes that were killed
        quick = {"wal_receiver_timeout": "3s", "wal_sender_timeout": "3s", "tcp_user_timeout": "3000"}
        options = {**SETTINGS, **quick, "port": str(PORT), "listen_addresses": "*"}
        options |= {"unix_socket_directories": str(self._folder), "wal_retrieve_retry_interval": "500ms"}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self.machine.folder / "postgresql.log").open("ab") as log:
            subprocess.Popen(
                self.command("postgres", "-D", str(self._data), *words),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,
            )

    def ask(self, sql: str, by: Machine | None = None) -> str | None:
        """What it answers psql; None if there is no answer. by: another machine that asks, by default its own."""
        if not self.machine.is_on or not (by or self.machine).is_on:
            return None
        psql = str(self._programs / "psql")
        where = f"host={self.machine.ip if by else '127.0.0.1'} port={PORT} user={USER} dbname={USER} connect_timeout=2"
        command = (by or self.machine).command(psql, "-Atqc", sql, where)
        return self._output(command, GONE_S)

    def kill(self) -> None:
        """kill -9 of all of it."""
        for pid in self.machine.pids():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/exe").resolve() == (self._programs / "postgres").resolve():
                    os.kill(pid, signal.SIGKILL)


class Databases:
    """A primary, its standby, and their operator, until `stop()`.

    Attributes:
        primary, standby: as it is now.
        is_double: the standby has all that is committed.
    """

    def __init__(self, machines: Sequence[Machine], say: Say) -> None:
        """
        Args:
            machines: the primary's, the standby's, the witness'.
            say: is told what the operator does.
        """
        first, second, self._witness = machines
        programs = folder_of_programs()
        assert programs is not None
        self.primary, self.standby = DatabaseServer(first, programs), DatabaseServer(second, programs)
        self.is_double = False
        self._say = say
        self._operator: gevent.Greenlet[..., None] | None = None
        self._url = f"postgresql://{USER}@{first.name}:{PORT},{second.name}:{PORT}/{DATABASE}"

    @property
    def table(self) -> str:
        """`[log]` of a topology. After a failover there is a single copy, until there are two again."""
        url = f"{self._url}?target_session_attrs=read-write&connect_timeout=2"
        return f'\n[log]\nurl = "{url}"\nshards = 6\nsingle_copy = true\n'

    def begin(self) -> None:
        """Makes both, and an empty database; from then on they are watched over."""
        primary, standby = self.primary, self.standby
        primary.make()
        primary.start()
        wait_until(lambda: primary.ask("SELECT 1"), "the primary answers", 60)
        assert primary.ask(f"CREATE DATABASE {DATABASE}") is not None
        assert standby.copy(primary)
        standby.start()
        for server in (primary, standby):
            server.machine.services.insert(0, lambda _, server=server: server.start())  # type: ignore[misc]
        self._operator = gevent.spawn(self._operate)
        wait_until(lambda: self.is_double, "the standby follows", 60)

    def stop(self) -> None:
        """Does nothing more."""
        if self._operator:
            self._operator.kill()

    def _operate(self) -> None:
        heard_at = followed_at = time.monotonic()
        while True:
            gevent.sleep(LOOK_S)
            primary, standby, now = self.primary, self.standby, time.monotonic()
            is_heard = primary.ask("SELECT 1", self._witness) is not None
            if is_heard or standby.ask("SELECT status FROM pg_stat_wal_receiver") == "streaming":
                heard_at = now
            state = primary.ask(f"SELECT sync_state FROM pg_stat_replication WHERE application_name = '{standby.name}'")
            if state:
                followed_at = now
            if state == "sync":
                self.is_double = True
            elif state == "async":
                self._wait_for(f'"{standby.name}"')
            elif state == "" and is_heard and now - followed_at > GONE_S:
                self._go_on_alone()
            if self.is_double and now - heard_at > GONE_S and standby.ask("SELECT 1", self._witness):
                self._fail_over()
                heard_at = followed_at = time.monotonic()
            elif not self.is_double and standby.machine.is_on and primary.machine.is_on:
                self._bring_back(standby)

    def _wait_for(self, names: str) -> bool:
        """Commits wait for these from now on."""
        sql = f"ALTER SYSTEM SET synchronous_standby_names = '{names}'"
        done = self.primary.ask(sql) is not None
        return self.primary.ask("SELECT pg_reload_conf()") is not None and done

    def _go_on_alone(self) -> None:
        if self.is_double:
            self._say(f"           {self.standby.name}, the standby, is waited for no more: a single copy")
        self.is_double = False  # before it is so: whoever is promoted has all
        self._wait_for("")

    def _fail_over(self) -> None:
        old, new = self.primary, self.standby
        self._say(f"           {old.name}, the primary, is deposed, and {new.name} promoted")
        old.is_deposed, self.is_double = True, False
        old.kill()
        self.primary, self.standby = new, old
        while new.ask("SELECT pg_is_in_recovery()") != "f":
            new.ask("SELECT pg_promote(false)")
            gevent.sleep(LOOK_S)
        self._wait_for("")

    def _bring_back(self, standby: DatabaseServer) -> None:
        """A standby that does not run is copied anew, or started."""
        if not standby.is_deposed:
            if standby.ask("SELECT 1") is None and not self._runs(standby):
                standby.start()
            return
        if self.primary.ask("SELECT 1", standby.machine) is not None and standby.copy(self.primary):
            standby.is_deposed = False
            standby.start()

    def _runs(self, server: DatabaseServer) -> bool:
        return any(Path(f"/proc/{pid}/exe").resolve().name == "postgres" for pid in server.machine.pids())
