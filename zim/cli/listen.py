"""`zim listen`: prints what is pushed to a user."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from zim.cli.where import comet_address
from zim.client import Listener, Message, State, ZimError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--uid", help="The user, a number: with the default token handler uid and token are the same.")
@click.option("--token", help="What to log in with, where that is not the uid.")
@click.option("--ws", is_flag=True, help="WebSocket instead of TCP.")
@click.option("--tcp", metavar="HOST:PORT", help="TCP, at this comet.")
@click.option("--address", metavar="HOST:PORT", help="The comet's address, for TCP or, with --ws, WebSocket.")
@click.option(
    "--topology", metavar="FILE", type=click.Path(path_type=Path), help="Take the first fitting comet of FILE."
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Exit with 0 after N messages.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Stop after S seconds; exit code 1 if nothing, or less than --count, came.",
)
@click.option("--json", "as_json", is_flag=True, help='Print {"op":…,"body":…,"received_at":…} instead of the body.')
def listen(
    uid: str | None,
    token: str | None,
    ws: bool,
    tcp: str | None,
    address: str | None,
    topology: Path | None,
    count: int | None,
    timeout_s: float | None,
    as_json: bool,
) -> None:
    """Print what is pushed to a user, one message a line.

    Bodies go to standard output: over TCP byte for byte, over WebSocket as the JSON that they are there. What becomes
    of the connection goes to standard error. When it is lost a new one is made, after 0.2 s at first, 10 s at most.

    \b
    Examples:
      zim listen --uid 7
      zim listen --uid 7 --ws --count 1 --timeout 5
      zim listen --token secret --address 10.0.0.5:8080 --json | jq .body

    The comet is the one of --tcp, --address or --topology; by default the first of ./topology.toml, or goim's ports on
    127.0.0.1 (8080 for TCP, 8090 for WebSocket) without such a file.

    \b
    Exit codes:
      0    --count messages came, or something came before --timeout
      1    --timeout passed, or the topology or an address is wrong
      2    the command line is wrong
      130  Ctrl-C
    """
    who = token if uid is None else uid
    if who is None or (uid is not None and token is not None):
        raise click.UsageError("who listens? give --uid or --token (and only one)")
    if uid is not None and not (uid.isascii() and uid.isdecimal() and int(uid[:20]) < 1 << 63):
        raise click.UsageError(f"a uid is a number from 0 on, not {uid!r}; for another token use --token")
    if tcp is not None and (ws or address is not None):
        raise click.UsageError("--tcp names a TCP address; leave out --ws and --address")
    if topology is not None and (tcp or address):
        raise click.UsageError("the address is given; leave out --topology")
    try:
        listener = Listener(
            comet_address(ws, tcp or address, topology),
            who,
            "ws" if ws else "tcp",
            on_state=_tell,
        )
    except ZimError as error:
        click.echo(f"zim listen: {error}", err=True)
        sys.exit(1)
    with _closing_after(listener, timeout_s):
        got = _print_messages(listener, count, as_json)
    if got < (count or 1):
        click.echo(f"zim listen: {got} of {count or 1} messages in {timeout_s:g} s", err=True)
        sys.exit(1)


def _print_messages(listener: Listener, count: int | None, as_json: bool) -> int:
    """Prints until there are `count`, or the listener is closed, or nobody reads. Returns how many."""
    out = sys.stdout.buffer
    got = 0
    for message in listener:
        try:
            out.write((_as_json(message) if as_json else message.body) + b"\n")
            out.flush()
        except BrokenPipeError:
            # Python flushes stdout once more at exit, and would complain there.
            os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
            return max(got, count or 1)
        got += 1
        if got == count:
            break
    return got


def _as_json(message: Message) -> bytes:
    text = message.body.decode(errors="backslashreplace")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = text
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"op": message.op, "body": body, "received_at": now}, ensure_ascii=False).encode()


def _tell(state: State) -> None:
    if state.name == "connected":
        click.echo(f"connected to {state.address}", err=True)
    elif state.name != "connecting":
        verb = "refused by" if state.name == "refused" else "lost"
        click.echo(f"{verb} {state.address}: {state.reason}; again in {state.retry_s:.1f} s", err=True)


@contextmanager
def _closing_after(listener: Listener, timeout_s: float | None) -> Iterator[None]:
    if timeout_s is None:
        yield
        return
    timer = threading.Timer(timeout_s, listener.close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
