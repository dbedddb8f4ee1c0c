"""`zim drain`: a node finishes what it has, and ends."""

from __future__ import annotations

from pathlib import Path

import click

from zim.cli.orders import host_option, order, refuse
from zim.cli.where import topology_file, topology_option
from zim.program import zim_command
from zim.topology import load

ANSWER_S = 150.0  # more than zim up gives a node


@click.command()
@click.argument("node")
@topology_option()
@host_option
@click.option("--yes", is_flag=True, help="Also where nobody takes over from it.")
def drain(node: str, topology: Path | None, host: str | None, yes: bool) -> None:
    """Let a node finish what it has, and end. It is not started again before `zim start`.

    A comet takes nobody new, sends its clients away a few at a time, and reports what became of messages; zim clients
    resume elsewhere and miss nothing. A logic answers the requests that it has. A job hands on what it has. A router
    with a shared log, [log], hands its shards over; with a log of its own it has nobody to hand over to, so its streams
    pause, and that needs --yes.

    Exit codes: 0 it has ended; 1 it was refused, or is not over yet; 2 the command line is wrong; 3 no `zim up` of this
    user runs the fabric on this machine.

    \b
    zim drain comet-1
    zim drain router-2 --topology cluster.toml --host a
    """
    fabric = load(topology_file(topology))
    said = order("drain", fabric, host, "drain", ANSWER_S, node=node, yes=yes)
    if said.get("is_warning"):
        said["problems"] = [f"{problem}. Nothing was done; --yes does it all the same" for problem in said["problems"]]
    refuse("drain", said)
    ended = "" if said["exit_code"] == 0 else f", with exit code {said['exit_code']}: its log says why"
    click.echo(f"{node} has ended after {said['took_s']:g} s{ended}. {zim_command()} start {node} brings it back.")
