"""Where clients go that are sent to another comet: what of its listeners can be named to whom. Pure.

A comet's `public` address is what clients reach. Without it only loopback is named, and only to who comes from there:
of any other address nobody knows what stands in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import urlsplit

from zim.protocol.framings.tcp import TCP
from zim.protocol.framings.text import PATH
from zim.protocol.speech import Speech
from zim.protocol.vocabularies.base import Onward
from zim.topology import Comet, ListenAddress

MOST = 4  # addresses that one client is told


class Leaver(Protocol):
    """Who is sent away."""

    @property
    def speech(self) -> Speech:
        """What it speaks."""

    @property
    def host(self) -> str:
        """The address that it comes from."""


class Elsewhere:
    """The other comets, as clients reach them."""

    def __init__(self) -> None:
        self._comets: Mapping[str, Comet] = {}

    def follow(self, comets: Iterable[Comet]) -> None:
        """These are the others now."""
        self._comets = {comet.name: comet for comet in comets}

    def onward(self, leaver: Leaver, to: str, after_s: float) -> Onward:
        """What a client is told. to: the comet that it is to try; "" for any."""
        comet = self._comets.get(to)
        if comet is None:
            return Onward(after_s)
        is_tcp = leaver.speech.framing is TCP
        is_here = is_loopback(leaver.host)
        named = [reached(at, is_tcp, is_here) for at in (comet.tcp if is_tcp else comet.ws)]
        return Onward(after_s, tuple(dict.fromkeys(filter(None, named)))[:MOST])


def is_loopback(host: str) -> bool:
    """It is an address of this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def reached(at: ListenAddress, is_tcp: bool, is_here: bool) -> str:
    """How a client names a listener, a page by a whole URL; "" if that cannot be told. is_here: the client is on this
    machine."""
    host, _ = at.host_port
    if at.public:
        name = at.public
    elif not is_here or at.is_reachable or at.tls or not is_loopback(host):
        return ""
    else:
        name = at.address if is_tcp else f"ws://{at.address}"
    return name if is_tcp or urlsplit(name).path else name + PATH
