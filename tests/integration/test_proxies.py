"""Behind nginx and HAProxy, as docs/how-to/proxy.md has it: other ports and files, nothing else."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import ssl
import subprocess
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket

from tests.harness import Fabric, free_ports, is_listening, running, wait_until
from tests.programs import program
from tests.tls_proxy import Signer
from tests.unit.client.listening import States
from tests.unit.client.listening import running as iterating
from zim.client import Backoff, Listener, Message, Publisher, Push
from zim.protocol import frame
from zim.protocol.frame import Op, Packet
from zim.protocol.websocket import encode_frame
from zim.topology import load

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "proxy.md"
IDLE_S = 2
NAMES = ("nginx", "haproxy")


def block(language: str) -> str:
    """A configuration of the page."""
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("signer"))


@pytest.fixture(scope="module")
def fabric(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fabric]:
    folder = tmp_path_factory.mktemp("fabric")
    (folder / "page.toml").write_text(block("toml"))
    topology = load(folder / "page.toml")
    listeners: dict[str, dict[str, Any]] = {}
    for node in (topology.logics[0], topology.comets[0]):
        for kind, (at, *_) in node.listeners.items():
            listeners[kind] = {
                key: list(getattr(at, key)) for key in ("hosts", "origins", "proxies") if getattr(at, key)
            }
            listeners[kind]["insecure"] = True  # the page's issuer and API key are others' tests
    listeners["tcp"]["proxy_protocol"] = topology.comets[0].tcp[0].proxy_protocol
    for kind in ("http", "ws"):
        listeners[kind]["hosts"].append("127.0.0.1")
    del listeners["admin"]
    with running(listeners=listeners, comet={"heartbeat_s": IDLE_S}) as found:
        yield found


class Proxy:
    """nginx or HAProxy, with the page's configuration, in front of a fabric."""

    def __init__(self, name: str, fabric: Fabric, signer: Signer, folder: Path, change: Callable[[str], str]) -> None:
        where = program(name, "haproxy" if name == "haproxy" else "nginx-light and libnginx-mod-stream")
        ports = free_ports(2)
        self.https, self.tls = (f"localhost:{port}" for port in ports)
        certificate, key = signer.sign("push.example.com", folder)
        both = folder / "both.pem"
        both.write_bytes(certificate.read_bytes() + key.read_bytes())
        text = block(name)
        for old, new in {
            "127.0.0.1:8090": fabric.ws["comet-1"],
            "127.0.0.1:7172": fabric.http["logic-1"],
            "127.0.0.1:8080": fabric.tcp["comet-1"],
            "listen 443": f"listen 127.0.0.1:{ports[0]}",
            "listen 8443": f"listen 127.0.0.1:{ports[1]}",
            "maxconn 100000 ": "maxconn 1000 ",  # the limit of open files is no larger everywhere
            "bind :443": f"bind 127.0.0.1:{ports[0]}",
            "bind :8443": f"bind 127.0.0.1:{ports[1]}",
            "/etc/ssl/push.example.com.crt": str(certificate),
            "/etc/ssl/push.example.com.key": str(key),
            "/etc/ssl/push.example.com.pem": str(both),
        }.items():
            text = text.replace(old, new)
        file = folder / f"{name}.conf"
        file.write_text(change(text))
        own = "daemon off; error_log stderr;" + (" user root;" if os.getuid() == 0 else "")
        own += f" pid {folder}/nginx.pid;"
        run = {"nginx": ["-p", str(folder), "-c", str(file), "-g", own], "haproxy": ["-W", "-f", str(file)]}
        self.log = folder / "log"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen([where, *run[name]], stdout=out, stderr=out, stdin=subprocess.DEVNULL)

    def is_there(self) -> bool:
        """It listens."""
        assert self.process.poll() is None, self.log.read_text()
        return is_listening(self.https.replace("localhost", "127.0.0.1"))


@contextlib.contextmanager
def proxy(
    name: str, fabric: Fabric, signer: Signer, folder: Path, change: Callable[[str], str] = lambda text: text
) -> Iterator[Proxy]:
    """One that listens. change: what else is to be other than on the page."""
    found = Proxy(name, fabric, signer, folder, change)
    try:
        wait_until(found.is_there, "the proxy listens")
        yield found
    finally:
        found.process.terminate()
        found.process.wait(20)


def listen(at: Proxy, signer: Signer, token: int, **options: object) -> Listener:
    address = f"wss://{at.https}/sub"
    return Listener(address, token, ca=str(signer.file), backoff=Backoff(0.01, 0.1), **options)  # type: ignore[arg-type]


def get(at: Proxy, signer: Signer, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPSConnection(at.https, context=ssl.create_default_context(cafile=str(signer.file)))
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


@pytest.mark.parametrize("name", NAMES)
def test_pushes_come_through(name: str, fabric: Fabric, signer: Signer, tmp_path: Path) -> None:
    large = b'"%s"' % (b"x" * 60_000)
    with (
        proxy(name, fabric, signer, tmp_path) as at,
        Publisher(f"https://{at.https}", ca=signer.file) as publisher,
        listen(at, signer, 21 + NAMES.index(name), rooms=[f"a/{name}"]) as listener,
    ):
        found = iter(listener)
        publisher.push(large, users=21 + NAMES.index(name))
        (event,) = islice(found, 1)
        assert isinstance(event, Message)
        assert event.body == large
        results = publisher.push_batch(Push(b"%d" % number, rooms=f"a/{name}") for number in range(500))
        assert len(results) == 500
        bodies = [event.body for event in islice(found, 500) if isinstance(event, Message)]
        assert bodies == [b"%d" % number for number in range(500)]
        status, text = get(at, signer, f"/api/rooms/a%2F{name}", Host="push.example.com")
        assert (status, f'"room":"a/{name}","sessions":1' in text) == (200, True)
        assert get(at, signer, "/metrics")[0] == 404


@pytest.mark.parametrize("name", NAMES)
def test_tcp_in_tls(name: str, fabric: Fabric, signer: Signer, tmp_path: Path) -> None:
    context = ssl.create_default_context(cafile=str(signer.file))
    with (
        proxy(name, fabric, signer, tmp_path) as at,
        socket.create_connection(("127.0.0.1", int(at.tls.partition(":")[2])), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="push.example.com") as client,
    ):
        client.sendall(frame.encode(Packet(Op.AUTH, 1, 1, b"31")))
        assert client.recv(16) == frame.encode(Packet(Op.AUTH_REPLY, 1, 1, b""))
        fabric.post("/1/push?uid=31", b"hello")
        assert client.recv(64).endswith(b"hello")


@pytest.mark.parametrize("name", NAMES)
def test_heartbeats_keep_a_connection_and_silence_ends_it(
    name: str, fabric: Fabric, signer: Signer, tmp_path: Path
) -> None:
    """The page's idle time, scaled down with the comet's heartbeat_s; pushes go on behind."""
    states = States()
    with (
        proxy(name, fabric, signer, tmp_path, lambda text: text.replace("160s", f"{IDLE_S}s")) as at,
        listen(at, signer, 41, on_state=states) as listener,
        iterating(listener) as found,
        quiet_client(at, signer) as quiet,
    ):
        states.wait_for("connected")
        quiet.settimeout(10)
        assert quiet.recv(1) == b""  # it never says who it is, and somebody has closed it
        for _ in range(3):
            assert states.names == ["connecting", "connected"]
            gevent.sleep(IDLE_S)
        fabric.post("/1/push?uid=41", b'"still"')
        event = found.get(timeout=20)
        assert isinstance(event, Message)
        assert event.body == b'"still"'
        assert states.names == ["connecting", "connected"]


@contextlib.contextmanager
def quiet_client(at: Proxy, signer: Signer) -> Iterator[ssl.SSLSocket]:
    """Connected to the port for TCP, without a word."""
    context = ssl.create_default_context(cafile=str(signer.file))
    with (
        socket.create_connection(("127.0.0.1", int(at.tls.partition(":")[2])), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="push.example.com") as client,
    ):
        yield client


@pytest.mark.parametrize("name", NAMES)
def test_a_client_resumes_when_the_proxy_or_the_comet_was_away(
    name: str, fabric: Fabric, signer: Signer, tmp_path: Path
) -> None:
    states = States()
    change = {"1h;": "100ms;"}  # nginx: how long clients of the old workers stay
    with (
        proxy(name, fabric, signer, tmp_path, lambda text: text.replace(*next(iter(change.items())))) as at,
        listen(at, signer, 51 + NAMES.index(name), on_state=states) as listener,
        iterating(listener) as found,
    ):
        stream = f"u:{51 + NAMES.index(name)}"
        states.wait_for("connected")
        fabric.push({"to": {"users": [stream[2:]]}, "body": 1})
        fabric.kill("comet-1")
        states.wait_for("disconnected")
        fabric.push({"to": {"users": [stream[2:]]}, "body": 2})
        states.wait_for("connected")
        if name == "nginx":
            at.process.send_signal(signal.SIGHUP)
            states.wait_for("disconnected")
            states.wait_for("connected")
        fabric.push({"to": {"users": [stream[2:]]}, "body": 3})
        events = [found.get(timeout=20) for _ in range(3)]
        assert [(event.offset, event.body) for event in events if isinstance(event, Message)] == [
            (offset, b"%d" % offset) for offset in (1, 2, 3)
        ]


@pytest.mark.parametrize("name", NAMES)
def test_the_api_is_for_backends(name: str, fabric: Fabric, signer: Signer, tmp_path: Path) -> None:
    def others(text: str) -> str:
        return text.replace("allow 127.0.0.1;", "").replace("src 127.0.0.1 ", "src ")

    with proxy(name, fabric, signer, tmp_path, others) as at:
        for path in ("/api/ledger", "/1/count?type=room"):
            assert get(at, signer, path)[0] == 403
        assert get(at, signer, "/api//ledger/../ledger")[0] in (403, 404)


@pytest.mark.parametrize("name", NAMES)
def test_bans_and_the_log_are_about_the_clients_address(
    name: str, fabric: Fabric, signer: Signer, tmp_path: Path
) -> None:
    """One client of three is banned by its address; nobody can claim another one."""
    context = ssl.create_default_context(cafile=str(signer.file))
    number = 2 + NAMES.index(name)

    def tcp(source: str) -> ssl.SSLSocket:
        port = int(at.tls.partition(":")[2])
        plain = socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(source, 0))
        client = context.wrap_socket(plain, server_hostname="push.example.com")
        client.sendall(frame.encode(Packet(Op.AUTH, 1, 1, b"61")))
        return client

    def ws(source: str, claim: str = "") -> int:
        port = int(at.https.partition(":")[2])
        plain = socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(source, 0))
        with context.wrap_socket(plain, server_hostname="push.example.com") as client:
            more = f"X-Forwarded-For: {claim}\r\nForwarded: for={claim}\r\n" if claim else ""
            client.sendall(
                "GET /sub HTTP/1.1\r\nHost: push.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n".encode()
            )
            assert b" 101 " in client.recv(1000)
            client.sendall(encode_frame(1, b'{"ver":1,"op":7,"seq":1,"body":62}', b"\1\2\3\4"))
            return client.recv(100)[0]

    banned, other = f"127.0.{number}.66", f"127.0.{number}.77"
    with proxy(name, fabric, signer, tmp_path) as at:
        before = [tcp(banned), tcp(other)]
        for client in before:
            assert client.recv(16) == frame.encode(Packet(Op.AUTH_REPLY, 1, 1, b""))
        wait_until(lambda: f"client={banned}:" in fabric.log and f"client={other}:" in fabric.log, "the log has both")
        body = json.dumps({"address": banned, "reason": "flood"})
        assert fabric.request("POST", "/api/bans", body, headers={"Content-Type": "application/json"})[0] == 200
        assert before[0].recv(100) == b""
        with tcp(banned) as client:
            assert client.recv(100) == b""
        assert ws(banned) == ws(banned, claim=other) == 0x88  # a close frame
        assert ws(other) == ws(other, claim=banned) == 0x81
        before[1].sendall(frame.encode(Packet(Op.HEARTBEAT, 2, 1, b"")))
        assert before[1].recv(16)
        for client in before:
            client.close()


def test_nobody_speaks_tcp_past_the_proxy(fabric: Fabric) -> None:
    with socket.create_connection(fabric.tcp["comet-1"].split(":"), timeout=20) as sock:  # type: ignore[arg-type]
        sock.sendall(frame.encode(Packet(Op.AUTH, 1, 1, b"63")))
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(100) == b""


# ---------------------------------------------------------------- what the page's last table says


def upgrade(at: Proxy, signer: Signer, **headers: str) -> tuple[int, str]:
    more = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    return get(at, signer, "/sub", **more, **{"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}, **headers)


@pytest.mark.parametrize("name", NAMES)
def test_names_and_pages_that_the_topology_does_not_know(
    name: str, fabric: Fabric, signer: Signer, tmp_path: Path
) -> None:
    with proxy(name, fabric, signer, tmp_path) as at:
        status, text = upgrade(at, signer, Host="other.example.com")
        assert (status, "hosts" in text) == (403, True)
        status, text = upgrade(at, signer, Host="push.example.com", Origin="https://evil.example")
        assert (status, "origins" in text) == (403, True)


@pytest.mark.parametrize(
    ("forgotten", "status", "why"),
    [
        ("proxy_http_version .*", 400, "WebSocket needs HTTP/1.1, not HTTP/1.0"),
        ("proxy_set_header (Upgrade|Connection) .*", 426, "Upgrade is missing"),
        ("proxy_set_header Connection .*", 426, "Connection does not name it"),
    ],
)
def test_nginx_without_a_line(
    forgotten: str, status: int, why: str, fabric: Fabric, signer: Signer, tmp_path: Path
) -> None:
    with proxy("nginx", fabric, signer, tmp_path, lambda text: re.sub(forgotten, "", text)) as at:
        found = upgrade(at, signer, Host="push.example.com")
    assert (found[0], why in found[1], "proxy" in found[1]) == (status, True, True)
    assert why in fabric.log
