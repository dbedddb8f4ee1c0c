"""Who may not come in: a user, a class of a user's devices, an address or network. Pure.

A user's ban is kept by the router that owns the user's stream, that of a network by the owner of everybody's.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated

import msgspec
from msgspec import Meta

from zim.fabric.limits import NAME_BYTES, REASON_CHARS
from zim.fabric.streams import EVERYBODY, user_stream

Reason = Annotated[str, Meta(max_length=REASON_CHARS)]
Name = Annotated[str, Meta(max_length=NAME_BYTES)]

NETWORK_CHARS = 50


class Banned(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Whom a ban is about: one of user and network is there.

    Attributes:
        user: a user; device: of these only those of this class, "" for all.
        network: `203.0.113.0/24`, in its shortest form.
    """

    user: Name = ""
    device: Name = ""
    network: Annotated[str, Meta(max_length=NETWORK_CHARS)] = ""

    def __post_init__(self) -> None:
        """Raises: ValueError: a network that is none. Comets would fail at it, whoever has sent it."""
        if self.network:
            ip_network(self.network)

    @property
    def stream(self) -> str:
        """Whose owner keeps it."""
        return user_stream(self.user) if self.user else EVERYBODY


class Ban(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A ban.

    Attributes:
        banned: whom it is about.
        reason: for the client, and for people.
        by: the principal that made it.
        made_ms: the wall clock, for people.
        ends_ms: log time; 0 for never.
    """

    banned: Banned
    reason: Reason = ""
    by: str = ""
    made_ms: Annotated[int, Meta(ge=0, lt=1 << 53)] = 0
    ends_ms: Annotated[int, Meta(ge=0, lt=1 << 53)] = 0

    def has_ended(self, now_ms: int) -> bool:
        """It is over. now_ms: log time."""
        return 0 < self.ends_ms <= now_ms


def parse_network(text: str) -> str:
    """An address or a network, in the form in which it is kept. An address that IPv6 carries for IPv4 is that one.

    Raises:
        ValueError: it is neither; the text says what would be right.
    """
    try:
        network: IPv4Network | IPv6Network = ip_network(text, strict=False)
    except ValueError:
        right = "203.0.113.7, 203.0.113.0/24 or 2001:db8::/48"
        raise ValueError(f"{text[:60]!r} is no address; right is {right}") from None
    if network.version == 6 and network.prefixlen >= 96 and (v4 := network.network_address.ipv4_mapped) is not None:
        network = IPv4Network(f"{v4}/{network.prefixlen - 96}")
    if not network.prefixlen:
        raise ValueError(f"{text[:60]!r} is everybody")
    return str(network)


class Networks:
    """Networks that are banned, and why: an address is looked for by one step for each length of prefix."""

    def __init__(self) -> None:
        self._by_length: dict[tuple[int, int], dict[int, str]] = {}  # version and prefix length: network and reason

    def __len__(self) -> int:
        return sum(map(len, self._by_length.values()))

    def add(self, network: str, reason: str) -> None:
        """One more."""
        found = ip_network(network)
        at = self._by_length.setdefault((found.version, found.prefixlen), {})
        at[int(found.network_address)] = reason

    def discard(self, network: str) -> None:
        """One less."""
        found = ip_network(network)
        key = found.version, found.prefixlen
        at = self._by_length.get(key, {})
        at.pop(int(found.network_address), None)
        if not at:
            self._by_length.pop(key, None)

    def clear(self) -> None:
        """None any more."""
        self._by_length.clear()

    def reason(self, address: str) -> str | None:
        """Why an address is banned; None if it is not, or is no address."""
        if not self._by_length:
            return None
        try:
            found = ip_address(address.partition("%")[0])
        except ValueError:
            return None
        if found.version == 6 and (v4 := found.ipv4_mapped) is not None:
            found = v4
        number, bits = int(found), found.max_prefixlen
        for (version, length), networks in self._by_length.items():
            if version == found.version:
                masked = number >> (bits - length) << (bits - length)
                if (reason := networks.get(masked)) is not None:
                    return reason
        return None
