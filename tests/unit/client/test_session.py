"""Session without sockets: whatever is cut, repeated or lost, messages come once and in order, and losses are said."""

from __future__ import annotations

import json
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.client.comet import Fabric, Log, Served
from zim.client import ClientError, Event, Gap, Message, NotJoined, NotRecovered, WireError
from zim.client.session import ZimSession
from zim.protocol.frame import Op, Packet

STREAMS = ["u:7", "r:1", "r:2", "*"]
STEPS = st.lists(
    st.tuples(st.just("push"), st.sampled_from(STREAMS))
    | st.tuples(st.just("carry"), st.integers(1, 8))
    | st.tuples(st.just("cut"), st.integers(0, 8))
    | st.tuples(st.just("trim"), st.sampled_from(STREAMS))
    | st.tuples(st.just("restart"), st.sampled_from(STREAMS))
    | st.tuples(st.just("shed"), st.sampled_from(STREAMS))
    | st.tuples(st.just("join"), st.sampled_from("12"))
    | st.tuples(st.just("leave"), st.sampled_from("12")),
    max_size=60,
)


class World:
    """A session, its fabric, and the packets between them."""

    def __init__(self, repeats: int, rooms: list[str] | None) -> None:
        self.fabric = Fabric()
        self.fabric.repeats = repeats
        self.session = ZimSession("7", rooms)
        self.events: list[Event] = []
        self.epochs = 1
        self.connect()

    def connect(self) -> None:
        """A new connection; the login's answer comes at once."""
        self.to_client: deque[Packet] = deque()
        self.served = Served(self.fabric, self.to_client.append, lambda: None)
        self.fabric.connections = {self.served}
        self.served.handle(self.session.begin("tcp"))
        self.events += self.session.logged_in(self.to_client.popleft())
        self.speak()

    def speak(self) -> None:
        """What the session has to say reaches the fabric."""
        for packet in self.session.due():
            self.served.handle(packet)

    def carry(self, count: int) -> None:
        """So many packets reach the client."""
        while self.to_client and count > 0:
            count -= 1
            for event in self.session.receive(self.to_client.popleft()):
                self.events.append(event)
                self.session.taken(event)
                self.speak()

    def step(self, act: str, what: str | int) -> None:
        """Something happens."""
        fabric = self.fabric
        if act == "push":
            fabric.push(str(what), b"x")
        elif act == "carry":
            self.carry(int(what))
        elif act == "cut":
            self.carry(int(what))
            self.connect()
        elif act == "trim":
            log = fabric.logs.setdefault(str(what), Log())
            log.floor, log.bodies = log.head, []
        elif act == "restart":
            self.epochs += 1
            self.carry(1 << 30)
            fabric.logs[str(what)] = Log(f"e{self.epochs}")
            fabric.cursors.pop(str(what), None)
            self.connect()
        elif act == "shed" and what in self.served.sent:
            log = fabric.logs[str(what)]
            low = log.head + 1
            log.bodies += [b"x", b"x"]
            self.served.sent[str(what)] = log.head
            self.served.say(
                Op.GAP, 0, {"stream": what, "epoch": log.epoch, "from": low, "to": log.head, "reason": "shed"}
            )
        elif act in ("join", "leave"):
            (self.session.join if act == "join" else self.session.leave)([str(what)])
            self.speak()


@settings(max_examples=300)
@given(STEPS, st.integers(0, 4), st.sampled_from([None, ["1"], ["1", "2"]]))
def test_once_in_order_and_no_silent_hole(
    steps: list[tuple[str, str | int]], repeats: int, rooms: list[str] | None
) -> None:
    world = World(repeats, rooms)
    for act, what in steps:
        world.step(act, what)
    world.carry(1 << 30)
    has_left = {f"r:{what}" for act, what in steps if act == "leave"}
    at: dict[str, tuple[str, int]] = {}
    seen = set()
    for event in world.events:
        if isinstance(event, Message):
            assert (event.stream, event.epoch, event.offset) not in seen
            seen.add((event.stream, event.epoch, event.offset))
            if event.stream in at and event.stream not in has_left:
                assert at[event.stream] == (event.epoch, event.offset - 1)
            at[event.stream] = (event.epoch, event.offset)
        elif isinstance(event, Gap):
            assert event.from_ <= event.to
            at[event.stream] = (event.epoch, event.to)
        elif isinstance(event, NotRecovered):
            at[event.stream] = event.now
    for stream, position in world.session.resume().items():
        log = world.fabric.logs[stream]
        if stream not in has_left:
            assert position == (log.epoch, log.head), stream
    assert world.session.acknowledged == world.fabric.cursors.get("u:7", 0)


@given(st.lists(st.tuples(st.sampled_from([3, 5, 8, 21, 23, 25, 26, 99]), st.binary(max_size=30) | st.sampled_from([
    b"{}", b"[]", b'{"streams":{"r:1":{}}}', b'{"streams":{"r:1":{"error":5}}}', b'{"streams":["r:1"]}', b'{"u:7":1}',
    b'{"stream":"u:7","epoch":"e1","from":1,"to":2,"reason":1}', b'{"stream":["u:7"],"epoch":"e1","from":1,"to":2}',
])), max_size=5))  # fmt: skip
def test_any_packet_is_taken_or_a_wire_error(packets: list[tuple[int, bytes]]) -> None:
    session = World(0, None).session
    for op, body in packets:
        try:
            session.receive(Packet(op, 0, 3, body))
        except WireError:
            return
    session.due()
    session.resume()


def log_in(session: ZimSession, **streams: object) -> list[Event]:
    """A login's answer."""
    session.begin("tcp")
    body = {"key": "7_1", "heartbeat_s": 9, "streams": streams}
    return session.logged_in(Packet(8, 1, 3, json.dumps(body).encode()))


def place(offset: int, epoch: str = "e", *, recovered: bool = True) -> dict[str, object]:
    """A stream in an answer."""
    return {"epoch": epoch, "offset": offset, "recovered": recovered}


@pytest.mark.parametrize(("offset", "epoch"), [(6, "e"), (5, "f"), (0, "f")])
def test_a_hole_that_the_fabric_calls_recovered_is_said(offset: int, epoch: str) -> None:
    session = ZimSession("7", resume={"u:7": ["e", 5]})
    assert log_in(session, **{"u:7": place(offset, epoch)}) == [NotRecovered("u:7", ("e", 5), (epoch, offset))]
    assert session.resume() == {"u:7": (epoch, offset)}


def test_an_older_position_makes_repeats_and_no_loss() -> None:
    session = ZimSession("7", resume={"u:7": ["e", 5]})
    assert log_in(session, **{"u:7": place(3)}) == []
    assert session.receive(Packet(5, 0, 3, b"", "u:7", 5)) == []
    assert session.receive(Packet(5, 0, 3, b"", "u:7", 6)) == [Message("u:7", 6, "e", 5, b"")]


def test_a_stream_that_was_had_and_is_not_in_the_answer() -> None:
    session = ZimSession("7", ["a", "b"], resume={"r:b": ["e", 1], "*": ["e", 1]})
    found = log_in(session, **{"u:7": place(0), "r:a": place(0)})
    assert {event.stream for event in found if isinstance(event, NotJoined)} == {"r:b", "*"}


def test_users_acknowledged_position_that_is_lost() -> None:
    assert log_in(ZimSession("7"), **{"u:7": place(9, recovered=False)}) == [NotRecovered("u:7", None, ("e", 9))]


def test_a_gap_that_is_known_in_part() -> None:
    session = ZimSession("7")
    log_in(session, **{"u:7": place(5)})
    gap = {"stream": "u:7", "epoch": "e", "from": 3, "to": 8, "reason": "trimmed"}
    assert session.receive(Packet(26, 0, 3, json.dumps(gap).encode())) == [Gap("u:7", 6, 8, "trimmed", "e")]


def test_a_room_named_as_the_user_does_not_mute_the_user() -> None:
    session = ZimSession("7")
    log_in(session, **{"u:7": place(0), "r:7": place(0)})
    session.leave(["7"])
    assert session.receive(Packet(5, 0, 3, b"", "r:7", 1)) == []
    assert session.receive(Packet(5, 0, 3, b"", "u:7", 1)) == [Message("u:7", 1, "e", 5, b"")]


def test_acks_of_a_history_that_is_gone_are_forgotten() -> None:
    session = ZimSession("7")
    log_in(session, **{"u:7": place(5)})
    session.ack(9)
    gap = {"stream": "u:7", "epoch": "f", "from": 1, "to": 0, "reason": "epoch"}
    session.receive(Packet(26, 0, 3, json.dumps(gap).encode()))
    assert session.due() == []


def test_an_ack_that_is_not_confirmed_is_sent_again() -> None:
    session = ZimSession("7")
    log_in(session, **{"u:7": place(5)})
    session.ack(6)
    (first,) = session.due()
    session.ack(7)
    assert session.due() == []
    session.ask_again()
    (second,) = session.due()
    assert (first.body, second.body) == (b'{"u:7": 6}', b'{"u:7": 7}')
    session.receive(Packet(25, second.seq, 3, b'{"u:7": 7}'))
    assert (session.acknowledged, session.due()) == (7, [])


def test_a_room_that_was_refused_may_be_asked_for_again() -> None:
    session = ZimSession("7")
    log_in(session, **{"u:7": place(0)})
    session.join(["a"])
    (first,) = session.due()
    refusal = {"streams": {"r:a": {"error": "not allowed"}}}
    assert session.receive(Packet(21, first.seq, 3, json.dumps(refusal).encode())) == [NotJoined("r:a", "not allowed")]
    assert session.due() == []
    session.join(["a"])
    assert [packet.op for packet in session.due()] == [20]


@pytest.mark.parametrize("room", ["", "x" * 254, "a\0b", "é" * 127, "*", "\ud800", "a\x7f"])
def test_rooms_that_cannot_be(room: str) -> None:
    with pytest.raises(ClientError, match="no room can be called"):
        ZimSession("7", [room])
    with pytest.raises(ClientError, match="no room can be called"):
        ZimSession("7").join([room])


def test_rooms_that_nobody_asked_for() -> None:
    session = ZimSession("7", ["a"])
    log_in(session, **{"u:7": place(0), "r:a": place(0)})
    joined = json.dumps({"streams": {"r:zz": place(0)}}).encode()
    assert session.receive(Packet(21, 9, 3, joined)) == []
    assert "r:zz" not in session.resume()
    with pytest.raises(WireError, match="not joined"):
        session.receive(Packet(5, 0, 3, b"", "r:zz", 1))


def test_a_room_that_a_backend_has_put_it_into() -> None:
    session = ZimSession("7", ["a"])
    log_in(session, **{"u:7": place(0), "r:a": place(0)})
    assert session.due() == []
    given = Packet(21, 0, 3, json.dumps({"streams": {"r:vip": place(0)}}).encode())
    assert session.receive(given) == []
    assert session.receive(Packet(5, 0, 3, b"x", "r:vip", 1)) == [Message("r:vip", 1, "e", 5, b"x")]
    taken = Packet(23, 0, 3, b'{"streams":["r:vip"],"reason":"closing time"}')
    assert session.receive(taken) == [NotJoined("r:vip", "closing time")]
    session.leave(["vip"])
    session.due()
    session.receive(given)
    (packet,) = session.due()  # the application wants to be out of it
    assert (packet.op, json.loads(packet.body)) == (22, {"rooms": ["vip"]})


def test_a_room_that_the_fabric_leaves_by_itself() -> None:
    session = ZimSession("7", ["a"])
    log_in(session, **{"u:7": place(0), "r:a": place(0)})
    left = Packet(23, 0, 3, b'{"streams":["r:a","r:b",5]}')
    assert session.receive(left) == [NotJoined("r:a", "the fabric left it")]


def test_everybodys_stream_that_comes_later() -> None:
    session = ZimSession("7")
    assert log_in(session, **{"u:7": place(0), "*": {"error": "not joined, retrying"}}) == [
        NotJoined("*", "not joined, retrying")
    ]
    joined = json.dumps({"streams": {"*": place(3)}}).encode()
    assert session.receive(Packet(21, 0, 3, joined)) == []
    assert session.receive(Packet(5, 0, 3, b"", "*", 4)) == [Message("*", 4, "e", 5, b"")]


def test_a_room_that_is_joined_already_stays_joined() -> None:
    session = ZimSession("7")
    log_in(session, **{"u:7": place(0), "r:a": place(0)})
    joined = json.dumps({"streams": {"r:a": {"error": "joined already"}}}).encode()
    assert session.receive(Packet(21, 2, 3, joined)) == []
    assert session.receive(Packet(5, 0, 3, b"", "r:a", 1)) == [Message("r:a", 1, "e", 5, b"")]


def test_many_rooms_go_in_packets_that_are_taken() -> None:
    rooms = [f"{number:03}" + "é" * 100 for number in range(990)]
    session = ZimSession("7", rooms, resume={f"r:{room}": ["epoch" * 5, 1 << 60] for room in [*rooms, "other"]})
    auth = session.begin("tcp")
    body = json.loads(auth.body)
    asked = list(body["rooms"])
    assert list(body["resume"]) == [f"r:{room}" for room in asked]
    streams = {f"r:{room}": place(1 << 60, "epoch" * 5) for room in asked}
    told = session.logged_in(
        Packet(8, 1, 3, json.dumps({"key": "k", "heartbeat_s": 9, "streams": {"u:7": place(0), **streams}}).encode())
    )
    assert told == [NotJoined("r:other", "the fabric did not join it")]
    packets = session.due()
    asked += [room for packet in packets for room in json.loads(packet.body)["rooms"]]
    assert asked == rooms
    session.leave(rooms)
    packets += session.due()
    assert sum(len(json.loads(packet.body)["rooms"]) for packet in packets if packet.op == 22) == 990
    assert all(len(packet.body) < 60_000 for packet in [auth, *packets])


def test_where_the_users_stream_starts_is_what_is_acknowledged() -> None:
    session = ZimSession("7")
    log_in(session, **{"u:7": place(5)})
    assert session.acknowledged == 5
    session.ack(5)
    assert session.due() == []


def test_a_renewal_without_a_token_is_warned_of_once_until_there_is_one(caplog: pytest.LogCaptureFixture) -> None:
    tokens: list[str] = []
    session = ZimSession(lambda: tokens[0])
    for given_, sends in (([], False), ([], False), (["a"], True), ([], False)):
        tokens[:] = given_
        assert (session.refresh() is not None) == sends
    said = "no token: IndexError: list index out of range; it is asked again, and the session ends with the token"
    assert [record.getMessage().startswith(said) for record in caplog.records] == [True, True]
