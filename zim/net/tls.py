"""TLS on a connection's bytes (RFC 8446): a pipe over OpenSSL's memory buffers.

A chunk is encrypted when it is taken up, a record at a time, and what is encrypted goes out, in order, before anything
else: after a write that OpenSSL has begun, exactly the same bytes must follow. So whoever was told that a part of a
chunk was not taken offers that part again; `is_begun` says that some of it is under way.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import gevent
from gevent import socket
from typing_extensions import override

from zim.net.fairness import give_way
from zim.net.pipe import READ_BYTES, Pipe, SocketPipe

RECORD_BYTES = 16 << 10  # RFC 8446 5.1
_RECORD_HEAD_BYTES, _HANDSHAKE = 5, b"\x16"
UNREAD_BYTES = 64 << 10  # of answers to the peer's own words of TLS; who reads none of them is cut
RAW_READS = 4  # of a turn in which nothing readable came

T = TypeVar("T")


def is_hello(came: bytes) -> bool:
    """Whether a client's first record is whole, or is none: an unfinished one needs no OpenSSL, which takes 30 kB."""
    if len(came) < _RECORD_HEAD_BYTES:
        return came[:1] not in (b"", _HANDSHAKE)
    size = int.from_bytes(came[3:_RECORD_HEAD_BYTES])
    return came[:1] != _HANDSHAKE or size > RECORD_BYTES or len(came) >= _RECORD_HEAD_BYTES + size


class TlsPipe(Pipe):
    """The server's end. The handshake is made in it, by `handshake`, before anything else is done with it."""

    __slots__ = (
        "_encrypt",
        "_encrypted",
        "_incoming",
        "_is_dry",
        "_outgoing",
        "_plain_bytes",
        "_rest",
        "_send",
        "_tls",
        "_under",
    )

    def __init__(self, under: SocketPipe, context: ssl.SSLContext, came: bytes = b"") -> None:
        """
        Args:
            under: what is encrypted goes through it.
            came: what has been read from there already.
        """
        self._under = under
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._encrypt, self._encrypted, self._send = self._tls.write, self._outgoing.read, under.send
        self._rest = b""  # encrypted, and not with the kernel
        self._plain_bytes = 0  # how much of what was offered last is in it
        self._is_dry = True  # nothing can be read before the kernel has more
        if came:
            self._incoming.write(came)

    def handshake(self) -> bool:
        """Goes on with it as far as it can without waiting for the other end; whether it is done. Switches if the
        other end does not read.

        Raises:
            OSError: it has failed, or the other end is gone.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush_all()
            except ssl.SSLError:
                with suppress(OSError):  # an alert, that says why
                    self._flush()
                raise
            else:
                self._flush_all()
                return True
            if (data := self._under.receive(waits=False)) is None:
                self._is_dry = True
                return False
            if not data:
                raise ConnectionResetError(0, "closed in the handshake")
            self._is_dry = False
            self._incoming.write(data)

    # -- writing

    @property
    @override
    def is_begun(self) -> bool:
        return self._plain_bytes > 0

    @override
    def send(self, data: bytes) -> int:
        if self._rest or self._plain_bytes or len(data) > RECORD_BYTES:
            return self._send_records(data)
        size = self._encrypt(data)
        encrypted = self._encrypted()
        try:
            sent = self._send(encrypted)
        except BlockingIOError:
            sent = 0
        if sent == len(encrypted):
            return size
        self._rest, self._plain_bytes = encrypted[sent:], size
        return 0

    def _send_records(self, data: bytes) -> int:
        sent = 0
        while sent < len(data):
            if not self._plain_bytes:
                piece = data if len(data) <= RECORD_BYTES else data[sent : sent + RECORD_BYTES]
                self._plain_bytes = self._encrypt(piece)
            if not self._flush():
                break
            sent += self._plain_bytes
            self._plain_bytes = 0
        return sent

    @override
    def send_many(self, chunks: Sequence[bytes]) -> int:
        total = 0
        for chunk in chunks:
            sent = self.send(chunk)
            total += sent
            if sent < len(chunk):
                break
        return total

    @override
    def wait_writable(self) -> None:
        self._under.wait_writable()

    def _flush(self) -> bool:
        """Whether all that is encrypted is with the kernel now."""
        data = self._rest + self._encrypted() if self._rest else self._encrypted()
        if not data:
            return True
        self._rest = data  # in case of an error
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        self._rest = data[sent:]
        return not self._rest

    def _flush_all(self) -> None:
        while not self._flush():
            self.wait_writable()

    # -- reading

    @override
    def receive(self, waits: bool) -> bytes | None:
        reads = 0
        while True:
            try:
                data = self._tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLError as e:
                with suppress(OSError):  # an alert, that says why
                    self._flush()
                raise OSError(0, words(e)) from None
            else:
                self._is_dry = False
                self._answer()
                return data
            self._answer()
            if reads >= RAW_READS:
                reads = 0
                if not waits:
                    return None  # and is not dry: it goes on at once, after the others
                give_way()
            raw = self._under.receive(waits)
            reads += 1
            if not raw:
                self._is_dry = True
                return raw
            self._is_dry = False
            self._incoming.write(raw)

    def _answer(self) -> None:
        """What TLS itself has to say goes out, as far as it does: an answer to a new key, an alert."""
        if self._outgoing.pending:
            self._flush()
            if len(self._rest) > UNREAD_BYTES + RECORD_BYTES:
                raise OSError(0, "reads nothing")

    @override
    def park(self, go_on: Callable[[T], None], what: T) -> None:
        if self._is_dry:
            self._under.park(go_on, what)
        else:
            gevent.spawn_raw(go_on, what)  # the kernel would not tell of what is in here already

    # -- the end

    @override
    def traffic(self) -> tuple[int, int] | None:
        return self._under.traffic()

    @override
    def shutdown(self) -> None:
        with suppress(OSError):
            if not self._plain_bytes:
                with suppress(ssl.SSLError):  # it would wait for the other end's goodbye
                    self._tls.unwrap()
                self._flush()
        self._under.shutdown()

    @override
    def close(self) -> None:
        self._under.close()


class TlsSocket:
    """A pipe as a socket, for servers whose greenlets wait for one client. Only what these use."""

    def __init__(self, pipe: TlsPipe, sock: socket.socket) -> None:
        self.pipe = pipe
        self._socket = sock
        self._came = b""  # that was looked at, and not taken
        self.settimeout, self.setsockopt = sock.settimeout, sock.setsockopt

    def recv(self, size: int, flags: int = 0) -> bytes:
        """As of a socket: at least one byte, b"" at the end. Switches, but with a time limit of 0.

        Args:
            flags: MSG_PEEK, or nothing.

        Raises:
            TimeoutError: nothing came in time. BlockingIOError: nothing is there, and the limit is 0.
        """
        if not self._came:
            found = self.pipe.receive(waits=self._socket.gettimeout() != 0.0)
            if found is None:
                raise BlockingIOError
            self._came = found
        data = self._came[:size]
        if flags != socket.MSG_PEEK:
            self._came = self._came[size:]
        return data

    def recv_into(self, buffer: bytearray) -> int:
        """As of a socket, see `recv`. Switches."""
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def sendall(self, data: bytes) -> None:
        """As of a socket. Switches.

        Raises:
            TimeoutError: it was not taken in time.
        """
        while True:
            data = data[self.pipe.send(data) :]
            if not data:
                return
            self.pipe.wait_writable()

    def shutdown(self, how: int) -> None:
        """As of a socket; what goes out ends with TLS's own goodbye."""
        if how == socket.SHUT_RD:
            self._socket.shutdown(how)
        else:
            self.pipe.shutdown()

    def close(self) -> None:
        """As of a socket."""
        self.pipe.shutdown()
        self.pipe.close()


AnySocket = socket.socket | TlsSocket


def pipe_of(sock: AnySocket) -> Pipe:
    """A connection's bytes, without waiting for them."""
    return sock.pipe if isinstance(sock, TlsSocket) else SocketPipe(sock)


def words(error: ssl.SSLError) -> str:
    """An error of TLS in a few words."""
    return f"TLS: {(error.reason or error.strerror or 'broken').lower().replace('_', ' ')}"
