"""`zim drain comet-1`: a node hands on what it has, and ends."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from zim.cli.operator import HOST, Supervised
from zim.cli.where import topology_option
from zim.program import zim_command
from zim.supervisor.drains import MOST_PER_S

LOOK_S = 0.5


@click.command()
@click.argument("node")
@topology_option()
@HOST
@click.option("--per-second", type=click.IntRange(1, MOST_PER_S), metavar="N", help="Move so many clients a second.")
@click.option("--yes", is_flag=True, help="Also where others cannot do its work meanwhile.")
@click.option("--no-wait", is_flag=True, help="Do not wait until it has ended.")
def drain(node: str, topology: Path | None, host: str | None, per_second: int | None, yes: bool, no_wait: bool) -> None:
    """Let a node hand on what it has, and end. It stays away until `zim start`.

    A comet lets nobody new in, and sends its clients to other comets, at the pace of `drain_per_s`: those that speak
    zim's protocol miss nothing. A logic answers what it was asked, a job sends what it has, a router of a shared log
    hands its shards over. A router with a log of its own has nobody to hand it to: its streams pause.

    Exit codes: 0 it has ended; 1 it is not done, or was refused; 2 the command line is wrong; 3 no `zim up` of this
    user runs it.

    \b
    zim drain comet-1
    zim drain comet-1 --per-second 1000 --host a
    """
    supervised = Supervised("drain", topology, host)
    back = f"{zim_command()} start {node}{supervised.words} brings it back"
    supervised.order("drain", node=node, per_s=per_second, is_agreed=yes)
    if no_wait:
        click.echo(f"{node} drains; {zim_command()} status{supervised.words} shows it")
        return
    told = -1
    try:
        while (one := supervised.node(node)).get("state") in ("starting", "draining"):
            clients = int(one.get("connections", 0))
            if clients != told and one.get("kind") == "comet":
                click.echo(f"{node}: {clients:,} connection{'s' * (clients != 1)} left")
                told = clients
            time.sleep(LOOK_S)
    except KeyboardInterrupt:
        click.echo(f"\nzim drain: {node} goes on draining; {back}", err=True)
        raise
    if one.get("state") != "drained":
        supervised.fail(f"{node} is {one.get('state')}: somebody has started it")
    if (why := one.get("why", "")).startswith("was given up"):  # there was nothing to hand on
        click.echo(f"{node} {why}")
    elif why:
        supervised.fail(f"{node} {why}" if why.startswith("was ") else f"{node} has {why}")
    click.echo(f"{node} is drained; {back}")
    sys.exit(0)
