"""Where things are: `host:port` ⇄ (host, port), and the addresses of comets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from zim.client.errors import AddressError

WS_PATH = "/sub"
TLS_PORT = 443


def list_addresses(addresses: str | Iterable[str], example: str) -> list[str]:
    """One address, or several, as a list.

    Raises:
        AddressError: there is none, or something else. example: what it names as right.
    """
    if isinstance(addresses, str):
        return [addresses]
    right = f"right is a string such as {example!r}, or a list of them"
    if isinstance(addresses, bytes) or not isinstance(addresses, Iterable):
        raise AddressError(f"{addresses!r} is not an address; {right}")
    texts = list(addresses)
    for text in texts:
        if not isinstance(text, str):
            raise AddressError(f"{text!r} is not an address; {right}")
    if not texts:
        raise AddressError(f"no address to connect to; {right}")
    return texts


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `127.0.0.1:8080`, `name:8080` or `[::1]:8080`.

    Raises:
        AddressError: it is none of these.
    """
    host, colon, port = address.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    is_number = port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536
    if not colon or not host or not is_number or (":" in host and not is_bracketed):
        raise AddressError(f"{address!r} is not an address; write host:port, as in 127.0.0.1:8080 or [::1]:8080")
    host = host[1:-1] if is_bracketed else host
    try:
        host.encode("idna")  # getaddrinfo does the same; gevent prints a traceback where it fails there
    except UnicodeError:
        raise AddressError(f"{host!r} is not a host's name: each part of it has 1 to 63 letters") from None
    return host, int(port)


@dataclass(frozen=True, slots=True)
class CometAddress:
    """Where a comet listens.

    Attributes:
        text: as it was written.
        netloc: `host:port`, for the Host header.
        path: of the WebSocket.
        is_tls: it is to be spoken to in TLS.
    """

    text: str
    transport: Literal["tcp", "ws"]
    netloc: str
    host: str
    port: int
    path: str = WS_PATH
    is_tls: bool = False

    def __str__(self) -> str:
        return self.text


def comet_address(text: str) -> CometAddress:
    """The address in `127.0.0.1:8080` (TCP), `ws://127.0.0.1:8090`, `ws://127.0.0.1:8090/sub`; with TLS in
    `tls://push.example.com:8443` (TCP) or `wss://push.example.com`.

    Raises:
        AddressError: it is none of these.
    """
    if "://" not in text:
        return CometAddress(text, "tcp", text, *split_address(text))
    try:
        parts = urlsplit(text)
        is_ours = parts.scheme in ("ws", "wss", "tls") and not parts.fragment
        is_ours = is_ours and all(0x20 < ord(char) < 0x7F for char in text)
        is_ours = is_ours and not (parts.scheme == "tls" and (parts.path.strip("/") or parts.query))
    except ValueError:
        is_ours = False
    if not is_ours:
        raise AddressError(
            f"{text!r} is not the address of a comet; write host:port for TCP, ws://host:port, or wss://host"
            " and tls://host:port (TCP) with TLS"
        )
    if parts.scheme == "tls":
        return CometAddress(text, "tcp", parts.netloc, *split_netloc(parts.netloc, is_tls=True), is_tls=True)
    path = (parts.path if parts.path.strip("/") else WS_PATH) + (f"?{parts.query}" if parts.query else "")
    is_tls = parts.scheme == "wss"
    return CometAddress(text, "ws", parts.netloc, *split_netloc(parts.netloc, is_tls), path, is_tls)


def logic_address(url: str) -> tuple[str, str, int, bool]:
    """Of `host:port`, `http://host:port` or `https://host`: `host[:port]`, host, port, and whether it speaks TLS.

    Raises:
        AddressError: it is none of these.
    """
    netloc, is_tls = url, False
    if "://" in url:
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or parts.path.strip("/") or parts.query:
            raise AddressError(f"{url!r} is not the URL of a logic node; write http://host:port or https://host")
        netloc, is_tls = parts.netloc, parts.scheme == "https"
    return netloc, *split_netloc(netloc, is_tls), is_tls


def split_netloc(netloc: str, is_tls: bool) -> tuple[str, int]:
    """Host and port of a URL. With TLS the port may be left out: it is 443 then. Raises: AddressError."""
    has_port = re.search(r":\d*$", netloc) is not None and not netloc.endswith("]")
    return split_address(netloc if has_port or not is_tls else f"{netloc}:{TLS_PORT}")
