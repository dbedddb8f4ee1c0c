"""Which router has which shard: what comets and logics ask routers, and what they are told."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from zim.fabric.limits import SHARDS
from zim.protocol.fields import Number, Run
from zim.protocol.message import Message


class AskOwned(Message, frozen=True):
    """comet or logic → router, every second: which shards do you own? node: who asks."""

    node: str


class Owned(Message, frozen=True):
    """router → comet or logic: all shards that it owns, each with its term; as an answer, and when that changes.

    run, n: of the router, and of this message of it; what has lower ones is older.
    """

    router: str
    run: Run
    n: Number
    shards: Annotated[list[tuple[str, Run]], Meta(max_length=SHARDS)]


class Moved(Message, frozen=True):
    """router → comet or logic: what was asked is another's, and nothing was done.

    req: of what was asked; 0 for what has no number. term: the highest one of that shard that it knows.
    """

    req: Number
    router: str
    shard: str
    term: Run
