"""Which addresses of other comets a client is told."""

from __future__ import annotations

import pytest

from tests.wires import GOIM_TCP, ZIM_TCP
from zim.nodes.comet.elsewhere import Elsewhere, reached
from zim.protocol.framings.text import TEXT
from zim.protocol.speech import Speech, speech
from zim.protocol.vocabularies.base import Onward
from zim.topology import Comet, ListenAddress
from zim.topology.nodes import CertificatePair


class Leaver:
    def __init__(self, speech_: Speech, host: str) -> None:
        self.speech, self.host = speech_, host


def at(address: str, **keys: object) -> ListenAddress:
    return ListenAddress(address, **keys)  # type: ignore[arg-type]


TLS = (CertificatePair("c.pem", "k.pem"),)


@pytest.mark.parametrize(
    ("listener", "is_tcp", "here", "beyond"),
    [
        (at("127.0.0.1:80"), True, "127.0.0.1:80", ""),
        (at("127.0.0.1:80"), False, "ws://127.0.0.1:80/sub", ""),
        (at("[::1]:80"), True, "[::1]:80", ""),
        (at("0.0.0.0:80", insecure=True), True, "", ""),
        (at("10.0.0.7:80", insecure=True), True, "", ""),  # nobody knows what stands in between
        (at("127.0.0.1:80", tls=TLS), True, "", ""),  # no certificate is for that name
        (at("127.0.0.1:80", proxies=("10.0.0.0/8",)), True, "", ""),
        (at("0.0.0.0:80", public="p.example:80"), True, "p.example:80", "p.example:80"),
        (at("127.0.0.1:80", public="wss://p.example/push"), False, "wss://p.example/push", "wss://p.example/push"),
        (at("127.0.0.1:80", public="wss://p.example"), False, "wss://p.example/sub", "wss://p.example/sub"),
    ],
)
def test_what_of_a_listener_is_named(listener: ListenAddress, is_tcp: bool, here: str, beyond: str) -> None:
    assert (reached(listener, is_tcp, True), reached(listener, is_tcp, False)) == (here, beyond)


def test_each_client_is_told_addresses_of_its_own_transport() -> None:
    comet = Comet(2, at("tcp://127.0.0.1:1"), tcp=(at("127.0.0.1:2"),), ws=(at("127.0.0.1:3"), at("127.0.0.1:4")))
    found = Elsewhere()
    found.follow([comet])
    assert found.onward(Leaver(ZIM_TCP, "127.0.0.1"), "comet-2", 0.1) == Onward(0.1, ("127.0.0.1:2",))
    both = ("ws://127.0.0.1:3/sub", "ws://127.0.0.1:4/sub")
    assert found.onward(Leaver(speech(TEXT), "127.0.0.1"), "comet-2", 0.0) == Onward(0.0, both)
    assert found.onward(Leaver(GOIM_TCP, "10.0.0.1"), "comet-2", 0.0) == Onward()
    assert found.onward(Leaver(GOIM_TCP, "127.0.0.1"), "comet-9", 0.2) == Onward(0.2)
