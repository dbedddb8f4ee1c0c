"""`zim api-key`: makes keys for backends, and says what those of a topology may do."""

from __future__ import annotations

import secrets
import sys
from hashlib import sha256
from pathlib import Path
from typing import get_args

import click
from rich import box
from rich.console import Console
from rich.table import Table

from zim.cli.credentials import api_key as shown_key
from zim.cli.credentials import key_file_option
from zim.cli.mistakes import GuidingGroup
from zim.cli.where import topology_argument, topology_file, topology_option
from zim.fabric.principals import KEY_PREFIX, Principals, Scope, Unauthorized
from zim.topology import load
from zim.topology.api_keys import API_KEY_ID

WIDTH = 80


@click.group(name="api-key", cls=GuidingGroup, context_settings={"help_option_names": ["-h", "--help"]})
def api_key() -> None:
    """Make and look at the API keys of backends.

    A key is 256 random bits. The topology holds only its SHA-256, so the file tells nobody the key.

    \b
    Examples:
      zim api-key make orders --scope push > orders.key
      zim api-key list
      zim api-key check --key-file orders.key
    """


@api_key.command()
@click.argument("id")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(get_args(Scope)),
    help="What it may do, to all streams; by default push. More than once: all of these.",
)
def make(id: str, scopes: tuple[str, ...]) -> None:
    """Make a key for the backend ID.

    The key goes to standard output, once: nothing keeps it. What belongs into the topology goes to standard error. To
    replace a key, add the new sha256 to the old one, [OLD, NEW], let backends take the new key, and take the old one
    out: idempotency keys belong to ID, and stay.

    \b
    Example:
      zim api-key make orders --scope push --scope count > orders.key
    """
    if not API_KEY_ID.fullmatch(id):
        raise click.UsageError(f"{id!r} is no id; right is 1 to 64 letters, digits and ._-, such as orders")
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    named = ", ".join(f'"{scope}"' for scope in dict.fromkeys(scopes or ("push",)))
    click.echo(key)
    digest = sha256(key.encode()).hexdigest()
    click.echo(f'\n[[api_key]]\nid = "{id}"\nsha256 = "{digest}"\nscopes = [{named}]\n', err=True)


@api_key.command(name="list")
@topology_argument
@topology_option()
def list_(file: Path | None, topology: Path | None) -> None:
    """Print which keys a topology has, and what they may do."""
    path = topology_file(topology, file)
    keys = load(path).identity.api_keys
    if not keys:
        click.echo(f"{path} has no [[api_key]]: whoever reaches the HTTP API may do all")
        return
    table = Table(box=box.SIMPLE)
    for column in ("id", "keys", "scope", "streams"):
        table.add_column(column, overflow="fold")
    for key in keys:
        for i, (scope, patterns) in enumerate(key.scopes.items()):
            first = (key.id, str(len(key.sha256))) if not i else ("", "")
            table.add_row(*first, scope, " ".join(patterns))
    Console(width=WIDTH).print(table)


@api_key.command()
@topology_argument
@topology_option()
@key_file_option
def check(file: Path | None, topology: Path | None) -> None:
    """Say whose a key is by the topology file, and what it may do.

    The file alone is read: after an edit the fabric has the old keys until `zim reload`.

    The key is that of --key-file, of the environment variable ZIM_API_KEY, or what stands in standard input.

    \b
    Exit codes:
      0  it is known
      1  it is not
    """
    path = topology_file(topology, file)
    identity = load(path).identity
    if not identity.api_keys:
        click.echo(f"{path} has no [[api_key]]: no key is looked at")
        return
    key = shown_key() or sys.stdin.readline(4096).strip()
    try:
        who = Principals(identity.api_keys).find(key)
    except Unauthorized as e:
        click.echo(f"zim api-key: by {path}, {e}", err=True)
        sys.exit(1)
    click.echo(f"by {path}, it is {who.id}'s, and may")
    for scope, patterns in (who.scopes or {}).items():
        click.echo(f"  {scope:8} {' '.join(patterns)}")
