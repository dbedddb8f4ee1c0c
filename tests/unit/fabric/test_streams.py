"""Names of streams."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.fabric import streams
from zim.fabric.limits import NAME_BYTES, STREAM_BYTES
from zim.fabric.names import is_name
from zim.protocol.frame import VERSION, Packet, encode


@pytest.mark.parametrize("stream", ["*", "u:7", "r:1", "r:x y", "u:é", "r:r:1", "u:*", "u:" + "x" * 253, "r:a_b"])
def test_right_names(stream: str) -> None:
    assert streams.name_problem(stream) == ""


WRONG = ["", "u:", "r:", "r:*", "x:7", "U:7", "7", "**", "u:" + "x" * 254, "r:" + "é" * 127]
UNCLEAN = ["r:a\0b", "r:a\n", "u:\x7f", "u:\x85", "u:\ud800"]


@pytest.mark.parametrize("stream", [*WRONG, *UNCLEAN])
def test_wrong_names(stream: str) -> None:
    problem = streams.name_problem(stream)
    assert problem.endswith(f"is no stream; right is {streams.STREAM}")
    assert len(problem) < 300


ANY = st.text(st.characters(), max_size=300) | st.text("ur:*é\n\x85", max_size=5)


@given(ANY | ANY.map("u:{}".format) | ANY.map("r:{}".format))
def test_a_stream_is_everybody_or_a_user_or_a_room(stream: str) -> None:
    kind, name = stream[:2], stream[2:]
    is_right = stream == "*" or (kind in ("u:", "r:") and is_name(name) and stream != "r:*")
    assert streams.is_stream(stream) == is_right
    if is_right:
        assert len(stream.encode()) <= STREAM_BYTES
        encode(Packet(5, 0, VERSION, b"", stream, 1))
        assert re.search(streams.STREAM_PATTERN, stream)
    elif len(name) <= NAME_BYTES // 4 and not any("\ud800" <= c <= "\udfff" for c in stream):
        assert not re.fullmatch(streams.STREAM_PATTERN, stream)


@given(st.text("a_0123 é\n", max_size=12) | st.builds("{}_{}".format, ANY, st.integers(0, 10**20)))
def test_the_user_of_a_session_key(key: str) -> None:
    name, _, seq = key.rpartition("_")
    is_seq = seq.isdigit() and not seq.startswith("0") and len(seq) <= 19
    assert streams.user_of_key(key) == (name if is_seq and is_name(name) else "")
    if streams.user_of_key(key):
        assert re.search(streams.SESSION_KEY_PATTERN, key)


@given(ANY)
def test_everybody_is_no_room(name: str) -> None:
    assert streams.is_room(name) == (is_name(name) and name != "*") == streams.is_stream(f"r:{name}")


def test_rooms_and_users_have_streams() -> None:
    assert streams.user_stream("7") == "u:7"
    assert [streams.room_stream(room) for room in ("1", "*")] == ["r:1", "*"]
    assert [streams.room_of(stream) for stream in ("r:1", "*")] == ["1", "*"]
    assert [streams.is_user_stream(stream) for stream in ("u:7", "r:u:7", "*")] == [True, False, False]
