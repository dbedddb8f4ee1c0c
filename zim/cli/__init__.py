"""The command line: `zim up`, `zim push`, … Each command is a module of this package."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click
from gevent.hub import Hub

from zim import __version__
from zim.cli.mistakes import GuidingGroup, improved
from zim.errors import ZimError
from zim.program import where_docs_are

_COMMANDS = (
    "init",
    "up",
    "check",
    "status",
    "drain",
    "start",
    "restart",
    "reload",
    "node",
    "push",
    "listen",
    "who",
    "receipt",
    "ledger",
    "api-key",
    "link-key",
    "token",
    "explain",
    "log",
    "backup",
    "restored",
    "completion",
)

# A node that ends with it is not started again.
_EXIT_CODES = {"node": 2}

_INTERRUPTED = 128 + 2


class LazyGroup(GuidingGroup):
    """Imports a command when it is asked for, so that `zim check` does not wait for Flask and ZeroMQ."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which one meets them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command `a-b` of the module `zim.cli.a_b`."""
        if cmd_name not in _COMMANDS:
            return None
        module = cmd_name.replace("-", "_")
        command: click.Command = getattr(import_module(f"zim.cli.{module}"), module)
        return command

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Where the pages are that messages name."""
        if where := where_docs_are():
            formatter.write(f"\n{where}\n")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """What stands before the command."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise improved(error) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; what zim can say in one sentence is said in one, without a traceback."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise improved(error) from None
        except ZimError as error:
            for line in str(error).splitlines():
                click.echo(f"zim: {line}", err=True)
            return ctx.exit(_EXIT_CODES.get(ctx.invoked_subcommand or "", 1))
        except KeyboardInterrupt:
            return ctx.exit(_INTERRUPTED)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="zim")
def main() -> None:
    """zim: a push fabric. HTTP in, WebSocket and TCP out, no broker.

    \b
    zim init                        write ./topology.toml
    zim up                          start everything in it
    zim listen --uid 7              be user 7's device
    zim push user 7 '{"test":1}'    send to it
    zim who rooms                   which rooms are people in?

    Commands take, behind their name, the fabric's file by --topology, or from the environment variable
    ZIM_TOPOLOGY; by default it is ./topology.toml.
    """
    # Ctrl-C belongs to the main greenlet; the hub would print it first.
    Hub.NOT_ERROR = (*Hub.NOT_ERROR, KeyboardInterrupt)
