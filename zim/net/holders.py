"""Who holds a port that is in use, as far as Linux' /proc tells; and what is said of it."""

from __future__ import annotations

import errno
import os
import pwd
import re
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from zim.errors import NodeError

_LISTENS, _TIME_WAIT = "0A", "06"
_SOCKET = re.compile(r"socket:\[([0-9]+)\]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a process may call itself anything

_Ip = IPv4Address | IPv6Address


@dataclass(frozen=True)
class ListeningSocket:
    """One that accepts connections.

    Attributes:
        inode: its number, by which it is found among the open files of a process.
        user: the number of the user whose it is.
    """

    ip: _Ip
    port: int
    inode: str
    user: int


def in_use(key: str, address: str) -> str:
    """The sentence about an address that cannot be bound, because it is in use: by whom, and what can be done.

    Args:
        key: of the address in the topology, such as `bind`.
        address: `host:port`, `tcp://host:port` or `ipc:///path`; of that it is not told by whom.
    """
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    is_ipc = address.startswith("ipc:")
    who = "" if is_ipc else holder(host.strip("[]"), int(port))
    if not who and not is_ipc and is_ending(host.strip("[]"), int(port)):
        return (
            f"{key} {address} is in use still, though nobody listens there: a connection of this port has just ended;"
            f" it passes within a minute, so try again, or change {key} in the topology"
        )
    by = f", by {who}" if who else ""
    return f"{key} {address} is in use already{by}; stop what uses it, or change {key} in the topology"


def holder(host: str, port: int) -> str:
    """The process that listens there, `nginx (pid 812)`, or whose it is; "" where that cannot be told.

    Args:
        host: an IP address; or a name, which may be any address.
    """
    for listening in _all_listening():
        if listening.port == port and _clash(listening.ip, host):
            return _process_of(listening.inode) or f"a process of the user {_user(listening.user)}"
    return ""


def is_ending(host: str, port: int) -> bool:
    """Whether all that holds this port are connections that have ended (TIME_WAIT), as far as that can be told."""
    states = {state for ip, at, state in _all_states() if at == port and _clash(ip, host)}
    return states == {_TIME_WAIT}


def parse_listening(table: str) -> Iterator[ListeningSocket]:
    """The sockets that listen, of the text of `/proc/net/tcp` or `/proc/net/tcp6`.

    Lines that are no socket's are passed over. Source: Linux, Documentation/networking/proc_net_tcp.rst.
    """
    for line in table.splitlines():
        fields = line.split()
        if len(fields) < 10 or fields[3] != _LISTENS:
            continue
        address, _, port = fields[1].partition(":")
        with suppress(ValueError):
            yield ListeningSocket(_parse_ip(address), int(port, 16), fields[9], int(fields[7]))


def _all_states() -> Iterator[tuple[_Ip, int, str]]:
    """Local address, port and state of every socket."""
    for table in _tables():
        for line in table.splitlines():
            fields = line.split()
            with suppress(ValueError, IndexError):
                address, _, port = fields[1].partition(":")
                yield _parse_ip(address), int(port, 16), fields[3]


def _parse_ip(text: str) -> _Ip:
    """Words of four bytes in hexadecimal, each in the order of this machine; taken for that of x86 and ARM.

    Raises:
        ValueError: it is none.
    """
    data = bytes.fromhex(text)
    ip = ip_address(b"".join(data[at : at + 4][::-1] for at in range(0, len(data), 4)))
    return getattr(ip, "ipv4_mapped", None) or ip


def _all_listening() -> Iterator[ListeningSocket]:
    for table in _tables():
        yield from parse_listening(table)


def _tables() -> Iterator[str]:
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            yield Path("/proc/net", name).read_text(errors="replace")


def _clash(ip: _Ip, host: str) -> bool:
    """Whether a socket at this address keeps another one from the host. A name may be any address."""
    try:
        wanted = ip_address(host)
    except ValueError:
        return True
    return ip == wanted or ip.is_unspecified or wanted.is_unspecified


def _process_of(inode: str) -> str:
    """The process that has this socket open; "" if it belongs to somebody else, or is gone."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            for file in (process / "fd").iterdir():
                match = _SOCKET.fullmatch(os.readlink(file))
                if match and match[1] == inode:
                    return _described(process)
    return ""


def _described(process: Path) -> str:
    """`nginx (pid 812)`; of a node its `zim up`, which would start it again. process: its folder in /proc."""
    words = (process / "cmdline").read_text(errors="replace").split("\0")
    if words[1:4] == ["-m", "zim", "node"] and "--lifeline" in words:
        parent = re.search(r"^PPid:\s*([0-9]+)", (process / "status").read_text(errors="replace"), re.MULTILINE)
        if parent:
            file = words[words.index("--topology") + 1] if "--topology" in words else "?"
            return _CONTROL.sub("?", f"{words[4]} of zim up {file} (pid {parent[1]})")
    name = (process / "comm").read_text(errors="replace").strip()
    return f"{_CONTROL.sub('?', name)} (pid {process.name})"


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def refuse_taken(endpoint: str) -> None:
    """libzmq replaces whatever has the path of an `ipc://` address, also a socket that is served.

    Raises:
        NodeError: another process serves it, or it is no socket.
    """
    path = endpoint.removeprefix("ipc://")
    if path == endpoint or not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise NodeError(f"{endpoint} cannot be bound: {path} is there, and no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return  # whoever served it is gone
        except OSError as e:
            if e.errno not in (errno.EAGAIN, errno.EINPROGRESS):  # served, and its backlog is full
                raise NodeError(f"{endpoint} cannot be bound: {e.strerror}") from None
    raise NodeError(in_use("bind", endpoint))
