"""The Autobahn testsuite's cases, against a comet, with TLS too, and, so that the table is right, against `websockets`.

A comet takes text frames alone, and messages up to `max_packet_bytes`. So what the suite expects of binary messages is
1003 here, and of larger ones 1009. Of pings that come at once it answers the last one, as RFC 6455 5.5.3 allows.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from typing import Any

import gevent
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from tests.harness import running
from tests.integration.autobahn import Answer, Comet, Peer, connect, cut, run
from tests.integration.autobahn_cases import BINARY, CASES, CLOSE, FRAME_WISE, NORMAL, PONG, WHOLE, Case
from tests.tls_proxy import Signer
from zim.protocol import websocket
from zim.protocol.errors import WireError
from zim.protocol.framings.text import TextReader

MAX_PACKET = (4 << 20) + 64  # the cases with 4 MiB are taken, those with 8 and 16 are not
BY_SECTION: dict[str, list[Case]] = {}
for _case in CASES:
    BY_SECTION.setdefault(_case.number.rpartition(".")[0], []).append(_case)


@pytest.fixture(scope="module", params=["plain", "tls"])
def comet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comet]:
    folder = tmp_path_factory.mktemp("autobahn")
    signer = Signer(folder)
    signer.sign("localhost", folder)
    tls = ssl.create_default_context(cafile=signer.file)
    listeners = {"ws": {"tls": {"certificate": "localhost.crt", "key": "localhost.key"}}}
    sizes = {"max_packet_bytes": MAX_PACKET, "outbox_bytes": 16 << 20}
    is_plain = request.param == "plain"
    with running(folder, listeners={} if is_plain else listeners, comet=sizes) as fabric:
        wrap = connect if is_plain else lambda address: tls.wrap_socket(connect(address), server_hostname="localhost")
        yield Comet(fabric.ws["comet-1"], wrap)
        assert "Traceback" not in fabric.log


@pytest.fixture(scope="module")
def other() -> Iterator[Peer]:
    def echo(client: ServerConnection) -> None:
        try:
            for message in client:
                client.send(message)
        except ConnectionClosed:
            pass

    with serve(echo, "127.0.0.1", 0, max_size=MAX_PACKET, compression=None, close_timeout=1) as server:
        greenlet = gevent.spawn(server.serve_forever)
        host, port = server.socket.getsockname()
        yield Peer(f"{host}:{port}")
        server.shutdown()
        greenlet.join(5)


def expected_of_a_comet(case: Case) -> tuple[list[tuple[int, bytes]], tuple[int, ...]]:
    """What comes of it where only text is spoken, and messages have a limit."""
    if any(len(payload) + 64 > MAX_PACKET for _, payload in case.echoes):
        return [], (websocket.TOO_LARGE,)
    if any(opcode == BINARY for opcode, _ in case.echoes):
        return [], (websocket.UNSUPPORTED,)
    return list(case.echoes), case.code


def judge(case: Case, answer: Answer, said: list[tuple[int, bytes]], codes: tuple[int, ...]) -> None:
    assert answer.code in codes, f"{case.number}: {answer.code}, right is {codes}"
    told = [(opcode, body[:60]) for opcode, body in answer.said[:12]]
    assert without_pongs(answer.said) == without_pongs(said), f"{case.number}: {told}"
    found, wanted = pongs(answer.said), pongs(said)
    assert found[-1:] == wanted[-1:], f"{case.number}: {told}"
    assert is_within(found, wanted), f"{case.number}: {told}"


def pongs(said: Sequence[tuple[int, bytes]]) -> list[bytes]:
    return [body for opcode, body in said if opcode == PONG]


def without_pongs(said: Sequence[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    return [one for one in said if one[0] != PONG]


def is_within(some: Sequence[bytes], more: Sequence[bytes]) -> bool:
    """They are there in this order, with others between them."""
    rest = iter(more)
    return all(one in rest for one in some)


def test_the_table_has_the_suites_cases() -> None:
    numbers = [case.number for case in CASES]
    assert len(set(numbers)) == len(numbers) == 301
    assert {number.partition(".")[0] for number in numbers} == {"1", "2", "3", "4", "5", "6", "7", "9", "10"}


@pytest.mark.parametrize("section", BY_SECTION)
def test_a_comet(comet: Comet, section: str) -> None:
    for case in BY_SECTION[section]:
        judge(case, run(case, comet), *expected_of_a_comet(case))


# `websockets` takes a close within a message as a mistake, and answers a close without a code with one like it.
DISSENTS = {"7.1.5": websocket.PROTOCOL_ERROR, "7.3.1": 0}


@pytest.mark.parametrize("section", [section for section in BY_SECTION if not section.startswith("9")])
def test_a_second_opinion(other: Peer, section: str) -> None:
    """What the table expects. Another server may close before it has answered what came before the mistake."""
    for case in BY_SECTION[section]:
        answer = run(case, other)
        codes = (DISSENTS[case.number],) if case.number in DISSENTS else case.code
        assert answer.code in codes, f"{case.number}: {answer.code}, right is {codes}"
        is_prefix = answer.said == list(case.echoes)[: len(answer.said)]
        assert is_prefix if case.code != (NORMAL,) or case.number == "7.1.6" else answer.said == list(case.echoes), case


SMALL = [case for case in CASES if sum(map(len, Comet("").encode(case.frames))) < 2_000]


@pytest.mark.parametrize("chop", [WHOLE, FRAME_WISE, 1, 2, 7])
def test_a_comet_hears_the_same_however_it_is_cut(comet: Comet, chop: int) -> None:
    for case in SMALL:
        pieces = cut(comet.encode(case.frames), chop)
        judge(case, run(case, comet, pieces), *expected_of_a_comet(case))


def read(pieces: list[bytes]) -> tuple[list[Any], str]:
    reader, said = TextReader(MAX_PACKET), list[Any]()
    try:
        for piece in pieces:
            said.extend(reader.receive(piece))  # with what came before an error
    except WireError as error:
        return said, f"{error} {error.code}"
    return said, ""


def test_its_reader_hears_the_same_if_it_is_cut_anywhere() -> None:
    comet, cuts = Comet(""), 0
    for case in SMALL:
        data = b"".join(comet.encode(case.frames))
        whole = read([data])
        for at in range(1, len(data)):
            cuts += 1
            assert read([data[:at], data[at:]]) == whole, f"{case.number} at {at}"
    assert cuts > 10_000


def test_every_close_code(comet: Comet) -> None:
    """Beyond 7.7 and 7.9: each number of two bytes that is near a border, and what comes back."""
    right = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
    for code in (*range(4), *range(996, 1024), 1999, 2000, 2998, *range(2999, 3003), *range(4998, 5002), 65535):
        case = Case(str(code), [CASES[0].frames[0]._replace(opcode=CLOSE, payload=code.to_bytes(2, "big"))], [])
        assert run(case, comet).code == (code if code in right else websocket.PROTOCOL_ERROR)
