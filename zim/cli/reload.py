"""`zim reload`: a changed topology takes effect in the fabric that runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from zim.cli.operator import another_machine
from zim.cli.where import topology_argument, topology_file, topology_option
from zim.errors import ZimError
from zim.program import zim_command
from zim.supervisor.control import NobodyThere, ask, control_path
from zim.topology import load

EXIT_WRONG = 1
EXIT_NOT_ALL = 3
ANSWER_S = 60.0  # others may be before it


@click.command()
@topology_argument
@topology_option()
@click.option("--host", metavar="HOST", help="Of the zim up that was started with this --host.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def reload(file: Path | None, topology: Path | None, host: str | None, as_json: bool) -> None:
    """Let a changed topology take effect, without a restart.

    That is who may come in (issuers and their key files, the callout, API keys, sessions, origins, hosts), limits of
    clients, retention, the log's level; and nodes that were added, which are started: comets, jobs, logics, and
    routers of a shared log. What waits for a restart is named. If anything in the file is wrong, nothing changes.

    Exit codes: 0 it is done; 1 the file, or a key that it names, is wrong; 2 the command line is wrong; 3 no `zim up`
    of this user runs it, or not all nodes have done it.

    \b
    zim reload                              $ZIM_TOPOLOGY, or ./topology.toml
    zim reload cluster.toml --host a
    """
    path = topology_file(topology, file)
    try:
        fabric = load(path)
    except ZimError as error:
        _tell({"problems": str(error).splitlines()})
        sys.exit(EXIT_WRONG)
    try:
        said = ask(control_path(fabric.data_dir, host), "reload", ANSWER_S, topology=str(fabric.path))
    except NobodyThere as e:
        hint = another_machine(fabric, host) or f"{zim_command()} up starts one"
        click.echo(f"zim reload: {e}; {hint}", err=True)
        sys.exit(EXIT_NOT_ALL)
    if as_json:
        click.echo(json.dumps(said, ensure_ascii=False))
    else:
        _tell(said)
    sys.exit(EXIT_WRONG if said.get("problems") else EXIT_NOT_ALL if said.get("nodes") else 0)


def _tell(said: dict[str, list[str] | dict[str, str]]) -> None:
    if problems := said.get("problems"):
        for problem in problems:
            click.echo(f"zim reload: {problem}", err=True)
        click.echo("zim reload: nothing has changed", err=True)
        return
    taken, waiting, nodes = said.get("taken") or [], said.get("waiting") or [], said.get("nodes") or {}
    click.echo("In force:" if taken else "In force as before; files with keys were read anew.")
    for key in taken:
        click.echo(f"  {key}")
    if waiting:
        click.echo("Waits for a restart of zim up:")
        for key in waiting:
            click.echo(f"  {key}")
    for who in said.get("believed") or []:
        click.echo(f"zim reload: WARNING: from now on {who}", err=True)
    for name in nodes:
        click.echo(f"zim reload: {name} {nodes[name]}", err=True)  # type: ignore[call-overload]
