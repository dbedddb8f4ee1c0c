"""What the topology lets people and backends do, as values: `[limits]`. None and 0 are no limit. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from zim.fabric.buckets import Rate


@dataclass(frozen=True)
class Ceilings:
    """How much somebody may do. Each field is a key of `[limits]`, and the name by which the limit is told.

    Attributes:
        connects_per_address, connects_per_network: connections to one comet; a network is a /24 of IPv4, a /64 of IPv6.
        logins_per_user: of all devices together, at one logic.
        packets_per_connection, bytes_per_connection: from a client.
        rooms_per_session: at once.
        pushes_per_key, bytes_per_key: of each API key, over all logics; one that has its own is not meant.
        pushes_per_stream: into the stream of each recipient.
    """

    connects_per_address: Rate | None = None
    connects_per_network: Rate | None = None
    logins_per_user: Rate | None = None
    packets_per_connection: Rate | None = None
    bytes_per_connection: Rate | None = None
    rooms_per_session: int = 0
    pushes_per_key: Rate | None = None
    bytes_per_key: Rate | None = None
    pushes_per_stream: Rate | None = None


NO_CEILINGS = Ceilings()
