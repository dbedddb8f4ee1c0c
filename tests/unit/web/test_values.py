"""Go's way of reading numbers, queries and JSON."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.web.values import parse_int, parse_pushs, query_value

NEAR_NUMBERS = st.text("0123456789+-_ .eEx٣７\n\x00", max_size=25) | st.integers().map(str) | st.text()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
UID = st.integers(-(1 << 63), (1 << 63) - 1)
WHITE = st.text(" \t\r\n", max_size=3)


@given(NEAR_NUMBERS, st.sampled_from([32, 64]))
def test_parse_int_is_a_regex_and_a_range(text: str, bits: int) -> None:
    number = parse_int(text, bits)

    is_number = re.fullmatch(r"[+-]?[0-9]+", text) is not None and abs(int(text)) <= 1 << bits
    in_range = is_number and -(2 ** (bits - 1)) <= int(text) <= 2 ** (bits - 1) - 1
    assert number == (int(text) if in_range else None)


def test_parse_int_of_many_digits() -> None:
    assert parse_int("0" * 10_000 + "7", 32) == 7
    assert parse_int("7" * 10_000, 64) is None


@given(st.lists(st.tuples(st.sampled_from(["uid", "rid", "u&d", "", "é"]), st.text())))
def test_query_value_is_the_first(pairs: list[tuple[str, str]]) -> None:
    query = urlencode(pairs, encoding="latin-1", errors="replace")

    expected = parse_qs(query, keep_blank_values=True, encoding="latin-1").get("uid", [""])[0]
    assert query_value(query, "uid") == expected


@given(st.text(st.sampled_from("uid=&;%+37zé"), max_size=40))
def test_query_value_never_raises(query: str) -> None:
    query_value(query, "uid")


@pytest.mark.parametrize(
    ("query", "value"),
    [("uid=1;2", ""), ("uid=%3", ""), ("uid=%zz&uid=7", "7"), ("uid", ""), ("uid=a=b", "a=b"), ("uid=+1%2B", " 1+")],
)
def test_query_value_of_odd_queries(query: str, value: str) -> None:
    assert query_value(query, "uid") == value


@given(st.lists(UID | st.none()), JSON, WHITE, st.booleans(), st.booleans())
def test_parse_pushs_finds_uids_and_raw_message(
    uids: list[int | None], message: Any, white: str, has_escapes: bool, is_upper: bool
) -> None:
    raw = json.dumps(message, ensure_ascii=has_escapes, indent=2).encode("utf-8", "surrogatepass")
    u, m = ('"U"', '"M"') if is_upper else ('"u"', '"\\u006d"')
    document = (
        f"{white}{{{u}{white}:{json.dumps(uids)},{m}:{white}".encode() + raw + f'{white},"x":{{}}}}{white}'.encode()
    )

    assert parse_pushs(document) == ([uid or 0 for uid in uids], raw)


@given(JSON)
def test_parse_pushs_takes_only_lists_of_int64(value: Any) -> None:
    is_list = isinstance(value, list) and all(
        element is None or (type(element) is int and -(1 << 63) <= element < 1 << 63) for element in value
    )
    document = json.dumps({"u": value}).encode()

    if is_list or value is None:
        assert parse_pushs(document) == ([element or 0 for element in value or []], b"")
    else:
        with pytest.raises(ValueError, match=r".+"):
            parse_pushs(document)


@given(
    st.binary()
    | st.lists(st.sampled_from(list('{}[],:"um \\1-.entrlfaus\xff')), max_size=30).map("".join).map(str.encode)
)
def test_parse_pushs_takes_nothing_that_is_not_json(document: bytes) -> None:
    try:
        parse_pushs(document)
    except ValueError:
        return
    assert json.loads(document.decode("latin-1")) is None or isinstance(json.loads(document.decode("latin-1")), dict)


@pytest.mark.parametrize(
    "document",
    [
        *(
            b"",
            b"[]",
            b'"u"',
            b"7",
            b"nul",
            b'{"u":[1]',
            b'{"u":[1],}',
            b'{,"u":[1]}',
            b'{"u":[1]}x',
            b"{1:2}",
            b"{u:[1]}",
        ),
        *(
            b'{"m":NaN}',
            b'{"m":-Infinity}',
            b'{"a":1{"u":[1]}}',
            b'{"m":01}',
            b'{"m":"\x01"}',
            b"\xef\xbb\xbf{}",
            b"{} {}",
        ),
        *(b'{"u":[1.0]}', b'{"u":[1e2]}', b'{"u":["1"]}', b'{"u":[true]}', b'{"u":{}}', b'{"u":"1"}', b'{"u":[[1]]}'),
        b'{"u":[%s]}' % (b"9" * 5_000),
        b'{"m":%s}' % (b"[" * 100_000),
        b'{"u":["x"],"u":[1]}',
    ],
)
def test_parse_pushs_refuses(document: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_pushs(document)


@pytest.mark.parametrize(
    ("document", "uids", "body"),
    [
        (b" null\n", [], b""),
        (b"{}", [], b""),
        (b'{"u":[1],"U":[2],"m":1,"M":2}', [2], b"2"),
        (b'{"u":[1],"u":null}', [], b""),
        (b'{"m":%s}' % (b"9" * 5_000), [], b"9" * 5_000),
        (b'{"m":"\\ud800\xff"}', [], b'"\\ud800\xff"'),
        (b'{"u":[-0]}', [0], b""),
    ],
)
def test_parse_pushs_takes(document: bytes, uids: list[int], body: bytes) -> None:
    assert parse_pushs(document) == (uids, body)
