"""`zim check`: is this topology right, and what does it look like?"""

from __future__ import annotations

from pathlib import Path

import click

from zim.cli.drawing import draw
from zim.cli.where import topology_argument, topology_file, topology_option
from zim.topology import load


@click.command()
@topology_argument
@topology_option()
def check(file: Path | None, topology: Path | None) -> None:
    """Check a topology file and draw the fabric it describes.

    Every problem found is one line on stderr that names its key; the exit code is then 1.

    \b
    zim check                               $ZIM_TOPOLOGY, or ./topology.toml
    zim check examples/two-of-each.toml
    """
    path = topology_file(topology, file)
    fabric = load(path)
    count = len(fabric.nodes)
    click.echo(f"OK: {path} describes {count} nodes.\n")
    click.echo(draw(fabric))
