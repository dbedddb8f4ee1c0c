"""How a message becomes a line of output."""

from __future__ import annotations

import base64
import json
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zim.cli.lines import body_line, json_line, placed_line, visible, visible_line
from zim.client import Message

BODIES = (
    st.binary()
    | st.text().map(str.encode)
    | st.recursive(
        st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda value: json.dumps(value, indent=1).encode())
)


def message(body: bytes, stream: str = "u:7") -> Message:
    return Message(stream, 3, "e", 5, body)


def read(body: bytes) -> dict[str, Any]:
    """The fields of a body's line that are about the body."""
    found = json.loads(json_line(message(body), "now"))
    return {key: value for key, value in found.items() if key in ("body", "base64")}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"a":[1]}', {"body": {"a": [1]}}),
        (b"text", {"body": "text"}),
        (b"NaN", {"body": "NaN"}),
        (b"", {"body": ""}),
        (b"[" * 100_000, {"body": "[" * 100_000}),
        (b"\x1b[2J", {"body": "\x1b[2J"}),
        (b"\xff\x00", {"base64": "/wA="}),
    ],
)
def test_json_has_the_body_or_its_bytes(body: bytes, field: dict[str, Any]) -> None:
    assert read(body) == field


def test_json_has_all_that_is_known_of_a_message() -> None:
    found = json.loads(json_line(message(b"1", "r:\x9b"), "now"))
    assert found == {"op": 5, "body": 1, "received_at": "now", "stream": "r:\x9b", "offset": 3}
    assert json.loads(json_line(message(b"1", ""), "now")) == {"op": 5, "body": 1, "received_at": "now"}


@pytest.mark.parametrize("body", [b"1e400", b"1.0e0", b'{"a":1,"a":2}', b'"\\ud83d"', b"9" * 5000])
def test_json_stays_as_it_is_written(body: bytes) -> None:
    assert b'"body": ' + body + b"," in json_line(message(body), "now")


@given(BODIES)
@example(b'"\xc2\x9b\x7f"')
@example(b"[1,\n\t2]")
def test_a_line_of_json_is_one_line_without_control_characters_and_loses_nothing(body: bytes) -> None:
    line = json_line(message(body), "now").decode()
    assert not [character for character in line if unicodedata.category(character) == "Cc"]
    found = read(body)
    if "base64" in found:
        assert base64.b64decode(found["base64"]) == body
    else:
        text = body.decode()
        assert found["body"] == text or found["body"] == json.loads(text)


@given(BODIES)
@example(b"\x1b]0;title\x07 \xc2\x9b \x9b \x7f")
def test_a_terminal_gets_no_control_characters(body: bytes) -> None:
    for line in (body_line(message(body)), placed_line(message(body, "r:\x1b"))):
        text = visible_line(line).decode()
        assert not [character for character in text if unicodedata.category(character) == "Cc"]


def test_what_is_escaped_can_be_told() -> None:
    assert visible("a\n\r\t\x1b[2J\x9b\x7fé☃") == r"a\n\r\t\x1b[2J\x9b\x7fé☃"
    assert visible_line(b"\xff\x9b") == rb"\xff\x9b"
    assert body_line(message(b"\x1b")) == b"\x1b"
    assert placed_line(message(b"\x1b")) == b"u:7 3 \x1b"
