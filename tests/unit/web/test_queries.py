"""Paths and query strings: what is read is what was written, and a Problem comes out of what cannot be."""

from __future__ import annotations

import contextlib
import json
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.fabric.names import is_name
from zim.json_text import as_json
from zim.net.http1 import one_spelling
from zim.web.problems import Problem
from zim.web.queries import HistoryQuery, ReceiptQuery, parse_name
from zim.web.reading import Reader

HISTORY_QUERY, RECEIPT_QUERY = Reader(HistoryQuery), Reader(ReceiptQuery)

NAME = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40)


def segment_of(part: str) -> str:
    """A segment as the server hands it on."""
    _, segment = one_spelling(f"/{part}".encode("latin-1")).split("/")
    return segment


@given(NAME)
def test_names_in_paths(name: str) -> None:
    assert parse_name("uid", segment_of(quote(name, safe=""))) == name


@given(NAME.filter(lambda name: name != "*"), st.sampled_from(["u:", "r:"]))
def test_streams_and_rooms_in_paths(name: str, kind: str) -> None:
    assert parse_name("stream", segment_of(quote(kind + name, safe=""))) == kind + name
    assert parse_name("room", segment_of(quote(name, safe=""))) == name


@given(st.text(st.characters(max_codepoint=0xFF, exclude_characters="/")) | st.text("ur:*%2Ff\n", max_size=6))
def test_anything_in_a_path(part: str) -> None:
    part = part.replace("/", "")
    with contextlib.suppress(Problem):
        assert is_name(parse_name("uid", segment_of(part)))
    with contextlib.suppress(Problem):
        stream = parse_name("stream", segment_of(part))
        assert stream == "*" or (stream[:2] in ("u:", "r:") and stream[2:] and stream != "r:*")
    with contextlib.suppress(Problem):
        assert parse_name("room", segment_of(part)) not in ("", "*")


@given(st.integers(0, (1 << 63) - 1), st.integers(1, 1_000))
def test_a_query(after: int, limit: int) -> None:
    query = HISTORY_QUERY.read_query(urlencode({"limit": limit, "after": after}))
    assert (query.after, query.limit) == (after, limit)


@given(st.floats(0, 30))
def test_a_wait(wait_s: float) -> None:
    assert RECEIPT_QUERY.read_query(urlencode({"wait_s": wait_s})).wait_s == wait_s


@given(
    st.lists(st.tuples(st.sampled_from(["after", "limit", "wait_s", "", "é"]), st.text() | st.integers().map(str))).map(
        urlencode
    )
    | st.text(st.characters(max_codepoint=0xFF))
    | st.text("after=limit&%+;0123456789.eE-_ \xff", max_size=30)
)
def test_any_query(query: str) -> None:
    with contextlib.suppress(Problem):
        read = HISTORY_QUERY.read_query(query)
        assert 0 <= read.after < 1 << 63
        assert 1 <= read.limit <= 1_000
    with contextlib.suppress(Problem):
        assert 0 <= RECEIPT_QUERY.read_query(query).wait_s <= 30


@pytest.mark.parametrize(
    "query", ["after=+1", "after=%2B1", "after=01", "after=1_0", "after=%D9%A7", "after=1;limit=2"]
)
def test_numbers_are_those_of_json(query: str) -> None:
    with pytest.raises(Problem, match="after"):
        HISTORY_QUERY.read_query(query)


@given(st.binary() | st.text().map(json.dumps).map(str.encode) | st.integers().map(str).map(str.encode))
def test_as_json(body: bytes) -> None:
    raw = as_json(body)
    if raw is None:
        with contextlib.suppress(ValueError):  # half a surrogate pair is JSON to Python
            assert isinstance(json.loads(body.decode(), parse_constant=lambda _: "\ud800"), str)
    else:
        assert json.loads(bytes(raw)) == json.loads(body)
