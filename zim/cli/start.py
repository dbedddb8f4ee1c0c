"""`zim start comet-1`: a node that was drained, or given up, comes back."""

from __future__ import annotations

import time
from pathlib import Path

import click

from zim.cli.operator import HOST, Supervised
from zim.cli.where import topology_option

LOOK_S = 0.2
WAIT_S = 60.0


@click.command()
@click.argument("node")
@topology_option()
@HOST
def start(node: str, topology: Path | None, host: str | None) -> None:
    """Let a node come back that was drained, or given up. One that drains yet ends first.

    Exit codes: as those of `zim drain`.

    \b
    zim start comet-1
    """
    supervised = Supervised("start", topology, host)
    if supervised.order("start", node=node)["was"] == "draining":
        click.echo(f"{node} drains to the end first")
    while supervised.node(node).get("state") == "draining":
        time.sleep(LOOK_S)
    until = time.monotonic() + WAIT_S
    while (one := supervised.node(node)).get("state") != "ready":
        if time.monotonic() > until or one.get("state") == "given up":
            after = f" after {WAIT_S:g} s" if time.monotonic() > until else ""
            supervised.fail(f"{node} is {one.get('state')}{after}: {one.get('why') or 'see its log'}")
        time.sleep(LOOK_S)
    click.echo(f"{node} is ready, pid {one['pid']}")
