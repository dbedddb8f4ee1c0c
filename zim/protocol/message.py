"""What a message between nodes is."""

from __future__ import annotations

import msgspec


class Message(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=str.lower):
    """What all messages are: see `zim.protocol.messages`."""
