"""The certificates of a listener: what OpenSSL makes of the files, and when they have changed. Blocks for the disk."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from cryptography import x509

from zim.errors import BadCertificate

MAX_FILE_BYTES = 1 << 20  # a chain has some thousands


@dataclass(frozen=True)
class CertificateFiles:
    """One certificate with those who signed it, and its key; both in PEM.

    Attributes:
        where: the key of the topology, for errors.
    """

    certificate: Path
    key: Path
    where: str = "tls"


@dataclass(frozen=True)
class Certificates:
    """What a listener shows.

    Attributes:
        context: for the next connection; it chooses among all by the name that the client asks for (RFC 6066 3).
        expires: of each certificate's file, Unix time in seconds.
        stamps: of the files, as they were read.
    """

    context: ssl.SSLContext
    expires: Mapping[Path, float]
    stamps: Mapping[Path, object]

    def is_outdated(self) -> bool:
        """One of the files has changed since, or is gone."""
        return any(stamp != _stamp(path) for path, stamp in self.stamps.items())


def load_certificates(files: Sequence[CertificateFiles]) -> Certificates:
    """Reads what a listener is to show. Whoever asks for no name, or for one that is in none, gets the first.

    Raises:
        BadCertificate: see there.
    """
    stamps = {path: _stamp(path) for one in files for path in (one.certificate, one.key)}
    contexts = [_context(one) for one in files]
    leaves = [_leaf(one) for one in files]
    by_name: dict[str, ssl.SSLContext] = {}
    for leaf, context in zip(leaves, contexts, strict=True):
        for name in _names(leaf):
            by_name.setdefault(name, context)
    if len(contexts) > 1:
        _choose(contexts[0], by_name)
    expires = {one.certificate: leaf.not_valid_after_utc.timestamp() for one, leaf in zip(files, leaves, strict=True)}
    return Certificates(contexts[0], expires, stamps)


class _Connection(ssl.SSLObject):
    """What gevent's context hands to the callback of a name has to say which socket it is of: it is itself."""

    def _sslsock(self) -> ssl.SSLObject:
        return self


def _choose(first: ssl.SSLContext, by_name: Mapping[str, ssl.SSLContext]) -> None:
    def on_name(tls: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        asked = (name or "").lower().removesuffix(".")
        found = by_name.get(asked) or by_name.get("*." + asked.partition(".")[2])
        if found is not None:
            tls.context = found

    first.sni_callback = on_name


def _context(files: CertificateFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.sslobject_class = _Connection
    context.set_alpn_protocols(["http/1.1"])  # a client that offers something else goes on without

    def no_password() -> NoReturn:
        raise BadCertificate(f"{files.where}.key: {files.key} is encrypted; right is a key without a passphrase")

    try:
        context.load_cert_chain(files.certificate, files.key, no_password)
    except ssl.SSLError as e:
        raise BadCertificate(f"{files.where}: {_why(files, e)}") from None
    except OSError as e:
        raise BadCertificate(f"{files.where}: {_missing(files)} cannot be read: {e.strerror}") from None
    return context


def _why(files: CertificateFiles, error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"{files.key} is not the key of {files.certificate}; right is the one that it was made with"
    try:
        x509.load_pem_x509_certificates(_content(files.certificate))
    except (OSError, ValueError):
        return f"{files.certificate} has no certificate in PEM; right is one, and behind it those who signed it"
    return f"{files.key} has no private key in PEM"


def _missing(files: CertificateFiles) -> Path:
    try:
        _content(files.certificate)
    except OSError:
        return files.certificate
    return files.key


def _content(path: Path) -> bytes:
    with path.open("rb") as f:
        return f.read(MAX_FILE_BYTES)


def _leaf(files: CertificateFiles) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(_content(files.certificate))[0]
    except (OSError, ValueError) as e:
        raise BadCertificate(f"{files.where}.certificate: {files.certificate} cannot be read: {e}") from None


def _names(leaf: x509.Certificate) -> list[str]:
    """The names that it is for, in lower case: `push.example.com`, `*.example.com` (RFC 9525 6.3)."""
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return []
    return [name.lower() for name in found.get_values_for_type(x509.DNSName)]


def _stamp(path: Path) -> object:
    """Something else whenever the file is another one; a link that is turned, as certbot's, too."""
    try:
        found = os.stat(path)
    except OSError as e:
        return e.errno
    return found.st_mtime_ns, found.st_size, found.st_ino
