"""`zim restart --rolling`: the whole fabric is restarted, node after node, and serves meanwhile."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from zim.cli.operator import EXIT_REFUSED, HOST, Supervised
from zim.cli.where import topology_option
from zim.program import zim_command

LOOK_S = 0.5


@click.command()
@click.argument("node", nargs=-1)
@topology_option()
@HOST
@click.option("--rolling", is_flag=True, help="All nodes that run here, one at a time.")
@click.option("--stop", is_flag=True, help="Begin with no other node; the one that is away comes back.")
@click.option("--yes", is_flag=True, help="Also where others cannot do a node's work meanwhile.")
def restart(
    node: tuple[str, ...], topology: Path | None, host: str | None, rolling: bool, stop: bool, yes: bool
) -> None:
    """Restart nodes one at a time: each is drained, started, and waited for. Others serve meanwhile.

    Routers come first, then jobs, logics, and comets, whose clients are moved to comets that are new already. It stops
    by itself when another node is down, one does not come back, or publishers are refused. Ctrl-C begins with no other
    node.

    Exit codes: 0 it is done; 1 it has stopped, or was refused; 2 the command line is wrong; 3 no `zim up` of this user
    runs it.

    \b
    zim restart --rolling
    zim restart comet-1 comet-2
    zim restart --stop
    """
    if [bool(node), rolling, stop].count(True) != 1:
        raise click.UsageError("one of these: names of nodes, --rolling for all, --stop")
    supervised = Supervised("restart", topology, host)
    if stop:
        supervised.order("halt")
        return
    supervised.order("restart", nodes=list(node), is_agreed=yes)
    try:
        said = _follow(supervised)
    except KeyboardInterrupt:
        away = supervised.ask("halt").get("node")
        click.echo(f"\nzim restart: stops{f' once {away} is back' if away else ''}", err=True)
        said = _follow(supervised, said_already=None)
    if said["why"]:
        left = [name for name in (said["node"], *said["left"]) if name]
        click.echo(f"zim restart: it has stopped: {said['why']}", err=True)
        if left:
            click.echo(f"zim restart: to go on: {zim_command()} restart {' '.join(left)}", err=True)
        sys.exit(EXIT_REFUSED)


def _follow(supervised: Supervised, said_already: int | None = 0) -> dict[str, Any]:
    """Prints what becomes of it, until it is over. said_already: lines; None for all so far."""
    since = len(supervised.ask("progress")["lines"]) if said_already is None else said_already
    left = -1
    while True:
        said = supervised.ask("progress", since=since)
        for line in said["lines"]:
            click.echo(line)
        since += len(said["lines"])
        if said["is_over"]:
            return said
        if said.get("state") == "draining" and said["connections"] not in (0, left):
            left = said["connections"]
            click.echo(f"{said['node']}: {left:,} connection{'s' * (left != 1)} left")
        time.sleep(LOOK_S)
