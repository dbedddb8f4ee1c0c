"""What stands before listeners follows the topology: proxies, certificates, and the time that a handshake has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.tls_proxy import Signer
from zim.errors import BadCertificate
from zim.net.entrances import Entrances, read_certificates
from zim.topology import ListenAddress
from zim.topology.nodes import CertificatePair


def test_it_follows_a_changed_topology(tmp_path: Path) -> None:
    Signer(tmp_path).sign("a.example", tmp_path)
    plain = {"ws": (ListenAddress("127.0.0.1:8090"),)}
    (at,) = plain["ws"]
    tls = {"ws": (replace(at, tls=(CertificatePair("a.example.crt", "a.example.key"),), proxy_protocol=True),)}
    entrances = Entrances(tmp_path, plain, 5.0)
    (before,) = entrances.handshakes["ws"]
    assert (before.is_none, before.timeout_s) == (True, 5.0)
    entrances.follow(tls, read_certificates(tmp_path, tls), 2.0)
    (after,) = entrances.handshakes["ws"]
    assert after is before  # whom the listener has in its hands
    assert after.context is not None
    assert (after.introduces, after.timeout_s) == (True, 2.0)
    assert after.proxies.has("127.0.0.1")
    assert not after.proxies.has("10.0.0.7")
    entrances.follow(plain, read_certificates(tmp_path, plain), 5.0)
    assert after.is_none


def test_what_cannot_be_read_names_the_listener(tmp_path: Path) -> None:
    at = ListenAddress("127.0.0.1:8090", tls=(CertificatePair("no.crt", "no.key"),))
    with pytest.raises(BadCertificate, match=r"ws 127\.0\.0\.1:8090: tls: .*no\.crt cannot be read: No such file"):
        read_certificates(tmp_path, {"ws": (at,)})
