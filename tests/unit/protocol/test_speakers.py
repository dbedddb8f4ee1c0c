"""Who may say what: the table has every message between nodes, and says what the messages' own words say."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest

from zim.protocol import messages, orders, placing
from zim.protocol.message import Message
from zim.protocol.speakers import PUBLISHER, SPEAKERS, honest, is_forged, kind_of

KINDS = ("router", "logic", "job", "comet")


def members(union: Any) -> set[type[Message]]:
    return set(get_args(union)) or {union}


UNIONS = (
    messages.ToRouter,
    messages.ToComet,
    messages.ToJob,
    messages.ToAsker,
    messages.ToLogic,
    messages.FromPublisher,
    messages.FromLogic,
    messages.Entry,
)


def test_it_has_all_that_nodes_hear_and_nothing_else() -> None:
    assert SPEAKERS.keys() == set().union(*map(members, UNIONS))


@pytest.mark.parametrize("message", SPEAKERS, ids=lambda m: m.__name__)
def test_it_says_what_the_messages_say_of_themselves(message: type[Message]) -> None:
    said = (message.__doc__ or "").split(":")[0]
    speakers = re.findall(r"\w+", said.split("→")[-2])
    assert set(SPEAKERS[message].kinds) == {word for word in speakers if word in (*KINDS, PUBLISHER)}, said


@pytest.mark.parametrize("message", SPEAKERS, ids=lambda m: m.__name__)
def test_whoever_is_named_by_its_own_kind_must_be_the_speaker(message: type[Message]) -> None:
    says = SPEAKERS[message]
    own = {name for name in message.__struct_fields__ if name in (*says.kinds, "node")}
    if says.kinds == ("router",) and not own:
        own = {"shard"}
    if message is messages.Entry:
        return  # has the name of its router, and is said by a job
    assert own == ({says.name} if says.name else set())


RENEW = messages.Renew("router-1", "comet-1", 1, 1, 1, 1)
PUSH = messages.Push("router-1", "x", 5, b"", [])
READ = messages.Read("router-1", 1, "u:7", 0, 1, 1)
CASES: dict[str, tuple[Message, str, bool]] = {
    "a comet of itself": (RENEW, "comet-1", False),
    "a comet of another": (RENEW, "comet-2", True),
    "a comet with a longer name": (RENEW, "comet-11", True),
    "a logic of a comet": (RENEW, "logic-1", True),
    "a router": (PUSH, "router-1", False),
    "another router": (PUSH, "router-2", True),
    "a router of a shared log's shard": (messages.Push("shard-7", "x", 5, b"", []), "router-2", False),
    "a job of a shared log's shard": (messages.Push("shard-7", "x", 5, b"", []), "job-1", True),
    "a job as a router": (PUSH, "job-1", True),
    "a comet reads": (READ, "comet-2", False),
    "a logic reads": (READ, "logic-1", False),
    "a job reads": (READ, "job-1", True),
    "a router reads": (READ, "router-1", True),
    "nobody": (READ, "", True),
    "orders of another router": (orders.Orders("router-1", 1, 1, 1, []), "router-2", True),
    "what a router owns": (placing.Owned("router-1", 1, 1, []), "router-1", False),
    "what another router owns": (placing.Owned("router-1", 1, 1, []), "router-2", True),
    "a comet asks who owns what": (placing.AskOwned("comet-1"), "comet-1", False),
    "a comet asks in the name of a logic": (placing.AskOwned("logic-1"), "comet-1", True),
    "a publisher": (messages.Submit(1, "", ["u:7"], 5, b""), PUBLISHER, False),
    "a publisher asks": (messages.AskTime("router-1", 1), PUBLISHER, True),
    "a node as publisher": (messages.Submit(1, "", ["u:7"], 5, b""), "comet-1", True),
}


@pytest.mark.parametrize(("m", "speaker", "forged"), CASES.values(), ids=CASES)
def test_what_is_forged(m: Message, speaker: str, forged: bool) -> None:
    assert is_forged(m, speaker) == forged
    assert honest([READ, m], speaker) == [one for one in (READ, m) if not is_forged(one, speaker)]


def test_the_kind_of_a_node() -> None:
    assert [kind_of(f"{kind}-12") for kind in KINDS] == list(KINDS)
