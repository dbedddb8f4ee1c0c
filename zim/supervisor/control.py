"""Where `zim up` takes orders: a Unix socket in `data_dir`, which its own user alone may open.

One line of JSON asks, `{"do": "reload", "topology": "/srv/push/topology.toml"}`, one answers.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gevent
from gevent.pool import Pool
from gevent.server import StreamServer
from gevent.socket import socket as GreenSocket

from zim.errors import NodeError, ZimError

log = logging.getLogger(__name__)

ORDER_BYTES = 64 << 10
ORDER_S = 5.0  # for an order to come
ANSWER_BYTES = 1 << 20
ORDERS = 8  # at once

Order = Callable[[Mapping[str, Any]], dict[str, Any]]


class NobodyThere(ZimError):
    """No `zim up` takes orders at this path."""


def control_path(data_dir: Path, host: str | None) -> Path:
    """The socket of a fabric. host: that of `zim up --host`."""
    return data_dir / (f"control-{host}.sock" if host else "control.sock")


class ControlSocket:
    """Takes orders, once made, until it is closed.

    Args:
        orders: what can be asked, by the word for it; what each returns is the answer. May switch.

    Raises:
        NodeError: another process takes orders there.
        OSError: it cannot be made: a full disk, say.
    """

    def __init__(self, path: Path, orders: Mapping[str, Order]) -> None:
        self._path, self._orders = path, orders
        path.parent.mkdir(parents=True, exist_ok=True)
        sock = GreenSocket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _short(path) as short:
                _clear(short, path)
                before = os.umask(0o177)
                try:
                    sock.bind(short)
                finally:
                    os.umask(before)
        except BaseException:
            sock.close()
            raise
        sock.listen(ORDERS)
        self._server = StreamServer(sock, self._serve, spawn=Pool(ORDERS))
        self._server.start()

    def close(self) -> None:
        """Takes no more."""
        self._server.stop(timeout=0)
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _serve(self, sock: GreenSocket, _address: object) -> None:
        try:
            with gevent.Timeout(ORDER_S):
                line = _read_line(sock, ORDER_BYTES)
            answer = self._obey(line)
            with gevent.Timeout(ORDER_S):
                sock.sendall(json.dumps(answer).encode() + b"\n")
        except (OSError, gevent.Timeout):
            pass  # whoever asked is gone, or says nothing
        finally:
            sock.close()

    def _obey(self, line: bytes) -> dict[str, Any]:
        try:
            asked = json.loads(line)
            order = self._orders[asked["do"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            right = " or ".join(json.dumps({"do": word}) for word in self._orders)
            return {"problems": [f"this is no order; right is {right}"]}
        return order(asked)


def ask(path: Path, do: str, timeout_s: float, **asked: object) -> dict[str, Any]:
    """Asks `zim up` to do something. Blocks until it has.

    Raises:
        NobodyThere: it does not answer.
    """
    sock = GreenSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout_s)
    try:
        with _short(path) as short:
            sock.connect(short)
        sock.sendall(json.dumps({"do": do, **asked}).encode() + b"\n")
        answer = json.loads(_read_line(sock, ANSWER_BYTES))
    except (FileNotFoundError, ConnectionRefusedError):
        raise NobodyThere(f"no zim up takes orders at {path}") from None
    except OSError as e:
        raise NobodyThere(f"{path}: {e.strerror or e}") from None
    except ValueError:
        raise NobodyThere(f"{path}: the answer is none; zim up has ended meanwhile") from None
    finally:
        sock.close()
    return answer if isinstance(answer, dict) else {}


def _read_line(sock: GreenSocket, most: int) -> bytes:
    """What comes up to a newline, the end, or a size. Switches."""
    line = bytearray()
    while len(line) <= most and not line.endswith(b"\n") and (data := sock.recv(65_536)):
        line += data
    return bytes(line)


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """The path in a form that fits into the address of a socket, which takes 107 bytes (unix(7))."""
    if len(os.fsencode(path)) <= 100 or not Path("/proc/self/fd").is_dir():
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _clear(short: str, path: Path) -> None:
    """Takes away the socket of a process that was killed, and nothing else."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EEXIST, "something else is there")
    probe = GreenSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.settimeout(1.0)
    try:
        probe.connect(short)
    except ConnectionRefusedError:
        path.unlink()
    except OSError as e:
        raise NodeError(f"another zim up may run this fabric: {path} is there, and cannot be asked: {e}") from None
    else:
        raise NodeError(f"another zim up runs this fabric: it takes orders at {path}")
    finally:
        probe.close()
