"""`zim receipt ID`: what became of one push."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

import click
import msgspec

from zim.cli.asking import NotTold, get, why_not
from zim.cli.credentials import key_file_option
from zim.cli.lines import printable
from zim.cli.outcome import tell
from zim.cli.seconds import Seconds
from zim.cli.where import http_address, topology_option
from zim.client import ZimError
from zim.fabric.answers import Receipt
from zim.fabric.limits import WAIT_S

EXIT_REFUSED = 1
EXIT_UNKNOWN = 3


@click.command()
@click.argument("push_id", metavar="ID")
@click.option("--http", metavar="HOST:PORT", help="The HTTP port of a logic node, or https://HOST.")
@topology_option("Ask the first logic node of FILE.")
@click.option(
    "--wait", "wait_s", metavar="SECONDS", type=Seconds(0, WAIT_S), default=0.0, help="Until it is settled, so long."
)
@key_file_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, as the HTTP API answers it.")
def receipt(push_id: str, http: str | None, topology: Path | None, wait_s: float, as_json: bool) -> None:
    """Print what became of the push ID: who has it, who has not and why, and who is offline.

    ID is what `zim push` prints, and the HTTP API answers. Receipts are kept for an hour, or for the topology's
    `receipts_s`.

    The fabric is the one of --http or --topology; by default that of $ZIM_TOPOLOGY or ./topology.toml, or
    127.0.0.1:7172 without such a file.

    \b
    Exit codes:
      0  it is told
      1  there is no such receipt; or refused: the API key, or the topology, is wrong
      2  the command line is wrong
      3  it cannot be told: no logic, or a router, does not answer
    """
    path = f"/api/pushes/{quote(push_id, safe='', errors='surrogateescape')}"
    try:
        found = _ask(http_address(http, topology), f"{path}?wait_s={wait_s:g}" if wait_s else path)
    except ZimError as error:
        _fail(str(error), EXIT_UNKNOWN if isinstance(error, NotTold) else EXIT_REFUSED)
    text = json.dumps(msgspec.to_builtins(found)) if as_json else _text(found)
    click.echo(text.encode(sys.stdout.encoding, "replace").decode(sys.stdout.encoding))
    if found.silent:
        sys.exit(EXIT_UNKNOWN)


def _ask(where: str, path: str) -> Receipt:
    status, body = get(where, path)
    if status == 200:
        with suppress(msgspec.DecodeError):
            return msgspec.json.decode(body, type=Receipt)
    raise why_not(where, status, body, "receipt")


def _text(found: Receipt) -> str:
    lines = [tell(found)]
    if found.offline_users:
        more = found.offline - len(found.offline_users)
        names = ", ".join(map(printable, found.offline_users)) + (f", and {more:,} more" if more > 0 else "")
        lines.append(f"offline: {names}")
    times = [f"{what} after {ms:g} ms" for what, ms in found.hops_ms.items()]
    return "\n".join([*lines, *([", ".join(times)] if times else [])])


def _fail(why: str, code: int) -> NoReturn:
    click.echo(f"zim receipt: {why}", err=True)
    sys.exit(code)
