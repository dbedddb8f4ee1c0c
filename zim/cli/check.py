"""`zim check`: is this topology right, and what does it look like?"""

from __future__ import annotations

from pathlib import Path

import click

from zim.cli.drawing import draw
from zim.topology import load


@click.command()
@click.argument("topology", type=click.Path(path_type=Path), default="topology.toml")
def check(topology: Path) -> None:
    """Check a topology file and draw the fabric it describes.

    Every problem found is one line on stderr that names its key; the exit code is then 1.

    \b
    zim check                               ./topology.toml
    zim check examples/two-of-each.toml
    """
    fabric = load(topology)
    count = len(fabric.nodes)
    click.echo(f"OK: {topology} describes {count} nodes.\n")
    click.echo(draw(fabric))
