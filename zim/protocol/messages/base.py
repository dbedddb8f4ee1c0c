"""What all messages between nodes are, and the types of their fields."""

from __future__ import annotations

from typing import Annotated

import msgspec


class Message(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=str.lower):
    """What all messages are."""


Item = tuple[str, int]  # stream, offset
Int32 = Annotated[int, msgspec.Meta(ge=-(1 << 31), lt=1 << 31)]
