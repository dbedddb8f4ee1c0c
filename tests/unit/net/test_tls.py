"""TLS as a pipe: whatever the socket takes, and whenever, the other end gets every byte once and in order."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import gevent
import pytest
from gevent import socket
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness import wait_until
from tests.tls_proxy import Signer
from zim.net.certificates import CertificateFiles, load_certificates
from zim.net.pipe import SocketPipe
from zim.net.tls import RECORD_BYTES, TlsPipe, TlsSocket


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's, the client's."""
    folder: Path = tmp_path_factory.mktemp("tls")
    signer = Signer(folder)
    return (
        load_certificates([CertificateFiles(*signer.sign("push.example.com", folder))]).context,
        ssl.create_default_context(cafile=signer.file),
    )


class Ends:
    """A server's pipe, and a client."""

    def __init__(self, contexts: tuple[ssl.SSLContext, ssl.SSLContext], buffer: int = 0) -> None:
        server, client = contexts
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            if buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        self.sock = ours
        self.pipe = TlsPipe(SocketPipe(ours), server)
        shaking = gevent.spawn(client.wrap_socket, theirs, server_hostname="push.example.com")
        while not self.pipe.handshake():
            gevent.sleep(0.001)
        self.client: ssl.SSLSocket = shaking.get()

    def close(self) -> None:
        self.pipe.close()
        self.client.close()


@pytest.fixture
def ends(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Iterator[Ends]:
    found = Ends(contexts)
    yield found
    found.close()


def test_bytes_go_both_ways(ends: Ends) -> None:
    assert ends.client.version() == "TLSv1.3"
    assert ends.pipe.send(b"one") == 3
    assert ends.pipe.send_many([b"two", b"three"]) == 8
    assert b"".join(ends.client.recv(100) for _ in range(3)) == b"onetwothree"
    assert ends.pipe.receive(waits=False) is None
    ends.client.sendall(b"x" * 5000)
    assert len((ends.pipe.receive(waits=True) or b"") + (ends.pipe.receive(waits=True) or b"")) == 5000
    assert ends.pipe.receive(waits=False) is None
    ends.client.close()
    assert ends.pipe.receive(waits=True) == b""


def test_a_goodbye_of_tls_is_the_end_and_so_is_ours(ends: Ends) -> None:
    ends.pipe.send(b"last")
    ends.pipe.shutdown()
    assert ends.client.recv(100) == b"last"
    assert ends.client.recv(100) == b""  # without the goodbye that would be an error
    with suppress(OSError):
        ends.client.unwrap()
    assert ends.pipe.receive(waits=True) == b""


def test_what_was_not_taken_is_offered_again_and_arrives_once(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    ends = Ends(contexts, buffer=4096)
    data = b"".join(b"%07d\n" % n for n in range(1 << 15))
    sent = ends.pipe.send(data)
    assert 0 <= sent < len(data)
    assert sent % RECORD_BYTES == 0
    assert ends.pipe.is_begun
    assert ends.pipe.send(data[sent:]) == 0  # and nothing of it goes out a second time
    came = bytearray()

    def read() -> None:
        while len(came) < len(data) + 4:
            came.extend(ends.client.recv(1 << 16))

    reader = gevent.spawn(read)
    while sent < len(data):
        now = ends.pipe.send(data[sent:])
        sent += now
        if not now:
            ends.pipe.wait_writable()
    assert not ends.pipe.is_begun
    ends.pipe.send(b"last")
    reader.join(10)
    assert bytes(came) == data + b"last"
    ends.close()


@settings(deadline=None, max_examples=40)
@given(
    chunks=st.lists(st.integers(1, 40_000), min_size=1, max_size=12),
    reads=st.lists(st.integers(1, 30_000), min_size=1, max_size=8),
)
def test_any_chunks_arrive_as_they_are_however_they_are_read(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], chunks: list[int], reads: list[int]
) -> None:
    ends = Ends(contexts, buffer=4096)
    wanted = [bytes([n % 251]) * size for n, size in enumerate(chunks)]
    came = bytearray()

    def read() -> None:
        turn = 0
        while len(came) < sum(chunks):
            came.extend(ends.client.recv(reads[turn % len(reads)]))
            turn += 1
            gevent.sleep(0)

    reader = gevent.spawn(read)
    left = list(wanted)
    while left:
        taken = ends.pipe.send_many(left)
        if not taken:
            ends.pipe.wait_writable()
        while taken:
            if taken >= len(left[0]):
                taken -= len(left.pop(0))
            else:
                left[0], taken = left[0][taken:], 0
    reader.join(10)
    assert bytes(came) == b"".join(wanted)
    ends.close()


def test_who_is_parked_is_called_for_what_is_decrypted_already(ends: Ends) -> None:
    """The kernel has nothing more: it would never say so."""
    ends.client.sendall(b"x" * RECORD_BYTES)
    assert ends.pipe.receive(waits=True)
    called: list[str] = []
    ends.pipe.park(called.append, "it")
    wait_until(lambda: called, "it is called")
    while ends.pipe.receive(waits=False) is not None:
        pass
    called.clear()
    ends.pipe.park(called.append, "it")
    gevent.sleep(0.02)
    assert called == []
    ends.client.sendall(b"y")
    wait_until(lambda: called, "it is called again")


def test_a_broken_record_ends_it_and_says_why(ends: Ends) -> None:
    raw = socket.fromfd(ends.client.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
    raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(OSError, match="TLS: "):
        ends.pipe.receive(waits=True)
    raw.close()


def test_half_a_record_is_waited_for(ends: Ends) -> None:
    raw = socket.fromfd(ends.client.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
    raw.sendall(b"\x17\x03\x03\x40\x00" + bytes(100))
    assert ends.pipe.receive(waits=False) is None
    called: list[str] = []
    ends.pipe.park(called.append, "it")
    gevent.sleep(0.02)
    assert called == []
    raw.close()


def test_as_a_socket_it_has_time_limits_and_can_be_looked_into(ends: Ends) -> None:
    sock = TlsSocket(ends.pipe, ends.sock)
    sock.settimeout(0.05)
    with pytest.raises(TimeoutError):
        sock.recv(10)
    sock.settimeout(0.0)
    with pytest.raises(BlockingIOError):
        sock.recv(1, socket.MSG_PEEK)
    ends.client.sendall(b"hello")
    sock.settimeout(5.0)
    assert sock.recv(1, socket.MSG_PEEK) == b"h"
    assert sock.recv(3) == b"hel"
    assert sock.recv(10) == b"lo"
    sock.sendall(b"y" * 100_000)
    came = b""
    while len(came) < 100_000:
        came += ends.client.recv(1 << 16)
    ends.client.close()
    assert sock.recv(1, socket.MSG_PEEK) == b""
