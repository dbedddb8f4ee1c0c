"""How `zim status`, `zim drain`, `zim start` and `zim restart` ask the `zim up` of a fabric."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import quote
from typing import Any, NoReturn

import click

from zim.cli.where import topology_file
from zim.program import zim_command
from zim.supervisor.control import NobodyThere, ask, control_path
from zim.topology import Topology, load

EXIT_REFUSED, EXIT_NOBODY = 1, 3
ANSWER_S = 30.0
HOST = click.option("--host", metavar="HOST", help="Of the zim up that was started with this --host.")


def another_machine(fabric: Topology, host: str | None) -> str:
    """Which machine may be meant where no `zim up` answers; "" where that is not why."""
    hosts = sorted({node.host for node in fabric.nodes if node.host})
    if not hosts or host in hosts:
        return ""
    return f"it is for {', '.join(hosts)}; say which one this is, such as --host {hosts[0]}"


class Supervised:
    """The `zim up` of one fabric, for one command. It ends the process, with a sentence, where nobody answers."""

    def __init__(self, command: str, topology: Path | None, host: str | None) -> None:
        """Raises: TopologyError: the file cannot be used."""
        self.command, self._host = command, host
        self.fabric: Topology = load(topology_file(topology))

    @property
    def words(self) -> str:
        """What a command has to have to be about the same fabric; "" if nothing, else it begins with a space."""
        path = self.fabric.path
        named = "" if path == topology_file(None) else f" --topology {quote(str(path))}"
        return named + (f" --host {quote(self._host)}" if self._host else "")

    def ask(self, do: str, **asked: object) -> dict[str, Any]:
        """What it says to an order. Blocks."""
        try:
            return ask(control_path(self.fabric.data_dir, self._host), do, ANSWER_S, **asked)
        except NobodyThere as e:
            another = f"{zim_command()} up starts one; that of another fabric is named by --topology FILE"
            self.fail(f"{self.fabric.path}: {e}; {another_machine(self.fabric, self._host) or another}", EXIT_NOBODY)

    def order(self, do: str, consent: str = "--yes", **asked: object) -> dict[str, Any]:
        """The same, and ends where it is refused."""
        said = self.ask(do, **asked)
        for problem in said.get("problems") or said.get("objections") or []:
            click.echo(f"zim {self.command}: {problem}", err=True)
        if said.get("objections"):
            click.echo(f"zim {self.command}: nothing was done; {consent} does it all the same", err=True)
        if said.get("problems") or said.get("objections"):
            sys.exit(EXIT_REFUSED)
        return said

    def node(self, name: str) -> dict[str, Any]:
        """How a node is, see `zim status --json`."""
        found = [one for one in self.ask("status")["nodes"] if one["node"] == name]
        return found[0] if found else {}

    def fail(self, why: str, code: int = EXIT_REFUSED) -> NoReturn:
        """Says why, and ends."""
        click.echo(f"zim {self.command}: {why}", err=True)
        sys.exit(code)
