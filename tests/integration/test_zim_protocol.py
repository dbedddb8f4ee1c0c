"""zim's own dialect, end to end on a real fabric: what clients say, and what they get."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
import zmq.green as zmq

from tests.harness import Client, Fabric, running, wait_until
from tests.zim_client import ZimClient
from zim.protocol import codec, messages
from zim.protocol.frame import Op

MORE = """
[retention]
rooms = { count = 10000, age_s = 3600 }
[[room_class]]
name = "live"
rooms = ["live-*"]
count = 0
age_s = 0
"""


@pytest.fixture(scope="module")
def fabric() -> Iterator[Fabric]:
    with running(routers=2, logics=2, jobs=2, comets=2, more=MORE) as f:
        yield f
        assert "Traceback" not in f.log


@pytest.fixture(autouse=True)
def _all_hang_up(fabric: Fabric) -> Iterator[None]:
    yield
    for client in list(Client.open):
        client.close()


def push(fabric: Fabric, to: dict[str, Any], body: Any, key: str = "", **more: Any) -> dict[str, int]:
    """Pushes, and returns the offsets by stream."""
    status, answer = fabric.push({"to": to, "body": body, **more}, key)
    assert status == 200, answer
    offsets: dict[str, int] = answer["streams"]
    return offsets


def connect(fabric: Fabric, is_ws: bool, comet: str = "comet-1", **keys: Any) -> ZimClient:
    return ZimClient((fabric.ws if is_ws else fabric.tcp)[comet], is_ws=is_ws, **keys)


both = pytest.mark.parametrize("is_ws", [False, True], ids=["tcp", "ws"])


@both
def test_the_auth_reply_names_key_and_streams(fabric: Fabric, is_ws: bool) -> None:
    client = connect(fabric, is_ws, token="301" if is_ws else 301)
    uid, _, seq = client.auth["key"].rpartition("_")
    assert (uid, seq.isdigit()) == ("301", True)
    assert client.auth["heartbeat_s"] == 300
    assert set(client.starts) == {"u:301", "r:1", "*"}  # the token's own room
    assert all(
        set(start) == {"epoch", "offset", "recovered"} and start["recovered"] for start in client.starts.values()
    )


@both
def test_each_message_tells_stream_and_offset(fabric: Fabric, is_ws: bool) -> None:
    rooms = [f"place-{is_ws}", f"other-{is_ws}"]
    uid = f"{3020 + is_ws}"
    client = connect(fabric, is_ws, token=uid, rooms=rooms)
    assert set(client.starts) == {f"u:{uid}", "*", *(f"r:{room}" for room in rooms)}
    for n in range(3):
        offsets = push(fabric, {"users": [uid], "rooms": rooms, "everybody": True}, {"n": n})
        for stream, offset in offsets.items():
            assert client.wait_for(stream, n + 1)[n] == (offset, b'{"n":%d}' % n)
    assert [offset for offset, _ in client.places(f"u:{uid}")] == [1, 2, 3]
    assert [offset for offset, _ in client.places(f"r:{rooms[0]}")] == [1, 2, 3]
    pushes = [p for p in client.packets if p.stream]
    assert {(p.op, p.seq, p.version) for p in pushes} == {(Op.PUSH, 0, 3)}


@both
def test_a_push_may_name_its_op(fabric: Fabric, is_ws: bool) -> None:
    uid = f"{3030 + is_ws}"
    client = connect(fabric, is_ws, token=uid, rooms=[])
    push(fabric, {"users": [uid]}, "x", op=1000)
    packet = client.take(1000)
    assert (packet.stream, packet.offset, packet.body) == (f"u:{uid}", 1, b'"x"')


@both
def test_heartbeat_and_upstream_have_no_place(fabric: Fabric, is_ws: bool) -> None:
    client = connect(fabric, is_ws, token="304")
    client.say(Op.HEARTBEAT, seq=7)
    assert client.take(Op.HEARTBEAT_REPLY).seq == 7
    client.say(Op.UPSTREAM, b'{"up":1}', seq=8)
    echo = client.take(Op.PUSH)
    assert (echo.seq, echo.body, echo.stream) == (8, b'{"up":1}', "")


@both
def test_resume_at_another_comet(fabric: Fabric, is_ws: bool) -> None:
    room = f"resume-{is_ws}"
    client = connect(fabric, is_ws, "comet-1", token="305", rooms=[room])
    push(fabric, {"rooms": [room]}, 1)
    client.wait_for(f"r:{room}", 1)
    client.close()
    for n in (2, 3):
        push(fabric, {"rooms": [room], "users": ["305"], "everybody": True}, n)
    again = connect(fabric, not is_ws, "comet-2", token="305", rooms=[room], resume=client.has)
    assert all(start["recovered"] for start in again.starts.values())
    push(fabric, {"rooms": [room], "users": ["305"], "everybody": True}, 4)
    assert again.wait_for(f"r:{room}", 3) == [(2, b"2"), (3, b"3"), (4, b"4")]
    for stream in ("u:305", "*"):
        assert [body for _, body in again.wait_for(stream, 3)] == [b"2", b"3", b"4"]


def test_resume_while_messages_arrive(fabric: Fabric) -> None:
    client = connect(fabric, False, token="306", rooms=["busy"])
    epoch = client.starts["r:busy"]["epoch"]
    publisher = gevent.spawn(lambda: [push(fabric, {"rooms": ["busy"]}, n) for n in range(1, 301)])
    again: list[ZimClient] = []
    while not publisher.ready():
        has = len(client.places("r:busy"))
        for resume in (max(0, has - 5), has):
            comet, is_ws = f"comet-{1 + len(again) % 2}", len(again) % 4 > 1
            c = connect(fabric, is_ws, comet, token="306", rooms=["busy"], resume={"r:busy": (epoch, resume)})
            assert c.starts["r:busy"] == {"epoch": epoch, "offset": resume, "recovered": True}
            again.append(c)
    publisher.get()
    for c in (client, *again):
        first = c.starts["r:busy"]["offset"] + 1
        assert c.wait_for("r:busy", 301 - first) == [(n, b"%d" % n) for n in range(first, 301)]


@both
def test_another_epoch_is_not_recovered(fabric: Fabric, is_ws: bool) -> None:
    room = f"epoch-{is_ws}"
    push(fabric, {"rooms": [room]}, 1)
    client = connect(fabric, is_ws, token="307", rooms=[room], resume={f"r:{room}": ("another", 0), "*": ("", 99)})
    assert client.starts[f"r:{room}"]["offset"] == 1
    assert not client.starts[f"r:{room}"]["recovered"]
    assert not client.starts["*"]["recovered"]
    above = connect(
        fabric, is_ws, token="307", rooms=[room], resume={f"r:{room}": (client.starts[f"r:{room}"]["epoch"], 9)}
    )
    assert above.starts[f"r:{room}"] == client.starts[f"r:{room}"]


@both
def test_offline_messages_until_they_are_acknowledged(fabric: Fabric, is_ws: bool) -> None:
    uid = f"{308 + is_ws}"
    stream = f"u:{uid}"
    for n in (1, 2, 3):
        push(fabric, {"users": [uid]}, n)
    assert fabric.get(f"/api/users/{uid}/unread")["unread"] == 3
    client = connect(fabric, is_ws, token=uid)
    assert client.starts[stream]["offset"] == 0
    assert client.wait_for(stream, 3) == [(n, b"%d" % n) for n in (1, 2, 3)]
    assert client.ask(Op.ACKNOWLEDGE, {stream: 2}, 5) == {stream: 2}
    assert client.ask(Op.ACKNOWLEDGE, {stream: 1}, 6) == {stream: 2}
    for logic in fabric.http:
        unread = fabric.get(f"/api/users/{uid}/unread", logic)
        assert (unread["unread"], unread["acknowledged"], unread["head"]) == (1, 2, 3)
    other = connect(fabric, is_ws, "comet-2", token=uid)
    assert other.starts[stream]["offset"] == 2
    assert other.wait_for(stream, 1) == [(3, b"3")]
    assert other.ask(Op.ACKNOWLEDGE, {stream: 1 << 60}, 7) == {stream: 3}
    assert fabric.get(f"/api/users/{uid}/unread")["unread"] == 0
    assert connect(fabric, is_ws, token=uid).starts[stream]["offset"] == 3


@both
def test_join_and_leave(fabric: Fabric, is_ws: bool) -> None:
    a, b = f"r:join-a-{is_ws}", f"r:join-b-{is_ws}"
    client = connect(fabric, is_ws, token="310", rooms=[a[2:]])
    push(fabric, {"rooms": [a[2:], b[2:]]}, 1)
    client.wait_for(a, 1)
    epoch = fabric.get(f"/api/streams/{b.replace(':', '%3A')}")["epoch"]
    joined = client.ask(Op.JOIN, {"rooms": [a[2:], b[2:]], "resume": {b: [epoch, 0]}}, 11)["streams"]
    assert joined == {a: {"error": "joined already"}, b: {"epoch": epoch, "offset": 0, "recovered": True}}
    assert client.wait_for(b, 1) == [(1, b"1")]
    push(fabric, {"rooms": [b[2:]]}, 2)
    assert client.wait_for(b, 2)[1] == (2, b"2")
    assert client.ask(Op.LEAVE, {"rooms": [a[2:], "never-in-it"]}, 12) == {"streams": [a]}
    push(fabric, {"rooms": [a[2:]]}, 2)
    push(fabric, {"rooms": [b[2:]]}, 3)
    client.wait_for(b, 3)
    assert client.places(a) == [(1, b"1")]
    assert client.ask(Op.JOIN, {"rooms": [a[2:]]}, 13)["streams"][a]["offset"] == 2
    push(fabric, {"rooms": [a[2:]]}, 3)
    assert client.wait_for(a, 2) == [(1, b"1"), (3, b"3")]


def test_a_comet_that_is_forgotten_misses_nothing(fabric: Fabric) -> None:
    client, goim = connect(fabric, False, token="318", rooms=["forgotten"]), Client(fabric.tcp["comet-1"], "318")
    for n in range(1, 31):
        if n % 10 == 1:
            assert fabric.post("/1/server/del?server=1") == {"ret": 1}
        push(fabric, {"rooms": ["forgotten"], "users": ["318"]}, n)
    assert client.wait_for("r:forgotten", 30) == [(n, b"%d" % n) for n in range(1, 31)]
    assert client.wait_for("u:318", 30) == [(n, b"%d" % n) for n in range(1, 31)]
    assert [p.body for p in goim.wait(30)] == [b"%d" % n for n in range(1, 31)]


def test_a_long_absence_is_read_in_pages(fabric: Fabric) -> None:
    client = connect(fabric, False, token="319", rooms=["long"])
    client.close()
    lines = [json.dumps({"to": {"rooms": ["long"]}, "body": n}) for n in range(1, 3001)]
    headers = {"Content-Type": "application/x-ndjson"}
    assert fabric.request("POST", "/api/push/batch", "\n".join(lines), headers=headers)[0] == 200
    for is_ws in (False, True):
        again = connect(fabric, is_ws, token="319", rooms=["long"], resume=client.has)
        push(fabric, {"rooms": ["long"]}, 0)
        offsets = [offset for offset, _ in again.wait_for("r:long", 3001 + is_ws)]
        assert offsets == list(range(1, 3002 + is_ws))


def test_history(fabric: Fabric) -> None:
    for n in range(1, 8):
        push(fabric, {"rooms": ["story"]}, {"n": n}, op=5 if n % 2 else 1000)
    for logic in fabric.http:
        whole = fabric.get("/api/streams/r%3Astory", logic)
        assert (whole["stream"], whole["first"], whole["head"]) == ("r:story", 1, 7)
        assert [(m["offset"], m["op"], m["body"]["n"]) for m in whole["messages"]] == [
            (n, 5 if n % 2 else 1000, n) for n in range(1, 8)
        ]
    part = fabric.get("/api/streams/r%3Astory?after=2&limit=3")
    assert [m["offset"] for m in part["messages"]] == [3, 4, 5]
    assert fabric.get("/api/streams/r%3Anothing")["messages"] == []


def test_a_large_answer_ends_early_and_the_next_one_goes_on(fabric: Fabric) -> None:
    body = "x" * 60_000
    for _ in range(100):
        push(fabric, {"rooms": ["large"]}, body)
    sizes: list[int] = []
    while sum(sizes) < 100:
        page = fabric.get(f"/api/streams/r%3Alarge?after={sum(sizes)}&limit=1000")
        assert page["messages"][0]["offset"] == sum(sizes) + 1
        sizes.append(len(page["messages"]))
    assert len(sizes) == 2
    assert 4 << 20 <= sizes[0] * len(body) < (4 << 20) + (400 << 10)


def test_a_live_only_room_keeps_nothing_and_delivers_all(fabric: Fabric) -> None:
    zim, goim = connect(fabric, False, token="311", rooms=["live-1"]), Client(fabric.tcp["comet-2"], "311")
    for n in range(1, 4):
        assert push(fabric, {"rooms": ["live-1"]}, n) == {"r:live-1": n}
    assert zim.wait_for("r:live-1", 3) == [(n, b"%d" % n) for n in range(1, 4)]
    assert zim.starts["r:live-1"]["epoch"].startswith("live-")
    assert goim.packets == []
    again = connect(
        fabric,
        True,
        "comet-2",
        token="311",
        rooms=["live-1"],
        resume={"r:live-1": (zim.starts["r:live-1"]["epoch"], 1)},
    )
    assert again.wait_for("r:live-1", 2) == [(2, b"2"), (3, b"3")]  # for some seconds it is there


# ---------------------------------------------------------------- idempotency


@pytest.mark.parametrize("turn", range(5))
def test_the_same_key_at_both_logics_at_once_is_one_push(fabric: Fabric, turn: int) -> None:
    document = {"to": {"rooms": [f"once-{turn}"], "users": ["312"]}, "body": 1}
    client = connect(fabric, False, token="312", rooms=[f"once-{turn}"])
    jobs = [gevent.spawn(fabric.push, document, f"once-{turn}", logic) for logic in [*fabric.http] * 4]
    answers = [job.get() for job in jobs]
    assert {status for status, _ in answers} == {200}
    assert len({json.dumps(answer, sort_keys=True) for _, answer in answers}) == 1
    push(fabric, {"rooms": [f"once-{turn}"]}, "last")
    assert [body for _, body in client.wait_for(f"r:once-{turn}", 2)] == [b"1", b'"last"']


def test_a_key_used_for_another_content_is_422(fabric: Fabric) -> None:
    push(fabric, {"users": ["313"]}, 1, key="mine")
    for document in (
        {"to": {"users": ["313"]}, "body": 2},
        {"to": {"users": ["313"]}, "body": 1, "op": 1000},
        {"to": {"users": ["313"]}, "body": 1, "ttl_s": 9},
        {"to": {"users": ["313", "314"]}, "body": 1},
    ):
        for logic in fabric.http:
            assert fabric.push(document, "mine", logic)[0] == 422
    assert push(fabric, {"users": ["313"]}, 1, key="mine") == {"u:313": 1}


# ---------------------------------------------------------------- some sessions, some time


def test_a_push_to_keys_reaches_these_sessions_only(fabric: Fabric) -> None:
    here, there, goim = (
        connect(fabric, False, token="315"),
        connect(fabric, True, "comet-2", token="315"),
        Client(fabric.tcp["comet-1"], "315"),
    )
    push(fabric, {"keys": [here.auth["key"]]}, "here")
    push(fabric, {"keys": [there.auth["key"]]}, "there")
    push(fabric, {"users": ["315"]}, "all")
    assert [body for _, body in here.wait_for("u:315", 2)] == [b'"here"', b'"all"']
    assert [body for _, body in there.wait_for("u:315", 2)] == [b'"there"', b'"all"']
    assert [p.body for p in goim.wait(1)] == [b'"all"']
    late = connect(fabric, False, token="315")
    assert [body for _, body in late.wait_for("u:315", 1)] == [b'"all"']


def test_a_ttl_that_ends_on_the_way_is_counted(fabric: Fabric) -> None:
    client = connect(fabric, False, token="317")
    for job in ("job-1", "job-2"):  # what they hold the comet will fetch, when it is too late
        fabric.kill(job, signal.SIGSTOP)
    status, answer = fabric.push({"to": {"users": ["317"]}, "body": 1, "ttl_s": 0.001, "wait_s": 20})
    for job in ("job-1", "job-2"):
        fabric.kill(job, signal.SIGCONT)
    assert status == 200
    assert (answer["receipt"]["targeted"], answer["receipt"]["expired"]) == (1, 1)
    push(fabric, {"users": ["317"]}, 2)
    assert client.wait_for("u:317", 1) == [(2, b"2")]


def test_a_ttl_that_is_over_is_not_in_what_one_missed(fabric: Fabric) -> None:
    push(fabric, {"users": ["316"]}, "short", ttl_s=0.001)
    push(fabric, {"users": ["316"]}, "long", ttl_s=3600)
    wait_until(lambda: len(fabric.get("/api/streams/u%3A316")["messages"]) == 1, "the first one is over")
    client = connect(fabric, False, token="316")
    assert client.wait_for("u:316", 1) == [(2, b'"long"')]
    push(fabric, {"users": ["316"]}, "live", ttl_s=3600)
    assert client.wait_for("u:316", 2)[1] == (3, b'"live"')


# ---------------------------------------------------------------- receipts


def test_receipts_tell_what_became_of_a_push(fabric: Fabric) -> None:
    clients = [
        connect(fabric, bool(n % 2), f"comet-{1 + n // 2}", token=f"{320 + n}", rooms=["heard"]) for n in range(4)
    ]
    status, answer = fabric.push({"to": {"rooms": ["heard"], "users": ["320", "399"]}, "body": 1, "wait_s": 20})
    assert status == 200
    receipt = answer["receipt"]
    assert (receipt["targeted"], receipt["delivered"], receipt["offline"], receipt["pending"]) == (5, 5, 1, 0)
    for client in clients:
        client.wait_for("r:heard", 1)
    for logic in fabric.http:
        assert fabric.get(f"/api/pushes/{answer['id']}?wait_s=20", logic) == receipt | {
            "hops_ms": _hops(fabric, answer["id"])
        }
    assert fabric.request("GET", "/api/pushes/nobody")[0] == 404


def test_the_receipt_of_a_push_to_everybody_waits_for_the_comets(fabric: Fabric) -> None:
    """Its router knows of no session before they tell, and a client that has just come is there for it."""
    client = connect(fabric, True, "comet-1", token="330")
    receipt = fabric.push({"to": {"everybody": True}, "body": 1, "wait_s": 20})[1]["receipt"]
    client.wait_for("*", 1)
    assert receipt["targeted"] == receipt["delivered"] > 0
    assert (receipt["awaited"], receipt["pending"]) == (0, 0)


def _hops(fabric: Fabric, push_id: str) -> Any:
    return fabric.get(f"/api/pushes/{push_id}")["hops_ms"]


# ---------------------------------------------------------------- over ZeroMQ


def test_pushes_over_zeromq(fabric: Fabric) -> None:
    client = connect(fabric, False, token="330", rooms=["zmq"])
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.connect(fabric.publish["logic-2"])
        submit = messages.Submit
        dealer.send(
            codec.encode([submit(1, "zk", ["u:330", "r:zmq"], 5, b"raw \xff"), submit(2, "", ["nonsense"], 5, b"")])
        )
        dealer.send(
            codec.encode([submit(3, "zk", ["u:330", "r:zmq"], 5, b"raw \xff"), submit(4, "zk", ["u:330"], 5, b"")])
        )
        answers: dict[int, messages.Submitted] = {}
        while len(answers) < 4:
            answers |= {m.req: m for m in codec.decode(dealer.recv(), messages.Submitted)}
    assert [answers[n].status for n in (1, 2, 3, 4)] == ["ok", "invalid", "ok", "conflict"]
    assert answers[1].push_id == answers[3].push_id
    assert client.wait_for("r:zmq", 1) == [(1, b"raw \xff")]
    assert (
        fabric.push({"to": {"users": ["330"], "rooms": ["zmq"]}, "base64": "cmF3IP8="}, "zk")[1]["id"]
        == answers[1].push_id
    )
    push(fabric, {"rooms": ["zmq"]}, "last")
    assert [body for _, body in client.wait_for("r:zmq", 2)] == [b"raw \xff", b'"last"']


# ---------------------------------------------------------------- both dialects


def test_goim_clients_are_not_affected(fabric: Fabric) -> None:
    goim = [Client(fabric.tcp["comet-1"], "340"), Client(fabric.ws["comet-2"], "340", is_ws=True)]
    zim = [connect(fabric, is_ws, f"comet-{1 + is_ws}", token="340") for is_ws in (False, True)]
    fabric.post("/1/push?uid=340", b'{"a":1}')
    fabric.post("/1/push/room?rid=1", b'{"a":2}')
    for client in goim:
        packets = client.wait(2)
        assert {(p.op, p.seq, p.version, p.stream) for p in packets} == {(Op.PUSH, 0, 0, "")}
        assert {p.body for p in packets} == {b'{"a":1}', b'{"a":2}'}
    for client in zim:
        assert client.wait_for("u:340", 1)[0][1] == b'{"a":1}'
        assert client.wait_for("r:1", 1)[0][1] == b'{"a":2}'
