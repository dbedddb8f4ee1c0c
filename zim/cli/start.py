"""`zim start`: a node that was drained runs again."""

from __future__ import annotations

from pathlib import Path

import click

from zim.cli.orders import host_option, order, refuse
from zim.cli.where import topology_file, topology_option
from zim.topology import load

ANSWER_S = 90.0  # more than zim up gives a node


@click.command()
@click.argument("node")
@topology_option()
@host_option
def start(node: str, topology: Path | None, host: str | None) -> None:
    """Start a node that was drained, and wait until it is ready.

    Exit codes: 0 it is ready; 1 it was refused, or is not ready yet; 2 the command line is wrong; 3 no `zim up` of this
    user runs the fabric on this machine.

    \b
    zim start comet-1
    """
    said = order("start", load(topology_file(topology)), host, "start", ANSWER_S, node=node)
    refuse("start", said)
    click.echo(f"{node} is ready after {said['took_s']:g} s.")
