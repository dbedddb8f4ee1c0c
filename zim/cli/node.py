"""`zim node comet-1`: one process of the fabric."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from zim import logs
from zim.cli.where import topology_file, topology_option
from zim.errors import TopologyError
from zim.topology import load, unpack


@click.command()
@click.argument("name")
@topology_option()
@click.option("--lifeline", type=int, metavar="FD", help="An inherited pipe; the node ends when its other end closes.")
@click.option("--in-force", is_flag=True, hidden=True, help="zim up says on stdin what of the topology is in force.")
@click.option("-v", "--verbose", is_flag=True, help="Log details.")
def node(name: str, topology: Path | None, lifeline: int | None, in_force: bool, verbose: bool) -> None:
    """Run one node of the fabric, in the foreground.

    It logs on stderr, says what listens where in one line on stdout, and stops on Ctrl-C or SIGTERM.
    SIGUSR1 drains it: it hands on what it has, and ends with 0. Exit code 2 means
    that starting it again would not help, 3 that its disk is full.

    \b
    zim node comet-1
    zim node router-2 --topology examples/two-of-each.toml
    """
    path = topology_file(topology)
    fabric = unpack(_read_in_force()) if in_force else load(path)
    names = [each.name for each in fabric.nodes]
    if name not in names:
        raise TopologyError([f"{path}: has no node {name}; there are {', '.join(names)}"])
    logs.setup(name, fabric.log_level, is_verbose=verbose)
    from zim.nodes.run import run  # brings ZeroMQ; an unknown name is told without

    sys.exit(run(fabric, name, lifeline, sys.stdin.fileno() if in_force else None))


def _read_in_force() -> bytes:
    """What of the topology is in force: its length in eight bytes, and so many. After it orders come."""
    data = _read(8)
    return _read(int.from_bytes(data, "big")) if len(data) == 8 else b""


def _read(size: int) -> bytes:
    """So many bytes of stdin, and none that come after them; fewer if it ends."""
    data = bytearray()
    while len(data) < size and (more := os.read(sys.stdin.fileno(), size - len(data))):
        data += more
    return bytes(data)
