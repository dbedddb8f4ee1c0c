"""By which name a listener with TLS of this machine is reached: one that its certificate is for."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509


def certified(host: str, certificate: Path) -> str:
    """This host, if the certificate is for it; else `localhost`, or the first name that it is for."""
    try:
        leaf = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return host
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    called = [name for name in names.get_values_for_type(x509.DNSName) if not name.startswith("*")]
    if not called or host.strip("[]") in addresses or host in called:
        return host
    is_loopback = host.startswith("127.") or host == "[::1]"
    return "localhost" if is_loopback and "localhost" in called else called[0]
