"""What a client may: it keeps to the grant of its token, in joins, with another token, and when that ends.

Clients and their sockets are real; a logic says what the test says, and a router is a log in memory.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import msgspec
import pytest
from typing_extensions import override

from tests.harness import Client, wait_until
from tests.unit.nodes.comet.comets import INC, Router
from tests.zim_client import ZimClient
from zim.fabric.grants import Denial, Grant
from zim.fabric.limits import ROOMS
from zim.net.handshakes import Handshakes
from zim.nodes.comet import edge as edges
from zim.nodes.comet import gate as gates
from zim.nodes.comet import history
from zim.nodes.comet.connection import ClientLimits, Connection
from zim.nodes.comet.edge import Edge
from zim.nodes.comet.effects import Pass, SessionEffect, Told
from zim.nodes.comet.gate import GRACE_S
from zim.nodes.comet.runner import CometRunner
from zim.nodes.comet.tcp import TcpListener
from zim.nodes.comet.websocket import WebSocketListener
from zim.nodes.effects import Effect, Note, Send
from zim.nodes.performer import Performer
from zim.nodes.placement import Placement
from zim.protocol.endings import Ending
from zim.protocol.frame import VERSION, Op
from zim.protocol.logins import AskJoin, Auth, Authed, MayJoin
from zim.protocol.vocabularies.zim import RETRYING

Answer = Grant | Denial | MayJoin | Authed | None
TRY_AGAIN = "nobody can tell at the moment; try again"
HOUR_MS = 3_600_000


class Visitor(ZimClient):
    """A client that says auth, and does not wait for what comes of it."""

    def __init__(self, address: str, auth: dict[str, Any] | bytes, is_ws: bool = False, cookies: str = "") -> None:
        self._cookies = cookies
        Client.__init__(self, address, None, is_ws)
        if isinstance(auth, bytes):
            self.version = 1
            self.say(Op.AUTH, auth, seq=1)
        else:
            self.say_json(Op.AUTH, auth, seq=1)

    @override
    def _upgrade(self, address: str) -> bytes:
        """With the cookies of a browser, in a header after the one that names the address."""
        return super()._upgrade(f"{address}\r\nCookie: {self._cookies}")

    def opened(self) -> dict[str, Any]:
        """Its auth reply."""
        self.auth = json.loads(self.take(Op.AUTH_REPLY).body)
        return self.auth

    def farewell(self) -> tuple[int, str]:
        """Code and reason, once it is sent away."""
        self.wait_closed()
        body = json.loads(next(p.body for p in self.packets if p.op == Op.DISCONNECT))
        return body["code"], body["reason"]

    def refresh(self, token: str = "next", seq: int = 9) -> Any:
        """The answer to another token."""
        return self.ask(Op.REFRESH, {"token": token}, seq)

    def join(self, *rooms: str, seq: int = 5) -> dict[str, Any]:
        """What it is told of each of these rooms: "" if it is in it."""
        self.say_json(Op.JOIN, {"rooms": rooms}, seq)
        while (reply := self.take(Op.JOINED)).seq != seq:
            pass
        return {
            stream.removeprefix("r:"): s.get("error", "") for stream, s in json.loads(reply.body)["streams"].items()
        }

    def left(self) -> tuple[int, list[str]]:
        """Seq and streams of what it is told to be out of."""
        packet = self.take(Op.LEFT)
        return packet.seq, sorted(json.loads(packet.body)["streams"])


class Gatehouse(Performer):
    """A comet's edge with a logic and a router.

    Attributes:
        says: what the logic answers; None for nothing, see `nobody_can_tell`.
        asked: what it was asked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runner = CometRunner(
            "comet-1", INC, Placement("comet-1", ["router-1"], ["router-1"]), ["logic-1"], 1 << 20, 5.0
        )
        self.router = Router("router-1", "a")
        self.says: Callable[[Auth | AskJoin], Answer] = lambda _: None
        self.asked: list[Auth | AskJoin] = []
        self.edge = Edge(self.runner, self.perform, ClientLimits(1 << 20, 60.0, 60.0, 1 << 20, False), 100)
        self.tcp = TcpListener(("127.0.0.1", 0), self.edge, 60, Handshakes(5.0))
        self.free = TcpListener(("127.0.0.1", 0), self.edge, 60, Handshakes(5.0), is_anonymous=True)
        self.ws = WebSocketListener(("127.0.0.1", 0), self.edge, 60, Handshakes(5.0), cookie="session")
        self.listeners = (self.tcp, self.free, self.ws)
        for listener in self.listeners:
            listener.start()
        self.sweeping = gevent.spawn(self.edge.sweep)
        self.asking_again = gevent.spawn(self.edge.gate.ask_again)
        self.runner.on_link("router-1", True)
        self.perform(self.runner.on_tick(time.monotonic()))

    def close(self) -> None:
        self.sweeping.kill()
        self.asking_again.kill()
        for listener in self.listeners:
            listener.stop()
        self.edge.close()

    def perform_one(self, effect: Effect) -> None:
        now = time.monotonic()
        match effect:
            case Send(peer="logic-1", message=(Auth() | AskJoin()) as question):
                self.asked.append(question)
                self._hear(question, self.says(question))
            case Send(message=message):
                if (answer := self.router.answer(message)) is not None:
                    self.perform(self.runner.on_messages([answer], now))  # type: ignore[list-item]
            case Told(ticket=ticket, answer=told):
                ticket.set(told)
            case SessionEffect():
                self.edge.perform(effect)
            case Pass():
                for write in effect.writes:
                    for session in write.sessions:
                        session.write(write.chunk, write.rows, write.until)
                self.perform(self.runner.hub.end_pass(effect, now))
            case Note():
                pass
            case _:
                raise AssertionError(effect)

    def _hear(self, question: Auth | AskJoin, answer: Answer) -> None:
        told: Authed | MayJoin
        match answer:
            case None:
                return
            case Grant():
                told = Authed(question.req, answer)
            case Denial():
                told = Authed(question.req, None, answer)
            case _:
                told = msgspec.structs.replace(answer, req=question.req)
        self.perform(self.runner.on_told([told], time.monotonic()))

    def nobody_can_tell(self, count: int = 1) -> None:
        """So many questions have not been answered, for as long as they may take."""
        wait_until(lambda: len(self.asked) >= count, "the logic is asked")
        for seconds in (100.0, 200.0):
            self.perform(self.runner.on_tick(time.monotonic() + seconds))

    def come(self, auth: dict[str, Any] | bytes | None = None, at: Any = None, **more: Any) -> Visitor:
        """Somebody who says auth."""
        address = f"127.0.0.1:{(at or self.tcp).address[1]}"
        return Visitor(address, {"token": "first"} if auth is None else auth, at is self.ws, **more)

    def enter(self, grant: Grant, rooms: list[str] | None = None, **more: Any) -> Visitor:
        """Somebody who is let in with this grant."""
        self.says = lambda _: grant
        visitor = self.come({"token": "first", **({} if rooms is None else {"rooms": rooms})}, **more)
        visitor.opened()
        self.asked.clear()
        return visitor

    def connection(self, uid: str = "7") -> Connection:
        [found] = [session for session in self.runner.hub.sessions.values() if session.uid == uid]
        assert isinstance(found, Connection)
        return found

    def push(self, stream: str, body: bytes) -> None:
        """To those who are in it."""
        self.router.publish(stream, body=body.decode())
        entries, self.router.pipe = self.router.pipe, []
        self.perform(self.runner.on_messages(entries, time.monotonic()))
        self.perform(self.runner.hub.begin_pass(time.monotonic()))


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gatehouse]:
    monkeypatch.setattr(edges, "SWEEP_S", 0.001)
    found = Gatehouse()
    yield found
    found.close()


# ---------------------------------------------------------------- who it is


def test_a_logic_is_asked_who_a_client_is(house: Gatehouse) -> None:
    house.says = lambda _: Grant("7", ("lobby", "9"))
    visitor = house.come({"token": "first", "device": "phone", "platform": "x"})
    opened = visitor.opened()
    [asked] = house.asked
    assert isinstance(asked, Auth)
    assert (asked.token, asked.version, asked.device, asked.anonymous) == (b"first", 3, "phone", False)
    assert asked.address == visitor.socket.getsockname()[0]
    assert (opened["key"], set(opened["streams"])) == ("7_1", {"u:7", "*", "r:lobby", "r:9"})
    assert "expires_s" not in opened
    assert house.connection().expires == math.inf


def test_a_grant_that_ends_is_told_with_the_login(house: Gatehouse) -> None:
    before = time.monotonic()
    visitor = house.enter(Grant("7", lifetime_ms=HOUR_MS))
    assert 3_500 < visitor.auth["expires_s"] <= 3_600
    assert before + 3_600 <= house.connection().expires <= time.monotonic() + 3_600


def test_a_client_names_its_rooms_and_is_told_of_each_that_it_may_not_be_in(house: Gatehouse) -> None:
    grant = Grant("7", ("lobby",), ("chat-*",))
    assert set(house.enter(grant, rooms=[]).auth["streams"]) == {"u:7", "*"}
    streams = house.enter(grant, rooms=["chat-1", "secret", "lobby"]).auth["streams"]
    assert set(streams) == {"u:7", "*", "r:chat-1", "r:lobby", "r:secret"}
    assert {stream: s["error"] for stream, s in streams.items() if "error" in s} == {"r:secret": "not allowed"}


def test_nothing_of_a_room_comes_to_who_may_not_be_in_it(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7", (), ("chat-*",)), rooms=["chat-1", "secret"])
    for stream in ("r:secret", "r:chat-1"):
        house.push(stream, b'"for %b"' % stream.encode())
    assert visitor.wait_for("r:chat-1", 1) == [(1, b'"for r:chat-1"')]
    assert visitor.places("r:secret") == []


def test_goims_client_is_in_the_rooms_of_its_grant(house: Gatehouse) -> None:
    house.says = lambda _: Grant("7", ("lobby",), lifetime_ms=HOUR_MS)
    visitor = house.come(b"first")
    assert visitor.take(Op.AUTH_REPLY).body == b""
    [asked] = house.asked
    assert isinstance(asked, Auth)
    assert (asked.token, asked.version) == (b"first", 0)
    assert house.connection().rooms == ("lobby",)


@pytest.mark.parametrize(
    ("code", "ending", "goim_code"),
    [("refused", Ending.REFUSED, 1008), ("expired", Ending.EXPIRED, 1008), ("try_again", Ending.TRY_AGAIN, 1013)],
)
def test_who_is_denied_is_sent_away_with_the_reason(
    house: Gatehouse, code: Any, ending: Ending, goim_code: int
) -> None:
    told = (ending.zim_code, f"{ending.word}: the token says so")
    house.says = lambda _: Denial(code, "the token says so", "and the key is 7")
    assert house.come().farewell() == told
    visitor = house.come(at=house.ws)
    assert visitor.farewell() == told
    assert (visitor.close_code, visitor.close_reason) == told
    goim = house.come(b'"first"', at=house.ws)
    assert goim.wait_closed() == goim_code
    assert house.come(b"first").wait_closed() == 0
    assert house.runner.hub.sessions == {}


def test_the_log_is_told_more_than_the_client_and_the_token_not_at_all(
    house: Gatehouse, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    house.says = lambda _: Denial("refused", "the token says so", "and the key is 7")
    assert house.come({"token": "hunter2"}).farewell()
    house.enter(Grant("7")).refresh("hunter2")
    [denied] = [record for record in caplog.records if record.message == "login refused"]
    assert vars(denied)["reason"] == "the token says so"
    assert vars(denied)["detail"] == "and the key is 7"
    assert "hunter2" not in str([vars(record) for record in caplog.records])


def test_when_nobody_can_tell_the_client_is_to_try_again(house: Gatehouse) -> None:
    visitor = house.come()
    house.nobody_can_tell()
    assert visitor.farewell() == (4200, "try again")


@pytest.mark.parametrize("answer", [Authed(0), MayJoin(0, ("a",))])
def test_an_answer_that_says_nothing_of_it_is_none(house: Gatehouse, answer: Answer) -> None:
    house.says = lambda _: answer
    assert house.come().farewell() == (4200, "try again")


def test_who_hangs_up_before_the_logic_has_answered_is_nobody(house: Gatehouse) -> None:
    visitor = house.come()
    wait_until(lambda: house.asked, "the logic is asked")
    visitor.close()
    house.edge.close()
    house._hear(house.asked[0], Grant("7"))
    wait_until(lambda: house.edge.places == 0, "its socket is closed")
    assert house.runner.hub.sessions == {}


def test_a_listener_says_whether_people_may_come_without_a_token(house: Gatehouse) -> None:
    house.says = lambda _: Grant("anonymous-1")
    for at, is_free in ((house.tcp, False), (house.free, True), (house.ws, False)):
        house.come({}, at=at).opened()
        asked = house.asked.pop()
        assert isinstance(asked, Auth)
        assert (asked.token, asked.anonymous) == (b"", is_free)


@pytest.mark.parametrize(
    ("cookies", "auth", "token"),
    [
        ("a=b; session=biscuit", {}, b"biscuit"),
        ("session=biscuit", {"token": ""}, b"biscuit"),
        ("session=biscuit", {"token": None}, b"biscuit"),
        ("session=biscuit", {"token": "first"}, b"first"),
        ('session="biscuit"', {}, b"biscuit"),
        ("session=one; session=two", {}, b""),
        ("Session=biscuit", {}, b""),
        ("session", {}, b""),
        ("", {}, b""),
    ],
)
def test_a_browser_may_show_its_token_in_a_cookie(
    house: Gatehouse, cookies: str, auth: dict[str, Any], token: bytes
) -> None:
    house.says = lambda _: Grant("7")
    house.come(auth, at=house.ws, cookies=cookies).opened()
    [asked] = house.asked
    assert isinstance(asked, Auth)
    assert asked.token == token
    assert house.connection().cookie == b""  # it is not kept


def test_a_cookie_is_no_other_token_later(house: Gatehouse) -> None:
    """A refresh names its token: the cookie that came with the connection may be an old one."""
    visitor = house.enter(Grant("7"), at=house.ws, cookies="session=biscuit")
    house.says = lambda _: Denial("try_again", "later")
    visitor.refresh("")
    [asked] = house.asked
    assert isinstance(asked, Auth)
    assert asked.token == b""


# ---------------------------------------------------------------- which rooms


def test_joins_are_checked_against_the_grant(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7", ("lobby",), ("chat-*", "[*]?")))
    assert visitor.join("chat-1", "secret", "Chat-1", "*a") == {
        "chat-1": "",
        "secret": "not allowed",
        "Chat-1": "not allowed",
        "*a": "",
    }
    assert visitor.join("lobby", seq=6) == {"lobby": "joined already"}
    assert house.asked == []
    assert house.connection().rooms == ("lobby", "chat-1", "*a")


def test_a_room_of_the_token_that_was_not_joined_at_first_may_be_joined_later(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7", ("lobby",)), rooms=[])
    assert visitor.join("lobby") == {"lobby": ""}


def test_what_the_grant_does_not_say_is_asked_for_it(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7", (), ("chat-*",), device="phone", asks=True))
    house.says = lambda _: MayJoin(0, ("a", "not asked"), "not a member")
    assert visitor.join("chat-1", "a", "b", "a", "b") == {"chat-1": "", "a": "", "b": "not a member"}
    [asked] = house.asked
    assert isinstance(asked, AskJoin)
    assert (asked.user, asked.device, asked.rooms) == ("7", "phone", ("a", "b"))
    assert house.connection().rooms == ("chat-1", "a")


def test_what_the_grant_says_is_not_asked_for(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7", ("lobby",), ("chat-*",), asks=True), rooms=[])
    assert visitor.join("chat-1", "lobby") == {"chat-1": "", "lobby": ""}
    assert house.asked == []


def test_a_refusal_without_a_reason_has_one(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7", asks=True))
    house.says = lambda _: MayJoin(0, ())
    assert visitor.join("a") == {"a": "not allowed"}


def test_when_nobody_can_tell_of_rooms_they_are_not_joined_yet(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7", (), ("chat-*",), asks=True))
    house.says = lambda _: None
    asking = gevent.spawn(visitor.join, "chat-1", "a")
    house.nobody_can_tell()
    assert asking.get() == {"chat-1": "", "a": RETRYING}
    house.says = lambda _: Grant("7")  # an answer to another question
    assert visitor.join("a", seq=6) == {"a": RETRYING}


SILENCE = MayJoin(0, (), "nobody can tell", is_told=False)


def late(visitor: Visitor) -> Any:
    """What comes of rooms by itself."""
    while (packet := visitor.take(Op.JOINED)).seq:
        pass
    return json.loads(packet.body)["streams"]


def test_they_are_joined_when_somebody_can_tell_from_where_the_client_was(
    house: Gatehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "AGAIN_S", 0.01)
    epoch = house.enter(Grant("8", ("a",))).auth["streams"]["r:a"]["epoch"]
    for body in (b"1", b"2"):
        house.push("r:a", body)
    grant = Grant("7", ("lobby",), asks=True)
    house.says = lambda m: grant if isinstance(m, Auth) else SILENCE
    visitor = house.come({"token": "first", "rooms": ["lobby", "a", "b"], "resume": {"r:a": [epoch, 1]}})
    streams = visitor.opened()["streams"]
    assert {stream: s.get("error") for stream, s in streams.items() if stream in ("r:a", "r:b", "r:lobby")} == {
        "r:a": RETRYING,
        "r:b": RETRYING,
        "r:lobby": None,
    }
    asked = len(house.asked)
    wait_until(lambda: len(house.asked) > asked + 2, "it is asked again")
    assert house.connection().rooms == ("lobby",)
    house.push("r:a", b"3")
    house.says = lambda _: MayJoin(0, ("a",), "not a member")
    found = late(visitor)
    assert (found["r:a"]["offset"], found["r:a"]["recovered"], found["r:b"]) == (1, True, {"error": "not a member"})
    assert house.connection().rooms == ("lobby", "a")
    assert len(house.edge.gate._deferred) == 0
    house.push("r:a", b"4")
    for seconds in range(4):  # what it missed is asked for, and is a pass of its own
        house.perform(house.runner.on_tick(time.monotonic() + seconds))
        house.perform(house.runner.hub.begin_pass(time.monotonic()))
    assert visitor.wait_for("r:a", 3) == [(2, b"2"), (3, b"3"), (4, b"4")]


def test_what_was_left_meanwhile_or_joined_otherwise_is_not_joined_again(
    house: Gatehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = house.enter(Grant("7", asks=True))
    house.says = lambda _: SILENCE
    assert visitor.join("a", "b", "c") == {"a": RETRYING, "b": RETRYING, "c": RETRYING}
    house.asked.clear()
    house.says = lambda _: None
    monkeypatch.setattr(gates, "AGAIN_S", 0.01)
    wait_until(lambda: house.asked, "it is asked again", 10)
    again = house.asked[0]
    visitor.say_json(Op.LEAVE, {"rooms": ["a"]}, 6)
    assert visitor.left() == (6, [])
    house.says = lambda _: MayJoin(0, ("b",))
    assert visitor.join("b", seq=7) == {"b": ""}
    house._hear(again, MayJoin(0, ("a", "b", "c")))
    assert set(late(visitor)) == {"r:c"}
    assert house.connection().rooms == ("b", "c")


def test_rooms_that_wait_count_as_rooms_of_the_session(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7", asks=True))
    house.says = lambda _: SILENCE
    assert len(visitor.join(*(f"a{n}" for n in range(ROOMS)))) == ROOMS
    assert visitor.join("a1", seq=6) == {"a1": RETRYING}
    visitor.say_json(Op.JOIN, {"rooms": ["b"]}, 7)
    assert visitor.farewell() == (4403, "more than 1000 rooms")
    wait_until(lambda: not len(house.edge.gate._deferred), "nothing of it is left")


def test_rooms_that_wait_count_for_how_many_a_session_may_have(house: Gatehouse) -> None:
    house.edge.gate.most_rooms = 2
    visitor = house.enter(Grant("7", (), ("free",), asks=True), rooms=["free"])
    house.says = lambda _: SILENCE
    many = "too many rooms: at most 2 at once"
    assert visitor.join("a", "b") == {"a": RETRYING, "b": many}
    assert visitor.join("c", seq=6) == {"c": many}
    assert [*house.edge.gate._deferred.of(house.connection())] == ["a"]


def test_who_cannot_be_told_of_holds_up_nobody_else(house: Gatehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "AGAIN_S", 0.01)
    monkeypatch.setattr(gates, "AT_ONCE", 1)
    house.says = lambda m: Grant(m.token.decode(), asks=True) if isinstance(m, Auth) else SILENCE
    visitors = [house.come({"token": f"{n}", "rooms": ["a"]}) for n in range(5)]
    for visitor in visitors:
        visitor.opened()
    house.says = lambda m: MayJoin(0, ("a",)) if isinstance(m, AskJoin) and m.user == "4" else SILENCE
    assert set(late(visitors[4])) == {"r:a"}
    assert len(house.edge.gate._deferred) == 4


def test_rooms_of_the_login_are_asked_for_too(house: Gatehouse) -> None:
    grant = Grant("7", ("lobby",), device="phone", asks=True)
    house.says = lambda m: grant if isinstance(m, Auth) else MayJoin(0, ("a",), "not a member")
    streams = house.come({"token": "first", "rooms": ["lobby", "a", "b"]}).opened()["streams"]
    assert set(streams) == {"u:7", "*", "r:lobby", "r:a", "r:b"}
    assert streams["r:b"] == {"error": "not a member"}
    _, asked = house.asked
    assert isinstance(asked, AskJoin)
    assert (asked.user, asked.device, asked.rooms) == ("7", "phone", ("a", "b"))


def test_who_hangs_up_while_rooms_are_asked_for_is_gone(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7", asks=True))
    house.says = lambda _: None
    visitor.say_json(Op.JOIN, {"rooms": ["a"]}, 5)
    wait_until(lambda: house.asked, "the logic is asked")
    house.edge.close()
    house._hear(house.asked[0], MayJoin(0, ("a",)))
    visitor.close()
    wait_until(lambda: house.edge.places == 0, "its socket is closed")
    assert house.runner.hub.sessions == {}


def test_who_is_sent_away_while_rooms_of_its_login_are_asked_for_is_nobody(house: Gatehouse) -> None:
    house.says = lambda m: Grant("7", asks=True) if isinstance(m, Auth) else None
    visitor = house.come({"token": "first", "rooms": ["a"]})
    wait_until(lambda: len(house.asked) == 2, "the logic is asked about both")
    house.edge.close()
    house._hear(house.asked[1], MayJoin(0, ("a",)))
    assert visitor.farewell()[0] == 4000
    visitor.close()
    wait_until(lambda: house.edge.places == 0, "its socket is closed")
    assert house.runner.hub.sessions == {}


def test_a_session_is_in_so_many_rooms_and_no_more(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7", (), ("*",)), rooms=[f"a{n}" for n in range(ROOMS - 1)])
    assert visitor.join("b", seq=4) == {"b": ""}
    visitor.say_json(Op.JOIN, {"rooms": ["c"]}, 5)
    assert visitor.farewell() == (4403, "more than 1000 rooms")


# ---------------------------------------------------------------- another token


def test_another_token_of_the_same_user_takes_the_place_of_the_first(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7", (), ("chat-*",), lifetime_ms=60_000))
    assert visitor.join("news-1") == {"news-1": "not allowed"}
    house.says = lambda _: Grant("7", (), ("news-*",), lifetime_ms=HOUR_MS)
    assert 3_500 < visitor.refresh("next")["expires_s"] <= 3_600
    [asked] = house.asked
    assert isinstance(asked, Auth)
    assert (asked.token, asked.version) == (b"next", 3)
    assert house.connection().expires > time.monotonic() + 3_500
    assert visitor.join("news-1", "chat-1", seq=6) == {"news-1": "", "chat-1": "not allowed"}
    house.says = lambda _: Grant("7")
    assert visitor.refresh("last", seq=10) == {}
    assert house.connection().expires == math.inf


def test_rooms_that_a_new_token_has_are_not_joined_by_themselves(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7"))
    house.says = lambda _: Grant("7", ("lobby",))
    assert visitor.refresh() == {}
    assert house.connection().rooms == ()
    assert visitor.join("lobby") == {"lobby": ""}


def test_rooms_that_a_new_token_does_not_cover_are_left(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7", ("lobby", "old"), ("chat-*",)))
    visitor.join("chat-1", "chat-2")
    house.says = lambda _: Grant("7", ("lobby",), ("chat-2",))
    assert visitor.refresh() == {}
    assert visitor.left() == (0, ["r:chat-1", "r:old"])
    assert set(house.connection().rooms) == {"lobby", "chat-2"}
    for stream in ("r:chat-1", "r:old", "u:7", "r:chat-2"):
        house.push(stream, b"1")
    visitor.wait_for("r:chat-2", 1)
    assert [packet.stream for packet in visitor.packets if packet.stream] == ["u:7", "r:chat-2"]


def test_a_token_that_covers_all_rooms_leaves_none(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7", ("lobby",), ("chat-*",)), rooms=["lobby", "chat-1"])
    house.says = lambda _: Grant("7", (), ("*",))
    assert visitor.refresh() == {}
    assert house.connection().rooms == ("lobby", "chat-1")
    assert [packet for packet in visitor.packets if packet.op == Op.LEFT] == []


def test_rooms_that_the_new_token_does_not_name_are_asked_for_again(house: Gatehouse) -> None:
    grant = Grant("7", ("lobby",), device="phone", asks=True)
    house.says = lambda m: grant if isinstance(m, Auth) else MayJoin(0, ("a", "b"))
    visitor = house.come({"token": "first", "rooms": ["lobby", "a", "b"]})
    visitor.opened()
    house.asked.clear()
    house.says = lambda m: grant if isinstance(m, Auth) else MayJoin(0, ("b",))
    assert visitor.refresh() == {}
    assert visitor.left() == (0, ["r:a"])
    _, asked = house.asked
    assert isinstance(asked, AskJoin)
    assert (asked.user, asked.device, asked.rooms) == ("7", "phone", ("a", "b"))
    assert house.connection().rooms == ("lobby", "b")


def test_the_token_of_another_user_ends_the_session(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7"))
    house.says = lambda _: Grant("8")
    visitor.say_json(Op.REFRESH, {"token": "next"}, 9)
    assert visitor.farewell() == (4402, "the token is another user's")
    wait_until(lambda: not house.runner.hub.sessions, "it is gone")


@pytest.mark.parametrize(("code", "ending"), [("refused", Ending.REFUSED), ("expired", Ending.EXPIRED)])
def test_a_token_that_is_denied_ends_the_session(house: Gatehouse, code: Any, ending: Ending) -> None:
    visitor = house.enter(Grant("7"))
    house.says = lambda _: Denial(code, "the token says so")
    visitor.say_json(Op.REFRESH, {"token": "next"}, 9)
    assert visitor.farewell() == (ending.zim_code, f"{ending.word}: the token says so")


def test_a_grant_that_cannot_be_ends_the_session(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7"))
    house.says = lambda _: Grant("7", ("a\0",))
    visitor.say_json(Op.REFRESH, {"token": "next"}, 9)
    assert visitor.farewell()[0] == 4402


def test_when_nobody_can_tell_of_another_token_the_first_one_goes_on(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7", ("lobby",), ("chat-*",), lifetime_ms=HOUR_MS))
    expires = house.connection().expires
    house.says = lambda _: Denial("try_again", "the key is not known at the moment")
    found = visitor.refresh()
    assert found["error"] == "the key is not known at the moment"
    assert 3_500 < found["expires_s"] <= 3_600
    house.says = lambda _: None
    asking = gevent.spawn(visitor.refresh, "next", 10)
    house.nobody_can_tell(2)
    assert asking.get()["error"] == TRY_AGAIN
    assert house.connection().expires == expires
    assert house.connection().rooms == ("lobby",)
    assert visitor.join("chat-1") == {"chat-1": ""}


def test_what_is_said_after_another_token_is_answered_after_it(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7", (), ("chat-*",)))
    house.says = lambda _: None
    visitor.say_json(Op.REFRESH, {"token": "next"}, 9)
    visitor.say_json(Op.JOIN, {"rooms": ["chat-1", "news-1"]}, 10)
    wait_until(lambda: house.asked, "the logic is asked")
    house._hear(house.asked[0], Grant("7", (), ("news-*",)))
    visitor.wait(2)
    assert [(packet.op, packet.seq) for packet in visitor.packets] == [(Op.REFRESHED, 9), (Op.JOINED, 10)]
    assert house.connection().rooms == ("news-1",)


def test_who_hangs_up_while_another_token_is_looked_at_is_gone(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7"))
    house.says = lambda _: None
    visitor.say_json(Op.REFRESH, {"token": "next"}, 9)
    wait_until(lambda: house.asked, "the logic is asked")
    house.edge.close()
    house._hear(house.asked[0], Grant("8"))
    visitor.close()
    wait_until(lambda: house.edge.places == 0, "its socket is closed")


def test_who_hangs_up_while_the_rooms_of_another_token_are_asked_for_is_gone(house: Gatehouse) -> None:
    grant = Grant("7", asks=True)
    house.says = lambda m: grant if isinstance(m, Auth) else MayJoin(0, ("a",))
    visitor = house.come({"token": "first", "rooms": ["a"]})
    visitor.opened()
    house.says = lambda m: grant if isinstance(m, Auth) else None
    visitor.say_json(Op.REFRESH, {"token": "next"}, 9)
    wait_until(lambda: len(house.asked) == 4, "the logic is asked about both again")
    house.edge.close()
    house._hear(house.asked[3], MayJoin(0, ()))
    visitor.close()
    wait_until(lambda: house.edge.places == 0, "its socket is closed")
    assert [packet for packet in visitor.packets if packet.op in (Op.LEFT, Op.REFRESHED)] == []


def test_before_the_login_there_is_no_other_token(house: Gatehouse) -> None:
    stranger = Client(f"127.0.0.1:{house.tcp.address[1]}", None)
    stranger.version = VERSION
    stranger.say(Op.REFRESH, b'{"token":"next"}', 9)
    stranger.wait_closed()
    assert house.asked == []


def test_goims_client_has_no_word_for_another_token(house: Gatehouse) -> None:
    house.says = lambda _: Grant("7", lifetime_ms=HOUR_MS)
    visitor = house.come(b"first")
    visitor.take(Op.AUTH_REPLY)
    visitor.say(Op.REFRESH, b'{"token":"next"}', 9)
    visitor.wait_closed()
    assert len(house.asked) == 1


# ---------------------------------------------------------------- when it ends


def test_a_session_whose_grant_is_over_is_closed_after_a_grace(house: Gatehouse) -> None:
    """Both are looked at by the same sweep; the first one before the other."""
    waits, ends = house.enter(Grant("7", lifetime_ms=1)), house.enter(Grant("8", lifetime_ms=1))
    house.connection("7").expires = time.monotonic() - GRACE_S + 100
    house.connection("8").expires = time.monotonic() - GRACE_S - 0.001
    assert ends.farewell() == (4205, "token expired")
    assert not waits.is_closed
    house.connection("7").expires = time.monotonic() - GRACE_S - 0.001
    assert waits.farewell() == (4205, "token expired")


def test_goims_client_is_closed_too_when_its_grant_is_over(house: Gatehouse) -> None:
    house.says = lambda _: Grant("7", lifetime_ms=1)
    visitor = house.come(b'"first"', at=house.ws)
    visitor.take(Op.AUTH_REPLY)
    house.connection().expires = time.monotonic() - GRACE_S - 0.001
    assert visitor.wait_closed() == 1008


def test_until_then_another_token_saves_it(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7", ("lobby",), lifetime_ms=1))
    assert visitor.auth["expires_s"] <= 0.001
    house.connection().expires = time.monotonic() - 1
    house.says = lambda _: Denial("try_again", "later")
    assert visitor.refresh() == {"error": "later", "expires_s": 0}
    house.says = lambda _: Grant("7", ("lobby",), lifetime_ms=HOUR_MS)
    assert visitor.refresh(seq=10)["expires_s"] > 3_500
    other = house.enter(Grant("8"))
    house.connection("8").expires = time.monotonic() - GRACE_S - 0.001
    assert other.farewell() == (4205, "token expired")  # it was swept, and after the first one
    assert not visitor.is_closed


def test_during_the_grace_nothing_else_ends(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7", (), ("chat-*",), lifetime_ms=1))
    house.connection().expires = time.monotonic() - 1
    assert visitor.join("chat-1") == {"chat-1": ""}
    house.push("r:chat-1", b"1")
    visitor.wait_for("r:chat-1", 1)


# ---------------------------------------------------------------- history


def read(visitor: Visitor, stream: str, seq: int = 11, **more: Any) -> Any:
    return visitor.ask(Op.HISTORY, {"stream": stream, **more}, seq)


def bodies(past: dict[str, Any]) -> list[tuple[int, Any]]:
    return [(m["offset"], m["body"]) for m in past["messages"]]


def test_a_client_reads_what_it_is_in_and_what_its_grant_names_and_nothing_else(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7", ("lobby",), ("chat-*",), ("r:news-*", "u:9")), at=house.ws)
    for stream in ("u:7", "*", "r:lobby", "r:news-1", "u:9", "r:chat-1", "r:secret", "u:8"):
        house.router.publish(stream, body=json.dumps(stream))
    for stream in ("u:7", "*", "r:lobby", "r:news-1", "u:9"):
        assert bodies(read(visitor, stream)) == [(1, stream)]
    for stream in ("r:chat-1", "r:secret", "u:8", "r:", "lobby", "u:7\x00", "r:news-1\n", "r:news-" + "x" * 300):
        assert read(visitor, stream) == {"stream": stream, "error": "not allowed"}
    assert visitor.join("chat-1") == {"chat-1": ""}
    assert bodies(read(visitor, "r:chat-1")) == [(1, "r:chat-1")]


def test_what_a_new_grant_does_not_name_is_not_read_any_more(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7", ("lobby",), (), ("r:news-*",)))
    house.says = lambda _: Grant("7")
    assert visitor.refresh() == {}
    assert visitor.left() == (0, ["r:lobby"])
    for stream in ("r:news-1", "r:lobby"):
        assert read(visitor, stream) == {"stream": stream, "error": "not allowed"}


def test_a_history_is_read_piece_by_piece(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7"))
    for n in range(1, 8):
        house.router.publish("u:7", body=str(n))
    past = read(visitor, "u:7", after=2, limit=3)
    assert bodies(past) == [(3, 3), (4, 4), (5, 5)]
    assert (past["first"], past["head"], past["last"], past["epoch"]) == (
        1,
        7,
        5,
        visitor.auth["streams"]["u:7"]["epoch"],
    )
    assert bodies(read(visitor, "u:7", after=5)) == [(6, 6), (7, 7)]
    assert (bodies(past := read(visitor, "u:7", after=99)), past["head"]) == ([], 7)


def test_a_body_that_is_no_json_is_in_base64(house: Gatehouse) -> None:
    visitor = house.enter(Grant("7"))
    house.router.publish("u:7", body="no json")
    assert [(m["base64"], m["op"]) for m in read(visitor, "u:7")["messages"]] == [("bm8ganNvbg==", 5)]


def test_what_is_for_others_or_too_late_is_passed_over(house: Gatehouse) -> None:
    visitor, other = house.enter(Grant("7")), house.enter(Grant("7"))
    house.router.publish("u:7", body="1", only=(visitor.auth["key"],))
    house.router.publish("u:7", body="2", only=(other.auth["key"],))
    house.router.publish("u:7", body="3", expires_ms=1)
    assert (bodies(past := read(visitor, "u:7")), past["last"]) == ([(1, 1)], 3)
    assert bodies(read(other, "u:7")) == [(2, 2)]


def test_an_answer_is_no_larger_than_it_may_be(house: Gatehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "ANSWER_BYTES", 10)
    visitor = house.enter(Grant("7"))
    for body in ("12345", "12345", "123456789012345", "1"):
        house.router.publish("u:7", body=body)
    found, after = [], 0
    while (past := read(visitor, "u:7", after=after))["messages"]:
        found.append([offset for offset, _ in bodies(past)])
        after = past["last"]
    assert found == [[1, 2], [3], [4]]


def test_a_router_that_does_not_answer_is_said(house: Gatehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges, "ANSWER_S", 0.05)
    visitor = house.enter(Grant("7"))
    with monkeypatch.context() as silent:
        silent.setattr(house.router, "answer", lambda _: None)
        assert read(visitor, "u:7") == {"stream": "u:7", "error": TRY_AGAIN}
    assert not house.runner.hub.histories.asked
    assert read(visitor, "u:7")["messages"] == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"stream": ""},
        {"stream": 7},
        {"stream": "u:7", "limit": 0},
        {"stream": "u:7", "limit": 1001},
        {"stream": "u:7", "after": -1},
        {"stream": "u:7", "before": 3},
        [],
    ],
)
def test_what_is_no_question_about_history_closes(house: Gatehouse, body: Any) -> None:
    visitor = house.enter(Grant("7"))
    visitor.say_json(Op.HISTORY, body, 3)
    code, reason = visitor.farewell()
    assert code == Ending.REQUEST.zim_code
    assert reason.startswith("history: ")


def test_goims_clients_have_no_such_operation(house: Gatehouse) -> None:
    house.says = lambda _: Grant("7")
    visitor = house.come(b"first")
    visitor.take(Op.AUTH_REPLY)
    visitor.say(Op.HISTORY, b'{"stream":"u:7"}')
    visitor.wait_closed()
