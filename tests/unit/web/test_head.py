"""The head of a request, bytes to values."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.web.head import MAX_HEADERS, BadRequest, Head, parse_head

NAME = st.text("abcXYZ019-!~", min_size=1, max_size=8)
VALUE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, blacklist_categories=["Cc"]), max_size=12)


def head(*lines: str) -> Head:
    return parse_head([f"{line}\r\n".encode("latin-1") for line in lines])


@given(st.lists(st.binary(max_size=40) | st.just(b"GET / HTTP/1.1\r\n") | st.just(b"Host: x\r\n"), max_size=6))
def test_anything_is_a_head_or_refused(lines: list[bytes]) -> None:
    with contextlib.suppress(BadRequest):
        parsed = parse_head(lines)
        assert parsed.content_length is None or parsed.content_length >= 0


@given(st.lists(st.tuples(NAME, VALUE), max_size=8))
def test_headers_come_through(pairs: list[tuple[str, str]]) -> None:
    parsed = head("GET / HTTP/1.1", "Host: zim", *(f"X{name}:\t {value} " for name, value in pairs))

    expected: dict[str, list[str]] = {"HOST": ["zim"]}
    for name, value in pairs:
        expected.setdefault(f"X{name}".upper().replace("-", "_"), []).append(value)
    assert parsed.headers == {key: ",".join(values) for key, values in expected.items()}


def test_all_of_it() -> None:
    parsed = head(
        "POST /1/pu%73h?a=b?c HTTP/1.1", "Host: zim", "Content-Length: 5", "Expect: 100-Continue", "X_Y: dropped"
    )

    assert parsed == Head(
        method="POST",
        path="/1/pu%73h",
        query="a=b?c",
        version="HTTP/1.1",
        headers={"HOST": "zim", "CONTENT_LENGTH": "5", "EXPECT": "100-Continue"},
        content_length=5,
        is_chunked=False,
        keeps_alive=True,
        expects_continue=True,
    )


@pytest.mark.parametrize(
    ("version", "connection", "keeps_alive"),
    [
        ("HTTP/1.1", "", True),
        ("HTTP/1.1", "Close", False),
        ("HTTP/1.1", "Upgrade, close", False),
        ("HTTP/1.0", "", False),
        ("HTTP/1.0", "Keep-Alive", True),
        ("HTTP/1.9", "", True),
    ],
)
def test_keep_alive(version: str, connection: str, keeps_alive: bool) -> None:
    assert head(f"GET / {version}", "Host: zim", f"Connection: {connection}").keeps_alive is keeps_alive


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([], 400),
        (["GET / HTTP/1.1"], 400),  # no Host
        (["GET /"], 400),
        (["GET  / HTTP/1.1", "Host: x"], 400),
        (["GET / HTTP/1.1 ", "Host: x"], 400),
        (["G\x00T / HTTP/1.1", "Host: x"], 400),
        (["GET /\x7f HTTP/1.1", "Host: x"], 400),
        (["GET 1/count HTTP/1.1", "Host: x"], 400),
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
        (["POST / HTTP/1.1", "Host: x", "Content-Length: 1", "Content-Length: 2"], 400),
        (["POST / HTTP/1.1", "Host: x", "Content-Length: 1", "Transfer-Encoding: chunked"], 400),
        (["POST / HTTP/1.0", "Host: x", "Transfer-Encoding: chunked"], 400),
        (["POST / HTTP/1.1", "Host: x", "Transfer-Encoding: gzip, chunked"], 501),
    ],
)
def test_refuses(lines: list[str], status: int) -> None:
    with pytest.raises(BadRequest) as refused:
        head(*lines)
    assert refused.value.status == status


def test_repeated_equal_lengths_are_one() -> None:
    assert head("POST / HTTP/1.1", "Host: x", "Content-Length: 7", "Content-Length: 7").content_length == 7


def test_absolute_form() -> None:
    parsed = head("GET http://zim:7172/1/count?type=room HTTP/1.1", "Host: zim")
    assert (parsed.path, parsed.query) == ("/1/count", "type=room")
