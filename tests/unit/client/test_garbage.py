"""Whatever a server sends: the listener says that it is nonsense, comes back, and gets what there is."""

from __future__ import annotations

import base64
import hashlib
import json
import queue

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.client.listening import States, listen, running
from tests.unit.client.peers import WAIT_S, Connection, TcpPeer
from zim.client import Message
from zim.protocol import frame, websocket
from zim.protocol.frame import Packet

STREAMS = {"u:7": {"epoch": "e", "offset": 0, "recovered": True}}
LOGIN = Packet(8, 1, 3, json.dumps({"key": "7_1", "heartbeat_s": 300, "streams": STREAMS}).encode())
PUSH = Packet(5, 0, 3, b"1", "u:7", 1)
PACKETS = st.builds(
    lambda op, body, stream, offset: Packet(op, 1, 3, body, stream, offset),
    st.sampled_from([3, 5, 6, 8, 21, 23, 25, 26]),
    st.binary(max_size=20) | st.sampled_from([LOGIN.body, b"{}", b"null", b'{"streams":{}}']),
    st.sampled_from(["", "u:7", "r:x"]),
    st.integers(0, 3),
)
GARBAGE = st.lists(st.binary(max_size=60) | PACKETS.map(frame.encode), max_size=5).map(b"".join)


def text(packet: Packet) -> bytes:
    """A packet in a WebSocket frame."""
    fields = {"ver": 3, "op": packet.op, "seq": packet.seq, "body": json.loads(packet.body)}
    place = {"stream": packet.stream, "offset": packet.offset} if packet.stream else {}
    return websocket.encode_frame(websocket.TEXT, json.dumps([fields | place]).encode())


def shake_hands(peer: Connection) -> bytes:
    """Reads the request; gives the answer to it."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += peer.socket.recv(4096)
    key = head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    accept = base64.b64encode(digest)
    return b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"


@pytest.mark.parametrize("transport", ["tcp", "ws"])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(garbage=GARBAGE, place=st.sampled_from(["at once", "for the login", "after it"]))
def test_any_bytes_end_one_connection_at_most(transport: str, garbage: bytes, place: str) -> None:
    served: queue.Queue[int] = queue.Queue()

    def script(peer: Connection) -> None:
        is_bad = served.qsize() == 0
        served.put(peer.number)
        hands = shake_hands(peer) if transport == "ws" else b""
        login, push = (text(LOGIN), text(PUSH)) if transport == "ws" else (frame.encode(LOGIN), frame.encode(PUSH))
        if not is_bad:
            peer.socket.sendall(hands + login + push)
        elif place == "at once":
            peer.socket.sendall(garbage)
        elif place == "for the login":
            peer.socket.sendall(hands + garbage)
        else:
            peer.socket.sendall(hands + login + garbage)
        if not is_bad:
            peer.wait_closed()

    with TcpPeer(script) as peer:
        address = f"ws://{peer.address}" if transport == "ws" else peer.address
        states = States()
        with running(listen(address, states)) as found:
            while True:
                event = found.get(timeout=WAIT_S)
                assert event is not None
                if event == Message("u:7", 1, "e", 5, b"1"):
                    break
                if isinstance(event, Message) and event.stream == "u:7":
                    break  # the garbage was a message, by chance
    assert states.names[0] == "connecting"
