"""`zim who`: who is online, and in which rooms."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shlex import quote as quoted
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote

import click
import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from typing_extensions import override

from zim.cli.asking import NotTold, get, why_not
from zim.cli.credentials import key_file_option
from zim.cli.lines import printable
from zim.cli.mistakes import GuidingGroup
from zim.cli.where import http_address, topology_option
from zim.client import ZimError
from zim.fabric.answers import InRoom, Located, RoomSizes
from zim.fabric.limits import LARGEST
from zim.program import zim_command

EXIT_REFUSED = 1
EXIT_UNKNOWN = 3

WIDTH = 80  # characters of a line of a table; a longer name goes on in the next one
SHOWN = 100  # rooms of `zim who rooms` without --limit

# A name such as -5 is not an option of ours.
_NAMES = {"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]}

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])


def _options(command: _F) -> _F:
    """Which fabric, and in which form; accepted before and after the subcommand."""
    command = click.option("--json", "as_json", is_flag=True, help="Print JSON, as the HTTP API answers it.")(command)
    command = key_file_option(command)
    command = topology_option("Ask the first logic node of FILE.")(command)
    return click.option("--http", metavar="HOST:PORT", help="The HTTP port of a logic node, or https://HOST.")(command)


def _name(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if not value:
        raise click.BadParameter("a name has one character at least")
    return quote(value, safe="", errors="surrogateescape")  # what is no UTF-8 is the fabric's to refuse


class _Who(GuidingGroup):
    """A group that is told names, and not what they name."""

    @override
    def right(self, ctx: click.Context, said: str) -> str:
        return f"right is: {zim_command()} who room {quoted(said)}, or: {zim_command()} who user {quoted(said)}"


@click.group(cls=_Who, context_settings={"help_option_names": ["-h", "--help"]})
@_options
@click.pass_context
def who(ctx: click.Context, http: str | None, topology: Path | None, as_json: bool) -> None:
    """Print who is online.

    That is: the sessions of a user, how many are in a room, the largest rooms. Nobody there is no error.

    \b
    Examples:
      zim who user 7
      zim who room lobby
      zim who rooms --limit 10
      zim who rooms --json --http 10.0.0.5:7172

    The fabric is the one of --http or --topology; by default that of $ZIM_TOPOLOGY or ./topology.toml, or
    127.0.0.1:7172 without such a file.

    \b
    Exit codes:
      0  it is told
      1  refused: the name, or the topology, is wrong
      2  the command line is wrong
      3  it cannot be told: no logic, or a router, does not answer
    """
    ctx.obj = (http, topology, as_json)


@who.command(context_settings=_NAMES)
@click.argument("uid", callback=_name)
@_options
@click.pass_context
def user(ctx: click.Context, /, uid: str, **which: Any) -> None:
    """Print where user UID is: the sessions, their comets and rooms."""
    _tell(ctx, which, f"/api/users/{uid}", Located, _user_text)


@who.command(context_settings=_NAMES)
@click.argument("room", callback=_name)
@_options
@click.pass_context
def room(ctx: click.Context, /, room: str, **which: Any) -> None:
    """Print how many sessions, and of how many users, are in ROOM."""
    _tell(ctx, which, f"/api/rooms/{room}", InRoom, _room_text)


@who.command()
@click.option(
    "--limit", type=click.IntRange(1, LARGEST), metavar="N", default=SHOWN, show_default=True, help="So many."
)
@_options
@click.pass_context
def rooms(ctx: click.Context, /, limit: int, **which: Any) -> None:
    """Print the largest rooms, and how many sessions are in each."""
    _tell(ctx, which, f"/api/rooms?limit={limit}", RoomSizes, _rooms_text)


def _tell(ctx: click.Context, which: dict[str, Any], path: str, answer: type[_T], text: Callable[[_T], str]) -> None:
    """Asks, and prints what is answered."""
    http, topology, as_json = ctx.obj
    if which["http"] or which["topology"]:
        http, topology = which["http"], which["topology"]
    try:
        found = _ask(http_address(http, topology), path, answer)
    except ZimError as error:
        _fail(str(error), EXIT_UNKNOWN if isinstance(error, NotTold) else EXIT_REFUSED)
    shown = json.dumps(msgspec.to_builtins(found)) if as_json or which["as_json"] else text(found)
    encoding = sys.stdout.encoding
    click.echo(shown.encode(encoding, "replace").decode(encoding))


def _ask(where: str, path: str, answer: type[_T]) -> _T:
    status, body = get(where, path)
    if status == 200:
        with suppress(msgspec.DecodeError):
            return msgspec.json.decode(body, type=answer)
    raise why_not(where, status, body, "answer")


def _user_text(found: Located) -> str:
    if not found.online:
        return f"user {printable(found.user)} is not online"
    n = len(found.sessions) + found.left_out
    table = _table("session", "comet", "rooms")
    for place in found.sessions:
        table.add_row(printable(place.key), printable(place.comet), ", ".join(map(printable, place.rooms)))
    more = f"\nand {found.left_out:,} more" if found.left_out else ""
    return f"user {printable(found.user)} is online: {_count(n, 'session')}\n{_drawn(table)}{more}"


def _room_text(found: InRoom) -> str:
    if not found.sessions:
        return f"nobody is in room {printable(found.room)}"
    return f"room {printable(found.room)}: {_count(found.sessions, 'session')} of {_count(found.users, 'user')}"


def _rooms_text(found: RoomSizes) -> str:
    if not found.rooms:
        return "nobody is in a room"
    table = _table("room", "sessions")
    table.columns[1].justify = "right"
    for size in found.rooms:
        table.add_row(printable(size.room), f"{size.sessions:,}")
    return _drawn(table)


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _drawn(table: Table) -> str:
    console = Console(highlight=False, markup=False, emoji=False, color_system=None, width=WIDTH)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _fail(why: str, code: int) -> NoReturn:
    click.echo(f"zim who: {why}", err=True)
    sys.exit(code)
