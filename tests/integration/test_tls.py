"""Listeners that speak TLS: a real fabric, clients that verify it, certificates that change meanwhile."""

from __future__ import annotations

import http.client
import json
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gevent import socket

from tests.harness import Client, Fabric, running, wait_until
from tests.integration.hostile_http import SMUGGLED, UPGRADES, answers
from tests.tls_proxy import Signer
from zim.client import Listener, Message, Publisher

PAIR = {"certificate": "localhost.crt", "key": "localhost.key"}
TLS = {"tls": PAIR}


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("signer"))


@pytest.fixture(scope="module")
def fabric(signer: Signer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fabric]:
    folder = tmp_path_factory.mktemp("fabric")
    signer.sign("localhost", folder)
    listeners = {"http": TLS, "tcp": TLS, "ws": TLS, "admin": TLS}
    with running(
        folder, has_admin=True, listeners=listeners, comet={"handshake_timeout_s": 1, "outbox_bytes": 16 << 20}
    ) as found:
        yield found


@pytest.fixture
def client_tls(signer: Signer) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=signer.file)


def get(address: str, path: str, tls: ssl.SSLContext) -> tuple[int, str]:
    connection = http.client.HTTPSConnection("localhost", int(address.rpartition(":")[2]), context=tls, timeout=20)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def metric(fabric: Fabric, tls: ssl.SSLContext, name: str) -> float:
    page = get(fabric.admin["comet-1"], "/metrics", tls)[1]
    return sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(name))


def localhost(address: str, scheme: str) -> str:
    return f"{scheme}://{address.replace('127.0.0.1', 'localhost')}"


@pytest.mark.parametrize("scheme", ["wss", "tls"])
def test_the_python_client_over_tls(fabric: Fabric, signer: Signer, scheme: str) -> None:
    where = fabric.ws["comet-1"] if scheme == "wss" else fabric.tcp["comet-1"]
    large, uid = b'"%s"' % (b"x" * 60_000), "31" if scheme == "wss" else "32"
    https = localhost(fabric.http["logic-1"], "https")
    with (
        Publisher(https, ca=signer.file) as publisher,
        Listener(localhost(where, scheme), uid, rooms=["a"], ca=signer.file) as listener,
    ):
        found = iter(listener)
        publisher.push(large, users=uid)
        publisher.push(b"2", users=uid)
        publisher.push(b"3", rooms="a", users=uid)
        bodies = set()
        while b"3" not in bodies:
            event = next(found)
            assert isinstance(event, Message)
            bodies.add(event.body)
        assert large in bodies


@pytest.mark.parametrize("is_ws", [False, True])
def test_goims_clients_over_tls(fabric: Fabric, client_tls: ssl.SSLContext, is_ws: bool) -> None:
    address = (fabric.ws if is_ws else fabric.tcp)["comet-1"]
    client = Client(address, "21" if is_ws else "22", is_ws=is_ws, tls=client_tls)
    client.say(2, seq=5)
    assert client.wait(1)[0].op == 3
    client.close()


def test_the_admin_address_over_tls_tells_when_certificates_expire(fabric: Fabric, client_tls: ssl.SSLContext) -> None:
    assert get(fabric.admin["job-1"], "/healthz", client_tls)[0] == 200
    assert metric(fabric, client_tls, "zim_node_certificate_expires_seconds") > time.time()


def test_who_speaks_no_tls_is_told_and_counted(fabric: Fabric, client_tls: ssl.SSLContext) -> None:
    before = metric(fabric, client_tls, "zim_node_failed_handshakes_total")
    for address in (fabric.ws["comet-1"], fabric.tcp["comet-1"]):
        with socket.create_connection(address.split(":"), timeout=20) as sock:  # type: ignore[arg-type]
            sock.sendall(b"GET /sub HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"TLS is spoken here" in sock.recv(1000)
    with socket.create_connection(fabric.tcp["comet-1"].split(":"), timeout=20) as sock:  # type: ignore[arg-type]
        sock.sendall(b"\0\0\0\x11\0\x10\0\1\0\0\0\7\0\0\0\1" + b"7")
        sock.recv(1000)
    wait_until(
        lambda: metric(fabric, client_tls, "zim_node_failed_handshakes_total") == before + 3, "three have failed"
    )


def test_old_protocols_are_refused(fabric: Fabric) -> None:
    port = fabric.ws["comet-1"].rpartition(":")[2]
    for version, is_spoken in (("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
        command = ["openssl", "s_client", "-connect", f"localhost:{port}", version, "-cipher", "ALL:@SECLEVEL=0"]
        done = subprocess.run(command, input=b"", capture_output=True, timeout=30, check=False)
        assert (b"New, TLSv1" in done.stdout) == is_spoken, (version, done.stdout)


def test_half_open_handshakes_hold_up_nobody_and_end(fabric: Fabric, client_tls: ssl.SSLContext) -> None:
    where = fabric.ws["comet-1"].split(":")
    before = metric(fabric, client_tls, "zim_node_failed_handshakes_total")
    stalled = [socket.create_connection(where, timeout=20) for _ in range(300)]  # type: ignore[arg-type]
    for sock in stalled[::2]:
        sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    client = Client(fabric.ws["comet-1"], "23", is_ws=True, tls=client_tls)
    client.close()
    wait_until(
        lambda: metric(fabric, client_tls, "zim_node_failed_handshakes_total") == before + 300, "all of them end"
    )
    for sock in stalled:
        assert sock.recv(1) == b""
        sock.close()


def test_a_slow_reader_gets_all_of_it_in_order(fabric: Fabric, client_tls: ssl.SSLContext) -> None:
    """Its socket and its outbox fill up with what is encrypted and what is not."""
    client = Client(fabric.tcp["comet-1"], "24", tls=client_tls)
    client.pause()
    bodies = [b'"%d%b"' % (n, b"x" * 60_000) for n in range(150)]
    for body in bodies:
        fabric_push(fabric, client_tls, "24", body)
    wait_until(lambda: metric(fabric, client_tls, "zim_comet_outbox_bytes") > 1 << 20, "much of it waits")
    client.go_on()
    wait_until(lambda: len(client.bodies) == len(bodies), "all has come")
    assert client.bodies == bodies
    client.close()


def test_hostile_http_is_answered_as_without_tls(fabric: Fabric, client_tls: ssl.SSLContext) -> None:
    for cases, address in ((SMUGGLED, fabric.http["logic-1"]), (UPGRADES, fabric.ws["comet-1"])):
        for name, (data, statuses) in cases.items():
            assert answers(address, data, client_tls) == statuses, name
    assert get(fabric.http["logic-1"], "/healthz", client_tls)[0] == 200


def fabric_push(fabric: Fabric, tls: ssl.SSLContext, uid: str, body: bytes) -> None:
    port = int(fabric.http["logic-1"].rpartition(":")[2])
    connection = http.client.HTTPSConnection("localhost", port, context=tls, timeout=20)
    connection.request("POST", f"/1/push?uid={uid}", body)
    assert json.loads(connection.getresponse().read())["ret"] == 1
    connection.close()


def certificate_shown(address: str) -> bytes:
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    host, port = address.split(":")
    with tls.wrap_socket(socket.create_connection((host, int(port)), timeout=20)) as sock:
        found = sock.getpeercert(binary_form=True)
    assert found
    return found


def test_a_certificate_is_replaced_while_clients_are_connected(tmp_path: Path, signer: Signer) -> None:
    signer.sign("localhost", tmp_path)
    tls = ssl.create_default_context(cafile=signer.file)
    with running(tmp_path, listeners={"ws": TLS}) as fabric:
        address = fabric.ws["comet-1"]
        client = Client(address, "7", is_ws=True, tls=tls)
        before = certificate_shown(address)
        (tmp_path / "localhost.key").write_text("nothing")  # half of the renewal
        wait_until(lambda: "certificate not read anew" in fabric.log, "it says so")
        assert certificate_shown(address) == before
        signer.sign("localhost", tmp_path)
        wait_until(lambda: certificate_shown(address) != before, "the new one is shown")
        fabric.post("/1/push?uid=7", b"1")
        wait_until(lambda: client.bodies == [b"1"], "who was connected stays")
        Client(address, "8", is_ws=True, tls=tls)
        assert fabric.log.count("disconnected") == 0


def test_reload_brings_tls_and_takes_it_away(tmp_path: Path, signer: Signer) -> None:
    signer.sign("localhost", tmp_path)
    tls = ssl.create_default_context(cafile=signer.file)
    with running(tmp_path) as fabric:
        plain = fabric.file.read_text()
        address = fabric.ws["comet-1"]
        encrypted = plain.replace(f'ws = "{address}"', f'ws = {{ address = "{address}", tls = {json_to_toml(PAIR)} }}')
        assert encrypted != plain
        staying = Client(address, "7", is_ws=True)
        assert reload(fabric, encrypted.replace("localhost.key", "none.key")) == 1
        Client(address, "8", is_ws=True)
        assert reload(fabric, encrypted) == 0
        Client(address, "9", is_ws=True, tls=tls)
        fabric.post("/1/push?uid=7", b"1")
        wait_until(lambda: staying.bodies == [b"1"], "who was connected stays")
        assert reload(fabric, plain) == 0
        Client(address, "10", is_ws=True)


def json_to_toml(table: dict[str, Any]) -> str:
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in table.items()) + " }"


def reload(fabric: Fabric, text: str) -> int:
    fabric.file.write_text(text)
    command = [sys.executable, "-m", "zim", "reload", str(fabric.file)]
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode


def test_a_certificate_that_cannot_be_used_is_named_and_the_fabric_does_not_start(tmp_path: Path) -> None:
    fabric = Fabric(tmp_path, listeners={"ws": TLS})
    done = subprocess.run(
        [sys.executable, "-m", "zim", "up", str(fabric.file)], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 1
    said = done.stderr.decode()
    assert re.search(r"ws 127\.0\.0\.1:\d+: tls: .*localhost\.crt cannot be read: No such file", said), said


def test_a_comet_that_died_starts_with_the_certificate(fabric: Fabric, client_tls: ssl.SSLContext) -> None:
    fabric.kill("comet-1", signal.SIGKILL)

    def comes_back() -> bool:
        try:
            Client(fabric.ws["comet-1"], "25", is_ws=True, tls=client_tls).close()
        except OSError:
            return False
        return True

    wait_until(comes_back, "it is back")
