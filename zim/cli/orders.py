"""Orders to the `zim up` of this machine, and what it answers."""

from __future__ import annotations

import sys
from typing import Any

import click

from zim.program import zim_command
from zim.supervisor.control import NobodyThere, ask, control_path
from zim.topology import Topology

EXIT_REFUSED = 1
EXIT_NOBODY = 3

host_option = click.option("--host", metavar="HOST", help="Of the zim up that was started with this --host.")


def order(
    command: str, fabric: Topology, host: str | None, do: str, timeout_s: float, **asked: object
) -> dict[str, Any]:
    """What `zim up` answers. Ends the command with exit code 3 if none answers."""
    try:
        return ask(control_path(fabric.data_dir, host), do, timeout_s, **asked)
    except NobodyThere as e:
        hint = "one that was started with --host is named by it" if any(node.host for node in fabric.nodes) else ""
        click.echo(f"zim {command}: {e}; {hint or f'{zim_command()} up starts one'}", err=True)
        sys.exit(EXIT_NOBODY)


def refuse(command: str, said: dict[str, Any]) -> None:
    """Ends the command with exit code 1 if `zim up` has not done it, and says why."""
    for problem in said.get("problems") or ():
        click.echo(f"zim {command}: {problem}", err=True)
    if said.get("problems"):
        sys.exit(EXIT_REFUSED)
