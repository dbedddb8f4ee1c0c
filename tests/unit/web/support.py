"""A fabric that records, and a raw HTTP client."""

from __future__ import annotations

import http.client
import json
import socket
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import gevent
from gevent.event import Event

from zim.errors import Unavailable, ZimError
from zim.fabric.answers import (
    Counts,
    Forgotten,
    InRoom,
    KeptBan,
    KeptBans,
    KeptMessage,
    Ledger,
    Lifted,
    Located,
    Piece,
    Place,
    Reached,
    Receipt,
    RoomSize,
    RoomSizes,
    Unread,
)
from zim.fabric.bans import Banned
from zim.fabric.port import Fabric
from zim.fabric.principals import Forbidden, Principal
from zim.fabric.push import Part, Published, Push, Status
from zim.fabric.questions import (
    BanList,
    BanWho,
    ForgetComet,
    LargestRooms,
    LiftBan,
    OnlineCounts,
    PushReceipt,
    Question,
    RoomCount,
    UnreadCount,
    UserSessions,
    WholeLedger,
)
from zim.fabric.tally import Tally, sum_accounts
from zim.web.app import create_app, request_limits
from zim.web.server import HttpServer

MAX_BODY_BYTES = 1_000


ROUTERS = ("router-1", "router-2")
EPOCH = "e1"


A = TypeVar("A")


def receipt(push_id: str, tally: Tally, offline: int = 0, hops_ms: dict[str, float] | None = None) -> Receipt:
    """What a fabric of one router says of a push that it knows."""
    return Receipt.of(push_id, tally, offline, {"kept": 0.5} if hops_ms is None else hops_ms, [])


class Recorder(Fabric):
    """A fabric in memory with two routers: keeps streams and keys as the real one does, and fails as it is told to.

    Attributes:
        pushes: all that it was asked to publish, repeats too.
        streams: what is kept.
        fates: what a router makes of pushes, other than keeping them; "unknown" does not keep them either.
        receipts: what it says of a push, other than that each stream was a session that got it.
        ids: the ids of pushes by their keys, and the first push with each.
        silent: routers that do not answer for receipts.
        places: sessions, by their users.
        orders: kicks and moves that it was asked for; banned: bans that are in force.
    """

    def __init__(self) -> None:
        self.pushes: list[Push] = []
        self.streams: dict[str, list[KeptMessage]] = {}
        self.acknowledged: dict[str, int] = {}
        self.fates: dict[str, Status] = {}
        self.receipts: dict[str, Receipt] = {}
        self.silent: list[str] = []
        self.places: dict[str, list[Place]] = {}
        self.waited_s: list[float] = []
        self.forgotten: list[str] = []
        self.orders: list[Question[Any]] = []
        self.banned: dict[Banned, KeptBan] = {}
        self.away: ZimError = Unavailable("router-1", "no answer")  # what it raises if it is away
        self.known = Counts({}, {}, 0)
        self.is_away = False
        self.error: BaseException | None = None
        self.entered = Event()  # set when a publish begins
        self.may_publish = Event()  # what a publish waits for
        self.may_publish.set()
        self.ids: dict[str, tuple[str, Push]] = {}
        self._offsets: dict[tuple[str, str], int] = {}  # by push id and stream
        self._n_ids = 0
        self._n_left: int | None = None

    @property
    def published(self) -> list[tuple[list[str], bytes]]:
        """All that it was asked to publish: streams and body."""
        return [(list(push.streams), push.body) for push in self.pushes]

    def fail(self, status: Status) -> None:
        """All routers, from now on."""
        self.fates = dict.fromkeys(ROUTERS, status)

    def fail_after(self, n_pushes: int) -> None:
        """With a defect."""
        self._n_left = n_pushes

    def publish(self, push: Push, who: Principal) -> Published:
        if self._n_left == 0:
            raise ValueError("a defect")
        for stream in push.streams:
            try:
                who.require("push", (stream,))
            except Forbidden:
                return Published("", "forbidden", forbidden=stream)
        self._n_left = None if self._n_left is None else self._n_left - 1
        self.entered.set()
        self.may_publish.wait()
        if self.error is not None:
            raise self.error
        self.pushes.append(push)
        push_id, first = self.ids.get(push.key, ("", push)) if push.key else ("", push)
        if not push_id:
            self._n_ids += 1
            push_id = f"push-{self._n_ids}"
            self.ids[push.key] = push_id, push
        is_conflict = push != first
        parts = []
        for router in ROUTERS:
            streams = [stream for stream in push.streams if router_of(stream) == router]
            status = "conflict" if is_conflict else self.fates.get(router, "ok")
            offsets = [self._append(push_id, push, stream) for stream in streams] if status == "ok" else []
            if streams:
                places: dict[str, int | None] = dict.fromkeys(streams)
                places.update(zip(streams, offsets, strict=False))
                parts.append(Part(router, status, places, "" if status == "ok" else "as told"))
        statuses = {part.status for part in parts}
        status = statuses.pop() if len(statuses) == 1 else "unknown"
        if status == "ok" and push_id not in self.receipts:
            n = len(push.streams)
            self.receipts[push_id] = receipt(push_id, Tally(targeted=n, delivered=n))
        return Published(push_id, status, parts, retry_after_s=3)

    def publish_many(self, pushes: Sequence[Push], who: Principal) -> Sequence[Published]:
        return [self.publish(push, who) for push in pushes]

    def ask(self, question: Question[A], who: Principal) -> A:
        who.require(question.scope, question.about())
        if not question.names_silent:
            self._check()
        answer: object
        match question:
            case OnlineCounts():
                answer = self.known
            case ForgetComet(comet):
                self.forgotten.append(comet)
                answer = Forgotten(0)
            case UserSessions(uid):
                places = self.places.get(uid, [])
                answer = Located(uid, bool(places), places, 0)
            case RoomCount(room):
                users = [uid for places in self.places.items() for uid in self._in_room(room, *places)]
                answer = InRoom(room, len(users), len(set(users)))
            case LargestRooms(limit):
                rooms = Counter(room for places in self.places.values() for place in places for room in place.rooms)
                answer = RoomSizes([RoomSize(*size) for size in rooms.most_common(limit)])
            case UnreadCount(uid):
                head, acknowledged = len(self.streams.get(f"u:{uid}", [])), self.acknowledged.get(uid, 0)
                answer = Unread(f"u:{uid}", EPOCH, head, acknowledged, head - acknowledged)
            case PushReceipt(push_id):
                found = self.receipts.get(push_id)
                answer = question.merge({} if found is None else {"router-1": found}, self.silent)
            case WholeLedger():
                answer = Ledger.of(len(self.receipts), sum_accounts(self.receipts.values()), self.silent)
            case _:
                answer = self._order(question)
        return cast(A, answer)

    def _order(self, question: Question[Any]) -> object:
        """What is done with people."""
        match question:
            case BanWho(banned):
                self.banned.pop(banned, None)
                whom = banned.user, banned.device, banned.network
                left_s = question.for_s or None
                ban = self.banned[banned] = KeptBan(1_700_000_000_000, *whom, question.reason, question.by, left_s)
                return ban
            case LiftBan(banned):
                return Lifted(self.banned.pop(banned, None) is not None)
            case BanList(limit):
                return KeptBans(list(self.banned.values())[::-1][:limit], len(self.banned))
        self.orders.append(question)
        return Reached(1)

    def history(self, stream: str, after: int, limit: int, who: Principal) -> Piece:
        who.require("read", (stream,))
        self._check()
        kept = self.streams.get(stream, [])
        head = kept[-1].offset if kept else 0
        messages = [message for message in kept if message.offset > after][:limit]
        return Piece(stream, EPOCH, kept[0].offset if kept else head + 1, head, messages)

    def receipt(
        self, push_id: str, who: Principal, wait_s: float = 0.0, is_gone: Callable[[], bool] = lambda: False
    ) -> Receipt:
        self.waited_s.append(wait_s)
        return self.ask(PushReceipt(push_id), who)

    def _append(self, push_id: str, push: Push, stream: str) -> int:
        kept = self.streams.setdefault(stream, [])
        offset = self._offsets.setdefault((push_id, stream), len(kept) + 1)
        if offset > len(kept):
            kept.append(KeptMessage(offset, 1_700_000_000_000 + offset, push.op, push.body))
        return offset

    def _in_room(self, room: str, uid: str, places: list[Place]) -> list[str]:
        """The user, once for each session that is in the room."""
        return [uid for place in places if room in place.rooms]

    def _check(self) -> None:
        if self.is_away:
            raise self.away


def router_of(stream: str) -> str:
    """The router that owns a stream."""
    return ROUTERS[zlib.crc32(stream.encode()) % len(ROUTERS)]


@contextmanager
def serving(
    fabric: Recorder, timeout_s: float = 10.0, max_body_bytes: int = MAX_BODY_BYTES, idle_s: float = 10.0
) -> Iterator[HttpServer]:
    """The app on a free port."""
    app, limits = create_app(fabric, max_body_bytes), request_limits(max_body_bytes)
    server = HttpServer(app, ("127.0.0.1", 0), timeout_s, limits, idle_s=idle_s)
    server.start()
    try:
        yield server
    finally:
        fabric.may_publish.set()
        server.stop(5)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A socket to the server that says what it is told to."""

    def __init__(self, server: HttpServer) -> None:
        assert isinstance(server.address, tuple)
        self.socket = socket.create_connection(("127.0.0.1", server.address[1]), timeout=20)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, method: str = "GET") -> Answer:
        """The next answer."""
        response = http.client.HTTPResponse(self.socket, method=method)
        with response:
            response.begin()
            body = response.read()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)

    def rest(self) -> bytes:
        """Everything until the server ends the connection."""
        data = b""
        while piece := self.socket.recv(65_536):
            data += piece
        return data


def ask(server: HttpServer, method: str, path: str, body: bytes = b"", headers: str = "") -> Answer:
    """One request on a connection of its own."""
    with Client(server) as client:
        head = f"{method} {path} HTTP/1.1\r\nHost: zim\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        client.send(head.encode() + body)
        return client.receive(method)


def wait_until(is_so: Callable[[], bool], timeout_s: float = 20.0) -> None:
    with gevent.Timeout(timeout_s):
        while not is_so():
            gevent.sleep(0.005)
