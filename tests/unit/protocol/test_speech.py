"""What a connection speaks: chosen by its listener and by its first packet."""

import pytest

from tests.wires import GOIM_TCP, GOIM_TEXT, ZIM_TCP, ZIM_TEXT
from zim.protocol.endings import Ending
from zim.protocol.errors import WireError
from zim.protocol.frame import Op, Packet
from zim.protocol.speech import FRAMINGS, SPEECHES, VOCABULARIES, Speech, speech
from zim.protocol.vocabularies.base import Missed, Vocabulary


@pytest.mark.parametrize(
    ("first", "version", "spoken"),
    [
        (GOIM_TCP, 1, GOIM_TCP),
        (GOIM_TCP, -1, GOIM_TCP),
        (GOIM_TCP, 4, GOIM_TCP),
        (GOIM_TCP, 3, ZIM_TCP),
        (GOIM_TEXT, 0, GOIM_TEXT),
        (GOIM_TEXT, 3, ZIM_TEXT),
    ],
)
def test_the_version_of_the_auth_packet_decides(first: Speech, version: int, spoken: Speech) -> None:
    assert first.of_version(version) is spoken


def test_there_is_one_speech_of_each_pair_and_its_number_is_its_place() -> None:
    assert [s.number for s in SPEECHES] == list(range(len(FRAMINGS) * len(VOCABULARIES)))
    assert [speech(s.framing, s.vocabulary) for s in SPEECHES] == list(SPEECHES)


@pytest.mark.parametrize("vocabulary", VOCABULARIES, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("op", [Op.AUTH, Op.PUSH, Op.GAP, 77, -1])
def test_what_no_client_may_say(vocabulary: Vocabulary, op: int) -> None:
    with pytest.raises(WireError, match="operation not known"):
        vocabulary.parse(Packet(op, 1, 3))


@pytest.mark.parametrize("vocabulary", VOCABULARIES, ids=lambda v: type(v).__name__)
def test_what_every_vocabulary_answers_alone(vocabulary: Vocabulary) -> None:
    assert vocabulary.parse(Packet(Op.HEARTBEAT, 4, 1, b"x")) == Packet(Op.HEARTBEAT_REPLY, 4, 1)
    assert vocabulary.parse(Packet(Op.UPSTREAM, 5, 1, b"x")) == Packet(Op.PUSH, 5, 1, b"x")
    assert vocabulary.parse(Packet(Op.TEST, 6, 1)) == Packet(Op.TEST_REPLY, 6, 1, b'{"test":"come on"}')


def test_goims_clients_can_neither_ask_for_streams_nor_be_told_of_them() -> None:
    goim = GOIM_TCP.vocabulary
    for op in (Op.JOIN, Op.LEAVE, Op.ACKNOWLEDGE):
        with pytest.raises(WireError, match="operation not known"):
            goim.parse(Packet(op, 1, 1, b'{"rooms":[]}'))
    assert goim.encode_missed(Missed("r:1", "e", 1, 2, "trimmed")) is None
    assert goim.encode_joined(1, []) is goim.encode_left(1, []) is goim.encode_acknowledged(1, "u:7", 1) is None
    assert goim.encode_farewell("bye", Ending.SLOW) is None
    assert goim.encode_opened(Packet(Op.AUTH, 9, 1), "7_1", 300, [], None) == Packet(Op.AUTH_REPLY, 9, 1)
    assert goim.parse_login(b"7").token == b"7"
