"""What a client of zim's dialect may not say: it closes at most its own connection, with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.harness import Client, Fabric, running, wait_until
from tests.zim_client import ZimClient
from zim.protocol import frame
from zim.protocol.endings import Ending
from zim.protocol.frame import Op, Packet

MAX_PACKET = 65_536
MANY = [str(n) for n in range(1001)]


@pytest.fixture(scope="module")
def fabric() -> Iterator[Fabric]:
    with running(comet={"max_packet_bytes": MAX_PACKET}) as f:
        yield f
        assert "Traceback" not in f.log


@pytest.fixture(scope="module")
def bystander(fabric: Fabric) -> ZimClient:
    return ZimClient(fabric.tcp["comet-1"], "77")


@pytest.fixture(autouse=True)
def _nobody_is_disturbed(fabric: Fabric, bystander: ZimClient) -> Iterator[None]:
    pid = fabric.pid("comet-1")
    yield
    for client in list(Client.open):
        if client is not bystander:
            client.close()
    before = len(bystander.places("u:77"))
    fabric.post("/1/push?uid=77", b"still there?")
    assert bystander.wait_for("u:77", before + 1)[-1] == (before + 1, b"still there?")
    assert fabric.pid("comet-1") == pid


class Stranger(Client):
    """It says packets of version 3 without an auth that is right."""

    version = frame.VERSION


def reason(client: Client, ending: Ending) -> str:
    """Waits until the client is sent away, in this way; returns why."""
    wait_until(lambda: client.is_closed, "the server closes")
    last = client.packets[-1]
    assert last.op == Op.DISCONNECT, client.packets
    document = json.loads(last.body)
    assert set(document) == {"reason", "code"}
    assert document["code"] == ending.zim_code
    assert client.close_code == (ending.zim_code if client.is_ws else 0)
    text: str = document["reason"]
    assert text
    return text


AUTHS: dict[str, tuple[bytes, str]] = {
    "garbage": (b"{oops", "auth"),
    "nothing": (b"", "auth"),
    "not UTF-8": (b'{"token":"\xff"}', "auth"),
    "an array": (b"[]", "auth"),
    "a number": (b"7", "auth"),
    "token of another type": (b'{"token":[7]}', "token"),
    "a huge number": (b'{"token":' + b"9" * 10_000 + b"}", "token"),
    "rooms of another type": (b'{"token":7,"rooms":"a"}', "rooms"),
    "numbers for rooms": (b'{"token":7,"rooms":[1]}', "rooms"),
    "the room of everybody": (b'{"token":7,"rooms":["*"]}', "rooms"),
    "a room without a name": (b'{"token":7,"rooms":[""]}', "rooms"),
    "a room with a long name": (json.dumps({"token": 7, "rooms": ["x" * 254]}).encode(), "rooms"),
    "a room with a line feed": (json.dumps({"token": 7, "rooms": ["a\n"]}).encode(), "rooms"),
    "very many rooms": (json.dumps({"token": 7, "rooms": MANY}).encode(), "more than 1000 rooms"),
    "very many streams": (json.dumps({"token": 7, "resume": {r: ["e", 1] for r in MANY}}).encode(), "more than 1000"),
    "negative offset": (b'{"token":7,"resume":{"u:7":["e",-1]}}', "resume"),
    "offset beyond 63 bits": (b'{"token":7,"resume":{"u:7":["e",9223372036854775808]}}', "resume"),
    "a fraction": (b'{"token":7,"resume":{"u:7":["e",1.5]}}', "resume"),
    "resume of another shape": (b'{"token":7,"resume":{"u:7":12}}', "resume"),
    "deep nesting": (b'{"token":' + b"[" * 30_000, "auth"),
    "a field with a wrong name": (
        b'{"token":7,"room":["a"]}',
        "no field is called room; there are token, rooms, resume",
    ),
}


@pytest.mark.parametrize(("body", "says"), AUTHS.values(), ids=AUTHS.keys())
def test_auths_that_cannot_be(fabric: Fabric, body: bytes, says: str) -> None:
    client = Stranger(fabric.tcp["comet-1"], None)
    client.say(Op.AUTH, body)
    assert says in reason(client, Ending.AUTH)


IS_JSON = {
    name: case for name, case in AUTHS.items() if name not in ("garbage", "nothing", "not UTF-8", "deep nesting")
}


@pytest.mark.parametrize(("body", "says"), IS_JSON.values(), ids=IS_JSON.keys())
def test_auths_that_cannot_be_in_text(fabric: Fabric, body: bytes, says: str) -> None:
    client = Stranger(fabric.ws["comet-1"], None, is_ws=True)
    client.say(Op.AUTH, body)
    assert says in reason(client, Ending.AUTH)


@pytest.mark.parametrize("is_ws", [False, True], ids=["tcp", "ws"])
def test_an_auth_without_a_token_is_a_login_that_is_refused(fabric: Fabric, is_ws: bool) -> None:
    client = Stranger(fabric.ws["comet-1"] if is_ws else fabric.tcp["comet-1"], None, is_ws=is_ws)
    client.say(Op.AUTH, b"{}")
    assert "token" in reason(client, Ending.REFUSED)


@pytest.mark.parametrize("is_ws", [False, True], ids=["tcp", "ws"])
@pytest.mark.parametrize("token", ["anna", "", "7.0", "9223372036854775808"])
def test_a_token_that_is_no_number_is_nobody(fabric: Fabric, is_ws: bool, token: str) -> None:
    client = Stranger((fabric.ws if is_ws else fabric.tcp)["comet-1"], None, is_ws)
    client.say(Op.AUTH, json.dumps({"token": token}).encode())
    assert (
        reason(client, Ending.REFUSED) == "login refused: the token is no number; a user's number is right, such as 7"
    )


@pytest.mark.parametrize("is_ws", [False, True], ids=["tcp", "ws"])
@pytest.mark.parametrize("op", [Op.JOIN, Op.LEAVE, Op.ACKNOWLEDGE, Op.HEARTBEAT, Op.GAP, 0, -1, 77])
def test_nothing_comes_before_auth(fabric: Fabric, is_ws: bool, op: int) -> None:
    client = Stranger((fabric.ws if is_ws else fabric.tcp)["comet-1"], None, is_ws)
    client.say(op, b'{"rooms":["a"]}')
    client.wait_closed()
    assert client.packets == []  # it has not said yet that it speaks zim's dialect


PACKETS: dict[str, tuple[int, Any, str]] = {
    "a second auth": (Op.AUTH, {"token": 7}, "operation not known"),
    "an unknown op": (77, {}, "operation not known"),
    "a negative op": (-1, {}, "operation not known"),
    "a push": (Op.PUSH, {}, "operation not known"),
    "a disconnect": (Op.DISCONNECT, {}, "operation not known"),
    "an answer": (Op.JOINED, {"streams": {}}, "operation not known"),
    "a gap": (Op.GAP, {}, "operation not known"),
    "join without rooms": (Op.JOIN, {}, "rooms"),
    "join of another type": (Op.JOIN, 7, "join"),
    "join of very many": (Op.JOIN, {"rooms": MANY}, "more than 1000 rooms"),
    "join of as many as there may be, in two packets": (Op.JOIN, {"rooms": MANY[:1000]}, "more than 1000 rooms"),
    "join of everybody's room": (Op.JOIN, {"rooms": ["*"]}, "rooms"),
    "join with a control character": (Op.JOIN, {"rooms": ["\x7f"]}, "control characters"),
    "join with a negative offset": (Op.JOIN, {"rooms": ["a"], "resume": {"r:a": ["e", -5]}}, "resume"),
    "leave without rooms": (Op.LEAVE, {}, "rooms"),
    "leave of a number": (Op.LEAVE, {"rooms": [5]}, "rooms"),
    "leave of very many": (Op.LEAVE, {"rooms": MANY}, "more than 1000 rooms"),
    "acknowledge of another user": (Op.ACKNOWLEDGE, {"u:8": 1}, "only u:7"),
    "acknowledge of a room": (Op.ACKNOWLEDGE, {"r:1": 1}, "only u:7"),
    "acknowledge of two": (Op.ACKNOWLEDGE, {"u:7": 1, "u:8": 1}, "only u:7"),
    "acknowledge of nothing": (Op.ACKNOWLEDGE, {}, "only u:7"),
    "acknowledge of a negative offset": (Op.ACKNOWLEDGE, {"u:7": -1}, "acknowledge"),
    "acknowledge of text": (Op.ACKNOWLEDGE, {"u:7": "1"}, "acknowledge"),
    "acknowledge beyond 63 bits": (Op.ACKNOWLEDGE, {"u:7": 1 << 63}, "acknowledge"),
    "acknowledge of another type": (Op.ACKNOWLEDGE, ["u:7", 1], "acknowledge"),
}


@pytest.mark.parametrize("is_ws", [False, True], ids=["tcp", "ws"])
@pytest.mark.parametrize(("op", "body", "says"), PACKETS.values(), ids=PACKETS.keys())
def test_packets_that_cannot_be(fabric: Fabric, is_ws: bool, op: int, body: Any, says: str) -> None:
    client = ZimClient((fabric.ws if is_ws else fabric.tcp)["comet-1"], "7", is_ws)
    client.say_json(op, body, 5)
    assert says in reason(client, Ending.OPERATION if "operation" in says else Ending.REQUEST)


TCP_PACKETS: dict[str, tuple[Packet, Ending]] = {
    "a longer header": (Packet(Op.UPSTREAM, 1, 3, b"x", "r:a", 5), Ending.PACKET),
    "too large": (Packet(Op.UPSTREAM, 1, 3, bytes(MAX_PACKET - 15)), Ending.PACKET),
    "join of garbage": (Packet(Op.JOIN, 1, 3, b"{oops"), Ending.REQUEST),
    "leave of nothing": (Packet(Op.LEAVE, 1, 3), Ending.REQUEST),
    "acknowledge of garbage": (Packet(Op.ACKNOWLEDGE, 1, 3, b"\xff"), Ending.REQUEST),
}


@pytest.mark.parametrize(("packet", "ending"), TCP_PACKETS.values(), ids=TCP_PACKETS.keys())
def test_bytes_that_cannot_be(fabric: Fabric, packet: Packet, ending: Ending) -> None:
    client = ZimClient(fabric.tcp["comet-1"], "7")
    client.send(frame.encode(packet))
    assert reason(client, ending)


@pytest.mark.parametrize(
    ("do", "code"),
    [
        (lambda c: c.frame(b"{oops"), 4400),
        (lambda c: c.frame(b"[]"), 4400),
        (lambda c: c.frame(b'{"ver":3,"op":20,"body":'), 4400),
        (lambda c: c.frame(b"\xff"), 1007),
        (lambda c: c.frame(b"x", opcode=2), 1003),
        (lambda c: c.frame(b"{}", is_masked=False), 1002),
        (lambda c: c.frame(b"x" * (MAX_PACKET + 1)), 1009),
    ],
)
def test_frames_that_cannot_be_get_a_reason_too(fabric: Fabric, do: Callable[[Client], object], code: int) -> None:
    client = ZimClient(fabric.ws["comet-1"], "7", is_ws=True)
    do(client)
    assert client.wait_closed() == code
    assert json.loads(client.packets[-1].body) == {"reason": client.close_reason, "code": Ending.PACKET.zim_code}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["a", "b", "live", "", "*", "u:7", "\0"]) | st.text(max_size=5)
RESUMES = st.dictionaries(NAMES.map("r:{}".format) | st.just("u:7"), st.tuples(st.text(max_size=3), st.integers(-1, 9)))
SAYINGS = st.tuples(
    st.sampled_from([Op.AUTH, Op.JOIN, Op.LEAVE, Op.ACKNOWLEDGE, Op.HEARTBEAT, Op.UPSTREAM]) | st.integers(-9, 300),
    JSON
    | st.fixed_dictionaries({"rooms": st.lists(NAMES, max_size=4)}, optional={"resume": RESUMES, "token": st.text()})
    | st.dictionaries(st.just("u:7"), st.integers(-1, 1 << 64), min_size=1),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.booleans(), st.lists(SAYINGS, max_size=6))
def test_any_sayings(fabric: Fabric, is_ws: bool, sayings: list[tuple[int, Any]]) -> None:
    client = ZimClient((fabric.ws if is_ws else fabric.tcp)["comet-1"], "7", is_ws, ["a"])
    for op, body in sayings:
        client.say_json(op, body, 3)
    client.close()


def test_who_says_a_lot_at_once_gets_an_answer_to_each(fabric: Fabric) -> None:
    client = ZimClient(fabric.tcp["comet-1"], "7", rooms=[])
    for n in range(1, 51):
        client.say_json(Op.JOIN, {"rooms": [f"10{n % 7}"]}, n)
        client.say_json(Op.LEAVE, {"rooms": [f"10{n % 7}"]}, 1000 + n)
        client.say(Op.HEARTBEAT, seq=2000 + n)
    wait_until(lambda: len(client.packets) >= 150 or client.is_closed, "all answers")
    assert [(p.op, p.seq) for p in client.packets] == [
        answer for n in range(1, 51) for answer in ((21, n), (23, 1000 + n), (3, 2000 + n))
    ]
    wait_until(lambda: fabric.count("room") == {1: 1, -1: 1}, "it is in no room")


def test_who_hangs_up_at_once_leaves_nothing_behind(fabric: Fabric) -> None:
    for n in range(60):
        client = Stranger((fabric.ws if n % 2 else fabric.tcp)["comet-1"], None, bool(n % 2))
        client.say(Op.AUTH, json.dumps({"token": "9", "rooms": MANY[:300], "resume": {"u:9": ["e", 1]}}).encode())
        gevent.sleep(0.001 * (n % 5))
        client.close()
    wait_until(lambda: fabric.count("server") == {1: 1}, "only the bystander is there")
    wait_until(lambda: fabric.count("room") == {1: 1}, "and in its room")


def test_a_thousand_rooms_are_fine(fabric: Fabric) -> None:
    client = ZimClient(fabric.tcp["comet-1"], "7", rooms=MANY[:1000])
    assert len(client.starts) == 1002
    for n in (0, 500, 999):
        status, _ = fabric.push({"to": {"rooms": [MANY[n]]}, "body": n})
        assert status == 200
        assert client.wait_for(f"r:{MANY[n]}", 1) == [(1, b"%d" % n)]
    assert len(client.ask(Op.LEAVE, {"rooms": MANY[:1000]}, 9)["streams"]) == 1000
    again = client.ask(Op.JOIN, {"rooms": MANY[:3], "resume": {"r:0": [client.starts["r:0"]["epoch"], 0]}}, 10)
    assert {stream: s["offset"] for stream, s in again["streams"].items()} == {"r:0": 0, "r:1": 0, "r:2": 0}
