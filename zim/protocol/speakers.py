"""Which kind of node may say what, and in whose name. For links on which it is known who speaks.

A key proves which node is at the other end, and no more: what it says may still be another's to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from zim.protocol import logins, messages, orders, placing
from zim.protocol.message import Message

PUBLISHER = "publisher"  # is no node, and shows an API key


class Says(NamedTuple):
    """Who says a message.

    Attributes:
        kinds: of nodes.
        name: the field that has the speaker's own name; "" if none has. `shard` has it with the embedded log, whose
            shards have the names of their routers; one of a shared log may be anywhere, and the highest term is right.
    """

    kinds: tuple[str, ...]
    name: str = ""


_COMET, _LOGIC = Says(("comet",)), Says(("logic",))
_SHARD, _ROUTER = Says(("router",), "shard"), Says(("router",), "router")
_COMET_BY_NAME = Says(("comet",), "comet")

SPEAKERS: Mapping[type[Message], Says] = {
    # to a router
    messages.Changes: _COMET_BY_NAME,
    messages.Renew: _COMET_BY_NAME,
    messages.Fetch: _COMET_BY_NAME,
    messages.Read: Says(("comet", "logic")),
    messages.Acknowledge: _COMET,
    messages.Publish: _LOGIC,
    messages.Ask: _LOGIC,
    messages.AskTime: _LOGIC,
    placing.AskOwned: Says(("comet", "logic"), "node"),
    # to a job
    messages.Push: _SHARD,
    # to a comet; an entry is a router's, and a job hands it on
    messages.Entry: Says(("job",)),
    messages.Answers: _SHARD,
    messages.Renewed: _SHARD,
    messages.Fetched: _SHARD,
    messages.Records: _SHARD,  # also to a logic
    messages.Acknowledged: _SHARD,
    orders.Orders: _SHARD,
    logins.Authed: _LOGIC,
    logins.MayJoin: _LOGIC,
    # to a logic
    logins.Auth: _COMET,
    logins.AskJoin: _COMET,
    messages.Submit: Says((PUBLISHER,)),
    messages.PublishReply: _SHARD,
    messages.Answered: _SHARD,
    messages.LogTime: _SHARD,
    placing.Owned: _ROUTER,  # also to a comet
    placing.Moved: _ROUTER,
}


def kind_of(speaker: str) -> str:
    """The kind of a node, by its name."""
    return speaker.partition("-")[0]


def is_forged(m: Message, speaker: str) -> bool:
    """Whether that node may not say this: it is of another kind, or says it in another's name."""
    says = SPEAKERS[type(m)]
    if kind_of(speaker) not in says.kinds:
        return True
    if says.name == "":
        return False
    name = getattr(m, says.name)
    return name != speaker and (says.name != "shard" or kind_of(name) == "router")


def honest(came: Sequence[Any], speaker: str) -> list[Any]:
    """Those of its messages that a node may say, in order."""
    return [m for m in came if not is_forged(m, speaker)]
