"""`zim status`: how the nodes of this machine fare."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table

from zim.cli.orders import host_option, order
from zim.cli.where import topology_argument, topology_file, topology_option
from zim.topology import load

ANSWER_S = 10.0


@click.command()
@topology_argument
@topology_option()
@host_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(file: Path | None, topology: Path | None, host: str | None, as_json: bool) -> None:
    """Show the nodes that the `zim up` of this machine runs: which are ready, since when, and how often each died.

    Who owns which shard of a shared log says `zim log status`.

    Exit codes: 0; 3 no `zim up` of this user runs the fabric on this machine.
    """
    said = order("status", load(topology_file(topology, file)), host, "status", ANSWER_S)
    if as_json:
        click.echo(json.dumps(said, ensure_ascii=False))
        return
    table = Table("node", "state", "since", "pid", "died", box=box.SIMPLE_HEAD)
    for one in said["nodes"]:
        table.add_row(one["node"], one["state"], _age(one["since_s"]), str(one["pid"] or ""), str(one["deaths"]))
    Console(highlight=False, markup=False).print(table)


def _age(seconds: float) -> str:
    """As people say it."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"
