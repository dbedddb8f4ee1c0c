"""`zim push`: pushes from the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from zim.cli.where import http_address
from zim.client import Publisher, PushUnavailable, PushUnknown, ZimError

EXIT_REFUSED = 1
EXIT_UNKNOWN = 3

# A uid such as -5 is the fabric's to refuse; it is not an option of ours.
_NUMBERS = {"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]}

_F = TypeVar("_F", bound=Callable[..., Any])


def _read_body(_ctx: click.Context, _param: click.Parameter, value: str) -> bytes:
    if value == "-":
        return sys.stdin.buffer.read()
    if value.startswith("@"):
        try:
            return Path(value[1:]).read_bytes()
        except OSError as error:
            raise click.BadParameter(f"cannot read {value[1:]}: {error.strerror}") from None
    # Arguments that are no UTF-8 reach Python as surrogates; the fabric shall get their bytes.
    return value.encode(errors="surrogateescape")


def _target(command: _F) -> _F:
    """The options that say which fabric; accepted before and after the subcommand."""
    file = click.Path(path_type=Path)
    command = click.option("--topology", metavar="FILE", type=file, help="Take the first logic node of FILE.")(command)
    return click.option("--http", metavar="HOST:PORT", help="The HTTP port of a logic node.")(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@_target
@click.pass_context
def push(ctx: click.Context, http: str | None, topology: Path | None) -> None:
    """Push a message: to one user, several, a room, or everybody.

    BODY is any bytes, JSON or not; "-" reads it from standard input, "@FILE" from a file.
    Prints the push id.

    \b
    Examples:
      zim push user 7 '{"test":1}'
      zim push users 7,8,9 '{"test":1}'
      zim push room 1 @message.json
      date | zim push all -
      zim push --http 10.0.0.5:7172 user 7 hello

    The fabric is the one of --http or --topology; by default that of ./topology.toml, or 127.0.0.1:7172 without such
    a file.

    \b
    Exit codes:
      0  accepted
      1  refused: the request, or the topology, is wrong
      2  the command line is wrong
      3  the fabric is not reachable or not able; or it is not known whether the push was accepted
    """
    ctx.obj = (http, topology)


def _add_command(name: str, metavar: str, summary: str, act: Callable[[Publisher, str, bytes], str]) -> None:
    """Adds a subcommand: the name of its argument before BODY, "" for none, and what it does with a publisher."""

    @_target
    @click.pass_context
    def run(ctx: click.Context, body: bytes, http: str | None, topology: Path | None, to: str = "") -> None:
        if not (http or topology):
            http, topology = ctx.obj or (None, None)
        try:
            with Publisher(http_address(http, topology)) as publisher:
                push_id = act(publisher, to, body)
        except ZimError as error:
            click.echo(f"zim push: {error}", err=True)
            sys.exit(EXIT_UNKNOWN if isinstance(error, PushUnavailable | PushUnknown) else EXIT_REFUSED)
        click.echo(push_id or "accepted; the server names no push id", err=not push_id)

    run = click.argument("body", callback=_read_body)(run)
    run = click.argument("to", metavar=metavar)(run) if metavar else run
    push.command(name, help=summary, context_settings=_NUMBERS)(run)


_add_command("user", "UID", "Push BODY to every session of user UID.", Publisher.push_user)
_add_command(
    "users",
    "UID,UID,…",
    "Push BODY, which must be JSON here, to several users.",
    lambda publisher, uids, body: publisher.push_users(uids.split(","), body),
)
_add_command("room", "ROOM", "Push BODY to everybody in ROOM.", Publisher.push_room)
_add_command("all", "", "Push BODY to everybody who is connected.", lambda publisher, _, body: publisher.push_all(body))
