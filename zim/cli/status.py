"""`zim status`: how the nodes of a fabric are."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from zim.cli.operator import HOST, Supervised
from zim.cli.where import topology_argument, topology_option

WIDTH = 80
EXIT_NOT_WELL = 1
LONG_S = 5.0  # for a start

Row = Mapping[str, Any]


@click.command()
@topology_argument
@topology_option()
@HOST
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(file: Path | None, topology: Path | None, host: str | None, as_json: bool) -> None:
    """Show the nodes that `zim up` runs on this machine, what each does, and which router owns which shard.

    lag is the longest time in the last half minute for which a node's loop kept others waiting; backlog what waits in
    its queues.

    Exit codes: 0 all is well, or was drained; 1 a node is down, not ready, or does not answer; 2 the command line is
    wrong; 3 no `zim up` of this user runs it.

    \b
    zim status
    zim status cluster.toml --host a --json
    """
    if topology and file:
        raise click.UsageError(f"the topology is named twice, {file} and --topology {topology}; give it once")
    said = Supervised("status", topology or file, host).ask("status")
    click.echo(json.dumps(said, ensure_ascii=False) if as_json else table_text(said), nl=as_json)
    is_well = all(_state(one) in ("ready", "drained") and not one["missing"] for one in said["nodes"])
    sys.exit(0 if is_well else EXIT_NOT_WELL)


def table_text(said: Row) -> str:
    """What a person sees, in lines of at most 80 characters."""
    console = Console(highlight=False, markup=False, file=io.StringIO(), width=WIDTH)
    with console.capture() as captured:
        console.print(_nodes(said["nodes"]))
        if said.get("shards"):
            console.print(_shards(said["shards"]))
        for line in _remarks(said):
            console.print(line)
    return captured.get()


def _nodes(nodes: Iterable[Row]) -> Table:
    table = Table("node", "state", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for right in ("for", "restarts", "pid", "clients", "backlog", "lag"):
        table.add_column(right, justify="right")
    for one in nodes:
        clients = f"{one['connections']:,}" if "connections" in one else ""
        backlog = size_text(one["backlog_bytes"]) if "backlog_bytes" in one else ""
        lag = f"{one['lag_ms']:.0f} ms" if "lag_ms" in one else ""
        row = span_text(one["for_s"]), str(one["restarts"]), str(one["pid"] or ""), clients, backlog, lag
        table.add_row(one["node"], _state(one), *row)
    return table


def _state(one: Row) -> str:
    """A process that stands still is one all the same."""
    is_silent = one["pid"] and one["state"] != "starting" and not one["answers"]
    return "no answer" if is_silent else str(one["state"])


def _shards(shards: Iterable[Row]) -> Table:
    table = Table("shard", "owner", "term", "handed to", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for one in shards:
        table.add_row(one["shard"], one["owner"], str(one["term"]), one["to"])
    return table


def _remarks(said: Row) -> Iterable[str]:
    versions = {one["version"] for one in said["nodes"] if "version" in one}
    for one in said["nodes"]:
        if one["why"]:
            yield f"{one['node']} is {one['state']}: {one['why']}"
        if one["state"] == "starting" and one["for_s"] > LONG_S and not one["why"]:
            yield f"{one['node']} has been starting for {span_text(one['for_s'])}: its log says what it waits for"
        if _state(one) == "no answer":
            yield f"{one['node']} does not answer: it stands still, or is overloaded"
        for missing in one["missing"][:3]:
            yield f"{one['node']}: {missing}"
    if versions - {said["version"]}:
        yield f"versions: {', '.join(sorted(versions))}; zim up is {said['version']}"
    if (restart := said.get("restart")) and not restart["is_over"]:
        done, left = len(restart["done"]), len(restart["left"])
        yield f"a restart is under way: {restart['node'] or 'between two nodes'}; {done} done, {left} left"


def span_text(seconds: float) -> str:
    """How long something is, in one unit: `5 s`, `3 min`, `7 h`, `12 d`."""
    for unit, length, most in (("s", 1, 120), ("min", 60, 7_200), ("h", 3_600, 172_800)):
        if seconds < most:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds // 86_400:.0f} d"


def size_text(size: float) -> str:
    """So many bytes, for people."""
    for unit in ("B", "KiB", "MiB"):
        if size < 10_240 or unit == "MiB":
            return f"{size:.0f} {unit}"
        size /= 1024
    raise AssertionError(size)
