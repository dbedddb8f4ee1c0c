"""What tests say of the client wire: its four speeches by name, and packets cut from bytes."""

from __future__ import annotations

from zim.protocol.frame import Packet
from zim.protocol.framings.tcp import TCP, TcpReader
from zim.protocol.framings.text import TEXT
from zim.protocol.speech import speech
from zim.protocol.vocabularies.goim import GOIM
from zim.protocol.vocabularies.zim import ZIM

GOIM_TCP, GOIM_TEXT = speech(TCP, GOIM), speech(TEXT, GOIM)
ZIM_TCP, ZIM_TEXT = speech(TCP, ZIM), speech(TEXT, ZIM)


def packets_in(data: bytes, max_bytes: int = 1 << 26) -> list[Packet]:
    """Whole packets on TCP, those with the longer header too."""
    reader = TcpReader(max_bytes, extended=True)
    packets = list(reader.receive(data))
    assert not reader.is_within
    return packets
