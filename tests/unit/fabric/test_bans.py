"""Networks that are banned: how they are written, and whom they are about."""

from __future__ import annotations

import pytest

from zim.fabric.bans import Networks, parse_network


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("203.0.113.7", "203.0.113.7/32"),
        ("203.0.113.7/24", "203.0.113.0/24"),
        ("2001:db8::1/48", "2001:db8::/48"),
        ("::ffff:203.0.113.7", "203.0.113.7/32"),
        ("::ffff:203.0.113.7/120", "203.0.113.0/24"),
        ("::ffff:0:0/97", "0.0.0.0/1"),
    ],
)
def test_a_network_has_one_form(text: str, network: str) -> None:
    assert parse_network(text) == network
    banned = Networks()
    banned.add(network, "why")
    address = network.partition("/")[0]
    assert banned.reason(address) == "why"
    if ":" not in address:
        assert banned.reason(f"::ffff:{address}") == "why"


@pytest.mark.parametrize("text", ["0.0.0.0/0", "::/0", "10.0.0.0/0", "::ffff:0:0/96", "::ffff:10.0.0.0/96"])
def test_everybody_is_no_network(text: str) -> None:
    with pytest.raises(ValueError, match="is everybody"):
        parse_network(text)


@pytest.mark.parametrize("text", ["", "*", "10.0.0", "10.0.0.0/33", "host.example.com", "10.0.0.1:80", "1" * 500])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="right is 203"):
        parse_network(text)
