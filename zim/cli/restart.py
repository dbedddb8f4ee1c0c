"""`zim restart`: nodes are drained and started, one at a time."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from zim.cli.orders import EXIT_REFUSED, host_option, order, refuse
from zim.cli.where import topology_file, topology_option
from zim.program import zim_command
from zim.topology import Topology, load

ANSWER_S = 150.0  # more than zim up gives a node
CALM_S = 2.0  # between two nodes: comets register, clients come back
ORDER = ("router", "job", "logic", "comet")  # who keeps comes first, so that clients come back to what is new


@click.command()
@click.argument("node", required=False)
@topology_option()
@host_option
@click.option("--rolling", is_flag=True, help="All nodes of this machine, one at a time.")
@click.option("--yes", is_flag=True, help="Also nodes that nobody takes over from.")
def restart(node: str | None, topology: Path | None, host: str | None, rolling: bool, yes: bool) -> None:
    """Drain a node and start it again; with --rolling all of them, one at a time.

    The next one is drained once the last one is ready. It stops by itself when one does not come back, or another is
    not ready; what was done stays done, and the same command goes on with all of them anew.

    Exit codes: 0 all are ready; 1 it has stopped; 2 the command line is wrong; 3 no `zim up` of this user runs the
    fabric on this machine.

    \b
    zim restart comet-1
    zim restart --rolling
    """
    if rolling == (node is not None):
        raise click.UsageError("name a node, or --rolling for all of them")
    fabric = load(topology_file(topology))
    names = [node] if node else _in_order(order("restart", fabric, host, "status", ANSWER_S)["nodes"])
    for at, name in enumerate(names, 1):
        if at > 1:
            time.sleep(CALM_S)
        _check(fabric, host)
        click.echo(f"{at}/{len(names)} {name}: draining", nl=False)
        drained = order("restart", fabric, host, "drain", ANSWER_S, node=name, yes=yes)
        if drained.get("problems"):
            click.echo("")
            if drained.get("is_warning"):
                drained["problems"] = [f"{problem}; --yes restarts it all the same" for problem in drained["problems"]]
            refuse("restart", drained)
        click.echo(f" {drained['took_s']:g} s, starting", nl=False)
        started = order("restart", fabric, host, "start", ANSWER_S, node=name)
        click.echo("" if started.get("problems") else f" {started['took_s']:g} s")
        refuse("restart", started)


def _in_order(nodes: list[dict[str, Any]]) -> list[str]:
    names = [one["node"] for one in nodes]
    return sorted(names, key=lambda name: ORDER.index(name.partition("-")[0]))


def _check(fabric: Topology, host: str | None) -> None:
    """Nobody is drained while another is away."""
    nodes = order("restart", fabric, host, "status", ANSWER_S)["nodes"]
    if away := [f"{one['node']} is {one['state']}" for one in nodes if one["state"] != "ready"]:
        click.echo(f"zim restart: {', '.join(away)}; nothing more is restarted. See {zim_command()} status", err=True)
        sys.exit(EXIT_REFUSED)
