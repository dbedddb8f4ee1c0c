"""`zim node comet-1`: one process of the fabric."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from zim import logs
from zim.errors import TopologyError
from zim.topology import load


@click.command()
@click.argument("name")
@click.option(
    "--topology", type=click.Path(path_type=Path), default="topology.toml", show_default=True, help="The fabric's file."
)
@click.option("--lifeline", type=int, metavar="FD", help="An inherited pipe; the node ends when its other end closes.")
@click.option("-v", "--verbose", is_flag=True, help="Log details.")
def node(name: str, topology: Path, lifeline: int | None, verbose: bool) -> None:
    """Run one node of the fabric, in the foreground.

    It logs on stderr, says what listens where in one line on stdout, and stops on Ctrl-C or SIGTERM. Exit code 2 means
    that starting it again would not help, 3 that its disk is full.

    \b
    zim node comet-1
    zim node router-2 --topology examples/two-of-each.toml
    """
    fabric = load(topology)
    names = [each.name for each in fabric.nodes]
    if name not in names:
        raise TopologyError([f"{topology}: has no node {name}; there are {', '.join(names)}"])
    logs.setup(name, logging.DEBUG if verbose else logging.INFO)
    from zim.nodes.run import run  # brings ZeroMQ; an unknown name is told without

    sys.exit(run(fabric, name, lifeline))
