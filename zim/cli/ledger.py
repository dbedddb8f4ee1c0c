"""`zim ledger`: what became of all pushes, and whether every session is accounted for."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import click
import msgspec

from zim.cli.asking import NotTold, get, why_not
from zim.cli.credentials import key_file_option
from zim.cli.seconds import Seconds
from zim.cli.where import http_address, topology_argument, topology_file, topology_option
from zim.client import ZimError
from zim.fabric.answers import Ledger

EXIT_WRONG = 1
EXIT_UNKNOWN = 3

PATH = "/api/ledger"
POLL_S = 0.1

# What is shown, in this order, and what it means. The five behind targeted and pending are its sum.
ROWS = {
    "pushes": "kept",
    "targeted": "sessions that they were for",
    "delivered": "the kernel took the last byte",
    "gone": "connection or comet lost from sight before that",
    "shed": "the client was too slow",
    "expired": "the ttl was over",
    "unknown": "a router ended before it had heard",
    "pending": "not known yet",
    "offline": "users without a session, not in the sum",
}


@click.command()
@topology_argument
@topology_option("Ask the first logic node of FILE.")
@click.option("--http", "address", metavar="HOST:PORT", help="The HTTP port of a logic node, or https://HOST.")
@click.option("--wait", "wait_s", metavar="S", type=Seconds(min=0), default=0.0, help="Wait up to S seconds.")
@key_file_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ledger(file: Path | None, topology: Path | None, address: str | None, wait_s: float, as_json: bool) -> None:
    """Print what became of all pushes, counted in sessions.

    It balances: targeted = delivered + gone + shed + expired + unknown + pending. With --wait it is asked for again
    until nothing is pending.

    The fabric is the one of --http or --topology. Without both, and without the file, it is the one at 127.0.0.1:7172.

    \b
    Examples:
      zim ledger
      zim ledger examples/two-of-each.toml --wait 5
      zim ledger --http 10.0.0.5:7172 --json

    \b
    Exit codes:
      0  it balances
      1  it does not balance; or refused: the API key, or the topology, is wrong
      2  the command line is wrong
      3  it cannot be told: no logic, or a router, does not answer; or something is pending still after --wait
    """
    try:
        where = http_address(address, topology_file(topology, file) if topology or file else None)
        found = _ask_until_settled(where, wait_s)
    except ZimError as error:
        _fail(str(error), EXIT_UNKNOWN if isinstance(error, NotTold) else EXIT_WRONG)
    click.echo(json.dumps(msgspec.to_builtins(found)) if as_json else _table(found))
    if found.silent:
        _fail(f"no answer from {', '.join(found.silent)}: what they know is missing here", EXIT_UNKNOWN)
    if not found.balanced:
        known = sum(found.outcomes.values()) + found.pending
        _fail(f"it does not balance: {found.targeted} targeted, {known} accounted for", EXIT_WRONG)
    if wait_s and found.pending:
        _fail(f"{found.pending} sessions are pending still after {wait_s:g} s", EXIT_UNKNOWN)


def _ask_until_settled(where: str, wait_s: float) -> Ledger:
    """The ledger, once nothing is pending and every router has answered, or the time is over."""
    until = time.monotonic() + wait_s
    while True:
        found = _ask(where)
        if time.monotonic() >= until or not (found.pending or found.silent):
            return found
        time.sleep(POLL_S)


def _ask(where: str) -> Ledger:
    status, text = get(where, PATH)
    if status == 200:
        with suppress(msgspec.DecodeError):
            return msgspec.json.decode(text, type=Ledger)
    raise why_not(where, status, text, "ledger")


def _table(found: Ledger) -> str:
    numbers = {name: f"{getattr(found, name):,}" for name in ROWS}
    wide, widest = max(map(len, ROWS)), max(map(len, numbers.values()))
    return "\n".join(f"{name:<{wide}}  {numbers[name]:>{widest}}  {what}" for name, what in ROWS.items())


def _fail(why: str, code: int) -> NoReturn:
    click.echo(f"zim ledger: {why}", err=True)
    sys.exit(code)
