"""`zim token`: makes tokens of clients to try things out, and says why one is refused."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import click

from zim.cli.credentials import TOKEN_ENVIRONMENT
from zim.cli.mistakes import FilePath, GuidingGroup
from zim.cli.seconds import Seconds
from zim.cli.where import topology_file, topology_option
from zim.errors import ZimError
from zim.fabric.grants import LIFETIME_S, Denial, Grant, grant_problem
from zim.fabric.retention import DAY_S
from zim.identity.keys import Key, KeyProblem, read_jwks, sign
from zim.identity.loading import NoKey, fixed_keys, read_private_key, signing_secret
from zim.identity.tokens import Compact, header_problem, look_at, read_token, refused
from zim.nodes.logic.keysets import KeySet
from zim.topology import load
from zim.topology.identity import Identity, Issuer

FETCH_S = 5.0


@click.group(cls=GuidingGroup, context_settings={"help_option_names": ["-h", "--help"]})
def token() -> None:
    """Make tokens for trying things out, and say why one is refused.

    \b
    Examples:
      zim token make anna --room lobby > anna.token
      zim token check --token-file anna.token
    """


@token.command()
@click.argument("user")
@topology_option("Sign as an issuer of FILE.")
@click.option("--issuer", metavar="ISS", help="Which issuer, where there are several.")
@click.option("--room", "rooms", multiple=True, help="A room from the start. More than once: all.")
@click.option("--join", multiple=True, metavar="PATTERN", help="Rooms that may be joined. More than once: all.")
@click.option("--read", multiple=True, metavar="PATTERN", help="Streams that may be read, such as 'r:news-*'.")
@click.option("--device", default="", help="The class of the device, such as phone.")
@click.option(
    "--for", "for_s", type=Seconds(min=1), default=3600.0, metavar="S", help="For S seconds; by default 3600."
)
@click.option(
    "--private-key-file", metavar="FILE", type=FilePath(path_type=Path), help="The issuer's private key, in PEM."
)
@click.option("--kid", default="", help="The name of that key.")
def make(
    user: str,
    topology: Path | None,
    issuer: str | None,
    rooms: tuple[str, ...],
    join: tuple[str, ...],
    read: tuple[str, ...],
    device: str,
    for_s: float,
    private_key_file: Path | None,
    kid: str,
) -> None:
    """Print a token for USER.

    Your application makes the real ones. With a secret in the topology this one needs nothing else; where the topology
    has a public key, it is signed with the private one of --private-key-file.

    \b
    Examples:
      zim token make anna --room lobby --join 'chat-*' > anna.token
      zim listen --token-file anna.token
    """
    chosen = _issuer(load(topology_file(topology)).identity, issuer)
    if problem := grant_problem(Grant(user, rooms, join, read, device)):
        raise click.UsageError(problem)
    claim = {"rooms": list(rooms), "join": list(join), "read": list(read), "device": device}
    payload: dict[str, Any] = {"iss": chosen.issuer, "aud": chosen.audiences[0], "sub": user}
    payload |= {"exp": int(time.time() + for_s), "zim": {name: value for name, value in claim.items() if value}}
    try:
        key = read_private_key(private_key_file) if private_key_file else signing_secret(chosen)
        click.echo(sign(payload, key, chosen.algorithms[0], kid))
    except ZimError as e:
        _fail(str(e))


@token.command()
@topology_option("By the issuers of FILE.")
@click.option("--token-file", metavar="FILE", type=FilePath(path_type=Path), help="The token, in a file.")
def check(topology: Path | None, token_file: Path | None) -> None:
    """Say whose a token is and what it allows, or in words why it is refused.

    The token is that of --token-file, of the environment variable ZIM_TOKEN, or what stands in standard input. Keys at
    a URL are fetched. A token for [callout] only the application knows.

    \b
    Exit codes:
      0  it is taken
      1  it is refused
    """
    identity = load(topology_file(topology)).identity
    text = read_shown(token_file)
    found = look_at(text.encode())
    if found is None:
        _fail("the token is no JWT: three parts in base64url, with a point between" + _then(identity))
    issuer = next((i for i in identity.issuers if i.issuer == found.issuer), None)
    if issuer is None:
        known = ", ".join(i.issuer for i in identity.issuers) or "none"
        _fail(f"the token's iss is {found.issuer!r}; known are: {known}" + _then(identity))
    try:
        grant = grant_of(found, issuer)
    except ZimError as e:
        _fail(str(e))
    if isinstance(grant, Denial):
        _fail(grant.reason + (f" ({grant.detail})" if grant.detail else ""))
    click.echo(f"it is {grant.user}'s, until {end_of(grant)}")
    for what, names in (("rooms", grant.rooms), ("join", grant.join), ("read", grant.read)):
        click.echo(f"  {what:6} {' '.join(names) or '–'}")
    click.echo(f"  device {grant.device or '–'}")
    if grant.lifetime_ms >= LIFETIME_S * 1000:
        days = f"{LIFETIME_S / DAY_S:.0f} days"
        click.echo(f"  exp is further away than {days}, and counts for {days}; is it in seconds since 1970?")


def grant_of(found: Compact, issuer: Issuer) -> Grant | Denial:
    """What its issuer's keys say of a token. Keys at a URL are fetched.

    Raises:
        ZimError: the keys cannot be had.
    """
    if (wrong := header_problem(found, issuer)) is not None:
        return wrong
    keys = KeySet(issuer, _keys(issuer)).candidates(found.kid)  # as a logic chooses
    if keys:
        return read_token(found, issuer, keys, time.time())
    if not found.kid:
        return refused("the token names no kid, and its issuer has many keys")
    return refused(f"the token's kid is {found.kid!r}, which {issuer.jwks} does not have")


def end_of(grant: Grant) -> str:
    """When it ends, by this machine's clock and in its zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(round(time.time() + grant.lifetime_ms / 1000)))


def read_shown(token_file: Path | None) -> str:
    """A token that was handed over: in a file, by the environment, by standard input."""
    if token_file is not None:
        try:
            return token_file.read_text(errors="replace").strip()
        except OSError as e:
            _fail(f"{token_file} cannot be read: {e.strerror}")
    text = os.environ.get(TOKEN_ENVIRONMENT, "").strip()
    if not text and sys.stdin.isatty():
        _fail(f"which token? --token-file FILE, {TOKEN_ENVIRONMENT}, or standard input: zim token check < FILE")
    return text or sys.stdin.readline(1 << 16).strip()


def _keys(issuer: Issuer) -> list[Key]:
    if not issuer.jwks:
        return fixed_keys(issuer)
    from zim.asking import HttpAsker

    try:
        status, document = HttpAsker(issuer.jwks, issuer.ca).get(FETCH_S)
    except ZimError as e:
        raise NoKey(f"{issuer.jwks}: {e}") from None
    if status != 200:
        raise NoKey(f"{issuer.jwks} answers with status {status}")
    try:
        return read_jwks(document, issuer.algorithms)
    except KeyProblem as e:
        raise NoKey(f"{issuer.jwks} {e}") from None


def _issuer(identity: Identity, named: str | None) -> Issuer:
    if not identity.issuers:
        written = "zim init --production writes one behind #, to be switched on"
        _fail(f"the topology has no [[issuer]]; right is one with a secret_file, docs/how-to/jwt.md: {written}")
    if named is None and len(identity.issuers) > 1:
        raise click.UsageError(f"which issuer? --issuer, one of {', '.join(i.issuer for i in identity.issuers)}")
    for issuer in identity.issuers:
        if named in (None, issuer.issuer):
            return issuer
    raise click.UsageError(f"no issuer is called {named}; there are {', '.join(i.issuer for i in identity.issuers)}")


def _then(identity: Identity) -> str:
    return "; it would be shown to the callout" if identity.callout and identity.callout.connect else ""


def _fail(why: str) -> NoReturn:
    click.echo(f"zim token: {why}", err=True)
    sys.exit(1)
