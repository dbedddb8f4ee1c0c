"""`zim backup FOLDER`: a copy of each router's log."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from zim.cli.lines import many
from zim.cli.where import topology_file, topology_option
from zim.errors import NodeError, TopologyError
from zim.nodes.router.log.durable import back_up
from zim.topology import load


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@topology_option()
def backup(folder: Path, topology: Path | None) -> None:
    """Copy the logs of the routers whose folders are on this machine into FOLDER, while they run or not.

    Each is copied as it is at one moment, to FOLDER/router-1/log.db, FOLDER/router-2/log.db and so on, and nobody is
    held up. The copies of last time stay until the new ones are whole and looked through. It takes as much room as the
    messages have, and that of the last copies beside it.

    \b
    zim backup backup
    zim backup /mnt/backup/$(date +%F) --topology /etc/zim/topology.toml

    \b
    Exit codes:
      0  every router's log on this machine is copied
      1  one is not; the others are, and the last copies are as they were
      2  the command line is wrong
    """
    path = topology_file(topology)
    fabric = load(path)
    if fabric.log is not None:
        raise TopologyError([f"{path}: has [log], so routers keep nothing; right is a backup of that database"])
    here = [name for name in (router.name for router in fabric.routers) if (fabric.data_dir / name).is_dir()]
    if not here:
        raise NodeError(f"{fabric.data_dir} has no folder of a router; right is the machine that the routers run on")
    problems = []
    for name in here:
        try:
            with Console(stderr=True).status(f"copying {name}"):
                done = back_up(fabric.data_dir / name, folder / name)
        except NodeError as error:
            problems.append(f"{name}: {error}")
        else:
            what = f"{many(done.messages, 'message')} of {many(done.streams, 'stream')}"
            click.echo(f"{done.file}: {what}, {done.bytes:,} bytes")
    if problems:
        raise NodeError("\n".join(problems))
