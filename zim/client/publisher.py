"""Pushes over goim v1's HTTP API, for backends.

publisher = Publisher("http://127.0.0.1:7172")
push_id = publisher.push_user(7, b'{"hello":1}')
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterable
from urllib.parse import quote, urlsplit

from zim.client.address import split_address
from zim.client.errors import AddressError, PushRefused, PushUnavailable, PushUnknown

RET_OK = 1
_IDLE_S = 5.0
_NUMBER = re.compile(r"[+-]?[0-9]{1,19}")


class Publisher:
    """Publishes to one logic node. Threads and greenlets may share it: each has its own connection, kept alive.

    Every method returns the push id, or "" if the server names none (goim does not). They raise, all of them
    PushError:

    - PushRefused: the request is wrong, and will be the next time.
    - PushUnavailable: surely not accepted; try again, after `retry_after_s`.
    - PushUnknown: accepted or not, nobody knows; trying again may push twice.
    """

    def __init__(self, url: str, *, timeout_s: float = 15.0) -> None:
        """Does not connect yet.

        Args:
            url: `http://host:port` or `host:port`.
            timeout_s: for connecting, and for the answer.

        Raises:
            AddressError: the URL is something else.
        """
        address = url
        if "://" in url:
            parts = urlsplit(url)
            if parts.scheme != "http" or parts.path.strip("/") or parts.query:
                raise AddressError(f"{url!r} is not the URL of a logic node; write http://host:port")
            address = parts.netloc
        self.address = address
        self._host, self._port = split_address(address)
        self._timeout_s = timeout_s
        self._local = threading.local()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def push_user(self, uid: int | str, body: bytes | str) -> str:
        """Pushes to all sessions of one user. Raises: see Publisher."""
        hint = f"a uid is a number such as 7, not {str(uid)!r}, and not negative"
        return self._push(f"/1/push?uid={quote(str(uid), safe='')}", _bytes(body), hint)

    def push_users(self, uids: Iterable[int | str], body: bytes | str) -> str:
        """Pushes to several users. goim's format asks for a body that is JSON here. Raises: see Publisher."""
        numbers = []
        for uid in uids:
            if not _NUMBER.fullmatch(str(uid)):
                raise PushRefused(f"{str(uid)!r} is not a uid; uids are numbers such as 7")
            numbers.append(int(uid))
        raw = _bytes(body)
        if not _is_json(raw):
            raise PushRefused("the body of a push to several users must be JSON; quote it, or push to each user")
        request = b'{"u":%s,"m":%s}' % (json.dumps(numbers).encode(), raw)
        return self._push("/1/pushs", request, "uids are numbers that are not negative")

    def push_room(self, room: int | str, body: bytes | str, *, ensure: bool = False) -> str:
        """Pushes to everybody in a room. `ensure` is goim's: do not gather with other pushes. Raises: see Publisher."""
        path = f"/1/push/room?rid={quote(str(room), safe='')}" + ("&ensure=true" if ensure else "")
        return self._push(path, _bytes(body), f"a room is a number such as 1, not {str(room)!r}")

    def push_all(self, body: bytes | str) -> str:
        """Pushes to everybody who is connected. Raises: see Publisher."""
        return self._push("/1/push/all", _bytes(body), "the fabric could not reach all of its routers")

    def close(self) -> None:
        """Closes this thread's connection. The next push opens another."""
        link = self._link()
        if link is not None:
            link.close()
        self._local.link = None

    def _push(self, path: str, body: bytes, hint: str) -> str:
        link = self._connected()
        try:
            link.request("POST", path, body)
            response = link.getresponse()
            text = response.read()
        except TimeoutError:
            self.close()
            raise PushUnknown(
                f"no answer from {self.address} in {self._timeout_s:g} s; it is not known whether the push was accepted"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise PushUnknown(
                f"{self.address} hung up before it answered ({_what(error)}); "
                "it is not known whether the push was accepted"
            ) from None
        self._local.used_at = time.monotonic()
        if response.will_close:
            self.close()
        self._judge(response, text, len(body), hint)
        return response.getheader("X-Zim-Push-Id") or ""

    def _judge(self, response: http.client.HTTPResponse, text: bytes, size: int, hint: str) -> None:
        status = response.status
        if status == 503:
            wait_s = _seconds(response.getheader("Retry-After"))
            when = f"in {wait_s:g} s" if wait_s else "soon"
            raise PushUnavailable(f"the fabric cannot take it now (503); try again {when}", status, wait_s)
        if status == 504:
            raise PushUnknown("the fabric does not know whether the push was accepted (504)", status)
        if status == 413:
            raise PushRefused(
                f"the body is too large ({size} bytes, 413); the topology's fabric.max_body_bytes allows less", status
            )
        ret = _ret(text)
        if status != 200 or ret is None:
            raise PushRefused(
                f"HTTP {status} from {self.address} is no answer of goim's v1 API; is this a logic node's HTTP port?",
                status,
            )
        if ret != RET_OK:
            raise PushRefused(f"refused with ret {ret}: {hint}", status)

    def _link(self) -> http.client.HTTPConnection | None:
        link: http.client.HTTPConnection | None = getattr(self._local, "link", None)
        return link

    def _connected(self) -> http.client.HTTPConnection:
        """A connection that is open as far as one can see.

        A POST must not be sent again when a connection turns out to be dead (RFC 9110 9.2.2), so that is looked at
        before: servers close what is idle for long, and then the end of the stream is waiting to be read.
        """
        link = self._link()
        if link is not None and link.sock is not None and self._is_fresh(link.sock):
            return link
        self.close()
        link = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        try:
            link.connect()
        except ConnectionRefusedError:
            raise PushUnavailable(f"nothing listens on {self.address}; is the fabric up? zim up") from None
        except TimeoutError:
            raise PushUnavailable(f"no connection to {self.address} in {self._timeout_s:g} s") from None
        except (OSError, UnicodeError) as error:
            raise PushUnavailable(f"no connection to {self.address}: {_what(error)}") from None
        self._local.link = link
        return link

    def _is_fresh(self, sock: socket.socket) -> bool:
        if time.monotonic() - self._local.used_at > _IDLE_S:
            return False
        try:
            sock.settimeout(0)
            sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            sock.settimeout(self._timeout_s)
            return True
        except OSError:
            return False
        return False


def _bytes(body: bytes | str) -> bytes:
    return body.encode() if isinstance(body, str) else body


def _what(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _is_json(raw: bytes) -> bool:
    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        json.loads(raw.decode(), parse_constant=refuse)  # Python alone takes NaN
    except (ValueError, RecursionError):
        return False
    return True


def _ret(text: bytes) -> int | None:
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return None
    ret = answer.get("ret") if isinstance(answer, dict) else None
    return ret if type(ret) is int else None


def _seconds(text: str | None) -> float:
    return float(text) if text and text.isascii() and text.isdigit() else 0.0
