"""`zim listen`: prints what is pushed to a user."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from shlex import quote

import click
import gevent

from zim.cli.credentials import TOKEN_ENVIRONMENT
from zim.cli.lines import body_line, json_line, placed_line, visible, visible_line
from zim.cli.mistakes import FilePath
from zim.cli.patience import PATIENT_S
from zim.cli.seconds import Seconds
from zim.cli.where import comet_addresses, topology_option
from zim.client import (
    CertificateError,
    ClientError,
    Gap,
    GoimListener,
    Listener,
    Message,
    NotJoined,
    NotRecovered,
    SentAway,
    State,
    ZimError,
)
from zim.client.lifeline import FRESH
from zim.client.token import Token
from zim.fabric.principals import KEY_PREFIX
from zim.program import zim_command


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--uid", help="The user, a number: with zim's token handler uid and token are the same.")
@click.option("--token", help="What to log in with, where that is not the uid. Others can see it: see --token-file.")
@click.option(
    "--token-file",
    metavar="FILE",
    type=FilePath(path_type=Path),
    help="A file with the token, read anew for each connection and before the token ends. By default it is that of "
    f"${TOKEN_ENVIRONMENT}.",
)
@click.option("--room", "rooms", multiple=True, help="Join this room instead of the token's own. More than once: all.")
@click.option("--ack", is_flag=True, help="Acknowledge what was printed: it will not come to this user again.")
@click.option("--goim", is_flag=True, help="Speak goim v1's protocol: only what is pushed from now on, no streams.")
@click.option("--ws", is_flag=True, help="WebSocket instead of TCP.")
@click.option("--tcp", metavar="HOST:PORT", help="TCP, at this comet.")
@click.option(
    "--address",
    "addresses",
    metavar="HOST:PORT",
    multiple=True,
    help="The comet's address, for TCP or, with --ws, WebSocket; or ws://HOST:PORT; with TLS wss://HOST or "
    "tls://HOST:PORT. More than once: each in turn.",
)
@topology_option("Take the fitting comets of FILE.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Exit with 0 after N messages.")
@click.option(
    "--timeout",
    "timeout_s",
    type=Seconds(min=0, min_open=True),
    metavar="S",
    help="Stop after S seconds; exit code 1 if nothing, or less than --count, came.",
)
@click.option("-v", "--verbose", is_flag=True, help="Print stream and offset before each body.")
@click.option("--json", "as_json", is_flag=True, help='Print {"op":…,"body" or "base64":…,"received_at":…,…}.')
def listen(
    uid: str | None,
    token: str | None,
    token_file: Path | None,
    rooms: tuple[str, ...],
    ack: bool,
    goim: bool,
    ws: bool,
    tcp: str | None,
    addresses: tuple[str, ...],
    topology: Path | None,
    count: int | None,
    timeout_s: float | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Print what is pushed to a user, one message a line.

    First comes what was pushed to the user and is not acknowledged yet. Bodies go to standard output: over TCP byte
    for byte, over WebSocket as the JSON that they are there. On a terminal, control characters and bytes that are not
    UTF-8 are escaped, as \\x1b or \\n; in a pipe or a file all stays as it is. With --json the field "body" has JSON,
    or a string for other text; where it is not UTF-8 there is "base64" instead.

    What becomes of the connection, and what could not be recovered, goes to standard error. When the connection is lost
    a new one is made, to the next address, after 0.2 s at first, 10 s at most, and goes on where the old one ended.

    \b
    Examples:
      zim listen --uid 7
      zim listen --uid 7 --ws --count 1 --timeout 5
      zim listen --uid 7 --room lobby --verbose
      zim listen --token 7 --address 10.0.0.5:8080 --json | jq .body
      zim listen --uid 7 --address wss://push.example.com

    The comets are those of --tcp, --address or --topology. Without them, and without the file, it is the one at goim's
    ports on 127.0.0.1, 8080 for TCP and 8090 for WebSocket. The certificate of wss:// and tls:// must be signed by
    somebody whom the system believes, or whom the file has that the environment variable SSL_CERT_FILE names.

    \b
    Exit codes:
      0    --count messages came, or something came before --timeout
      1    --timeout passed, or the topology, an address, the token or a certificate is wrong
      2    the command line is wrong
      130  Ctrl-C
    """
    who = _token(uid, token, token_file)
    if tcp is not None and (ws or addresses):
        raise click.UsageError("--tcp names a TCP address; leave out --ws and --address")
    if topology is not None and (tcp or addresses):
        raise click.UsageError("the address is given; leave out --topology")
    if goim and (rooms or ack or verbose):
        raise click.UsageError("goim has no streams; leave out --room, --ack and --verbose")
    listener: Listener | GoimListener
    tell = _Teller(token_file)
    try:
        if token_file is not None:
            _read_token(token_file)
        where = comet_addresses(ws, (tcp,) if tcp else addresses, topology)
        if goim:
            listener = GoimListener(where, who, on_state=tell)
        else:
            listener = Listener(where, who, rooms=rooms or None, on_state=tell)
    except ZimError as error:
        click.echo(f"zim listen: {error}", err=True)
        sys.exit(1)
    try:
        with _closing_after(listener, timeout_s):
            got = _print_messages(listener, _writer(as_json, verbose), ack, count)
    except (CertificateError, SentAway) as error:
        text = str(error)
        if text.endswith(FRESH):
            text = text.removesuffix(FRESH) + _another_token(None)
        click.echo(f"zim listen: {text}", err=True)
        sys.exit(1)
    if got < (count or 1):
        came = f"{got} of {count} messages" if count else "nothing came"
        click.echo(f"zim listen: {came} in {timeout_s:g} s", err=True)
        sys.exit(1)


def _token(uid: str | None, token: str | None, token_file: Path | None) -> Token:
    """What to log in with.

    Raises:
        click.UsageError: nobody is named, or two are, or the uid is none.
    """
    if sum(given is not None for given in (uid, token, token_file)) > 1:
        raise click.UsageError("who listens? give one of --uid, --token and --token-file")
    if token_file is not None:
        return partial(_read_token, token_file)
    who = token if uid is None else uid
    if who is None:
        who = os.environ.get(TOKEN_ENVIRONMENT)
    if who is None:
        raise click.UsageError(f"who listens? give --uid, --token or --token-file, or set {TOKEN_ENVIRONMENT}")
    if uid is not None and not (uid.isascii() and uid.isdecimal() and int(uid[:20]) < 1 << 63):
        hint = "with names users have tokens, see docs/how-to/jwt.md, and are here by --token or --token-file"
        raise click.UsageError(f"a uid is a number from 0 on, not {uid!r}; {hint}")
    return who


def _read_token(file: Path) -> str:
    """Raises: ClientError: there is none in it; the listener says so, and tries again."""
    try:
        token = file.read_text(errors="replace").strip()
    except OSError as e:
        raise ClientError(f"{file} cannot be read: {e.strerror}{_another_token(file)}") from None
    if not token:
        raise ClientError(f"{file} is empty{_another_token(file)}")
    if token.startswith(KEY_PREFIX):
        raise ClientError(f"{file} has an API key, which is a backend's; right is a user's token{_another_token(None)}")
    return token


def _another_token(file: Path | None) -> str:
    """Where one comes from. file: that it is read from."""
    made = f"{zim_command()} token make USER{f' > {quote(str(file))}' if file else ''}"
    return f"; your application gives one, or, to try things out with an [[issuer]], {made}"


def _print_messages(
    listener: Listener | GoimListener, write: Callable[[Message], bytes], ack: bool, count: int | None
) -> int:
    """Prints until `count` messages came or the listener ends. How many came; enough, if nobody reads any more."""
    got = 0
    for event in listener:
        if not isinstance(event, Message):
            _tell_loss(event)
            continue
        if not _print(write(event)):
            return max(got, count or 1)
        got += 1
        if ack and isinstance(listener, Listener):
            listener.ack(event)
        if got == count:
            break
    return got


def _print(line: bytes) -> bool:
    """Prints, or says that nobody reads any more."""
    out = sys.stdout.buffer
    try:
        out.write(line + b"\n")
        out.flush()
    except BrokenPipeError:
        # Python flushes stdout once more at exit, and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        return False
    return True


def _writer(as_json: bool, verbose: bool) -> Callable[[Message], bytes]:
    """What makes a line of a message; for a terminal one that changes nothing there."""
    if as_json:
        return lambda message: json_line(message, _now())
    write = placed_line if verbose else body_line
    return (lambda message: visible_line(write(message))) if sys.stdout.isatty() else write


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Teller:
    """Says what becomes of the connection. token_file: that the token is read from."""

    def __init__(self, token_file: Path | None) -> None:
        self._token_file = token_file
        self._patience: gevent.Greenlet[..., None] | None = None

    def __call__(self, state: State) -> None:
        if self._patience is not None:
            self._patience.kill()
            self._patience = None
        if state.name == "connecting":
            self._patience = gevent.spawn_later(PATIENT_S, _say, f"no answer from {state.address} yet")
        elif state.name == "connected":
            _say(f"connected to {state.address}")
        elif state.retry_s:  # else the error follows
            verb = {"refused": "refused by", "unreachable": "cannot reach"}.get(state.name, "lost")
            hint = _another_token(self._token_file) if self._token_file and "expired" in state.reason else ""
            _say(f"{verb} {state.address}: {state.reason}{hint}; again in {state.retry_s:.1f} s")


def _tell_loss(event: Gap | NotRecovered | NotJoined) -> None:
    match event:
        case Gap(reason="epoch"):
            text = f"could not recover {event.stream}: it has another history now, which goes on after {event.to}"
        case Gap():
            text = (
                f"could not recover {event.stream}: messages {event.from_} to {event.to} will not come ({event.reason})"
            )
        case NotRecovered():
            text = f"could not recover {event.stream}: {_gone(event)}; it goes on after {event.now[1]}"
        case NotJoined():
            text = f"nothing of {event.stream} comes: {event.reason}"
    _say(text)


def _say(text: str) -> None:
    """One line on stderr; what a server has said in it changes nothing there."""
    click.echo(visible(text), err=True)


def _gone(event: NotRecovered) -> str:
    """What of a stream is gone, in numbers as far as they can be told."""
    if event.had is None:
        return f"what was not acknowledged, up to {event.now[1]}, is gone"
    (epoch, had), (now_epoch, now) = event.had, event.now
    if epoch != now_epoch:
        return f"what came after {had} is gone, and it has another history now"
    return f"messages {had + 1} to {now} are gone" if had < now else f"what came after {had} is gone"


@contextmanager
def _closing_after(listener: Listener | GoimListener, timeout_s: float | None) -> Iterator[None]:
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
