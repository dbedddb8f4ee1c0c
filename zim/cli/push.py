"""`zim push`: pushes from the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any, NoReturn, TypeVar

import click
from click.core import ParameterSource
from typing_extensions import override

from zim.cli.credentials import HOW_TO_SHOW, api_key, key_file_option
from zim.cli.outcome import NOBODY, tell
from zim.cli.patience import patience
from zim.cli.seconds import Seconds
from zim.cli.where import http_address, topology_option
from zim.client import Accepted, Publisher, PushUnavailable, PushUnknown, ZimError
from zim.client.publisher import NO_KEY, make_id
from zim.fabric.limits import TTL_S, WAIT_S
from zim.fabric.names import KEY, NAME, is_key, shown
from zim.fabric.push import OP, PUSH_OP
from zim.fabric.streams import user_of_key
from zim.program import zim_command

EXIT_REFUSED = 1
EXIT_UNKNOWN = 3

# A name such as -5 is the fabric's to judge; it is not an option of ours.
_NAMES = {"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]}

_BEYOND_GOIM = {"--id": "key", "--ttl": "ttl_s", "--op": "op", "--wait": "wait_s", "--keys": "keys"}

_F = TypeVar("_F", bound=Callable[..., Any])
_To = Callable[[str], dict[str, Any]]
_Act = Callable[[Publisher, str, bytes], str]


@dataclass(frozen=True)
class _Target:
    """What stands before the subcommand: which fabric, and how to speak to it."""

    http: str | None = None
    topology: Path | None = None
    goim: bool = False


def _read_body(_ctx: click.Context, _param: click.Parameter, value: str) -> bytes:
    if value == "-":
        return sys.stdin.buffer.read()
    if value.startswith("@"):
        try:
            return Path(value[1:]).read_bytes()
        except OSError as error:
            why = f"cannot read the file {value[1:]}: {error.strerror}"
            raise click.BadParameter(f"{why}; a text that begins with @ is taken from standard input, by -") from None
    # Arguments that are no UTF-8 reach Python as surrogates; the fabric shall get their bytes.
    return value.encode(errors="surrogateescape")


def _read_name(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise click.BadParameter(f"{shown(value)} is not UTF-8; right is {NAME}")
    return value


def _read_id(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str:
    if value is not None and not is_key(value):
        raise click.BadParameter(f"{shown(value)} cannot be a key; right is {KEY}")
    return value or ""


def _read_keys(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(_read_name(ctx, param, value).split(",")) if value is not None else ()


_WHICH = [  # fabric; accepted before and after the subcommand
    click.option("--http", metavar="HOST:PORT", help="The HTTP port of a logic node, or https://HOST."),
    topology_option("Take the first logic node of FILE."),
    click.option("--goim", is_flag=True, help="Use goim v1's API: numbers only, and none of the other options."),
    key_file_option,
]
_MORE = [
    click.option("--id", "key", metavar="KEY", callback=_read_id, help="Idempotency key: the same is pushed once."),
    click.option(
        "--ttl",
        "ttl_s",
        metavar="SECONDS",
        type=Seconds(0, TTL_S, min_open=True),
        help="After so long it is of no use any more.",
    ),
    click.option("--op", metavar="N", type=int, default=PUSH_OP, help=f"Operation in the client's packet: {OP}."),
    click.option(
        "--wait",
        "wait_s",
        metavar="SECONDS",
        type=Seconds(0, WAIT_S),
        help="Wait up to so long, and say what became of it.",
    ),
    click.option("--keys", metavar="KEY,…", callback=_read_keys, help="To these sessions, too, such as 7_12."),
]


def _with(options: Sequence[Callable[[_F], _F]], command: _F) -> _F:
    """The command with these options, in this order in its --help."""
    for option in reversed(options):
        command = option(command)
    return command


class _Push(click.Group):
    """A group that knows what somebody means who names nobody."""

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        is_wrong = args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None
        if is_wrong and not ctx.resilient_parsing:  # a shell that completes a line asks with half a word
            raise click.UsageError(f"{args[0]!r} does not say to whom; {self._right(*args)}")
        return super().resolve_command(ctx, args)

    def _right(self, said: str, *more: str) -> str:
        """What would be right, once as it may have been meant: with another word, or with one in front."""
        names, zim = ", ".join(self.commands), zim_command()
        if close := ["all"] if said == "everybody" else get_close_matches(said, self.commands, n=1):
            words = " ".join(map(quote, more or ("7", "hello")))
            return f"did you mean {close[0]}? Right is one of {names}, such as: {zim} push {close[0]} {words}"
        return f"right is one of {names}, such as: {zim} push user {quote(said)} {quote(more[0]) if more else 'hello'}"


@click.group(cls=_Push, context_settings={"help_option_names": ["-h", "--help"]})
@partial(_with, _WHICH)
@click.pass_context
def push(ctx: click.Context, http: str | None, topology: Path | None, goim: bool) -> None:
    """Push to a user, a room, sessions, everybody.

    BODY is any bytes, JSON or not, and arrives as it is given; "-" reads it from standard input, "@FILE" from a file.
    Prints the push id, and with --wait what became of it.

    \b
    Examples:
      zim push user 7 '{"test":1}'
      zim push users 7,8,anna hello --ttl 60
      zim push room lobby @message.json --id order-1
      zim push keys 7_12 'only this session' --wait 2
      date | zim push all -
      zim push --http 10.0.0.5:7172 user 7 hello
      zim push --goim room 1 hello

    `zim push user --help` has the options of a push. --goim uses goim v1's API: users and rooms are numbers, and the
    body for several users is JSON.

    The fabric is the one of --http or --topology. Without both, and without the file, it is the one at 127.0.0.1:7172.

    \b
    Exit codes:
      0  accepted
      1  refused: the request, or the topology, is wrong
      2  the command line is wrong
      3  the fabric is not reachable or not able; or it is not known whether the push was accepted
      130  Ctrl-C: it is not known, either
    """
    ctx.obj = _Target(http, topology, goim)


def _add_command(name: str, metavar: str, summary: str, to: _To, act: _Act | None) -> None:
    """Adds a subcommand.

    Args:
        metavar: of the argument before BODY; "" for none.
        to: whom that argument names, as Publisher.push takes it.
        act: what does it by goim's API; None where that has no such push.
    """

    @partial(_with, [*_MORE, *_WHICH])
    @click.pass_context
    def run(
        ctx: click.Context,
        body: bytes,
        http: str | None,
        topology: Path | None,
        goim: bool,
        key: str,
        op: int,
        ttl_s: float | None,
        wait_s: float | None,
        keys: tuple[str, ...],
        who: str = "",
    ) -> None:
        before = ctx.obj or _Target()
        goim = goim or before.goim
        key = key or ("" if goim else make_id())  # who has no answer may send it again
        if not (http or topology):
            http, topology = before.http, before.topology
        if goim:
            _refuse_options(ctx, name, act)
        names = to(who)
        _refuse_keys(keys, names.get("users", ()))
        names["keys"] = [*names.get("keys", ()), *keys]
        try:
            # A person, or a script, decides whether it is tried again.
            with (
                patience("no answer yet"),
                Publisher(http_address(http, topology), retry_s=0, api_key=api_key()) as publisher,
            ):
                if goim and act:
                    found = Accepted(act(publisher, who, body))
                else:
                    found = publisher.push(body, **names, op=op, ttl_s=ttl_s or 0.0, id=key, wait_s=wait_s)
        except ZimError as error:
            _fail(error)
        except KeyboardInterrupt:
            again = f"; with --id {key} the same again is not pushed twice" if key else ""
            click.echo(f"zim push: it is not known whether the push was accepted{again}", err=True)
            raise
        click.echo(found.push_id or "accepted; the server names no push id", err=not found.push_id)
        if wait_s is not None:
            click.echo(tell(found.receipt, _nobody(names)) if found.receipt else "what became of it was not told")

    run = click.argument("body", callback=_read_body)(run)
    run = click.argument("who", metavar=metavar, callback=_read_name)(run) if metavar else run
    push.command(name, help=summary, context_settings=_NAMES)(run)


def _refuse_options(ctx: click.Context, name: str, act: _Act | None) -> None:
    """Refuses what goim's API does not have.

    Raises:
        click.UsageError: something of that is asked for.
    """
    if act is None:
        raise click.UsageError(f"goim's API has no pushes to {name}; leave out --goim")
    for option, parameter in _BEYOND_GOIM.items():
        if ctx.get_parameter_source(parameter) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"goim's API has no {option}; leave out --goim, or {option}")


def _nobody(names: Mapping[str, Any]) -> str:
    """Why a push to these may have been for nobody, though nobody is offline."""
    if names.get("keys") and not names.get("users"):
        return "none of these sessions is there, or it still catches up"
    return NOBODY


def _refuse_keys(keys: Sequence[str], users: Sequence[str]) -> None:
    """Refuses sessions whose user gets it in all sessions.

    Raises:
        click.UsageError: there is such a one.
    """
    for key in keys:
        if (uid := user_of_key(key)) in users:
            raise click.UsageError(
                f"all sessions of {uid} get it, not {key} alone; for that: {zim_command()} push keys {key} BODY"
            )


def _fail(error: ZimError) -> NoReturn:
    hint = ""
    if isinstance(error, PushUnknown) and error.id:
        hint = f"; with --id {error.id} the same again is not pushed twice"
    text = str(error)
    if text.endswith(NO_KEY):
        text, hint = text.removesuffix(NO_KEY), f"; {HOW_TO_SHOW}"
    click.echo(f"zim push: {text}{hint}", err=True)
    sys.exit(EXIT_UNKNOWN if isinstance(error, PushUnavailable | PushUnknown) else EXIT_REFUSED)


_add_command(
    "user", "UID", "Push BODY to every session of user UID.", lambda uid: {"users": [uid]}, Publisher.push_user
)
_add_command(
    "users",
    "UID,UID,…",
    "Push BODY to several users.",
    lambda uids: {"users": uids.split(",")},
    lambda publisher, uids, body: publisher.push_users(uids.split(","), body),
)
_add_command("room", "ROOM", "Push BODY to everybody in ROOM.", lambda room: {"rooms": [room]}, Publisher.push_room)
_add_command("keys", "KEY,KEY,…", "Push BODY to these sessions alone.", lambda keys: {"keys": keys.split(",")}, None)
_add_command(
    "all",
    "",
    "Push BODY to everybody who is connected.",
    lambda _: {"everybody": True},
    lambda publisher, _, body: publisher.push_all(body),
)
