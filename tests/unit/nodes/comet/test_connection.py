"""One client's socket, a real one: what is written, what waits, what becomes of it, and how it ends."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator

import gevent
import pytest
from gevent import socket

from tests.tls_proxy import Signer
from tests.wires import GOIM_TCP, GOIM_TEXT, ZIM_TCP, packets_in
from zim.net.certificates import CertificateFiles, load_certificates
from zim.net.pipe import Pipe, SocketPipe
from zim.net.tls import TlsPipe
from zim.nodes.comet.connection import ClientLimits, Connection
from zim.nodes.comet.edge import Edge
from zim.nodes.comet.effects import CursorMoved, Gapped, Joined, SessionEffect
from zim.nodes.comet.results import Reports, Row
from zim.nodes.comet.runner import CometRunner
from zim.nodes.placement import Placement
from zim.protocol import frame
from zim.protocol.endings import Ending
from zim.protocol.frame import Op, Packet
from zim.protocol.framings.text import TEXT, TEXT_OBJECTS
from zim.protocol.speech import SPEECHES, Speech
from zim.protocol.vocabularies.base import Cursors, Join, Missed, Start
from zim.protocol.vocabularies.zim import ZIM

BIG = frame.encode(Packet(Op.PUSH, 0, 0, bytes(1 << 20)))
GAP = Missed("r:1", "e", 3, 5, "trimmed")


class Ends:
    """A connection and its client.

    Attributes:
        ended: what its owner was told, in order.
        reports: of its rows.
    """

    def __init__(
        self,
        speech: Speech = GOIM_TCP,
        drops_oldest: bool = False,
        outbox_bytes: int = 3 << 20,
        tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
    ) -> None:
        """Tls: the server's, the client's."""
        ours, self.client = socket.socketpair()
        self.client.settimeout(10)
        pipe: Pipe = SocketPipe(ours)
        if tls is not None:
            pipe = TlsPipe(SocketPipe(ours), tls[0])
            shaking = gevent.spawn(tls[1].wrap_socket, self.client, server_hostname="localhost")
            while not pipe.handshake():
                gevent.sleep(0.001)
            self.client = shaking.get()
        self.ended: list[str] = []
        self.reports = Reports({"delivered": 0, "gone": 0, "shed": 0, "expired": 0})
        limits = ClientLimits(65536, 5.0, 300.0, outbox_bytes, drops_oldest)
        self.connection = Connection(1, speech, pipe, "203.0.113.7:4000", limits, self)

    def on_closed(self, connection: Connection) -> None:
        self.ended.append("closed")

    def release(self) -> None:
        self.ended.append("released")

    def row(self) -> Row:
        return Row(self.reports, 1)

    def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        found = b""
        while len(found) < size:
            data = self.client.recv(size - len(found))
            assert data
            found += data
        return found

    def read_all(self) -> list[Packet]:
        """All packets until the end."""
        found = b""
        while data := self.client.recv(1 << 16):
            found += data
        return packets_in(found)


Make = Callable[..., Ends]


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    folder = tmp_path_factory.mktemp("tls")
    signer = Signer(folder)
    shown = load_certificates([CertificateFiles(*signer.sign("localhost", folder))])
    return shown.context, ssl.create_default_context(cafile=signer.file)


@pytest.fixture(params=["plain", "tls"])
def make(request: pytest.FixtureRequest, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Iterator[Make]:
    made: list[Ends] = []
    tls = contexts if request.param == "tls" else None

    def one(speech: Speech = GOIM_TCP, drops_oldest: bool = False, outbox_bytes: int = 3 << 20) -> Ends:
        made.append(Ends(speech, drops_oldest, outbox_bytes, tls))
        return made[-1]

    yield one
    for pair in made:
        pair.connection.drop("the test is over")
        pair.client.close()


@pytest.fixture
def pair(make: Make) -> Ends:
    return make()


def outcome(row: Row) -> str:
    """Of a row of one session."""
    counts = {"delivered": row.delivered, "gone": row.gone, "shed": row.shed}
    assert sum(counts.values()) <= 1
    return next((name for name, count in counts.items() if count), "pending")


def test_what_the_kernel_takes_is_delivered_at_once(pair: Ends) -> None:
    row = pair.row()
    assert pair.connection.write(b"hello", [row])
    assert pair.read(5) == b"hello"
    assert outcome(row) == "pending"  # whoever writes counts it


def test_a_backlog_goes_out_in_order_and_is_delivered_then(pair: Ends) -> None:
    rows = [pair.row() for _ in range(3)]
    for n, row in enumerate(rows):
        assert not pair.connection.write(BIG + bytes([n]), [row])
    assert [outcome(row) for row in rows] == ["pending"] * 3
    assert pair.connection.waiting_bytes > 0
    for n in range(3):
        assert pair.read(len(BIG) + 1) == BIG + bytes([n])
    while pair.connection.waiting_bytes:
        gevent.sleep(0)
    assert [outcome(row) for row in rows] == ["delivered"] * 3
    assert pair.connection.write(b"next", [pair.row()])


def test_a_slow_consumer_is_closed_and_what_waited_is_shed(make: Make) -> None:
    pair = make(ZIM_TCP, outbox_bytes=3 << 20)
    rows = [pair.row() for _ in range(6)]
    for row in rows:
        pair.connection.write(BIG, [row])
    assert pair.ended == ["closed"]
    assert [outcome(row) for row in rows[1:]] == ["shed"] * 3 + ["gone"] * 2  # these came after the end
    packets = pair.read_all()
    assert [p.op for p in packets] == [Op.PUSH, Op.DISCONNECT]
    assert json.loads(packets[-1].body) == {"reason": "slow consumer", "code": 4202}
    assert outcome(rows[0]) == "delivered"


def test_by_policy_the_oldest_go(make: Make) -> None:
    pair = make(drops_oldest=True)
    rows = [pair.row() for _ in range(6)]
    for row in rows:
        pair.connection.write(BIG, [row])
    assert pair.ended == []
    for _ in range(3):
        pair.read(len(BIG))
    while pair.connection.waiting_bytes:
        gevent.sleep(0)
    assert [outcome(row) for row in rows] == ["delivered", "shed", "shed", "shed", "delivered", "delivered"]


def test_a_client_that_resets_loses_what_waits(pair: Ends) -> None:
    rows = [pair.row() for _ in range(3)]
    for row in rows:
        pair.connection.write(BIG, [row])
    pair.client.close()
    while "released" not in pair.ended:
        gevent.sleep(0)
    assert pair.ended == ["closed", "released"]
    assert [outcome(row) for row in rows] == ["gone"] * 3
    late = pair.row()
    assert not pair.connection.write(b"late", [late])
    assert outcome(late) == "gone"


@pytest.mark.parametrize("speech", SPEECHES, ids=str)
def test_a_reason_is_told_in_the_clients_own_words(make: Make, speech: Speech) -> None:
    pair = make(speech)
    pair.connection.close(Ending.SLOW, "why not")
    pair.connection.close(Ending.SILENT)
    told = b""
    while data := pair.client.recv(100):
        told += data
    assert (b"why not" in told) == (speech is not GOIM_TCP)
    is_zim = speech.vocabulary is ZIM
    assert (b'{"reason":"why not","code":4202}' in told) == is_zim
    code = Ending.SLOW.zim_code if is_zim else Ending.SLOW.code
    assert (code.to_bytes(2, "big") in told) == (speech.framing in (TEXT, TEXT_OBJECTS))
    assert pair.ended[0] == "closed"
    assert pair.connection.reason == "why not"
    pair.connection.drop("over")
    assert pair.ended.count("closed") == 1


def perform(effect: SessionEffect) -> None:
    """As the edge does it, which knows nothing of the connection's comet for that."""
    runner = CometRunner("comet-1", 1, Placement("comet-1", ["router-1"], ["router-1"]), ["logic-1"], 1, 5.0)
    Edge(runner, lambda effects: None, ClientLimits(65536, 5.0, 300.0, 1, False), 1).perform(effect)


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_gap_is_told_to_zims_clients(make: Make, is_kept: bool) -> None:
    pair = make(ZIM_TCP)
    perform(Gapped(pair.connection, GAP, is_kept))
    pair.connection.close(Ending.GOING_AWAY)
    gap, _ = pair.read_all()
    assert (gap.op, gap.seq, gap.version, gap.stream) == (Op.GAP, 0, 3, "")
    assert json.loads(gap.body) == {"stream": "r:1", "epoch": "e", "from": 3, "to": 5, "reason": "trimmed"}


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_goim_client_is_closed_at_a_gap_if_the_stream_is_kept(make: Make, is_kept: bool) -> None:
    pair = make(GOIM_TEXT)
    perform(Gapped(pair.connection, GAP, is_kept))
    assert pair.connection.phase.is_over == is_kept
    if is_kept:
        assert Ending.MISSING.code.to_bytes(2, "big") in pair.client.recv(100)
        assert pair.connection.reason == "messages of r:1 are missing: trimmed"


def test_who_waits_for_an_answer_is_woken_by_that_answer_alone(make: Make) -> None:
    pair = make(ZIM_TCP)
    answered = pair.connection.await_reply(Packet(Op.ACKNOWLEDGE, 9, 3), Cursors)
    perform(Joined(pair.connection, 0, [Start("r:1", "e", 4)]))  # of a room that it asked for long ago
    assert not answered.is_set()
    perform(CursorMoved(pair.connection, "u:7", 2))
    assert answered.is_set()
    pair.connection.close(Ending.GOING_AWAY)
    assert [(p.op, p.seq) for p in pair.read_all()] == [(Op.JOINED, 0), (Op.ACKNOWLEDGED, 9), (Op.DISCONNECT, 0)]


def test_who_waits_for_an_answer_is_woken_by_the_end(make: Make) -> None:
    pair = make(ZIM_TCP)
    answered = pair.connection.await_reply(Packet(Op.JOIN, 9, 3), Join)
    pair.connection.drop("over")
    assert answered.is_set()


def fill(pair: Ends, until: float = 0.0) -> list[bytes]:
    """Writes packets of some kB until the first of them does not go out whole, and then two more; returns all."""
    written: list[bytes] = []
    while len(written) < 3 or not pair.connection.is_full:
        assert len(written) < 2_000
        written.append(frame.encode(Packet(Op.PUSH, len(written), 0, b"x" * 9_000)))
        pair.connection.write(written[-1], (), until)
    written += [frame.encode(Packet(Op.PUSH, 9_999, 0, b"y"))] * 2
    for chunk in written[-2:]:
        pair.connection.write(chunk, (), until)
    return written


def test_what_is_begun_goes_out_before_the_last_words(make: Make) -> None:
    """In TLS it may be encrypted, and not a byte of it sent: another chunk in its place would break the stream."""
    pair = make(ZIM_TCP)
    written = fill(pair)
    pair.connection.close(Ending.KICKED)
    packets = pair.read_all()
    assert [p.seq for p in packets[:-1]] == list(range(len(written) - 2))[: len(packets) - 1]
    assert len(packets) >= len(written) - 2
    assert packets[-1].op == Op.DISCONNECT


def test_what_is_begun_goes_out_though_its_time_is_over(make: Make) -> None:
    pair = make(ZIM_TCP)
    written = fill(pair, until=time.monotonic() + 0.05)
    gevent.sleep(0.1)
    pair.connection.write(frame.encode(Packet(Op.PUSH, 5_555, 0, b"z")))
    seqs: list[int] = []
    found = b""
    while 5_555 not in seqs:
        found += pair.client.recv(1 << 16)
        seqs = [p.seq for p in packets_in(found)] if found.endswith(b"z") else []
    assert seqs[:-1] == list(range(len(seqs) - 1))
    assert len(written) - 3 <= len(seqs) - 1 <= len(written) - 2
