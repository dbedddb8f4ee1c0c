"""A TLS proxy in front of a listener of a fabric, and certificates for it."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import gevent
import trustme
from gevent import socket
from gevent.server import StreamServer


class Signer:
    """Somebody who signs certificates.

    Attributes:
        file: what a client believes who believes this one.
    """

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def sign(self, name: str, folder: Path) -> tuple[Path, Path]:
        """A certificate for this name and localhost, and its key, as files."""
        signed = self._ca.issue_cert(name, "localhost")
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in signed.cert_chain_pems))
        key.write_bytes(signed.private_key_pem.bytes())
        return certificate, key

    def context(self, name: str) -> ssl.SSLContext:
        """A server's, with a certificate for this name."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(name).configure_cert(context)
        return context


@contextlib.contextmanager
def tls_proxy(target: str, context: ssl.SSLContext) -> Iterator[str]:
    """Where it listens: `localhost:port`. What comes goes to the target, decrypted; on its end all connections end."""
    host, _, port = target.rpartition(":")

    def serve(plain: socket.socket, _: object) -> None:
        with (
            contextlib.suppress(OSError),  # a client that does not believe it hangs up in the handshake
            context.wrap_socket(plain, server_side=True) as client,
            socket.create_connection((host, int(port))) as other,
        ):
            copies = [gevent.spawn(_copy, client, other), gevent.spawn(_copy, other, client)]
            try:
                gevent.joinall(copies, count=1)
            finally:
                gevent.killall(copies)

    server = StreamServer(("127.0.0.1", 0), serve)
    server.start()
    try:
        yield f"localhost:{server.server_port}"
    finally:
        server.stop(timeout=0)


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
