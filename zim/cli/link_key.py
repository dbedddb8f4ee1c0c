"""`zim link-key`: makes the keys by which nodes know each other, and looks at those that are there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from zim.cli.where import topology_file, topology_option
from zim.errors import TopologyError, ZimError
from zim.identity.link_keys import Found, NoLinkKey, is_seen_by_others, make_keys, own_secret
from zim.supervisor.here import nodes_here
from zim.topology import Links, Node, Topology, load
from zim.topology.file import load_alone, read_list

FOLDER = "link-keys"


@click.group(name="link-key", context_settings={"help_option_names": ["-h", "--help"]})
def link_key() -> None:
    """Make and look at link keys: with them links between nodes are encrypted, and a node is who its key says.

    A folder has the list of all public keys, which every machine needs, and of each node its secret key, which only
    the machine of that node needs. The topology names the folder: [links] with keys = "link-keys".

    \b
    Examples:
      zim link-key make
      zim link-key list
      zim link-key check --host a
    """


@link_key.command()
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@topology_option()
def make(folder: Path | None, topology: Path | None) -> None:
    """Make a key pair for each node that has none, in FOLDER.

    FOLDER is by default the one that the topology names, else link-keys beside the topology. What is there already
    stays, and is never overwritten. To give a node another key, take away its line in public.toml and its .secret,
    and make keys again; zim reload lets the new one take effect.

    \b
    Example:
      zim link-key make --topology cluster.toml
    """
    path = topology_file(topology)
    fabric = load_alone(path)
    named = fabric.links.keys
    place = folder.absolute() if folder is not None else named or path.absolute().parent / FOLDER
    links = Links(place)
    if links.list_file.exists():
        public, problems = read_list(links)
        if problems:
            raise TopologyError(problems)
        links = replace(links, public=public)
    try:
        made = make_keys(links, [node.name for node in fabric.nodes])
    except OSError as error:
        raise NoLinkKey(f"{error.filename or place} cannot be written: {error.strerror}") from None
    for name, found in made.found.items():
        click.echo(f"{name:12} {found.value}")
    click.echo(f"\nThe public keys of all nodes are in {made.links.list_file}.")
    _say_next(fabric, place, path, set(made.found.values()))


def _say_next(fabric: Topology, place: Path, path: Path, done: set[Found]) -> None:
    """What is left to do."""
    if fabric.links.keys != place:
        beside = path.absolute().parent
        shown = place.relative_to(beside) if place.is_relative_to(beside) else place
        click.echo(f'\nPut this into {path}, and restart the fabric:\n\n[links]\nkeys = "{shown}"')
    elif done & {Found.MADE, Found.LISTED}:
        click.echo("A fabric that runs with these keys takes the new ones over at zim reload.")
    hosts: dict[str, list[str]] = {}
    for node in fabric.nodes:
        hosts.setdefault(node.host, []).append(f"{node.name}.secret")
    if len(hosts) > 1:
        click.echo("\nEach machine needs public.toml, and these, with mode 600:")
        for host, files in hosts.items():
            click.echo(f"  {host}: {' '.join(files)}")


@link_key.command(name="list")
@topology_option()
def list_(topology: Path | None) -> None:
    """Print the public key of each node, such as a logic's for its publishers."""
    fabric = _with_keys(topology)
    for node in fabric.nodes:
        click.echo(f"{node.name:12} {fabric.links.public.get(node.name, '- none: it is let in nowhere')}")
    for name in fabric.links.public.keys() - {node.name for node in fabric.nodes}:
        click.echo(f"{name:12} {fabric.links.public[name]} of no node of this topology")


@link_key.command()
@topology_option()
@click.option("--host", metavar="HOST", help="Look at the nodes of this machine alone, as the topology names it.")
def check(topology: Path | None, host: str | None) -> None:
    """Say whether each node has its keys here: its secret, and the public half of it in the list.

    \b
    Exit codes:
      0  all have
      1  some have not, or others on this machine can read a secret
    """
    fabric = _with_keys(topology)
    problems = _problems(fabric.links, fabric.nodes if host is None else nodes_here(fabric, host))
    for problem in problems:
        click.echo(f"zim link-key: {problem}", err=True)
    if problems:
        sys.exit(1)
    click.echo("OK: each node has its secret key here, and the list has the public half of it.")


def _problems(links: Links, nodes: Sequence[Node]) -> list[str]:
    found = []
    for node in nodes:
        try:
            own_secret(links, node.name)
        except ZimError as e:
            found.append(str(e))
            continue
        if is_seen_by_others(file := links.secret_file(node.name)):
            found.append(f"{file}: others on this machine can read it; right is chmod 600 {file}")
    return found


def _with_keys(topology: Path | None) -> Topology:
    path = topology_file(topology)
    fabric = load(path)
    if fabric.links.keys is None:
        raise TopologyError([f"{path} has no [links]: links between nodes are not encrypted, and have no keys"])
    return fabric
