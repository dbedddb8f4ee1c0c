"""What a stranger, or a node gone mad, may say on a link between nodes: frames by name, for each link.

The links that listen: a router's, a logic's and a comet's `bind` (the last one hears jobs), a job's, and a logic's
`publish`. Nothing here names the users and rooms that the tests listen as: 77 and lobby.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from zim.fabric import questions as q
from zim.fabric.bans import Banned
from zim.protocol import codec, messages
from zim.protocol.errors import CodecError
from zim.protocol.logins import AskJoin, Auth
from zim.protocol.message import Message
from zim.protocol.publication import Publication

NOBODY = "comet-9"
_NUMBERS = (-(1 << 63), -1, 0, (1 << 31) - 1, 1 << 31, (1 << 53) - 1, 1 << 53, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
_TEXTS = ("", "\0", "*", "u:", "r:*", "x" * 70_000, "é" * 200, "comet-1", "router-1", "u:-1", "10.0.0.1/8", "::/129")
_BODIES = (b"", b"\xff" * 300_000)


class Link(NamedTuple):
    """One address that listens.

    Attributes:
        node, is_publish: whose; its `bind`, or `publish`.
        answers: it is a ROUTER; else a PULL.
        union: what it carries.
        samples: right messages.
    """

    node: str
    is_publish: bool
    answers: bool
    union: Any
    samples: tuple[Message, ...]


_ITEMS = [("u:7", 1), ("r:a", 2)]
_TO_ROUTER: tuple[Message, ...] = (
    messages.Changes(
        "router-1",
        NOBODY,
        5,
        0,
        [
            messages.Begin(1, 3),
            messages.Put(2, 1, "7", 0, ("a",), "phone", 3),
            messages.Room(3, "*", 1),
            messages.Room(4, "a", 1),
            messages.Del(5, 1),
        ],
    ),
    messages.Changes("router-1", "comet-1", 5, 6, [messages.Begin(1, 0), messages.Room(2, "*", 1_000_000)]),
    messages.Renew("router-1", NOBODY, 5, 6, 7, 8, [messages.Result(1, 1, 1, 0, 0, 0)], 1, 1),
    messages.Renew("router-1", "comet-1", 5, 6, 7, 8, [messages.Result(1, 2, 3, 4, 5, 6)]),
    messages.Fetch("router-1", NOBODY, 5, 6, 1, 2),
    messages.Fetch("router-1", "comet-1", 5, 6, 1, 1 << 62),
    messages.Read("router-1", 1, "u:7", 0, 9, 100),
    messages.Acknowledge("router-1", 1, "u:7", "e", 5),
    messages.Publish(
        "router-1", 1, 1, 0, [Publication("p", ["u:7", "r:a"], 5, b"x", b"d", 1, 1, True, True, 1, 1, ("7_1",), 1)]
    ),
    messages.Publish("router-1", 2, 1, 0, [Publication("p2", ["*"], 5, b"to everybody", expires_ms=1)]),
    *(
        messages.Ask("router-1", n, question)  # type: ignore[arg-type]
        for n, question in enumerate(
            (
                *(q.UserSessions("7"), q.UnreadCount("7"), q.OnlineCounts(), q.RoomCount("a"), q.LargestRooms(3)),
                *(q.PushReceipt("p"), q.WholeLedger(), q.ForgetComet(NOBODY), q.BanList(3), q.LiftBan(Banned("7"))),
                *(q.KickUser("7", "", 0, "x", True), q.KickRoom("a", True, "x", True), q.MoveUser("7", ("a",), ("b",))),
                *(q.BanWho(Banned("7", "phone"), "x", "y", 1.0), q.BanWho(Banned(network="10.0.0.0/8"), "x", "y", 1.0)),
            )
        )
    ),
    messages.AskTime("router-1", 1),
)
_ENTRY = messages.Entry("router-1", "comet-1", 1, 2, 3, "p", 5, b"body", _ITEMS, 1, ("7_1",))
_PUSH = messages.Push("router-1", "p", 5, b"body", [messages.Target("comet-1", 1, 2, 3, _ITEMS)], 1, ("7_1",))

LINKS: dict[str, Link] = {
    "router": Link("router-1", False, True, messages.ToRouter, _TO_ROUTER),
    "logic": Link(
        "logic-1",
        False,
        True,
        messages.ToLogic,
        (Auth(1, b"7", 1, "127.0.0.1", "x", True), AskJoin(1, "7", "", ("a",))),
    ),
    "publish": Link(
        "logic-1",
        True,
        True,
        messages.FromPublisher,
        (messages.Submit(1, "", ["u:7"], 5, b"x", 1, ("7_1",)), messages.Submit(2, "key", ["r:a", "u:7"], 5, b"x")),
    ),
    "job": Link("job-1", False, False, messages.ToJob, (_PUSH,)),
    "comet": Link("comet-1", False, False, messages.Entry, (_ENTRY,)),
}


def is_counted(link: Link, frames: list[bytes]) -> bool:
    """Whether a node says of it that it was not understood. frames: as they are sent."""
    if link.union is messages.ToRouter and codec.decode_plain(frames[-1]) is not None:
        return False
    try:
        codec.decode(frames[-1], link.union)
    except CodecError:
        return True
    return False


def _leaves(value: Any, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Any]]:
    if isinstance(value, (list, tuple)):
        for at, inner in enumerate(value):
            yield from _leaves(inner, (*path, at))
    else:
        yield path, value


def _with(value: Any, path: tuple[int, ...], leaf: Any) -> Any:
    if not path:
        return leaf
    return [_with(inner, path[1:], leaf) if at == path[0] else inner for at, inner in enumerate(value)]


def absurd(link: Link) -> Iterator[list[bytes]]:
    """Each field of each message, with values that it may not have, or hardly."""
    for sample in link.samples:
        built = msgspec.to_builtins(sample, builtin_types=(bytes,))
        for path, leaf in _leaves(built):
            others = _NUMBERS if isinstance(leaf, int) else _TEXTS if isinstance(leaf, str) else _BODIES
            for other in (*others, None, [], {}, 1.5, True):
                if not _does_harm(built, path, other):
                    yield [msgspec.msgpack.encode([_with(built, path, other)])]


def _does_harm(built: Any, path: tuple[int, ...], other: Any) -> bool:
    """It would be a right order, against those who listen."""
    return built[0] == "ask" and other in ("*", "comet-1", "r:*") and built[3][0] in ("kickroom", "forgetcomet")


def broken(link: Link, seed: int = 1) -> dict[str, list[list[bytes]]]:
    """Frames that are no message of a link, or many of one, by what is wrong with them."""
    r = random.Random(seed)
    right = [codec.encode([sample]) for sample in link.samples]
    others = [codec.encode([sample]) for other in LINKS.values() if other is not link for sample in other.samples]
    shapes: list[Any] = [0, -1, "x", b"x", None, True, 1.5, [], {}, [[]], [[[]]], [None], ["x"], [["x"]]]
    shapes += [[{"a": 1}], {1: 2}, [["renew"]], [["renew", *[0] * 60]], [["publish", "x", "y", "z", []]], [[1, 2, 3]]]
    lies = b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff\x90", b"\x91\xc6\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"
    return {
        "random bytes": [[r.randbytes(r.choice((1, 2, 5, 20, 100, 1_000)))] for _ in range(100)],
        "nothing": [[b""], [b"", b""], [b""] * 10],
        "other shapes": [[msgspec.msgpack.encode(shape)] for shape in shapes],
        "cut off": [[frame[:at]] for frame in right for at in range(1, len(frame), 7)],
        "and something more": [[frame + b"\0"] for frame in right],
        "a bit is wrong": [[_flipped(r, r.choice(right))] for _ in range(100)],
        "deep": [[b"\x91" * 100_000], [b"\x81\xa1a" * 50_000], [b"\x91" * 10_000_000]],
        "sizes that lie": [[lie] for lie in lies],
        "of another link": [[frame] for frame in others],
        "many in one": [[codec.encode(list(link.samples) * 200)], [b"\xdd\0\x10\0\0" + b"\xc0" * (1 << 20)]],
        "huge": [[bytes(32 << 20)], [b"\x91\xc6\x01\xff\xff\xf0" + bytes(0x01FFFFF0)]],
        "many frames": [[b"x"] * 5_000, [b""] * 5_000, [*[b"x" * 1_000] * 1_000, right[0]]],
        "many small ones": [[b"\xc1"] for _ in range(2_000)],
    }


def _flipped(r: random.Random, frame: bytes) -> bytes:
    data = bytearray(frame)
    data[r.randrange(len(data))] ^= 1 << r.randrange(8)
    return bytes(data)
