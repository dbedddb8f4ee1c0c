"""The client's end of TLS: whom it believes, and a wire inside of it. No socket in here.

The server is named by its address, and its certificate must be for that name (RFC 9525).
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterable, Iterator

from typing_extensions import override

from zim.client.errors import AddressError, CertificateError, ClientError, ConnectionLost, Unreachable
from zim.client.wire import Wire
from zim.protocol.frame import Packet

_READ_BYTES = 64 << 10


def make_context(texts: Iterable[str], ca: str | os.PathLike[str] | None) -> ssl.SSLContext | None:
    """Whom to believe.

    Args:
        texts: the addresses.
        ca: a file with the certificates of those who sign, in PEM; the system's store if it is None.

    Returns:
        None if no address is one of TLS.

    Raises:
        AddressError: there is a `ca`, and no address for it.
        ClientError: the file cannot be used.
    """
    if not any(text.startswith(("wss://", "tls://", "https://")) for text in texts):
        if ca is not None:
            raise AddressError("ca is for addresses that begin with wss://, tls:// or https://, and none does")
        return None
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ValueError, TypeError) as error:  # SSLError is an OSError
        what = "there is no certificate in it" if isinstance(error, ssl.SSLError) else why(error)
        raise ClientError(f"ca={str(ca)!r} cannot be used: {what}; name a file of certificates in PEM") from None


_OF_ANOTHER_NAME = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")  # OpenSSL's words for other bytes


def why(error: Exception) -> str:
    """An error of TLS, or of the system, in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.rstrip(".")
    if isinstance(error, ssl.SSLError) and error.reason in _NO_TLS:
        return "no TLS is spoken there"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def not_verified(address: str, error: ssl.SSLCertVerificationError) -> str:
    """What to tell when a certificate cannot be verified."""
    remedy = "ca=, or the environment variable SSL_CERT_FILE, names a file of certificates to believe instead"
    if error.verify_code in _OF_ANOTHER_NAME:
        remedy = "connect to a name that it is for"
    return f"the certificate of {address} cannot be verified: {why(error)}; {remedy}"


class TlsWire(Wire):
    """A wire inside of TLS (RFC 8446)."""

    def __init__(self, inner: Wire, context: ssl.SSLContext, address: str, host: str) -> None:
        self._inner = inner
        self._address = address
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._is_encrypted = False
        self.is_open = False
        self._plain = address.removeprefix("tls://").replace("wss://", "ws://")
        self.of_silence = f" (if no TLS is spoken there, it is {self._plain})"
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        self.opening = self._outgoing.read()

    @override
    def send(self, packet: Packet) -> bytes:
        self._encrypt(self._inner.send(packet))
        return self._outgoing.read()

    @override
    def replies(self) -> bytes:
        return self._outgoing.read()

    @override
    def closing(self) -> bytes:
        with contextlib.suppress(ssl.SSLError, ConnectionLost):  # unwrap would wait for the other side's goodbye
            self._encrypt(self._inner.closing())
            self._tls.unwrap()
        return self._outgoing.read()

    @override
    def _read(self, data: bytes) -> Iterator[Packet]:
        self._incoming.write(data)
        try:
            if not self._is_encrypted:
                self._tls.do_handshake()
                self._is_encrypted, self.of_silence = True, ""
                self._encrypt(self._inner.opening)
                self.is_open = self._inner.is_open  # TCP's is, WebSocket's waits for an answer
            while plain := self._tls.read(_READ_BYTES):
                yield from self._inner.receive(plain)
                self.is_open = self._inner.is_open
                self._encrypt(self._inner.replies())
                if self._inner.broken is not None:
                    raise self._inner.broken
        except ssl.SSLWantReadError:
            return
        except ssl.SSLCertVerificationError as error:
            raise CertificateError(not_verified(self._address, error)) from None
        except ssl.SSLError as error:
            if self.is_open:
                raise ConnectionLost(f"connection lost: {why(error)}") from None
            if error.reason in _NO_TLS:
                raise Unreachable(f"no TLS is spoken at {self._address}; is it {self._plain}?") from None
            raise Unreachable(f"no TLS with {self._address}: {why(error)}; is TLS spoken there?") from None
        raise ConnectionLost("closed by the server")

    def _encrypt(self, data: bytes) -> None:
        """Into `_outgoing`. Raises: ConnectionLost, after an error that ended TLS."""
        try:
            while data:
                data = data[self._tls.write(data) :]
        except ssl.SSLError as error:
            raise ConnectionLost(f"connection lost: {why(error)}") from None
