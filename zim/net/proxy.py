"""For whom a proxy speaks: the PROXY protocol's header, and the headers of HTTP. Pure.

Sources: haproxy.org, doc/proxy-protocol.txt (versions 1 and 2); RFC 7239 (Forwarded); X-Forwarded-For as nginx,
HAProxy and Envoy write it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

MAX_HEADER_BYTES = 2_048  # of version 2 with what it may carry beside addresses; proxies send some 50
MAX_HOPS = 32  # of proxies that stand in one header

_V1_BYTES = 107  # with its end
_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_V2_BEGIN_BYTES = 16
_V1 = re.compile(rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f.:]{2,45}) ([0-9A-Fa-f.:]{2,45}) ([0-9]{1,5}) ([0-9]{1,5})")

Address = tuple[str, int]


class NotFromAProxy(ValueError):
    """What comes first is no header of the PROXY protocol, or a broken one."""


@dataclass(frozen=True)
class Introduction:
    """A header of the PROXY protocol.

    Attributes:
        client: whom the proxy speaks for; None if it speaks for itself, or does not know.
        size: of the header in bytes; what follows is the client's.
    """

    client: Address | None
    size: int


def parse_introduction(data: bytes) -> Introduction | None:
    """What a connection begins with; None while it is not whole.

    Raises:
        NotFromAProxy: see there; the text says what is wrong, for people.
    """
    if data.startswith(_V2[: len(data)]):
        return _parse_v2(data)
    if not data.startswith(b"PROXY "[: len(data)]):
        raise NotFromAProxy("it does not begin with a PROXY header")
    line, end, _ = data[:_V1_BYTES].partition(b"\r\n")
    if not end:
        if len(data) >= _V1_BYTES:
            raise NotFromAProxy("a PROXY header without an end")
        return None
    size = len(line) + 2
    if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
        return Introduction(None, size)
    found = _V1.fullmatch(line)
    if found is None:
        raise NotFromAProxy("a PROXY header that is not one of version 1")
    kind = IPv4Address if found[1] == b"TCP4" else IPv6Address
    try:
        client, _ = kind(found[2].decode()), kind(found[3].decode())
    except ValueError:
        raise NotFromAProxy("a PROXY header with an address that is none") from None
    return Introduction((str(client), _port(int(found[4]))), size)


def _parse_v2(data: bytes) -> Introduction | None:
    if len(data) < _V2_BEGIN_BYTES:
        return None
    version, command, family = data[12] >> 4, data[12] & 15, data[13]
    length = int.from_bytes(data[14:16])
    size = _V2_BEGIN_BYTES + length
    if version != 2 or command > 1:
        raise NotFromAProxy("a PROXY header of a version that is not known")
    if size > MAX_HEADER_BYTES:
        raise NotFromAProxy(f"a PROXY header of {size} bytes; the limit is {MAX_HEADER_BYTES}")
    if len(data) < size:
        return None
    if command == 0 or family not in (0x11, 0x21):  # LOCAL: it looks whether we live; or not TCP over IP
        return Introduction(None, size)
    bytes_of_ip = 4 if family == 0x11 else 16
    if length < 2 * bytes_of_ip + 4:
        raise NotFromAProxy("a PROXY header that is too short for its addresses")
    ip = ip_address(data[16 : 16 + bytes_of_ip])
    port = 16 + 2 * bytes_of_ip
    return Introduction((str(ip), int.from_bytes(data[port : port + 2])), size)


def _port(number: int) -> int:
    if number > 65535:
        raise NotFromAProxy("a PROXY header with a port that does not exist")
    return number


@dataclass(frozen=True)
class Proxies:
    """Who is believed about whom it speaks for.

    Attributes:
        networks: where they are.
        header: of HTTP, as WSGI calls it, in which they say it.
    """

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    header: str = "HTTP_X_FORWARDED_FOR"

    def __bool__(self) -> bool:
        return bool(self.networks)

    def has(self, host: str) -> bool:
        """Whether an address is one of theirs."""
        try:
            ip = ip_address(host.partition("%")[0])
        except ValueError:
            return False
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:  # how it looks at a socket for both
            ip = ip.ipv4_mapped
        return any(ip.version == network.version and ip in network for network in self.networks)

    def client(self, peer: Address, said: str) -> Address:
        """Whose request it is: the last in the row that is none of the proxies.

        Each proxy adds at the end who came to it; what stands before the first stranger is what that one claims.

        Args:
            peer: who is connected.
            said: the header; "" if there is none.
        """
        found = peer
        hops = said.split(",")[-MAX_HOPS:] if said else []
        while hops and self.has(found[0]):
            hop = _hop(hops.pop(), is_forwarded=self.header == "HTTP_FORWARDED")
            if hop is None:
                break
            found = hop
        return found


def proxies(networks: Iterable[str], header: str) -> Proxies:
    """As the topology has them. header: its name in HTTP."""
    return Proxies(tuple(map(ip_network, networks)), f"HTTP_{header.upper().replace('-', '_')}")


def _hop(text: str, is_forwarded: bool) -> Address | None:
    """An address in a header; None if there is none."""
    if is_forwarded:  # RFC 7239 4: for=192.0.2.60;proto=http;by=…
        pairs = [pair.strip().partition("=") for pair in text.split(";")]
        values = [value for name, _, value in pairs if name.lower() == "for"]
        if len(values) != 1:
            return None
        text = values[0]
    text = text.strip().strip('"')
    port = 0
    if found := re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::([0-9]{1,5}))?", text):
        text, port = found[1], int(found[2] or 0)
    elif found := re.fullmatch(r"([0-9.]+):([0-9]{1,5})", text):
        text, port = found[1], int(found[2])
    try:
        return str(ip_address(text)), port if port < 65536 else 0
    except ValueError:
        return None
