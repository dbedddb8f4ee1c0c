"""Addresses as they stand in a topology: what they mean, who can reach them, which two cannot both be bound.

Pure: no name is resolved, nothing is opened.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

# sun_path holds 104 bytes on macOS (108 on Linux), one of them the NUL.
MAX_IPC_PATH_BYTES = 103

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


@dataclass(frozen=True)
class Endpoint:
    """One address, taken apart.

    Attributes:
        scheme: `tcp` or `ipc`.
        host: without brackets; for ipc the path.
        port: 1 to 65535; 0 for ipc.
    """

    scheme: str
    host: str
    port: int

    @property
    def ip(self) -> IPv4Address | IPv6Address | None:
        """The IP address; None for a name or a path."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None

    @property
    def is_wildcard(self) -> bool:
        """It stands for every address of the machine."""
        return self.ip is not None and self.ip.is_unspecified

    @property
    def is_local(self) -> bool:
        """Only processes of the same machine reach it. A name other than localhost may mean anything, so it is not."""
        if self.scheme == "ipc" or self.host.lower() == "localhost":
            return True
        return self.ip is not None and self.ip.is_loopback

    def clashes(self, other: Endpoint) -> bool:
        """The two cannot both be bound on one machine. Two names, or a name and an address, are taken as different."""
        if self.scheme != other.scheme or self.port != other.port:
            return False
        if self.scheme == "ipc":
            return self.host == other.host
        return self.is_wildcard or other.is_wildcard or bool(self._addresses & other._addresses)

    @property
    def _addresses(self) -> set[str]:
        if self.host.lower() == "localhost":
            return {"127.0.0.1", "::1"}
        return {str(self.ip) if self.ip else self.host.lower().rstrip(".")}


def is_host_name(text: str) -> bool:
    """It may be a host's name, in letters of ASCII."""
    return len(text) <= 253 and _HOST_NAME.fullmatch(text) is not None


def parse_link(text: str) -> Endpoint:
    """Takes a link between nodes apart: `tcp://host:port` or `ipc:///path`.

    Raises:
        ValueError: it is neither; the text continues "…, " after the address and says what would be right.
    """
    match = _SCHEME.match(text)
    if match is None:
        raise ValueError(f'has no scheme; right would be "tcp://{text}"' if ":" in text else _LINK_SYNTAX)
    scheme, rest = match[1], text[match.end() :]
    if scheme == "tcp":
        return _parse_host_port(rest, "tcp://")
    if scheme == "ipc":
        return _parse_path(rest)
    raise ValueError(f'has the unknown scheme "{scheme}"; links between nodes are tcp:// or ipc://')


def parse_listener(text: str) -> Endpoint:
    """Takes `host:port` apart, where clients or backends come in.

    Raises:
        ValueError: it is something else; worded as in `parse_link()`.
    """
    if match := _SCHEME.match(text):
        raise ValueError(f'has a scheme; right would be "{text[match.end() :]}", host and port alone')
    return _parse_host_port(text, "")


_LINK_SYNTAX = 'is not a link; right is "tcp://127.0.0.1:7270" or "ipc:///run/zim/router-1"'


def _parse_host_port(text: str, prefix: str) -> Endpoint:
    host, colon, port_text = text.rpartition(":")
    if not colon or text.endswith("]"):
        raise ValueError(f'has no port; right is host and port, such as "{prefix}127.0.0.1:8080"')
    if not (port_text.isascii() and port_text.isdigit()):
        raise ValueError(f'has "{port_text}" as port; right is a number from 1 to 65535')
    if port_text.lstrip("0") == "":
        raise ValueError("has port 0, which would be another one at each start; right is 1 to 65535")
    if len(port_text) > 5 or int(port_text) > 65535:
        raise ValueError(f"has port {port_text[:20]}, which does not exist; right is 1 to 65535")
    return Endpoint("tcp", _parse_host(host, prefix, port_text), int(port_text))


def _parse_host(host: str, prefix: str, port: str) -> str:
    if host in ("", "*"):
        raise ValueError(
            f'has no host; right is "{prefix}127.0.0.1:{port}", or "{prefix}0.0.0.0:{port}" for every address'
        )
    if host.startswith("[") and host.endswith("]"):
        inner = host[1:-1]
        try:
            IPv6Address(inner)
        except ValueError:
            raise ValueError(f'has "{inner}" in brackets, which is not an IPv6 address') from None
        return inner
    if ":" in host:
        raise ValueError(f'has more than one colon; an IPv6 address stands in brackets, such as "{prefix}[::1]:{port}"')
    if re.fullmatch(r"[0-9.]+", host, re.ASCII):
        try:
            IPv4Address(host)
        except ValueError:
            raise ValueError(f'has "{host}" as host, which is not an IPv4 address') from None
        return host
    if not is_host_name(host):
        raise ValueError(f'has "{host}" as host, which is neither an address nor a host name')
    return host


def _parse_path(path: str) -> Endpoint:
    if not path.startswith("/"):
        raise ValueError('has no absolute path, which every process would read alike; right is "ipc:///run/zim/job-1"')
    if len(path.encode()) > MAX_IPC_PATH_BYTES:
        raise ValueError(f"has a path of {len(path.encode())} bytes; right is at most {MAX_IPC_PATH_BYTES}")
    return Endpoint("ipc", path, 0)
