"""What browsers say of a page and of a name, `Origin` and `Host`: of a text in the topology, whether one can say it.

Pure. Source: RFC 6454 6.2, WHATWG URL (serialisation of hosts), RFC 9110 7.2.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any
from urllib.parse import SplitResult, urlsplit

from zim.topology.endpoints import is_host_name
from zim.topology.tables import Reader, Table, show, texts

ANY = "*"
_ORIGINS = 'an array of origins, such as ["https://app.example.com"], or ["*"] for any'
_HOSTS = 'an array of names without port, such as ["push.example.com"], or ["*"] for any'
_PORTS = {"http": 80, "https": 443}  # browsers leave these out
_PAGES = {"ws": "http", "wss": "https"}  # where pages come from that open such a connection
# Without a name: of a page that is nobody's, such as one in a sandboxed iframe; of one in a file, in older web views.
_NAMELESS = ("null", "file://")


def read_origins(table: Table, key: str) -> Any:
    """Reads origins, in lower case. One that no browser says is noted, with the right one."""
    return _read(texts(_ORIGINS), origin_problem, table, key)


def read_hosts(table: Table, key: str) -> Any:
    """Reads names, in lower case. One that no client can say without its port is noted, with the right one."""
    return _read(texts(_HOSTS), host_problem, table, key)


def _read(read: Reader, problem: Callable[[str], str], table: Table, key: str) -> Any:
    found = read(table, key)
    for i, text in enumerate(found or ()):
        if why := problem(text):
            table.add(f"{key}[{i}]", f"{show(text)} {why}")
    return found


def origin_problem(text: str) -> str:
    """Why no browser says this in Origin, as the rest of a sentence with what is right; "" if one can. text: lower."""
    if text in (ANY, *_NAMELESS):
        return ""
    url = text if "://" in text else f"https://{text}"
    parts = _split(url)
    if parts is not None and parts.scheme not in (*_PORTS, *_PAGES) and not parts.path + parts.query + parts.fragment:
        return ""  # an extension's, or an app's: what follows the scheme is their own matter
    host = _host(parts)
    if parts is None or not host:
        return 'is no origin; right is each by itself, such as "https://app.example.com", or "*" alone for any'
    scheme = _PAGES.get(parts.scheme, parts.scheme)
    port = "" if parts.port in (None, _PORTS.get(scheme)) else f":{parts.port}"
    right = f"{scheme}://{f'[{host}]' if ':' in host else host}{port}"
    if right == text:
        return ""
    if url != text:
        what = "has no scheme"
    elif parts.scheme in _PAGES:
        what = "is where a page connects to, not where it is from"
    elif parts.path or parts.query or parts.fragment:
        what = "has a path"
    else:
        what = "is spelled otherwise by browsers"
    return f'{what}, so no page comes from there; right is "{right}"'


def host_problem(text: str) -> str:
    """Why no request has this name in its Host, as the rest of a sentence with what is right; "" if one may.

    A request's port is left out before names are compared, and so are the brackets of an IPv6 address. text: lower.
    """
    if text == ANY or _is_ip(text) or (text.isascii() and is_host_name(text)):
        return ""
    parts = _split(text if "://" in text else f"//{text}")
    host = _host(parts)
    if parts is None or not host:
        return 'is no name; right is each by itself, such as "push.example.com", or "*" alone for any'
    what = "has a scheme" if parts.scheme else "has a path" if parts.path else "is spelled otherwise by browsers"
    if not parts.scheme and not parts.path and ":" in text:
        what = "stands in brackets" if text == f"[{host}]" else "has a port"
    return f'{what}, so no request names it; right is "{host}"'


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # else it says later that it is none
    except ValueError:
        return None
    return parts


def _host(parts: SplitResult | None) -> str:
    """The name in a URL as browsers spell it; "" if it cannot be one."""
    name = parts.hostname if parts is not None else ""
    try:
        name = (name or "").encode("idna" if name and not name.isascii() else "ascii").decode()
    except UnicodeError:
        return ""
    return name if _is_ip(name) or is_host_name(name) else ""


def _is_ip(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
