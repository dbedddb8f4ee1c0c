"""`zim explain`: may this user join this room, and by which rule?"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import click
import msgspec

from zim.cli.asking import NotTold, get
from zim.cli.credentials import HOW_TO_SHOW, TOKEN_ENVIRONMENT, api_key, is_key_named, key_file_option
from zim.cli.lines import visible
from zim.cli.mistakes import FilePath
from zim.cli.token import end_of, grant_of
from zim.cli.where import http_address, topology_file, topology_option
from zim.errors import ZimError
from zim.fabric.answers import KeptBans
from zim.fabric.grants import Denial
from zim.fabric.limits import LARGEST
from zim.fabric.names import NAME, is_name
from zim.fabric.streams import ROOM, is_room
from zim.identity.explaining import (
    Signed,
    Verdict,
    by_token,
    first_look,
    how_kept,
    with_bans,
    without_bans,
    without_token,
)
from zim.topology import Topology, load

EXIT = {"yes": 0, "no": 1, "it depends": 3}
EXIT_UNKNOWN = 3

# A name such as -5 is not an option of ours.
_NAMES = {"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]}


class _Refusal(msgspec.Struct):
    detail: str


def _user(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if not is_name(value):
        raise click.BadParameter(f"nobody can be called {value!r}; right is {NAME}")
    return value


def _room(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if not is_room(value):
        raise click.BadParameter(f"no room can be called {value!r}; right is {ROOM}")
    return value


@click.command(context_settings=_NAMES)
@click.argument("user", callback=_user)
@click.argument("room", callback=_room)
@topology_option("By the rules of FILE.")
@click.option("--token-file", metavar="FILE", type=FilePath(path_type=Path), help="The user's token, in a file.")
@click.option("--http", metavar="HOST:PORT", help="Ask this logic node whether the user is banned.")
@key_file_option
def explain(user: str, room: str, topology: Path | None, token_file: Path | None, http: str | None) -> None:
    """Say whether USER may join ROOM, and by which rule.

    It is decided by the topology and the token: that of --token-file, or of the environment variable ZIM_TOKEN. Without
    a token it says what each rule is about. Bans are looked at if --http or --key-file is given; they need the scope
    ban. Where they are not told, the rest is said all the same. What your application would say is not asked.

    \b
    Examples:
      zim explain anna chat-1
      zim explain anna chat-1 --token-file anna.token
      zim explain anna chat-1 --token-file anna.token --key-file ops.key

    \b
    Exit codes:
      0  yes
      1  no; or the topology is wrong
      2  the command line is wrong
      3  it depends on a token or on your application; or it cannot be told, as bans that were asked for
    """
    fabric = load(topology_file(topology))
    verdict, device = _decide(fabric, user, room, _token(token_file))
    untold = ""
    if http or is_key_named():
        try:
            verdict = _look_for_bans(verdict, user, device, http, fabric)
        except NotTold as error:
            untold = str(error)
    else:
        verdict = without_bans(verdict)
    click.echo(visible(f"{verdict.answer}: {verdict.why}"))
    for detail in (*verdict.details, how_kept(fabric.retention, room)):
        click.echo("  " + visible(detail))
    if untold and verdict.answer != "no":
        _fail(untold)
    if untold:
        click.echo(f"zim explain: {visible(untold)}", err=True)
    sys.exit(EXIT[verdict.answer])


def _token(token_file: Path | None) -> str:
    """That which is shown; "" for none."""
    if token_file is None:
        return os.environ.get(TOKEN_ENVIRONMENT, "").strip()
    try:
        token = token_file.read_text(errors="replace").strip()
    except OSError as e:
        raise click.BadParameter(f"{token_file} cannot be read: {e.strerror}") from None
    if not token:
        raise click.BadParameter(f"{token_file} is empty; right is a file with a token")
    return token


def _decide(fabric: Topology, user: str, room: str, token: str) -> tuple[Verdict, str]:
    """The verdict, and the class of the user's device."""
    if not token:
        return without_token(fabric, user, room), ""
    found = first_look(fabric, user, room, token.encode())
    if not isinstance(found, Signed):
        return found, ""
    try:
        grant = grant_of(found.token, found.issuer)
    except ZimError as error:
        _fail(str(error))
    if isinstance(grant, Denial):
        return by_token(fabric.identity, user, room, grant, ""), ""
    return by_token(fabric.identity, user, room, grant, end_of(grant)), grant.device


def _look_for_bans(verdict: Verdict, user: str, device: str, http: str | None, fabric: Topology) -> Verdict:
    """Raises: NotTold: they are not told."""
    where = http_address(http, fabric.path)
    status, body = get(where, f"/api/bans?limit={LARGEST}")
    try:
        if status != 200:
            why = msgspec.json.decode(body, type=_Refusal).detail
            hint = f"; {HOW_TO_SHOW}" if status == 401 and not api_key() else ""
            raise NotTold(f"bans are not told (HTTP {status}): {why}{hint}")
        found = msgspec.json.decode(body, type=KeptBans)
    except msgspec.DecodeError:
        raise NotTold(f"what {where} answers are no bans; is this a logic node's HTTP port?") from None
    return with_bans(verdict, user, device, found.bans, found.total - len(found.bans))


def _fail(why: str) -> NoReturn:
    click.echo(f"zim explain: {visible(why)}", err=True)
    sys.exit(EXIT_UNKNOWN)
