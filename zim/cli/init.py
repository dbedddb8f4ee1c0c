"""`zim init`: a topology to begin with."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from zim.cli.template import MAX_MACHINES, MAX_OFFSET, render
from zim.cli.where import DEFAULT_FILE
from zim.errors import ZimError
from zim.program import zim_command
from zim.topology import load

EXIT_REFUSED = 1
_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")


class _NotWritten(ZimError):
    """The file cannot be written."""


@click.command()
@click.argument("named", metavar="[FILE]", type=click.Path(), default=str(DEFAULT_FILE))
@click.option(
    "--machines",
    metavar="N",
    type=click.IntRange(1, MAX_MACHINES),
    default=1,
    help="For N machines, a node of each kind on each.",
)
@click.option(
    "--production", is_flag=True, help="With data in /var/lib/zim, metrics, limits to change, and who may come in."
)
@click.option(
    "--offset",
    metavar="N",
    type=click.IntRange(0, MAX_OFFSET),
    default=0,
    help="Add N to every port: for a second fabric on this machine.",
)
def init(named: str, machines: int, production: bool, offset: int) -> None:
    """Write a commented topology to begin with.

    It goes to ./topology.toml, or to FILE; into FILE, if that is a folder. As it is, it runs on this machine, with a
    node of each kind on goim's ports. A file that is there already is never written over.

    \b
    zim init && zim up
    zim init --production /etc/zim/topology.toml
    zim init --machines 3 cluster.toml
    zim init --offset 10000 second.toml
    """
    file = Path(named)
    try:
        if named.endswith("/") or file.is_dir():
            file = _folder(file) / DEFAULT_FILE
        own = "var" if file.name == DEFAULT_FILE.name or not _PLAIN.fullmatch(file.stem) else f"var-{file.stem}"
        _write(file, render(machines, production, offset, own, file.name if _PLAIN.fullmatch(file.name) else "FILE"))
    except _NotWritten as error:
        click.echo(f"zim init: {error}", err=True)
        sys.exit(EXIT_REFUSED)
    zim, more = zim_command(), "" if file == DEFAULT_FILE else f" {file}"
    click.echo(f"{file} describes {len(load(file).nodes)} nodes.")
    if production:
        click.echo(f"Before strangers come: {zim} check --production{more}")
    if machines > 1:
        click.echo(f"Put in the names of your machines, look at it with: {zim} check{more}")
        click.echo(f"and start it, on each machine: {zim} up --host machine-1{more}")
    else:
        click.echo(f"Start them: {zim} up{more}")


def _folder(folder: Path) -> Path:
    """A folder that may be there.

    Raises:
        _NotWritten: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _NotWritten(f"{folder} cannot be made: {error.strerror or error}") from None
    return folder


def _write(file: Path, text: str) -> None:
    """Writes a new file.

    Raises:
        _NotWritten: it is there already, or cannot be written.
    """
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(text)
    except FileExistsError:
        raise _NotWritten(f"{file} is there already, and stays as it is; name another, or move it away") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _NotWritten(f"{file} cannot be written: {getattr(error, 'strerror', None) or error}") from None
