"""Whose pages may use a listener: browsers send requests that nobody at them has asked for. Pure.

A page from anywhere can post to this machine, open a WebSocket to it, and read from it under a name of its own that
it lets point here (DNS rebinding). But browsers say in Origin which page it is (RFC 6454), and in Host which name it
used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import urlsplit

ANY = "*"


@dataclass(frozen=True)
class Visitors:
    """Who is welcome at one listener.

    Attributes:
        is_local: it listens on loopback, where nobody needs a key: all that is foreign is refused unless it is named.
        origins: of pages that are welcome, `https://app.example.com`; or `*`.
        hosts: names, without port, by which it may be called; or `*`. Pages of a name that stands here are welcome.
    """

    is_local: bool = False
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()

    def refusal(self, environ: Mapping[str, Any]) -> str:
        """Why a request is not taken, for people; "" if it is. environ: of WSGI."""
        origin, host = environ.get("HTTP_ORIGIN"), environ.get("HTTP_HOST")
        page = _name_of_origin(origin or "")
        if origin is not None and page not in self.hosts and self._is_foreign(page, origin, self.origins):
            return f"pages of {_shown(origin)} are not welcome here; the listener's key origins names those that are"
        if host is not None and self._is_foreign(name := _name_of_host(host), name, self.hosts):
            return f"{_shown(host)} is not this machine; the listener's key hosts names what else it is called"
        return ""

    def allowed_origin(self, environ: Mapping[str, Any]) -> str:
        """The page that may read its answer (Fetch standard, CORS), one that `origins` names; "" for none."""
        origin = environ.get("HTTP_ORIGIN")
        if origin is None or not (ANY in self.origins or str(origin).lower() in self.origins):
            return ""
        return str(origin)

    def _is_foreign(self, name: str, said: str, welcome: tuple[str, ...]) -> bool:
        if not (self.is_local or welcome) or ANY in welcome or said.lower() in welcome:
            return False
        return not _is_loopback(name)


ANYBODY = Visitors()


class _HasReach(Protocol):
    @property
    def is_local(self) -> bool:
        """Only this machine reaches it."""


class Entrance(Protocol):
    """A listener, as the topology has it."""

    @property
    def parsed(self) -> _HasReach:
        """Its address."""

    @property
    def origins(self) -> tuple[str, ...]:
        """See Visitors."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """See Visitors."""


class HasVisitors(Protocol):
    """A server for browsers, among others."""

    visitors: Visitors


def visitors(at: Entrance) -> Visitors:
    """Who is welcome at a listener."""
    return Visitors(at.parsed.is_local, at.origins, at.hosts)


def let_in(servers: Iterable[HasVisitors], listeners: Iterable[Entrance]) -> None:
    """Tells servers whom their listeners welcome now."""
    for server, at in zip(servers, listeners, strict=True):
        server.visitors = visitors(at)


def _is_loopback(name: str) -> bool:
    name = name.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761 6.3
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _name_of_host(host: str) -> str:
    name, colon, port = host.strip().rpartition(":")
    if not colon or not ((port.isascii() and port.isdigit()) or not port):
        name = host.strip()
    return name.strip("[]")


def _name_of_origin(origin: str) -> str:
    try:
        return urlsplit(origin.strip()).hostname or ""
    except ValueError:
        return ""


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "…")
