"""Certificates from files: which one a name gets, what is said of those that cannot be used, and when one is new."""

from __future__ import annotations

import os
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.tls_proxy import Signer
from zim.errors import BadCertificate
from zim.net.certificates import CertificateFiles, load_certificates


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("signer"))


def shown(context: ssl.SSLContext, asked: str | None, *, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> str:
    """The first name of the certificate that a client sees; the handshake is made in memory."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.maximum_version = newest
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = context.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=asked)
    for end in (theirs, ours, theirs, ours, theirs):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    der = theirs.getpeercert(binary_form=True)
    assert der
    from cryptography import x509

    names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return str(names.value.get_values_for_type(x509.DNSName)[0])


def test_each_name_gets_its_certificate_and_everybody_else_the_first(signer: Signer, tmp_path: Path) -> None:
    names = ("push.example.com", "other.example.org", "*.wild.example.com")
    files = [CertificateFiles(*signer.sign(name, tmp_path)) for name in names]
    found = load_certificates(files)
    assert shown(found.context, "push.example.com") == "push.example.com"
    assert shown(found.context, "OTHER.example.org") == "other.example.org"
    assert shown(found.context, "a.wild.example.com") == "*.wild.example.com"
    assert shown(found.context, "wild.example.com") == "push.example.com"
    assert shown(found.context, "a.b.wild.example.com") == "push.example.com"
    assert shown(found.context, "unknown.example.net") == "push.example.com"
    assert shown(found.context, None) == "push.example.com"
    assert set(found.expires) == {one.certificate for one in files}


def test_tls_1_2_is_spoken_and_nothing_older(signer: Signer, tmp_path: Path) -> None:
    context = load_certificates([CertificateFiles(*signer.sign("a.example", tmp_path))]).context
    assert shown(context, None, newest=ssl.TLSVersion.TLSv1_2) == "a.example"
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError), pytest.warns(DeprecationWarning, match="TLSv1_1"):
        shown(context, None, newest=ssl.TLSVersion.TLSv1_1)


def test_what_cannot_be_used_is_named(signer: Signer, tmp_path: Path) -> None:
    certificate, key = signer.sign("a.example", tmp_path)
    _, other = signer.sign("b.example", tmp_path)
    empty, secret = tmp_path / "empty", tmp_path / "secret.pem"
    empty.touch()
    subprocess.run(["openssl", "ec", "-aes256", "-passout", "pass:x", "-in", key, "-out", secret], check=True)
    for pair, words in (
        ((certificate, tmp_path / "no"), "no cannot be read: No such file"),
        ((tmp_path / "no", key), "no cannot be read: No such file"),
        ((certificate, other), "is not the key of"),
        ((certificate, empty), "has no private key in PEM"),
        ((empty, key), "has no certificate in PEM"),
        ((key, key), "has no certificate in PEM"),
        ((certificate, certificate), "has no private key in PEM"),
        ((certificate, secret), "is encrypted; right is a key without a passphrase"),
        ((certificate, tmp_path), "cannot be read"),
    ):
        with pytest.raises(BadCertificate, match=words) as e:
            load_certificates([CertificateFiles(*pair, "comet[0].ws: tls")])
        assert str(e.value).startswith("comet[0].ws: tls")
        assert "PRIVATE" not in str(e.value)


def test_a_changed_file_is_noticed(signer: Signer, tmp_path: Path) -> None:
    certificate, key = signer.sign("a.example", tmp_path)
    link = tmp_path / "live.pem"
    link.symlink_to(certificate)
    found = load_certificates([CertificateFiles(link, key)])
    assert not found.is_outdated()
    newer = tmp_path / "newer.pem"
    newer.write_bytes(certificate.read_bytes())
    link.unlink()
    link.symlink_to(newer)  # as certbot does
    assert found.is_outdated()
    assert not load_certificates([CertificateFiles(link, key)]).is_outdated()
    found = load_certificates([CertificateFiles(certificate, key)])
    os.utime(key, ns=(1, 1))
    assert found.is_outdated()
    key.unlink()
    assert found.is_outdated()
