"""zim's own vocabulary: whatever a client sends is a value or a WireError, and replies are as documented."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zim.fabric.limits import ROOMS
from zim.protocol.endings import Ending
from zim.protocol.errors import WireError
from zim.protocol.frame import Op, Packet
from zim.protocol.vocabularies.base import Cursors, Join, Leave, Login, Missed, ReadHistory, Start
from zim.protocol.vocabularies.zim import RETRYING, ZIM, parse_cursors, parse_history, parse_join, parse_leave, refusals

PARSERS: list[Callable[[bytes], Any]] = [
    ZIM.parse_login,
    parse_join,
    parse_leave,
    parse_cursors,
]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("r:\ud800")
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
RESUMES = st.dictionaries(st.text(max_size=8), st.lists(SCALARS, max_size=3) | SCALARS, max_size=3)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "token": VALUES,
        "rooms": st.lists(SCALARS, max_size=4) | VALUES,
        "resume": RESUMES | VALUES,
        "device": VALUES,
        "platform": VALUES,
        "u:7": VALUES,
    },
)


@pytest.mark.parametrize("parse", PARSERS)
@given(st.binary(max_size=60) | (DOCUMENTS | VALUES).map(lambda v: json.dumps(v).encode()))
@example(b"")
@example(b"[" * 100_000)
@example(b'{"token":' + b"9" * 10_000 + b"}")
@example(b'{"token":1e999}')
@example(b'{"token":"\\ud800","rooms":["\\udc00"]}')
@example(b'{"rooms":["\xff"],"token":"\xff"}')
@example(b'{"token":7,"rooms":["*"],"resume":{"*":["",9223372036854775808]}}')
@example(b'{"u:7":-1}')
def test_anything_is_a_value_or_a_wire_error(parse: Callable[[bytes], Any], body: bytes) -> None:
    try:
        value = parse(body)
    except WireError as e:
        ZIM.encode_farewell(e.reason, e.ending)
        return
    if isinstance(value, Cursors):
        offsets = list(value.offsets.values())
    else:
        offsets = [offset for _, offset in (getattr(value, "resume", None) or {}).values()]
    assert all(0 <= offset < 1 << 63 for offset in offsets)


@pytest.mark.parametrize(
    ("body", "auth"),
    [
        ('{"token":"7"}', Login(b"7", None, {})),
        ('{"token":7}', Login(b"7", None, {})),
        ('{"token":"","rooms":[]}', Login(b"", (), {})),
        ("{}", Login(b"", None, {})),
        ('{"token":null}', Login(b"", None, {})),
        ('{"token":"7","rooms":null}', Login(b"7", None, {})),
        (
            '{"token":"7","rooms":["a"],"resume":{"u:7":["e",12]},"device":"d","platform":"p"}',
            Login(b"7", ("a",), {"u:7": ("e", 12)}, "d"),
        ),
    ],
)
def test_auth(body: str, auth: Login) -> None:
    assert ZIM.parse_login(body.encode()) == auth


@pytest.mark.parametrize(
    "body",
    [
        "7",
        '{"token":7,"more":1}',
        '"7"',
        '{"token":["7"]}',
        '{"token":true}',
        '{"token":7.5}',
        '{"token":7,"rooms":"a"}',
        '{"token":7,"rooms":[1]}',
        '{"token":7,"rooms":[""]}',
        '{"token":7,"rooms":["*"]}',
        '{"token":7,"rooms":["a\\n"]}',
        '{"token":7,"resume":[]}',
        '{"token":7,"resume":{"u:7":12}}',
        '{"token":7,"resume":{"u:7":["e"]}}',
        '{"token":7,"resume":{"u:7":["e",-1]}}',
        '{"token":7,"resume":{"u:7":["e",1.5]}}',
        '{"token":7,"resume":{"u:7":[1,"e"]}}',
        '{"token":7,"device":7}',
        '{"token":"9","token":"10"}',
        '{"token":"9","tok\\u0065n":"10"}',
    ],
)
def test_no_auth(body: str) -> None:
    with pytest.raises(WireError):
        ZIM.parse_login(body.encode())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", 'auth: the packet has no body; right is {"token":7}'),
        ("[]", 'auth: it is no object; right is {"token":7}'),
        ('{"tokn":7}', "auth: no field is called tokn; there are token, rooms, resume, device, platform"),
        ('{"token":7,"rooms":"a"}', "auth: rooms is a text; right is an array or null"),
        ('{"token":7,"rooms":["a",1]}', "auth: rooms[1] is a whole number; right is a text"),
        ('{"token":{}}', "auth: token is an object; right is a whole number or a text or null"),
    ],
)
def test_what_is_wrong_is_said_in_words(body: str, said: str) -> None:
    with pytest.raises(WireError) as found:
        ZIM.parse_login(body.encode())
    assert found.value.reason == said


def test_what_is_missing_is_said_in_words() -> None:
    with pytest.raises(WireError, match=r"^join: rooms is missing; right is \{\"rooms\":\[\"lobby\"\]\}$"):
        parse_join(b"{}")


def test_null_is_absence_in_requests() -> None:
    assert parse_history(b'{"stream":"r:a","after":null,"limit":null}') == ReadHistory("r:a")
    assert parse_cursors(b'{"u:7":null,"u:8":3}').offsets == {"u:8": 3}
    assert parse_join(b'{"rooms":["a"],"resume":null}').resume is None


def test_half_a_surrogate_pair_is_named() -> None:
    for body in (b'{"token":"\\ud83d"}', b'{"token":"\\ud83d x"}', b'{"token":7,"rooms":["\\ude00"]}'):
        with pytest.raises(WireError, match="half a surrogate pair"):
            ZIM.parse_login(body)


def test_lists_have_a_limit() -> None:
    rooms = [str(n) for n in range(ROOMS)]
    resume = {f"r:{room}": ["e", 1] for room in rooms}
    assert len(parse_join(json.dumps({"rooms": rooms, "resume": resume}).encode()).rooms) == len(rooms)
    for body in (
        {"rooms": [*rooms, "more"]},
        {"rooms": ["a"], "resume": {**resume, "r:more": ["e", 1]}},
    ):
        for parse, asked in ((ZIM.parse_login, {"token": 7, **body}), (parse_join, body)):
            with pytest.raises(WireError, match="more than 1000"):
                parse(json.dumps(asked).encode())
    with pytest.raises(WireError, match="more than 1000"):
        parse_leave(json.dumps({"rooms": [*rooms, "more"]}).encode())


@pytest.mark.parametrize(("room", "is_right"), [("x" * 253, True), ("x" * 254, False), ("é" * 126, True)])
def test_room_names_have_a_limit_in_bytes(room: str, is_right: bool) -> None:
    body = json.dumps({"rooms": [room]}).encode()
    if is_right:
        assert parse_leave(body).rooms == (room,)
    else:
        with pytest.raises(WireError, match="253 bytes"):
            parse_leave(body)


def test_replies() -> None:
    starts = [Start("u:7", "e", 12), Start("r:a", "e", 3, recovered=False), Start("r:b", error=RETRYING)]
    streams = {
        "u:7": {"epoch": "e", "offset": 12, "recovered": True},
        "r:a": {"epoch": "e", "offset": 3, "recovered": False},
        "r:b": {"error": "not joined, retrying"},
    }
    asked = Packet(Op.AUTH, 9, 3)
    opened = {"key": "7_1", "heartbeat_s": 300, "streams": streams}
    for packet, op, seq, body in [
        (ZIM.encode_opened(asked, "7_1", 300, starts, None), 8, 9, opened),
        (ZIM.encode_opened(asked, "7_1", 300, starts, 60.0), 8, 9, {**opened, "expires_s": 60}),
        (ZIM.encode_refreshed(7, 60.0), 28, 7, {"expires_s": 60}),
        (ZIM.encode_refreshed(7, None, "try again"), 28, 7, {"error": "try again"}),
        (ZIM.encode_joined(4, starts), 21, 4, {"streams": streams}),
        (ZIM.encode_left(5, ["r:a"]), 23, 5, {"streams": ["r:a"]}),
        (ZIM.encode_acknowledged(6, "u:7", 12), 25, 6, {"u:7": 12}),
        (ZIM.encode_farewell("bye", Ending.SLOW), 6, 0, {"reason": "bye", "code": 4202}),
        (
            ZIM.encode_missed(Missed("r:a", "e", 1, 4, "trimmed")),
            26,
            0,
            {"stream": "r:a", "epoch": "e", "from": 1, "to": 4, "reason": "trimmed"},
        ),
    ]:
        assert (packet.op, packet.seq, packet.version, packet.stream) == (op, seq, 3, "")
        assert json.loads(packet.body) == body
    assert [s.error for s in refusals(["a"])] == ["not allowed"]


def test_each_request_is_read_as_what_it_asks_for() -> None:
    assert ZIM.parse(Packet(Op.JOIN, 1, 3, b'{"rooms":["a"]}')) == Join(("a",))
    assert ZIM.parse(Packet(Op.LEAVE, 1, 3, b'{"rooms":["a"]}')) == Leave(("a",))
    assert ZIM.parse(Packet(Op.ACKNOWLEDGE, 1, 3, b'{"u:7":3}')) == Cursors({"u:7": 3})
