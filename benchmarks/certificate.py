"""A certificate for a fabric to show, and whom its clients believe then."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme

NAME = "localhost"


def make_certificate(folder: Path) -> ssl.SSLContext:
    """Writes certificate.pem and key.pem into a folder (P-256, as most are today). Returns a client's context."""
    signer = trustme.CA()
    signed = signer.issue_cert(NAME)
    (folder / "certificate.pem").write_bytes(b"".join(blob.bytes() for blob in signed.cert_chain_pems))
    (folder / "key.pem").write_bytes(signed.private_key_pem.bytes())
    context = ssl.create_default_context()
    signer.configure_trust(context)
    return context


def wrap(sock: object, context: ssl.SSLContext) -> ssl.SSLSocket:
    """A client's end of TLS; its handshake is made later."""
    return context.wrap_socket(sock, server_hostname=NAME, do_handshake_on_connect=False)  # type: ignore[arg-type]
