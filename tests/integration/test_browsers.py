"""What a page in somebody's browser can do to a fabric on this machine: nothing, unless the topology lets it in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gevent import socket

from tests.harness import Client, Fabric, free_ports, running
from zim.protocol.frame import Op, Packet


@pytest.fixture(scope="module")
def fabric() -> Iterator[Fabric]:
    with running(has_admin=True) as found:
        yield found


def upgrade(fabric: Fabric, headers: str) -> bytes:
    host, _, port = fabric.ws["comet-1"].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as s:
        s.sendall(
            f"GET /sub HTTP/1.1\r\n{headers}Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        return s.recv(4096)


def test_a_page_cannot_post(fabric: Fabric) -> None:
    headers = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
    status, answer = fabric.request("POST", "/1/push/all", b"hello", headers=headers)
    assert (status, answer["ret"]) == (403, 65535)
    assert "origins" in answer["why"]
    assert fabric.get("/api/streams/*?after=0")["messages"] == []
    assert fabric.request("POST", "/1/push/all", b"hello", headers={"Origin": "http://localhost:3000"})[0] == 200
    assert "request refused" in fabric.log


def test_a_name_that_points_here_reads_nothing(fabric: Fabric) -> None:
    status, problem = fabric.request("GET", "/api/ledger", headers={"Host": "evil.example:7172"})
    assert (status, problem["status"], problem["type"]) == (403, 403, "urn:zim:problem:foreign")
    assert "hosts" in problem["detail"]
    status, problem = fabric.request("POST", "/api/push", b"{}", headers={"Origin": "https://evil.example"})
    assert (status, problem["type"]) == (403, "urn:zim:problem:foreign")
    assert "origins" in problem["detail"]


def test_a_page_cannot_open_a_websocket(fabric: Fabric) -> None:
    assert upgrade(fabric, "Host: localhost\r\nOrigin: https://evil.example\r\n").startswith(b"HTTP/1.1 403 ")
    assert upgrade(fabric, "Host: evil.example\r\n").startswith(b"HTTP/1.1 403 ")
    assert upgrade(fabric, "Host: localhost\r\nOrigin: null\r\n").startswith(b"HTTP/1.1 403 ")
    assert upgrade(fabric, "Host: localhost\r\nOrigin: http://127.0.0.1:3000\r\n").startswith(b"HTTP/1.1 101 ")
    assert upgrade(fabric, "").startswith(b"HTTP/1.1 400 ")  # no Host
    found = re.findall(r'zim_comet_refused_upgrades_total\{status="(\d+)"\} (\d)', fabric.metrics("comet-1"))
    assert sorted(found) == [("400", "1"), ("403", "3")]


def test_a_topology_lets_pages_and_names_in() -> None:
    more = {"origins": ["https://app.example.com"], "hosts": ["push.example.com"]}
    with running(listeners={"http": more, "ws": {**more, "ws_frames": "object"}}) as fabric:
        headers = {"Origin": "https://app.example.com", "Host": "push.example.com"}
        assert fabric.request("POST", "/1/push/all", b"hello", headers=headers)[0] == 200
        said = "Host: push.example.com\r\nOrigin: https://app.example.com\r\n"
        assert upgrade(fabric, said).startswith(b"HTTP/1.1 101 ")
        assert upgrade(fabric, "Host: localhost\r\nOrigin: https://other.example.com\r\n").startswith(b"HTTP/1.1 403 ")


def test_frames_of_one_object_for_goim_before_1_2() -> None:
    with running(listeners={"ws": {"ws_frames": "object"}}) as fabric:
        client = _ObjectClient(fabric.ws["comet-1"], "7", is_ws=True)
        fabric.post("/1/push?uid=7", b'{"a":1}')
        assert [p.body for p in client.wait(1)] == [b'{"a":1}']
        assert client.packets[0].op == Op.PUSH


def test_two_listeners_of_one_kind_each_with_its_own_rules(tmp_path: Path) -> None:
    """Each serves, in its own frames and to its own visitors; `zim up` tells all of them."""
    ws, ws2, http, http2, tcp, tcp2, admin, admin2 = (f"127.0.0.1:{port}" for port in free_ports(8))
    open_to_pages = {"origins": ["https://app.example.com"]}
    lists: dict[str, dict[str, Any]] = {
        "comet": {"ws": [ws, {"address": ws2, "ws_frames": "object", **open_to_pages}], "tcp": [tcp, tcp2]},
        "logic": {"http": [http, {"address": http2, **open_to_pages}]},
        "router": {"admin": [admin, admin2]},
    }
    with running(tmp_path, **lists) as fabric:
        for key, at in (("ws", ws2), ("http", http2), ("admin", admin2)):
            assert re.search(rf"{key} +{at}\b", fabric.log)
        arrays, objects = Client(ws, "1", is_ws=True), _ObjectClient(ws2, "2", is_ws=True)
        others = [Client(tcp, "3"), Client(tcp2, "4")]
        page, statuses = {"Origin": "https://app.example.com"}, []
        for at, text in ((http, b"1"), (http2, b"2")):
            fabric.http["logic-1"] = at
            statuses.append(fabric.request("POST", "/1/push/all", text, headers=page)[0])
            fabric.post("/1/push/all", text)
        for client in (arrays, objects, *others):
            assert {p.body for p in client.wait(3)} == {b"1", b"2"}
        assert statuses == [403, 200]
        fabric.admin["router-1"] = admin2
        assert fabric.metrics("router-1")
        said = "Host: localhost\r\nOrigin: https://app.example.com\r\n"
        for at, status in ((ws, b"403"), (ws2, b"101")):
            fabric.ws["comet-1"] = at
            assert upgrade(fabric, said).startswith(b"HTTP/1.1 " + status)


class _ObjectClient(Client):
    """A goim client of v1.0: a frame is one packet."""

    def hear(self, data: bytes) -> None:
        """Takes what the server has said."""
        rest: list[Any] = list(self._cut.receive(data))
        for said in rest:
            packet = json.loads(said.body)
            assert isinstance(packet, dict)
            body = json.dumps(packet["body"], separators=(",", ":")).encode()
            self.packets.append(Packet(packet["op"], packet["seq"], packet["ver"], body))
