"""Who is let in before anything is known but the address: connects of addresses and networks, and memory. Pure."""

from __future__ import annotations

import math
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple

from zim.fabric.buckets import Buckets, renewed
from zim.fabric.ceilings import Ceilings
from zim.fabric.refusals import Refusals

ADDRESS, NETWORK, MEMORY = "connects_per_address", "connects_per_network", "max_memory_bytes"
BELOW = 0.95  # of the ceiling, before anybody new comes in again: else it would go on and off
MEMORY_S = 10  # after which a client may look again whether there is memory


class TurnedAway(NamedTuple):
    """Somebody is not let in.

    Attributes:
        limit: which one says so.
        status: what HTTP has for it; retry_after_s: whole seconds.
    """

    limit: str
    status: int
    retry_after_s: int


class Doorkeeper:
    """One comet's.

    Attributes:
        refusals: of all three limits.
        max_memory_bytes: of this process; 0 for any number.
        is_over: it has more, or had a moment ago.
    """

    def __init__(self) -> None:
        self.refusals = Refusals((ADDRESS, NETWORK, MEMORY))
        self.max_memory_bytes = 0
        self.is_over = False
        self._addresses: Buckets[bytes] | None = None
        self._networks: Buckets[bytes] | None = None

    def follow(self, limits: Ceilings, max_memory_bytes: int) -> None:
        """From now on these. Where a rate is another one, all begin anew."""
        self._addresses = renewed(self._addresses, limits.connects_per_address)
        self._networks = renewed(self._networks, limits.connects_per_network)
        self.max_memory_bytes = max_memory_bytes
        self.is_over = self.is_over and max_memory_bytes > 0

    def see_memory(self, used_bytes: int) -> bool:
        """How much this process has now; whether anything changes by it."""
        was, most = self.is_over, self.max_memory_bytes
        self.is_over = 0 < most * (BELOW if was else 1.0) <= used_bytes
        return self.is_over != was

    def look(self, host: str, now: float) -> TurnedAway | None:
        """Counts a client that comes, or says why it is turned away; then it is not counted.

        Args:
            host: its address, without a port.
        """
        if self.is_over:
            self.refusals.count(MEMORY, host)
            return TurnedAway(MEMORY, 503, MEMORY_S)
        addresses, networks = self._addresses, self._networks
        if addresses is None and networks is None:
            return None
        address, network = place_of(host)
        # The network first: who has many addresses of one must not fill the table of addresses.
        if networks is not None and (wait_s := networks.wait_s(network, 1.0, now)):
            return self._turn_away(NETWORK, wait_s, host)
        if addresses is not None and (wait_s := addresses.ask(address, 1.0, now)):
            return self._turn_away(ADDRESS, wait_s, host)
        if networks is not None:
            networks.take(network, 1.0, now)
        return None

    def _turn_away(self, limit: str, wait_s: float, host: str) -> TurnedAway:
        self.refusals.count(limit, host)
        return TurnedAway(limit, 429, max(1, math.ceil(wait_s)))


@lru_cache(maxsize=1024)
def place_of(host: str) -> tuple[bytes, bytes]:
    """An address, and the network that it is in: /24 of IPv4, /64 of IPv6. What is no address is its own network."""
    try:
        found = ip_address(host.partition("%")[0])
    except ValueError:
        return host.encode(), host.encode()
    if found.version == 6 and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    packed = found.packed
    return packed, packed[:3] if found.version == 4 else packed[:8]
