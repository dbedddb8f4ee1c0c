"""The Python client through a TLS proxy: patched, and in a process with plain threads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Fabric, running
from tests.tls_proxy import Signer, tls_proxy
from tests.unit.client.listening import States
from tests.unit.client.listening import running as iterating
from zim.client import (
    AddressError,
    Backoff,
    CertificateError,
    ClientError,
    Listener,
    Message,
    Publisher,
    Push,
    PushUnavailable,
    PushUntrusted,
    State,
)


@pytest.fixture(scope="module")
def fabric() -> Iterator[Fabric]:
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("signer"))


@pytest.fixture(scope="module")
def proxies(fabric: Fabric, signer: Signer) -> Iterator[tuple[str, str]]:
    """Where clients connect, and where backends push."""
    context = signer.context("localhost")
    with tls_proxy(fabric.ws["comet-1"], context) as ws, tls_proxy(fabric.http["logic-1"], context) as http:
        yield f"wss://{ws}", f"https://{http}"


def listen(addresses: str | list[str], token: int, **options: Any) -> Listener:
    return Listener(addresses, token, **{"backoff": Backoff(0.001, 0.01), **options})


def body(event: object) -> bytes:
    assert isinstance(event, Message)
    return event.body


def test_what_is_pushed_over_https_is_heard_over_wss(proxies: tuple[str, str], signer: Signer) -> None:
    wss, https = proxies
    large = b'"%s"' % (b"x" * 60_000)
    with Publisher(https, ca=signer.file) as publisher, listen(wss, 11, ca=str(signer.file)) as listener:
        assert publisher.push(large, users=11).streams == {"u:11": 1}
        found = iter(listener)
        assert body(next(found)) == large
        publisher.push(b"2", users=11)
        assert body(next(found)) == b"2"
        results = publisher.push_batch(Push(b"%d" % number, users=11) for number in range(200))
        assert len(results) == 200
        assert [body(event) for event in islice(found, 200)] == [b"%d" % number for number in range(200)]
        listener.join("a" * 200)
        publisher.push(b"3", rooms="a" * 200, users=11)
        assert {body(event) for event in islice(found, 1)} == {b"3"}


def test_one_connection_serves_many_pushes(fabric: Fabric, signer: Signer) -> None:
    with ExitStack() as stack:
        http = stack.enter_context(tls_proxy(fabric.http["logic-1"], signer.context("localhost")))
        publisher = stack.enter_context(Publisher(f"https://{http}", ca=signer.file))
        publisher.push(b"1", users=12)
        sock = publisher._links[0]._link()
        for _ in range(3):
            publisher.push(b"2", users=12)
        assert publisher._links[0]._link() is sock


def test_a_lost_connection_is_made_anew(fabric: Fabric, signer: Signer) -> None:
    states: list[State] = []
    with ExitStack() as stack:
        context = signer.context("localhost")
        one = ExitStack()
        first = one.enter_context(tls_proxy(fabric.ws["comet-1"], context))
        second = stack.enter_context(tls_proxy(fabric.ws["comet-1"], context))
        addresses = [f"wss://{first}", f"wss://{second}"]
        listener = stack.enter_context(listen(addresses, 13, ca=signer.file, on_state=states.append))
        found = iter(listener)
        fabric.post("/1/push?uid=13", b"1")
        assert body(next(found)) == b"1"
        fabric.kill("comet-1")
        one.close()
        fabric.post("/1/push?uid=13", b"2")
        assert body(next(found)) == b"2"
    assert [state.address for state in states if state.name == "connected"] == addresses


def refuses(certificate: str, why: str, ca: Path, address: str) -> None:
    """A listener and a publisher that must not believe this."""
    states: list[State] = []
    listener = listen(f"wss://{address}", 7, ca=ca, on_state=states.append)
    for _ in range(2):
        with pytest.raises(CertificateError, match=f"the certificate of wss://{address} cannot be verified: .*{why}"):
            next(iter(listener))
    assert [state.name for state in states] == ["connecting", "unreachable"] * 2, certificate
    assert states[-1].retry_s == 0
    publisher = Publisher(f"https://{address}", ca=ca, retry_s=1000.0)
    with pytest.raises(PushUntrusted, match=f"the certificate of {address} cannot be verified: .*{why}"):
        publisher.push(b"1", users=7)
    with pytest.raises(PushUntrusted, match=why):
        publisher.push_user(7, b"1")
    (result,) = publisher.push_batch([Push(b"1", users=7)])
    assert isinstance(result, PushUntrusted)


def test_a_certificate_for_another_name(fabric: Fabric, signer: Signer) -> None:
    with tls_proxy(fabric.ws["comet-1"], signer.context("push.example.com")) as address:
        refuses(
            "other name",
            "Hostname mismatch, .* for 'localhost'; connect to a name that it is for",
            signer.file,
            address,
        )


def test_a_certificate_that_somebody_unknown_has_signed(fabric: Fabric, signer: Signer, tmp_path: Path) -> None:
    with tls_proxy(fabric.ws["comet-1"], Signer(tmp_path).context("localhost")) as address:
        refuses("unknown signer", "unable to get local issuer certificate", signer.file, address)


def test_the_systems_store_is_the_default(proxies: tuple[str, str]) -> None:
    with pytest.raises(CertificateError):
        next(iter(listen(proxies[0], 7)))
    with pytest.raises(PushUntrusted):
        Publisher(proxies[1]).push(b"1", users=7)


def test_another_address_is_taken(fabric: Fabric, proxies: tuple[str, str], signer: Signer, tmp_path: Path) -> None:
    states: list[State] = []
    wss, https = proxies
    with tls_proxy(fabric.ws["comet-1"], Signer(tmp_path).context("localhost")) as bad:
        addresses = [f"wss://{bad}", wss]
        with listen(addresses, 14, ca=signer.file, on_state=states.append) as listener:
            with Publisher([f"https://{bad}", https], ca=signer.file) as publisher:
                publisher.push(b"1", users=14)
            assert body(next(iter(listener))) == b"1"
    assert [state.name for state in states] == ["connecting", "unreachable", "connecting", "connected"]


def test_a_port_that_speaks_no_tls(fabric: Fabric, signer: Signer) -> None:
    ws, tcp = fabric.ws["comet-1"], fabric.tcp["comet-1"]
    for address, state, said in (
        (f"wss://{ws}", "unreachable", f"no TLS is spoken at wss://{ws}; is it ws://{ws}?"),
        (f"tls://{tcp}", "refused", f"(if no TLS is spoken there, it is {tcp}) before it answered the login"),
    ):
        states = States()
        with iterating(listen(address, 7, ca=signer.file, on_state=states)):
            assert said in states.wait_for(state).reason
    with pytest.raises(PushUnavailable, match="no connection to"):
        Publisher(f"https://{fabric.http['logic-1']}", ca=signer.file, retry_s=0.0).push(b"1", users=7)


@pytest.mark.parametrize(
    ("ca", "why"),
    [("/nowhere/ca.pem", "No such file"), (__file__, "no certificate in it"), (5, "name a file")],
)
def test_a_ca_that_cannot_be_used(ca: Any, why: str) -> None:
    with pytest.raises(ClientError, match=f"ca=.*{why}"):
        Listener("wss://localhost:1", 7, ca=ca)
    with pytest.raises(ClientError, match=f"ca=.*{why}"):
        Publisher("https://localhost:1", ca=ca)


def test_a_ca_for_addresses_that_are_not_encrypted(signer: Signer) -> None:
    with pytest.raises(AddressError, match="wss://"):
        Listener(["127.0.0.1:1", "ws://localhost:1"], 7, ca=signer.file)
    with pytest.raises(AddressError, match="https://"):
        Publisher("localhost:1", ca=signer.file)


PLAIN = """
import sys, threading
from itertools import islice
from zim.client import Listener, Publisher
assert "gevent" not in sys.modules
wss, https, ca = sys.argv[1:]
found = []
def run():
    with Listener(wss, "15", ca=ca) as listener:
        found.extend(event.body for event in islice(listener, 100))
thread = threading.Thread(target=run)
thread.start()
with Publisher(https, ca=ca) as publisher:
    for number in range(100):
        publisher.push(b"%d" % number, users=15)
thread.join(20)
print(found == [b"%d" % number for number in range(100)])
try:
    next(iter(Listener(wss, "15")))
except Exception as error:
    print(type(error).__name__)
"""


def test_plain_threads(proxies: tuple[str, str], signer: Signer) -> None:
    command = [sys.executable, "-c", PLAIN, *proxies, str(signer.file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("True\nCertificateError\n", "")


def test_zim_listen(proxies: tuple[str, str], signer: Signer) -> None:
    command = [sys.executable, "-m", "zim", "listen", "--uid", "16", "--address", proxies[0], "--ws"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith(f"zim listen: the certificate of {proxies[0]} cannot be verified: ")
    assert done.stderr.count("\n") == 1


def test_the_command_line_asks_and_pushes_over_https(proxies: tuple[str, str], signer: Signer) -> None:
    wss, https = proxies
    believing = {**os.environ, "SSL_CERT_FILE": str(signer.file)}

    def zim(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "zim", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment or believing)

    assert zim("push", "user", "91", "hello", "--http", https).returncode == 0
    assert zim("who", "user", "91", "--http", https).returncode == 0
    assert zim("ledger", "--http", https).returncode == 0
    heard = zim("listen", "--uid", "91", "--address", wss, "--count", "1", "--timeout", "20")
    assert (heard.returncode, heard.stdout) == (0, '"hello"\n')
    doubting = zim("who", "user", "91", "--http", https, **os.environ)
    assert doubting.returncode == 3
    assert "cannot be verified" in doubting.stderr
    assert "SSL_CERT_FILE" in doubting.stderr
