"""`host:port` ⇄ (host, port)."""

from zim.client.errors import AddressError


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
    return (host[1:-1] if is_bracketed else host), int(port)
