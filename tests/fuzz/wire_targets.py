"""What clients, nodes and servers say in bytes: frames, packets, HTTP heads and bodies, messages between nodes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from ipaddress import ip_address
from typing import Any, get_args

import msgspec

from tests.fuzz.target import Target, parts, pieces
from zim.client.errors import ClientError
from zim.client.wire import TcpWire, Wire, decode_text, encode_text
from zim.client.ws import WsWire, check_response
from zim.fabric import questions as q
from zim.fabric.bans import Banned
from zim.fabric.questions import AnyQuestion, Question
from zim.json_text import as_json, is_json, is_too_deep
from zim.net.http1 import MAX_HEAD_BYTES, Bodies, BodyLimits, Requests, one_spelling
from zim.net.proxy import MAX_HEADER_BYTES, NotFromAProxy, parse_introduction, proxies
from zim.protocol import codec, messages
from zim.protocol.errors import CodecError, WireError
from zim.protocol.frame import Op, Packet
from zim.protocol.framings.tcp import TcpReader
from zim.protocol.framings.text import TextReader, encode_json, parse_text
from zim.protocol.vocabularies.goim import GOIM, is_zims
from zim.protocol.vocabularies.zim import ZIM
from zim.protocol.websocket import FrameReader

MOST_BYTES = 2_048  # of a packet or a message from a client

Take = Callable[[bytes], Iterable[Any]]


def _read(take: Take, cut: Sequence[bytes]) -> tuple[list[Any], type[Exception] | None, int]:
    """What comes out of a stream, and how it ends: with which error and which close code."""
    found: list[Any] = []
    try:
        for piece in cut:
            found.extend(take(piece))  # of a generator that fails, what came before is kept
    except (WireError, ClientError) as error:
        return found, type(error), getattr(error, "code", 0)
    return found, None, 0


def _same_however_cut(make: Callable[[], Take], data: bytes) -> list[Any]:
    cut = pieces(data)
    here, there = _read(make(), cut), _read(make(), [b"".join(cut)])
    assert here == there, "it depends on how it is cut"
    return here[0]


def _tcp(extended: bool, data: bytes) -> None:
    def make() -> Take:
        return TcpReader(MOST_BYTES, extended).receive

    for packet in _same_however_cut(make, data):
        assert len(packet.body) <= MOST_BYTES


def _introduction(data: bytes) -> None:
    found = parse_introduction(data)
    if found is not None:
        assert 0 < found.size <= min(len(data), MAX_HEADER_BYTES)
        assert parse_introduction(data[: found.size]) == found
        assert parse_introduction(data[: found.size - 1]) is None


_PROXIES = [proxies(["10.0.0.0/8", "2001:db8::/32"], header) for header in ("X-Forwarded-For", "Forwarded")]


def _from_proxies(data: bytes) -> None:
    said = data.decode("latin-1")
    for known, behind in zip(_PROXIES, (", x, 10.0.0.8", ", for=x, for=10.0.0.8"), strict=True):
        host, port = known.client(("10.0.0.7", 1), said)
        assert ip_address(host)
        assert 0 <= port < 65_536
        assert known.client(("10.0.0.7", 1), said + behind) == ("10.0.0.8", 0)  # whatever a client has put before
        assert known.client(("203.0.113.7", 1), said) == ("203.0.113.7", 1)


def _frames(is_server: bool, data: bytes) -> None:
    def make() -> Take:
        return FrameReader(MOST_BYTES, is_server).receive

    for said in _same_however_cut(make, data):
        assert len(said[0]) <= MOST_BYTES if isinstance(said[0], bytes) else said.code >= 0


def _text_frames(data: bytes) -> None:
    _same_however_cut(lambda: TextReader(MOST_BYTES).receive, data)


def _text_packet(data: bytes) -> None:
    packet = parse_text(data)
    assert packet.body in data or b"\\u" in data or not packet.body


def _login(data: bytes) -> None:
    ZIM.parse_login(data)


def _requests_of_clients(data: bytes) -> None:
    op = (*ZIM.requests, Op.HEARTBEAT, Op.UPSTREAM, Op.AUTH)[data[0] % 8] if data else 0
    ZIM.parse(Packet(op, 1, 3, data[1:]))


def _goim(data: bytes) -> None:
    assert GOIM.parse_login(data).token == data
    is_zims(data)


_TOLD = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "CONTENT_LENGTH")


def _http_ready(cut: Sequence[bytes], upgrades: bool) -> tuple[list[Any], int, bytes]:
    """The requests, why there is no other, and what came behind an upgrade."""
    bodies = Bodies()
    requests = Requests(bodies, BodyLimits(MOST_BYTES, {"/large": 2 * MOST_BYTES}), upgrades)
    rest = b""
    for piece in cut:
        if requests.refused:
            break
        if requests.rest or (upgrades and requests.ready):
            rest += piece
            continue
        requests.feed(piece)
        requests.must_continue()
    found = [[*(r.environ.get(key) for key in _TOLD), r.body.getvalue(), r.keeps_alive] for r in requests.ready]
    assert bodies.n_bytes <= sum(r.held_bytes for r in requests.ready) + 2 * MOST_BYTES
    status = requests.refused.status if requests.refused else 0
    rest = requests.rest + rest
    requests.close()
    assert bodies.n_bytes == 0, "a body is held for ever"
    assert status in (0, 400, 413, 414, 431, 501, 505)
    return found, status, rest


def _http(head: bytes, upgrades: bool, data: bytes) -> None:
    cut = pieces(data)
    whole = head + b"".join(cut)
    assert len(whole) < MAX_HEAD_BYTES  # above it cuts may differ in where they end
    here = _http_ready([head[:7], head[7:], *cut], upgrades)
    there = _http_ready([whole], upgrades)
    if upgrades and (here[0] or there[0]):
        assert here[0][:1] == there[0][:1], "it depends on how it is cut"
    else:
        assert here == there, "it depends on how it is cut"


_LINKS = (
    messages.ToRouter,
    messages.ToComet,
    messages.Entry,
    messages.ToJob,
    messages.ToAsker,
    messages.ToLogic,
    messages.FromPublisher,
    messages.FromLogic,
    messages.ToPublisher,
)


def _between_nodes(data: bytes) -> None:
    """The first byte says on which link."""
    found = codec.decode(data[1:], _LINKS[(data[0] if data else 0) % len(_LINKS)])
    again = codec.encode(found)
    assert codec.decode(again, _LINKS[data[0] % len(_LINKS)]) == found
    assert b"".join(codec.encode_cut(found, 64)) or not found


_QUESTIONS: tuple[Question[Any], ...] = (
    *(q.UserSessions("7"), q.UnreadCount("7"), q.OnlineCounts(), q.RoomCount("a"), q.LargestRooms(3)),
    *(q.PushReceipt("p"), q.WholeLedger(), q.ForgetComet("comet-1"), q.BanList(3), q.LiftBan(Banned("7"))),
    *(
        q.KickUser("7", "", 0, "", True),
        q.KickRoom("a", True, "", True),
        q.MoveUser("7", ("a",), ()),
        q.BanWho(Banned("7")),
    ),
)
assert set(map(type, _QUESTIONS)) == set(get_args(AnyQuestion))


def _answers(data: bytes) -> None:
    """What a router answers to a question, in msgpack; the first byte says to which."""
    question = _QUESTIONS[(data[0] if data else 0) % len(_QUESTIONS)]
    try:
        value = msgspec.msgpack.decode(data[1:])
    except (ValueError, RecursionError):
        return
    codec.decode_answer(messages.Answered(1, "router-1", value), question)


def _repl(data: bytes) -> None:
    found = codec.decode_plain(data)
    assert found is None or isinstance(found, dict)


def _json(data: bytes) -> None:
    """Whatever is JSON to zim is JSON to Python's own reader, too, and whatever a push has goes out as JSON."""
    is_right = is_json(data)
    assert is_right == (as_json(data) is not None)
    if is_right:
        assert not is_too_deep(data)
        json.loads(data, parse_int=str, parse_float=str)
    assert is_json(encode_json(data))


def _answer_to_upgrade(data: bytes) -> None:
    head, body = parts(data, 2)
    check_response(head, b"dGhlIHNhbXBsZSBub25jZQ==", body=body)


def _client(make: Callable[[], Wire], data: bytes) -> None:
    wire = make()
    for piece in pieces(data):
        wire.receive(piece)
        wire.replies()
        if wire.broken:
            assert isinstance(wire.broken, (WireError, ClientError))
            break


def _ws_wire() -> WsWire:
    wire = WsWire("127.0.0.1:8090", max_packet_bytes=MOST_BYTES)
    wire.is_open = True
    return wire


def _text_to_client(data: bytes) -> None:
    for packet in decode_text(data.decode()):
        encode_text(packet)


_HEAD = b"POST /large HTTP/1.1\r\nHost: x\r\n"

WIRE_TARGETS: dict[str, Target] = {
    "tcp packets": Target(partial(_tcp, False)),
    "tcp packets to clients": Target(partial(_tcp, True)),
    "websocket frames": Target(partial(_frames, True)),
    "websocket frames to clients": Target(partial(_frames, False)),
    "websocket packets": Target(_text_frames),
    "text packet": Target(_text_packet, (WireError,)),
    "zim login": Target(_login, (WireError,)),
    "zim requests": Target(_requests_of_clients, (WireError,)),
    "goim login": Target(_goim),
    "http heads": Target(partial(_http, b"", False)),
    "http upgrades": Target(partial(_http, b"", True)),
    "http chunks": Target(partial(_http, _HEAD + b"Transfer-Encoding: chunked\r\n\r\n", False)),
    "http paths": Target(one_spelling),
    "messages between nodes": Target(_between_nodes, (CodecError,)),
    "answers of routers": Target(_answers, (CodecError,)),
    "questions from a REPL": Target(_repl),
    "json": Target(_json),
    "introductions of proxies": Target(_introduction, (NotFromAProxy,)),
    "addresses from proxies": Target(_from_proxies),
    "client's answer to upgrade": Target(_answer_to_upgrade, (WireError, ClientError)),
    "client's tcp": Target(partial(_client, TcpWire)),
    "client's websocket": Target(partial(_client, _ws_wire)),
    "client's text": Target(_text_to_client, (WireError, UnicodeDecodeError)),
}
