"""`zim restored router-1`: its folder has come out of a backup."""

from __future__ import annotations

from pathlib import Path

import click

from zim.cli.where import topology_file, topology_option
from zim.errors import NodeError, TopologyError
from zim.nodes.router.log.durable import begin_epoch
from zim.nodes.state import RunsAlready, StateDir
from zim.topology import load


@click.command()
@click.argument("name")
@topology_option()
@click.option("--with-wal", is_flag=True, help="The log.db-wal in the folder came out of the backup, too.")
def restored(name: str, topology: Path | None, with_wal: bool) -> None:
    """Say that a router's log is a restored backup.

    It is said before the router starts on it. Its streams go on where the backup ends, with offsets that clients have
    seen before, for other messages. So their history gets another name, a new epoch: clients that resume from the old
    one are told that they cannot, instead of taking one message for another.

    A log.db-wal that the log before it has left there would be written over the copy: it has to go first. Only a copy
    of the whole folder, such as a snapshot of the disk, has one of its own: --with-wal.

    \b
    zim restored router-1
    """
    path = topology_file(topology)
    fabric = load(path)
    if fabric.log is not None:
        raise TopologyError([f"{path}: has [log], so routers keep nothing; right is zim log restored"])
    names = [router.name for router in fabric.routers]
    if name not in names:
        raise TopologyError([f"{path}: has no router {name}; there are {', '.join(names)}"])
    if not (fabric.data_dir / name).exists():
        raise TopologyError([f"{fabric.data_dir / name}: is not there; restore it first"])
    try:
        state = StateDir(fabric.data_dir, name)
    except RunsAlready as error:
        raise NodeError(f"{name} runs (pid {error.pid}); stop it, or the `zim up` that restarts it") from None
    try:
        epoch = begin_epoch(state.path, names, with_wal)
    finally:
        state.close()
    click.echo(f"{name} goes on with epoch {epoch}.")
