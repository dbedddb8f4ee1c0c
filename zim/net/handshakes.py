"""What stands before a connection's own bytes: a proxy's word about whom it speaks for, and TLS. One for a listener.

Nobody who is silent has a greenlet, and who says nothing, or half of it, has a time limit. So many may be under way;
one more ends the one that has been under way for longest. Who is honest is through in two round trips, so it is never
theirs unless thousands come within that time.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import gevent
from gevent import socket

from zim.net.pipe import SocketPipe
from zim.net.proxy import MAX_HEADER_BYTES, NotFromAProxy, Proxies, parse_introduction
from zim.net.sockets import shown_address
from zim.net.tls import AnySocket, TlsPipe, TlsSocket, is_hello, words

log = logging.getLogger(__name__)

UNDER_WAY = 2_048  # at once, at one listener
_PLAIN_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: 48\r\n\r\n"
    b"TLS is spoken here: right is https:// or wss://\n"
)

Address = tuple[Any, ...]
GoOn = Callable[[AnySocket, Address], None]
GiveUp = Callable[[], None]


class _Arrival:
    """A connection under way."""

    __slots__ = ("address", "came", "give_up", "go_on", "is_introduced", "pipe", "sock", "until")

    def __init__(self, sock: socket.socket, address: Address, go_on: GoOn, give_up: GiveUp, until: float) -> None:
        self.sock, self.address, self.go_on, self.give_up, self.until = sock, address, go_on, give_up, until
        self.came, self.is_introduced = b"", False
        self.pipe: SocketPipe | TlsPipe = SocketPipe(sock)


class Handshakes:
    """See the module.

    Attributes:
        context: of TLS; None without. It may be changed for the connections that come then.
        proxies: who may speak for others; introduces: each connection begins with a PROXY header, from one of them.
        timeout_s: for all of it.
        failed: how many did not come through, by the word for it.
    """

    def __init__(self, timeout_s: float) -> None:
        self.context: ssl.SSLContext | None = None
        self.proxies, self.introduces = Proxies(), False
        self.timeout_s = timeout_s
        self.failed: Counter[str] = Counter(dict.fromkeys(("tls", "proxy", "late", "crowded", "gone"), 0))
        self._under_way: dict[_Arrival, None] = {}  # the oldest first
        self._is_watched = False
        self._step = self._take_step  # one object for all who are parked

    @property
    def is_none(self) -> bool:
        """Nothing stands before a connection's own bytes."""
        return self.context is None and not self.introduces

    def begin(self, sock: socket.socket, address: Address, go_on: GoOn, give_up: GiveUp) -> None:
        """A connection has been accepted. Does not switch.

        Args:
            go_on: takes the connection and its client's address when all of that is over; at once if there is none.
                Must not raise, nor switch.
            give_up: is called if it never will be, once its socket is closed.
        """
        if self.is_none:
            go_on(sock, address)
            return
        if len(self._under_way) >= UNDER_WAY:
            self._lose(next(iter(self._under_way)), "crowded", "too many at once")
        arrival = _Arrival(sock, address, go_on, give_up, time.monotonic() + self.timeout_s)
        arrival.is_introduced = not self.introduces
        if not self._is_watched:
            self._is_watched = True
            gevent.spawn(self._watch)
        self._under_way[arrival] = None
        if self.introduces and not self.proxies.has(str(address[0])):
            self._lose(arrival, "proxy", "comes from none of the proxies")
            return
        arrival.pipe.park(self._step, arrival)

    def may_be_anothers(self, peer: Address) -> bool:
        """Whether who has connected may speak for somebody else."""
        return self.introduces or (bool(self.proxies) and self.proxies.has(str(peer[0])))

    def client(self, peer: Address, environ: Mapping[str, Any]) -> Address:
        """Whose request it is, as far as proxies that are believed say so. environ: of WSGI."""
        if not self.proxies:
            return peer
        return self.proxies.client((str(peer[0]), int(peer[1])), str(environ.get(self.proxies.header, "")))

    def close(self) -> None:
        """The listener closes: all that is under way ends."""
        for arrival in list(self._under_way):
            self._lose(arrival, "gone", "the listener closes")

    def _take_step(self, arrival: _Arrival) -> None:
        """The greenlet of one that has sent something."""
        if arrival not in self._under_way:
            return
        try:
            is_over = self._goes_on(arrival)
        except NotFromAProxy as e:
            self._lose(arrival, "proxy", str(e))
        except ssl.SSLError as e:
            if e.reason == "HTTP_REQUEST":
                with suppress(OSError):
                    SocketPipe(arrival.sock).send(_PLAIN_HTTP)  # as a browser, or curl, shows it
            self._lose(arrival, "tls", words(e))
        except OSError as e:
            self._lose(arrival, "gone", e.strerror or str(e))
        except Exception:
            log.exception("a handshake failed")
            self._lose(arrival, "gone", "failed")
        else:
            if not is_over:
                arrival.pipe.park(self._step, arrival)
            elif self._under_way.pop(arrival, 0) is None:
                sock = arrival.sock if isinstance(arrival.pipe, SocketPipe) else TlsSocket(arrival.pipe, arrival.sock)
                arrival.go_on(sock, arrival.address)

    def _goes_on(self, arrival: _Arrival) -> bool:
        """As far as it can without waiting for the client; whether all of it is over."""
        if not arrival.is_introduced and not self._is_introduced(arrival):
            return False
        if self.context is not None and isinstance(arrival.pipe, SocketPipe):
            while not is_hello(arrival.came):
                data = arrival.pipe.receive(waits=False)
                if data is None:
                    return False
                if not data:
                    raise ConnectionResetError(0, "closed")
                arrival.came += data
            arrival.pipe, arrival.came = TlsPipe(arrival.pipe, self.context, arrival.came), b""
        return arrival.pipe.handshake() if isinstance(arrival.pipe, TlsPipe) else True

    def _is_introduced(self, arrival: _Arrival) -> bool:
        """Takes the PROXY header, and no byte more; whether it is whole.

        Raises:
            NotFromAProxy: it is none.
        """
        pipe = arrival.pipe
        assert isinstance(pipe, SocketPipe)
        seen = pipe.peek(MAX_HEADER_BYTES)
        if seen is None:
            return False
        if not seen:
            raise ConnectionResetError(0, "closed")
        found = parse_introduction(arrival.came + seen)
        had = len(arrival.came)
        arrival.came += pipe.take(len(seen) if found is None else found.size - had)
        if found is None:
            return False
        arrival.is_introduced, arrival.came = True, b""
        arrival.address = found.client or arrival.address
        return True

    def _lose(self, arrival: _Arrival, what: str, why: str) -> None:
        if self._under_way.pop(arrival, 0) is not None:
            return
        self.failed[what] += 1
        level = logging.DEBUG if what == "gone" else logging.INFO  # a health check, say
        fields = {"client": shown_address(arrival.address), "reason": why}
        gevent.spawn_raw(log.log, level, "handshake failed", extra=fields)  # it may be the hub that runs this
        arrival.sock.close()
        arrival.give_up()

    def _watch(self) -> None:
        """The greenlet while somebody is under way: all have the same time, so the oldest one's ends first."""
        while self._under_way:
            oldest = next(iter(self._under_way))
            left_s = oldest.until - time.monotonic()
            if left_s > 0:
                gevent.sleep(left_s)
            else:
                self._lose(oldest, "late", "too slow")
        self._is_watched = False
