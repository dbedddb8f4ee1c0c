"""Addresses with TLS: their port may be left out."""

from __future__ import annotations

import pytest

from zim.client import Publisher
from zim.client.address import comet_address


@pytest.mark.parametrize(
    ("text", "host", "port", "path"),
    [
        ("wss://push.example.com", "push.example.com", 443, "/sub"),
        ("wss://push.example.com/", "push.example.com", 443, "/sub"),
        ("wss://push.example.com:8443/x?a=1", "push.example.com", 8443, "/x?a=1"),
        ("wss://[::1]", "::1", 443, "/sub"),
        ("wss://[::1]:8443/sub", "::1", 8443, "/sub"),
    ],
)
def test_the_address_of_a_comet_behind_a_proxy(text: str, host: str, port: int, path: str) -> None:
    address = comet_address(text)
    assert (address.host, address.port, address.path, address.is_tls) == (host, port, path, True)
    assert str(address) == text


def test_an_address_without_tls_is_not_encrypted() -> None:
    assert not comet_address("ws://127.0.0.1:8090").is_tls
    assert not comet_address("127.0.0.1:8080").is_tls


def test_the_url_of_a_logic_behind_a_proxy() -> None:
    assert Publisher("https://push.example.com").address == "push.example.com"
