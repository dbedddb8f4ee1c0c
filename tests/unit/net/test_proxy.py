"""For whom a proxy speaks: the PROXY protocol byte by byte, and the rows of addresses in HTTP's headers."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.net.proxy import MAX_HEADER_BYTES, Introduction, NotFromAProxy, Proxies, parse_introduction, proxies

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
BEHIND = b"GET /sub HTTP/1.1\r\n"


def v2(command: int, family: int, rest: bytes) -> bytes:
    return SIGNATURE + bytes([0x20 | command, family]) + len(rest).to_bytes(2) + rest


V4 = bytes([203, 0, 113, 7, 192, 0, 2, 1]) + (4711).to_bytes(2) + (443).to_bytes(2)
V6 = ip_address("2001:db8::7").packed + ip_address("2001:db8::1").packed + (4711).to_bytes(2) + (443).to_bytes(2)

RIGHT = [
    (b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n", ("203.0.113.7", 4711)),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n", ("2001:db8::7", 4711)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    (v2(1, 0x11, V4), ("203.0.113.7", 4711)),
    (v2(1, 0x21, V6), ("2001:db8::7", 4711)),
    (v2(1, 0x11, V4 + b"\x04\x00\x03abc"), ("203.0.113.7", 4711)),  # behind the addresses: what else it knows
    (v2(0, 0x00, b""), None),  # LOCAL: it looks whether we live
    (v2(1, 0x31, bytes(216)), None),  # of a Unix socket
    (v2(1, 0x00, b""), None),
]


@pytest.mark.parametrize(("header", "client"), RIGHT)
def test_an_introduction_is_taken_byte_by_byte(header: bytes, client: object) -> None:
    """And nothing of what follows it is."""
    for end in range(len(header)):
        assert parse_introduction(header[:end]) is None
    for behind in (b"", b"\x16", BEHIND):
        assert parse_introduction(header + behind) == Introduction(client, len(header))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data",
    [
        BEHIND,
        b"\x16\x03\x01",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4711\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443 1\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 70000 443\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 4711 443\r\n",
        b"PROXY TCP4 203.0.113.999 192.0.2.1 4711 443\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\n\r\n",
        b"PROXY UDP4 203.0.113.7 192.0.2.1 4711 443\r\n",
        b"PROXY  TCP4 203.0.113.7 192.0.2.1 4711 443\r\n",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY " + b"x" * 107,
        SIGNATURE + b"\x11\x11\x00\x00",
        SIGNATURE + b"\x2f\x11\x00\x00",
        v2(1, 0x11, V4[:-1]),
        v2(1, 0x11, bytes(MAX_HEADER_BYTES)),
    ],
)
def test_what_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(NotFromAProxy):
        parse_introduction(data)


@given(
    st.one_of(
        st.binary(max_size=300),
        st.sampled_from([h for h, _ in RIGHT]).flatmap(
            lambda h: st.builds(
                lambda at, byte: h[:at] + bytes([byte]) + h[at + 1 :], st.integers(0, len(h) - 1), st.integers(0, 255)
            )
        ),
    )
)
def test_anything_is_refused_or_taken_and_never_waited_for_without_end(data: bytes) -> None:
    with suppress(NotFromAProxy):
        found = parse_introduction(data + bytes(MAX_HEADER_BYTES))
        assert found is not None
        assert 0 < found.size <= len(data) + MAX_HEADER_BYTES


PEER = ("10.0.0.7", 5000)
OURS = proxies(["10.0.0.0/8", "2001:db8:ffff::/48"], "X-Forwarded-For")


@pytest.mark.parametrize(
    ("said", "client"),
    [
        ("", PEER),
        ("203.0.113.7", ("203.0.113.7", 0)),
        ("203.0.113.7:4711", ("203.0.113.7", 4711)),
        ("2001:db8::7", ("2001:db8::7", 0)),
        ("[2001:db8::7]:4711", ("2001:db8::7", 4711)),
        ("203.0.113.7, 10.0.0.8", ("203.0.113.7", 0)),  # two of ours in a row
        ("198.51.100.1, 203.0.113.7", ("203.0.113.7", 0)),  # the first is what the client claims
        ("10.0.0.9, 203.0.113.7, 10.0.0.8", ("203.0.113.7", 0)),  # it claims to be one of ours
        ("unknown", PEER),
        ("203.0.113.7, _hidden", PEER),
        ("203.0.113.7,", PEER),
        ("for=203.0.113.7", PEER),
        ("' OR 1=1", PEER),
        ("10.0.0.9", ("10.0.0.9", 0)),  # who is connected from within
    ],
)
def test_the_last_stranger_in_the_row_is_the_client(said: str, client: object) -> None:
    assert OURS.client(PEER, said) == client


def test_who_is_no_proxy_is_not_believed() -> None:
    assert OURS.client(("203.0.113.9", 1), "198.51.100.1") == ("203.0.113.9", 1)
    assert Proxies().client(PEER, "198.51.100.1") == PEER
    assert OURS.client(("::ffff:10.0.0.7", 1), "198.51.100.1") == ("198.51.100.1", 0)


@pytest.mark.parametrize(
    ("said", "client"),
    [
        ("for=203.0.113.7", ("203.0.113.7", 0)),
        ('for="203.0.113.7:4711";proto=https;by=10.0.0.7', ("203.0.113.7", 4711)),
        ('For="[2001:db8::7]:4711"', ("2001:db8::7", 4711)),
        ('for=198.51.100.1, for=203.0.113.7;by=x, for="10.0.0.8:1"', ("203.0.113.7", 0)),
        ("by=10.0.0.7", PEER),
        ("for=203.0.113.7;for=198.51.100.1", PEER),
        ('for="203.0.113.7, for=198.51.100.1', ("198.51.100.1", 0)),  # a quote of the client's; the last is the proxy's
        ("203.0.113.7", PEER),
    ],
)
def test_forwarded(said: str, client: object) -> None:
    assert proxies(["10.0.0.0/8"], "Forwarded").client(PEER, said) == client


@given(st.text(max_size=200), st.sampled_from(["X-Forwarded-For", "Forwarded"]))
def test_any_header_gives_an_address(said: str, header: str) -> None:
    host, port = proxies(["10.0.0.0/8"], header).client(PEER, said)
    ip_address(host)
    assert 0 <= port < 65536


@given(st.lists(st.ip_addresses(v=4).map(str), max_size=40))
def test_a_claim_never_moves_who_came_to_the_proxy(claims: list[str]) -> None:
    assert OURS.client(PEER, ", ".join([*claims, "203.0.113.7"])) == ("203.0.113.7", 0)
