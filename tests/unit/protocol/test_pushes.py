"""Pushes as they go out, in every speech: once, in order, and with their place where the vocabulary tells it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wires import GOIM_TCP, GOIM_TEXT, ZIM_TCP, ZIM_TEXT, packets_in
from zim.protocol.frame import Op, Packet
from zim.protocol.framings.text import FRAME_BYTES, encode_json
from zim.protocol.pushes import Content, Encoded, join
from zim.protocol.speech import SPEECHES, Speech
from zim.protocol.websocket import FrameReader, Text


def texts(data: bytes) -> list[bytes]:
    """The bodies of a server's text frames."""
    found = list(FrameReader(1 << 26, is_server=False).receive(data))
    assert all(isinstance(text, Text) for text in found)
    return [text.body for text in found if isinstance(text, Text)]


def pushes_in(stream: str, *bodies: bytes) -> list[Encoded]:
    """These bodies as the first pushes of a stream."""
    return [Encoded(Content(Op.PUSH, body), stream, n) for n, body in enumerate(bodies, 1)]


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=5))
def test_a_join_is_all_pushes_in_order(bodies: list[bytes]) -> None:
    pushes = pushes_in("r:1", *bodies)
    assert [p.body for p in packets_in(join(GOIM_TCP, pushes))] == bodies
    text = [p for f in texts(join(GOIM_TEXT, pushes)) for p in json.loads(f)]
    assert [p["body"] for p in text] == [json.loads(encode_json(body)) for body in bodies]
    assert {(p["ver"], p["op"], p["seq"]) for p in text} == {(0, 5, 0)}


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=5), st.text(min_size=1, max_size=50))
def test_zims_vocabulary_tells_the_place_of_each_push(bodies: list[bytes], stream: str) -> None:
    pushes = pushes_in(stream, *bodies)
    assert packets_in(join(ZIM_TCP, pushes)) == [Packet(5, 0, 3, body, stream, n) for n, body in enumerate(bodies, 1)]
    text = [p for f in texts(join(ZIM_TEXT, pushes)) for p in json.loads(f)]
    assert [(p["ver"], p["op"], p["seq"], p["stream"], p["offset"]) for p in text] == [
        (3, 5, 0, stream, n) for n in range(1, len(bodies) + 1)
    ]
    assert [p["body"] for p in text] == [json.loads(encode_json(body)) for body in bodies]


@pytest.mark.parametrize("speech", SPEECHES, ids=str)
def test_one_push_alone_is_the_same_as_one_that_is_joined(speech: Speech) -> None:
    (push,) = pushes_in("u:7", b"{}")
    assert push.chunk(speech) == join(speech, [push])


def test_text_frames_are_cut_at_a_size() -> None:
    pushes = pushes_in("r:1", *[b'"' + b"x" * 30_000 + b'"'] * 7)
    sizes = [len(f) for f in texts(join(GOIM_TEXT, pushes))]
    assert len(sizes) == 4
    assert max(sizes) < FRAME_BYTES + 100


@pytest.mark.parametrize("speech", SPEECHES, ids=str)
def test_a_push_is_encoded_once_per_speech(speech: Speech) -> None:
    content = Content(5, b"{}")
    here, there = Encoded(content, "r:1", 1), Encoded(content, "r:2", 1)
    assert here.chunk(speech) is here.chunk(speech)
    assert (here.chunk(speech) == there.chunk(speech)) != speech.vocabulary.tells_places
