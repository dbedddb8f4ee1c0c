"""`zim log`: the log that all routers share, [log] of the topology: making it, looking at it."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from zim.cli.mistakes import FilePath
from zim.cli.where import topology_file, topology_option
from zim.errors import NodeError, TopologyError
from zim.nodes.router.log.administering import embedded_logs, engine
from zim.nodes.router.log.shared_state import SharedState
from zim.nodes.state import RunsAlready, StateDir
from zim.topology import LogPlace, Topology, load

LONG_S = 60.0  # a transaction that is open for longer is worth a word


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def log() -> None:
    """Make and look at the log that all routers share, on PostgreSQL: [log] of the topology.

    Without [log] each router has a log of its own in its folder, and nothing of this is needed.

    \b
    Examples:
      zim log init
      zim log status
      zim log copy topology.old.toml topology.toml
    """


@log.command()
@topology_option()
def init(topology: Path | None) -> None:
    """Make the log in the database that the topology names: all of it, or nothing.

    It has as many shards as log.shards says, for ever. A log that is there stays as it is, and the exit code is 1.

    \b
    Example:
      zim log init --topology cluster.toml
    """
    fabric, place = _shared(topology)
    engine().make(place, fabric.name)
    click.echo(f"The log of {fabric.name} is made, with {place.shards} shards.")
    state = engine().describe(place)
    if not state.waits_for:
        click.echo(_single_copy_text(place), err=True)


@log.command()
@topology_option()
def migrate(topology: Path | None) -> None:
    """Bring a log that an older zim has made to the format of this one. No router may run meanwhile.

    \b
    Example:
      zim log migrate
    """
    fabric, place = _shared(topology)
    old, new = engine().migrate(place, fabric.name)
    click.echo(f"The log has format {new}." if old == new else f"The log had format {old}, and has format {new} now.")


@log.command()
@topology_option()
def restored(topology: Path | None) -> None:
    """Say that the database is a restored backup.

    It is said before routers start on it. Streams go on where the backup ends, with offsets that clients have seen
    before, for other messages. So their history gets another name, a new epoch: clients that resume from the old one
    are told that they cannot, instead of taking one message for another.

    \b
    Example:
      zim log restored
    """
    fabric, place = _shared(topology)
    engine().restored(place, fabric.name)
    click.echo(f"All streams of {fabric.name} go on with new epochs.")


@log.command()
@topology_option()
def status(topology: Path | None) -> None:
    """Show how the log is: what commits wait for, who owns how many shards, and how large its tables are.

    \b
    Example:
      zim log status
    """
    _, place = _shared(topology)
    state = engine().describe(place)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{state.server}, the log of {state.fabric}, format {state.format}")
    if state.format != state.newest_format:
        console.print(f"this zim writes format {state.newest_format}: zim log migrate")
    if state.copying:
        console.print(f"half a copy of {state.copying}: run that zim log copy again")
    _show_replication(console, place, state)
    _show_owners(console, state)
    if state.oldest_s > LONG_S:
        console.print(
            f"{state.oldest_by} has a transaction open for {state.oldest_s:.0f} s: what was deleted since takes room"
        )
    table = Table("table", "bytes", "rows", "gone", box=box.SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    for one in state.tables:
        table.add_row(one.name, f"{one.bytes:,}", f"{one.live:,}", f"{one.dead:,}")
    console.print(table)


@log.command()
@click.argument("source", metavar="FROM", type=FilePath(path_type=Path))
@click.argument("target", metavar="TO", type=FilePath(path_type=Path))
def copy(source: Path, target: Path) -> None:
    """Copy the logs of a fabric that stands still into the log that its routers will share.

    FROM is the topology as it was, without [log]: its data_dir must be on this machine, and its routers stopped. TO is
    the topology as it will be, with [log], whose log is made and empty. Streams keep their epochs and offsets, users
    their cursors and bans, publishers their keys: clients notice nothing. Receipts stay behind. FROM is not changed.

    At the end all is read back and compared. If the copy is broken off, run it again, and it goes on; until it is
    through, no router starts on it.

    \b
    Example:
      zim log copy topology.old.toml topology.toml
    """
    before, (fabric, place) = load(source), _shared(target)
    if before.log is not None:
        raise TopologyError([f"{source}: has [log]; right is the topology with a log for each router"])
    folders = {router.name: before.data_dir / router.name for router in before.routers}
    for name, folder in folders.items():
        if not folder.exists():
            raise TopologyError([f"{source}: {folder}: is not there; right is the folder of {name}, on this machine"])
    with ExitStack() as stack:
        for name in folders:
            stack.callback(_locked(before, name).close)
        sources = stack.enter_context(embedded_logs(folders))
        with Progress(console=Console(stderr=True), transient=True) as bars:
            tasks: dict[str, TaskID] = {}

            def show(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = bars.add_task(what, total=total or None)
                bars.update(tasks[what], completed=done)

            report = engine().copy(place, fabric.name, sources, f"{before.name}, {source.absolute()}", show)
    before_text = f" ({report.skipped:,} of them by an attempt before)" if report.skipped else ""
    click.echo(
        f"Copied and compared: {report.streams:,} streams with {report.records + report.skipped:,} records"
        f"{before_text}, {report.keys:,} keys, {report.bans:,} bans."
    )


def _locked(fabric: Topology, name: str) -> StateDir:
    try:
        return StateDir(fabric.data_dir, name)
    except RunsAlready as error:
        raise NodeError(
            f"{name} runs (pid {error.pid}); stop the fabric first: only what stands still is copied"
        ) from None


def _show_replication(console: Console, place: LogPlace, state: SharedState) -> None:
    followers = [f"{one.name}{', which commits wait for' if one.is_waited_for else ''}" for one in state.standbys]
    if state.sees_others:
        console.print(f"standbys: {'; '.join(followers) or 'none'}")
    else:
        console.print("standbys: this role may not see them; GRANT pg_monitor to it")
    if not state.waits_for:
        console.print(_single_copy_text(place))
    elif state.sees_others and not any(one.is_waited_for for one in state.standbys):
        console.print(f"commits wait for {state.waits_for}, which is not there: nothing can be written until it is")


def _show_owners(console: Console, state: SharedState) -> None:
    holdings, beats = state.standing.holdings.values(), state.standing.beats
    owned = Counter(one.router for one in holdings if one.router in beats and beats[one.router].run == one.run)
    for name, beat in sorted(beats.items()):
        is_gone = " (has ended)" if beat.is_dead else ""
        console.print(f"{name}{is_gone}: {owned[name]} of {len(holdings)} shards, hears {beat.comets} comets")


def _single_copy_text(place: LogPlace) -> str:
    text = "SINGLE COPY: synchronous_standby_names is empty, so what is accepted may be lost with one machine"
    return text if place.single_copy else f"{text}; routers do not start without log.single_copy = true"


def _shared(topology: Path | None) -> tuple[Topology, LogPlace]:
    path = topology_file(topology)
    fabric = load(path)
    if fabric.log is None:
        raise TopologyError([f"{path}: has no [log]: each router has a log of its own, and there is nothing to do"])
    return fabric, fabric.log
