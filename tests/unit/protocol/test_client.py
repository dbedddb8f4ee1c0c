import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.protocol import client, frame
from zim.protocol.client import Content, Dialect, Encoded
from zim.protocol.errors import WireError
from zim.protocol.frame import Op, Packet

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def frames(data: bytes) -> list[bytes]:
    """The payloads of unmasked text frames."""
    found = []
    while data:
        assert data[0] == 0x81
        size, at = data[1], 2
        if size == 126:
            size, at = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, at = int.from_bytes(data[2:10], "big"), 10
        found.append(data[at : at + size])
        data = data[at + size :]
    return found


def pushes_in(stream: str, *bodies: bytes) -> list[Encoded]:
    """These bodies as the first pushes of a stream."""
    return [Encoded(Content(Op.PUSH, body), stream, n) for n, body in enumerate(bodies, 1)]


@given(st.binary(max_size=200))
def test_any_body_is_json_for_a_json_client(body: bytes) -> None:
    text = client.json_body(body).decode()
    value = json.loads(text)
    try:
        assert value == json.loads(body)
    except ValueError:
        assert value == ({} if not body else body.decode(errors="replace"))


@given(JSON)
def test_json_goes_through_as_it_was_written(value: object) -> None:
    for body in (json.dumps(value).encode(), json.dumps(value, ensure_ascii=False, indent=1).encode()):
        assert client.json_body(body) == body


@given(st.binary(max_size=100) | JSON.map(lambda v: json.dumps(v).encode()))
def test_any_text_is_a_packet_or_a_wire_error(text: bytes) -> None:
    try:
        packet = client.parse_text(text)
    except WireError:
        return
    assert -(1 << 31) <= packet.op < 1 << 31


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        ('{"ver":1,"op":7,"seq":2,"body":71002}', Packet(7, 2, 1, b"71002")),
        ('{"VER":1,"Op":7,"SEQ":2,"Body":"x"}', Packet(7, 2, 1, b'"x"')),
        ('{"op":2,"body":null}', Packet(2, 0, 0, b"null")),
        ('{"op":null}', Packet(0, 0, 0, b"")),
        ("null", Packet(0, 0, 0, b"")),
        (' {"op":2} {"op":3}', Packet(2, 0, 0, b"")),
        ('{"op":4,"body":{"a": [1 ,2]}}', Packet(4, 0, 0, b'{"a": [1 ,2]}')),
        ('{"op":4,"op":5}', Packet(5, 0, 0, b"")),
        ('{"op":4,"body":"\\ud800"}', Packet(4, 0, 0, b'"\\ud800"')),
    ],
)
def test_text_is_read_as_go_reads_it(text: str, packet: Packet) -> None:
    assert client.parse_text(text.encode()) == packet


@pytest.mark.parametrize(
    "text", ["", "[]", "7", '{"op":"2"}', '{"op":2.0}', '{"op":1e3}', '{"seq":2147483648}', '{"ver":32768}', "{"]
)
def test_text_that_goim_refuses(text: str) -> None:
    with pytest.raises(WireError):
        client.parse_text(text.encode())


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=5))
def test_a_join_is_all_pushes_in_order(bodies: list[bytes]) -> None:
    pushes = pushes_in("r:1", *bodies)
    packets, rest = frame.split(client.join(Dialect.V1_TCP, pushes), 1 << 20)
    assert [p.body for p in packets] == bodies
    assert rest == b""
    text = [p for f in frames(client.join(Dialect.V1_TEXT, pushes)) for p in json.loads(f)]
    assert [p["body"] for p in text] == [json.loads(client.json_body(body)) for body in bodies]
    assert {(p["ver"], p["op"], p["seq"]) for p in text} == {(0, 5, 0)}


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=5), st.text(min_size=1, max_size=50))
def test_zims_dialect_tells_the_place_of_each_push(bodies: list[bytes], stream: str) -> None:
    pushes = pushes_in(stream, *bodies)
    packets, rest = frame.split(client.join(Dialect.ZIM_TCP, pushes), 1 << 20, extended=True)
    assert packets == [Packet(5, 0, 3, body, stream, n) for n, body in enumerate(bodies, 1)]
    assert rest == b""
    text = [p for f in frames(client.join(Dialect.ZIM_TEXT, pushes)) for p in json.loads(f)]
    assert [(p["ver"], p["op"], p["seq"], p["stream"], p["offset"]) for p in text] == [
        (3, 5, 0, stream, n) for n in range(1, len(bodies) + 1)
    ]
    assert [p["body"] for p in text] == [json.loads(client.json_body(body)) for body in bodies]


@pytest.mark.parametrize("dialect", Dialect)
def test_one_push_alone_is_the_same_as_one_that_is_joined(dialect: Dialect) -> None:
    (push,) = pushes_in("u:7", b"{}")
    assert push.chunk(dialect) == client.join(dialect, [push])


def test_text_frames_are_cut_at_a_size() -> None:
    pushes = pushes_in("r:1", *[b'"' + b"x" * 30_000 + b'"'] * 7)
    sizes = [len(f) for f in frames(client.join(Dialect.V1_TEXT, pushes))]
    assert len(sizes) == 4
    assert max(sizes) < client.FRAME_BYTES + 100


@pytest.mark.parametrize("dialect", Dialect)
def test_a_push_is_encoded_once_per_dialect(dialect: Dialect) -> None:
    content = Content(5, b"{}")
    here, there = Encoded(content, "r:1", 1), Encoded(content, "r:2", 1)
    assert here.chunk(dialect) is here.chunk(dialect)
    assert (here.chunk(dialect) == there.chunk(dialect)) != dialect.is_zim


@pytest.mark.parametrize(
    ("first", "version", "spoken"),
    [
        (Dialect.V1_TCP, 1, Dialect.V1_TCP),
        (Dialect.V1_TCP, 3, Dialect.ZIM_TCP),
        (Dialect.V1_TEXT, 0, Dialect.V1_TEXT),
        (Dialect.V1_TEXT, 3, Dialect.ZIM_TEXT),
    ],
)
def test_the_version_of_the_auth_packet_decides(first: Dialect, version: int, spoken: Dialect) -> None:
    assert first.of_version(version) is spoken


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("op", [Op.AUTH, Op.PUSH, Op.JOIN, Op.LEAVE, Op.ACKNOWLEDGE, 77, -1])
def test_what_the_wire_alone_cannot_answer(dialect: Dialect, op: int) -> None:
    assert client.answer(dialect, Packet(op, 1, 3)) is None
