"""Names of streams."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.fabric import streams
from zim.protocol.frame import MAX_STREAM_BYTES, VERSION, Packet, encode


@pytest.mark.parametrize("stream", ["*", "u:7", "r:1", "r:x y", "u:é", "r:r:1", "u:*", "u:" + "x" * 253, "r:a_b"])
def test_right_names(stream: str) -> None:
    assert streams.name_problem(stream) == ""


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        ("", "is no stream"),
        ("u:", "is no stream"),
        ("r:", "is no stream"),
        ("r:*", "is no stream"),
        ("x:7", "is no stream"),
        ("U:7", "is no stream"),
        ("7", "is no stream"),
        ("**", "is no stream"),
        ("u:" + "x" * 254, "has 256 bytes"),
        ("r:" + "é" * 127, "has 256 bytes"),
        ("r:a\0b", "control characters"),
        ("r:a\n", "control characters"),
        ("u:\x7f", "control characters"),
        ("u:\ud800", "is not UTF-8"),
    ],
)
def test_wrong_names(stream: str, says: str) -> None:
    assert says in streams.name_problem(stream)


@given(st.text(st.characters(), max_size=300) | st.text(st.characters(), max_size=300).map(lambda s: "r:" + s))
def test_a_right_name_fits_into_a_packet(stream: str) -> None:
    if not streams.name_problem(stream):
        assert len(stream.encode()) <= MAX_STREAM_BYTES
        encode(Packet(5, 0, VERSION, b"", stream, 1))


def test_rooms_and_users_have_streams() -> None:
    assert streams.user_stream("7") == "u:7"
    assert [streams.room_stream(room) for room in ("1", "*")] == ["r:1", "*"]
    assert [streams.room_of(stream) for stream in ("r:1", "*")] == ["1", "*"]
    assert [streams.is_user_stream(stream) for stream in ("u:7", "r:u:7", "*")] == [True, False, False]
