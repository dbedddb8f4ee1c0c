"""Bytes to requests: what a request says, and what is refused."""

from __future__ import annotations

from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.garbage import circles
from zim.net.http1 import (
    MAX_BODIES_BYTES,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    Bodies,
    BodyLimits,
    Request,
    Requests,
    one_spelling,
)

NAME = st.text("abcXYZ019-!~", min_size=1, max_size=8)
VALUE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, blacklist_categories=["Cc"]), max_size=12)
OFFER = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAE\r\n"


def feed(data: bytes, size: int = 1 << 20) -> Requests:
    requests = Requests(Bodies(), BodyLimits(1_000))
    for begin in range(0, len(data), size):
        requests.feed(data[begin : begin + size])
    return requests


def only(*lines: str) -> Request:
    [request] = feed("".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")).ready
    return request


UPGRADE = b"GET /sub HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX: %b\r\n\r\n"


@given(st.integers(0, 3), st.binary(max_size=300), st.data())
def test_an_upgrade_ends_where_its_head_does_however_it_is_cut(size: int, rest: bytes, data: st.DataObject) -> None:
    sent = UPGRADE % (b"y" * size * 12_000) + rest
    at = data.draw(st.integers(1, len(sent)))
    requests = Requests(Bodies(), BodyLimits(0), upgrades=True)
    taken = b""
    for piece in (sent[:at], sent[at:]):
        if requests.ready:
            taken += piece  # whoever reads on has them
        elif not requests.refused:
            requests.feed(piece)
    if size == 3:
        assert requests.refused is not None
        assert (requests.refused.status, len(requests.ready)) == (431, 0)
    else:
        assert requests.rest + taken == rest


@given(st.integers(1, 45_000), st.integers(1, 45_000))
def test_a_head_has_one_limit_however_it_is_cut(size: int, at: int) -> None:
    sent = b"GET / HTTP/1.1\r\nHost: x\r\nX: %b\r\n\r\n" % (b"y" * size)
    requests = Requests(Bodies(), BodyLimits(0))
    for piece in (sent[:at], sent[at:]):
        if not requests.refused:
            requests.feed(piece)
    is_large = len("/HostxX" + "y" * size) + 8 > MAX_HEAD_BYTES
    assert ([requests.refused.status] if requests.refused else []) == ([431] if is_large else [])


def test_some_paths_take_more() -> None:
    for path, n_bytes, is_taken in (("/", 1_000, True), ("/", 1_001, False), ("/l%61rge?x", 1_001, True)):
        requests = Requests(Bodies(), BodyLimits(1_000, {"/large": 2_000}))
        requests.feed(f"POST {path} HTTP/1.1\r\nHost: zim\r\nContent-Length: {n_bytes}\r\n\r\n".encode())
        assert (requests.refused is None) == is_taken
        assert requests.environ["PATH_INFO"] == path.replace("%61", "a").removesuffix("?x")


@given(st.lists(st.tuples(NAME, VALUE), max_size=8))
def test_headers_come_through(pairs: list[tuple[str, str]]) -> None:
    environ = only("GET / HTTP/1.1", "Host: zim", *(f"X{name}:\t {value} " for name, value in pairs)).environ

    expected: dict[str, list[str]] = {"HTTP_HOST": ["zim"]}
    for name, value in pairs:
        expected.setdefault(f"HTTP_X{name}".upper().replace("-", "_"), []).append(value)
    headers = {key: value for key, value in environ.items() if key.startswith("HTTP_")}
    assert headers == {key: ",".join(values) for key, values in expected.items()}


def test_all_of_it() -> None:
    environ = only("POST /1/pu%73h?a=b%20c?d HTTP/1.1", "Host: zim", "Content-Type: x", "X_Y: dropped").environ

    assert environ.pop("wsgi.input").read() == b""
    assert environ == {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/1/push",
        "QUERY_STRING": "a=b%20c?d",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "zim",
        "CONTENT_TYPE": "x",
        "CONTENT_LENGTH": "0",
        "wsgi.input_terminated": True,
    }


@pytest.mark.parametrize(
    ("version", "connection", "keeps_alive"),
    [
        ("HTTP/1.1", "X", True),
        ("HTTP/1.1", "Close", False),
        ("HTTP/1.1", "Upgrade, close", False),
        ("HTTP/1.0", "X", False),
        ("HTTP/1.0", "Keep-Alive", True),
    ],
)
def test_keep_alive(version: str, connection: str, keeps_alive: bool) -> None:
    assert only(f"GET / {version}", "Host: zim", f"Connection: {connection}").keeps_alive is keeps_alive


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    "framing", ["Content-Length: 3\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]
)
def test_an_offer_to_upgrade_is_ignored(framing: str, size: int) -> None:
    push = f"POST / HTTP/1.1\r\nHost: x\r\n{OFFER}{framing}".encode()
    get = f"GET /next HTTP/1.1\r\nHost: x\r\n{OFFER}\r\n".encode()

    requests = feed((push + get) * 3, size)

    assert requests.refused is None
    assert requests.is_between
    said = [(request.environ["PATH_INFO"], request.environ["wsgi.input"].read()) for request in requests.ready]
    assert said == [("/", b"abc"), ("/next", b"")] * 3


def test_a_trailer_is_no_header() -> None:
    chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: y\r\n\r\n"

    for request in feed(chunked * 2).ready:
        assert "HTTP_X_TRAILER" not in request.environ


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["GET / HTTP/1.1"], 400),  # no Host
        (["GET / HTTP/1.1 ", "Host: x"], 400),
        (["G\x00T / HTTP/1.1", "Host: x"], 400),
        (["WHATEVER / HTTP/1.1", "Host: x"], 400),
        (["GET /\x7f HTTP/1.1", "Host: x"], 400),
        (["GET 1/count HTTP/1.1", "Host: x"], 400),
        (["CONNECT x:1 HTTP/1.1", "Host: x"], 400),
        (["GET / HTTP/2.0", "Host: x"], 505),
        (["GET / HTTP/x.1", "Host: x"], 400),
        (["GET / HTTP/1.1", "Host: x", " folded: y"], 400),
        (["GET / HTTP/1.1", "Host : x"], 400),
        (["GET / HTTP/1.1", "Host: x", "nocolon"], 400),
        (["GET / HTTP/1.1", "Host: x", "A: \x00"], 400),
        (["GET / HTTP/1.1", "Host: x", "A: b\rc"], 400),
        (["GET / HTTP/1.1", "Host: x", *["A: b"] * MAX_HEADERS], 431),
        *(
            (["POST / HTTP/1.1", "Host: x", f"Content-Length: {n}"], 400)
            for n in ("-1", "+1", "x", "", "1_0", "1 1", "²", "9" * 30)
        ),
        (["POST / HTTP/1.1", "Host: x", "Content-Length: 1", "Content-Length: 1"], 400),
        (["POST / HTTP/1.1", "Host: x", "Content-Length: 1", "Transfer-Encoding: chunked"], 400),
        (["POST / HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", "Content-Length: 1"], 400),
        (["POST / HTTP/1.0", "Host: x", "Transfer-Encoding: chunked"], 400),
        (["POST / HTTP/1.1", "Host: x", "Transfer-Encoding: gzip, chunked"], 501),
    ],
)
def test_refuses(lines: list[str], status: int) -> None:
    requests = feed("".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1"))

    assert not requests.ready
    assert requests.refused
    assert requests.refused.status == status


def test_absolute_form() -> None:
    environ = only("GET http://zim:7172/1/count?type=room HTTP/1.1", "Host: zim").environ
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == ("/1/count", "type=room")


@pytest.mark.parametrize(
    ("path", "spelled"),
    [
        ("/1/pu%73h", "/1/push"),
        ("/api/streams/r%3Aa%2fb", "/api/streams/r:a%2Fb"),
        ("/a%2Fb/%252F/%25", "/a%2Fb/%252F/%25"),
        ("/%c3%a9/%FF/%0a/%", "/%C3%A9/%FF/%0A/%25"),
        ("/a|b%zz//..", "/a%7Cb%25zz//.."),
        ("/", "/"),
    ],
)
def test_a_path_has_one_spelling(path: str, spelled: str) -> None:
    assert only(f"GET {path} HTTP/1.1", "Host: zim").environ["PATH_INFO"] == spelled


@given(st.lists(st.binary(max_size=8), max_size=4), st.data())
def test_spelling_a_path_changes_no_segment(segments: list[bytes], data: st.DataObject) -> None:
    is_quoted = data.draw(st.lists(st.booleans(), min_size=len(segments), max_size=len(segments)))
    parts = [
        quote(s, safe="").encode() if q else b"%%%02X" * len(s) % (*s,)
        for s, q in zip(segments, is_quoted, strict=True)
    ]
    spelled = one_spelling(b"/" + b"/".join(parts))
    assert [unquote_to_bytes(part) for part in spelled[1:].split("/")] == (segments or [b""])
    assert one_spelling(spelled.encode()) == spelled


@pytest.mark.parametrize("limit", [100_000, 1_000_000])
def test_a_refused_body_is_not_kept(limit: int) -> None:
    """It is too large for its path, or for all bodies together."""
    bodies = Bodies()
    bodies.n_bytes = MAX_BODIES_BYTES - 500_000
    with circles() as left:
        requests = Requests(bodies, BodyLimits(limit))
        requests.feed(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(10):
            if not requests.refused:
                requests.feed(b"ea60\r\n%b\r\n" % (b"x" * 60_000))
        assert requests.refused is not None
        status = requests.refused.status
        requests.close()
        del requests
    assert status == (413 if limit == 100_000 else 503)
    assert left == []
    assert bodies.n_bytes == MAX_BODIES_BYTES - 500_000


@pytest.mark.parametrize("chunks", ["0\r\n\r\n", "5\r\n12345\r\n0\r\n\r\n", "zz", ""])
def test_an_upgrade_has_no_body(chunks: str) -> None:
    """Its chunks came out as the first bytes of the other protocol."""
    head = UPGRADE % b"y"
    requests = Requests(Bodies(), BodyLimits(0), upgrades=True)
    requests.feed(head[:-2] + b"Transfer-Encoding: chunked\r\n\r\n" + chunks.encode())
    assert (requests.rest, list(requests.ready)) == (b"", [])
    assert requests.refused
    assert requests.refused.status == 413
    assert requests.environ["PATH_INFO"] == "/sub"
