"""How much somebody may do: each limit of `[limits]` on a real fabric, what who goes beyond it is told, and its metric.

Nothing here asserts a time: rates are so small that nothing comes back while a test runs, or so large that it is there
at once.
"""

from __future__ import annotations

import http.client
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import gevent
import psutil
import pytest
from gevent import socket

from tests.harness import WAIT_S, Client, Fabric, running, wait_until
from tests.zim_client import ZimClient
from zim.client import Accepted, Publisher, Push, PushError, PushUnavailable, PushUnknown, ZmqPublisher
from zim.protocol.frame import Op

SLOW = 0.001  # a second: nothing comes back while a test runs
KEYS = {name: f"zim_{name * 12}" for name in ("acme", "beta")}


def rate(burst: float, per_s: float = SLOW) -> str:
    return f"{{ per_s = {per_s}, burst = {burst} }}"


def limits(**of: str | int) -> str:
    return "\n".join(["[limits]", *(f"{key} = {value}" for key, value in of.items())])


def api_key(name: str, more: str = "", scopes: str = '["push", "count"]') -> str:
    digest = sha256(KEYS[name].encode()).hexdigest()
    return f'\n[[api_key]]\nid = "{name}"\nsha256 = "{digest}"\nscopes = {scopes}\n{more}\n'


def limited(fabric: Fabric, node: str) -> dict[str, float]:
    """By limit, what a node has refused."""
    text = fabric.metrics(node)
    kind = node.partition("-")[0]
    found = re.findall(rf'^zim_{kind}_limited_total{{limit="(\w+)"}} ([\d.]+)$', text, re.MULTILINE)
    return {limit: float(n) for limit, n in found if float(n)}


def reload(fabric: Fabric, before: str, after: str) -> None:
    """The file has something else, and the fabric takes it over."""
    text = fabric.file.read_text()
    assert before in text
    fabric.file.write_text(text.replace(before, after))
    done = subprocess.run([sys.executable, "-m", "zim", "reload", str(fabric.file)], capture_output=True, text=True)
    assert done.returncode == 0, done


def connect(address: str, source: str) -> socket.socket:
    """From an address of this machine's own, such as 127.3.4.5."""
    host, port = address.rsplit(":", 1)
    sock = socket.socket()
    sock.settimeout(WAIT_S)
    sock.bind((source, 0))
    sock.connect((host, int(port)))
    return sock


def upgrade(address: str, source: str, more: str = "") -> tuple[int, str]:
    """The status of a WebSocket upgrade from there, and its Retry-After. more: headers, each with its end."""
    with connect(address, source) as sock:
        sock.sendall(
            b"GET /sub HTTP/1.1\r\nHost: %b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%b\r\n"
            % (address.encode(), more.encode())
        )
        answer = b""
        while b"\r\n\r\n" not in answer and (data := sock.recv(4096)):
            answer += data
    head = answer.decode()
    found = re.search(r"^Retry-After: (\d+)\r$", head, re.MULTILINE)
    return int(head.split()[1]), found[1] if found else ""


def is_let_in(address: str, source: str, first: bytes = b"") -> bool:
    """A TCP client from there is closed at once, or is answered. first: what it says before all else."""
    with connect(address, source) as sock:
        try:
            sock.sendall(first + b"\0\0\0\x11\0\x10\0\x01\0\0\0\x07\0\0\0\x017")
            return sock.recv(4096) != b""
        except OSError:
            return False


# ---------------------------------------------------------------- who comes


def test_connects_of_an_address_and_of_a_network() -> None:
    """Over it a WebSocket client gets 429, a TCP client is closed at once. Others come in; those who are there stay."""
    more = limits(connects_per_address=rate(3), connects_per_network=rate(5))
    with running(has_admin=True, more=more) as fabric:
        ws, tcp = fabric.ws["comet-1"], fabric.tcp["comet-1"]
        there = Client(tcp, "7")  # from 127.0.0.1
        assert [upgrade(ws, "127.1.1.1") for _ in range(2)] == [(101, "")] * 2
        assert is_let_in(tcp, "127.1.1.1")
        assert upgrade(ws, "127.1.1.1")[0] == 429
        status, after = upgrade(ws, "127.1.1.1")
        assert (status, int(after) > 1) == (429, True)
        assert not is_let_in(tcp, "127.1.1.1")
        # Its neighbours have what is left of the network; what was refused has cost nothing.
        assert [is_let_in(tcp, "127.1.1.2") for _ in range(3)] == [True, True, False]
        assert upgrade(ws, "127.1.1.3")[0] == 429
        assert upgrade(ws, "127.1.2.3")[0] == 101  # the next one
        assert limited(fabric, "comet-1") == {"connects_per_address": 3, "connects_per_network": 2}
        fabric.post("/1/push?uid=7", b"1")
        assert there.wait(1)
        wait_until(lambda: "more than a limit allows limit=connects_per_network" in fabric.log, "the log says so")
        assert fabric.log.count("limit=connects_per_address") < 4

        reload(fabric, f"connects_per_address = {rate(3)}\nconnects_per_network = {rate(5)}", "")
        assert upgrade(ws, "127.1.1.1")[0] == 101
        assert is_let_in(tcp, "127.1.1.2")


def test_connects_behind_a_proxy_are_of_the_clients_address() -> None:
    """The proxy itself may connect as often as it likes; nobody else is believed about an address."""
    ours: dict[str, Any] = {"proxies": ["127.9.9.9"], "insecure": True}
    listeners = {"ws": ours, "tcp": ours | {"proxy_protocol": True}}
    with running(has_admin=True, listeners=listeners, more=limits(connects_per_address=rate(2))) as fabric:
        ws, tcp = fabric.ws["comet-1"], fabric.tcp["comet-1"]

        def by_proxy(client: str) -> tuple[int, bool]:
            header = f"PROXY TCP4 {client} 127.9.9.9 1 2\r\n".encode()
            return upgrade(ws, "127.9.9.9", f"X-Forwarded-For: {client}\r\n")[0], is_let_in(tcp, "127.9.9.9", header)

        assert [by_proxy("203.0.113.1") for _ in range(2)] == [(101, True), (429, False)]
        assert [by_proxy(f"203.0.113.{n}") for n in range(2, 9)] == [(101, True)] * 7
        claims = [upgrade(ws, "127.8.8.8", f"X-Forwarded-For: 203.0.113.{n}\r\n")[0] for n in range(20, 23)]
        assert claims == [101, 101, 429]
        assert limited(fabric, "comet-1") == {"connects_per_address": 3}


def test_an_address_comes_in_again_after_a_while() -> None:
    with running(more=limits(connects_per_address=rate(1, per_s=5))) as fabric:
        tcp = fabric.tcp["comet-1"]
        assert is_let_in(tcp, "127.1.1.1")
        wait_until(lambda: is_let_in(tcp, "127.1.1.1"), "it is let in again")


def test_memory_does_not_grow_in_a_flood_from_ten_thousand_addresses() -> None:
    """What is kept of them is bounded, or forgotten."""
    more = limits(connects_per_address=rate(2, per_s=50), connects_per_network=rate(20, per_s=50))
    with running(has_admin=True, more=more) as fabric:
        host, port = fabric.tcp["comet-1"].rsplit(":", 1)
        comet = psutil.Process(fabric.pid("comet-1"))

        def knock(n: int) -> None:
            with socket.socket() as sock:
                sock.settimeout(WAIT_S)
                sock.bind((f"127.{n // 2500 + 10}.{n // 50 % 50}.{n % 50 + 1}", 0))
                sock.connect((host, int(port)))

        def flood() -> int:
            for start in range(0, 10_000, 100):
                gevent.joinall([gevent.spawn(knock, n) for n in range(start, start + 100)], raise_error=True)
            wait_until(lambda: "zim_comet_open_connections 0.0" in fabric.metrics("comet-1"), "all are gone")
            return comet.memory_info().rss

        first = flood()
        assert flood() < first + (4 << 20)
        assert flood() < first + (4 << 20)
        came = re.findall(r"^zim_comet_accepted_connections_total ([\d.e+]+)$", fabric.metrics("comet-1"), re.MULTILINE)
        assert float(came[0]) >= 30_000
        assert limited(fabric, "comet-1").keys() == {"connects_per_network"}


def test_above_its_memory_a_comet_takes_nobody_new() -> None:
    with running(has_admin=True, comet={"max_memory_bytes": 4_000_000_000}) as fabric:
        ws, tcp = fabric.ws["comet-1"], fabric.tcp["comet-1"]
        there = Client(tcp, "7")
        wait_until(
            lambda: re.search(r"^zim_comet_memory_bytes [1-9]", fabric.metrics("comet-1"), re.M), "it is looked at"
        )
        assert "zim_comet_memory_full 0.0" in fabric.metrics("comet-1")
        reload(fabric, "max_memory_bytes = 4000000000", "max_memory_bytes = 1000000")
        wait_until(lambda: "zim_comet_memory_full 1.0" in fabric.metrics("comet-1"), "it is full")
        assert upgrade(ws, "127.0.0.1") == (503, "10")
        assert not is_let_in(tcp, "127.0.0.1")
        assert limited(fabric, "comet-1") == {"max_memory_bytes": 2}
        fabric.post("/1/push?uid=7", b"1")
        assert there.wait(1)
        assert "more memory than max_memory_bytes: nobody new comes in used_bytes=" in fabric.log
        reload(fabric, "max_memory_bytes = 1000000", "max_memory_bytes = 4000000000")
        wait_until(lambda: "zim_comet_memory_full 0.0" in fabric.metrics("comet-1"), "there is room")
        assert upgrade(ws, "127.0.0.1") == (101, "")


class Comer(ZimClient):
    """A client of zim's protocol that is sent away, or is not."""

    def __init__(self, address: str, token: str, is_ws: bool = False) -> None:
        Client.__init__(self, address, None, is_ws)
        self.say_json(Op.AUTH, {"token": token}, seq=1)
        wait_until(lambda: self.packets or self.is_closed, "an answer")

    @property
    def word(self) -> tuple[int, str]:
        """Code and reason."""
        body = json.loads(next((p.body for p in self.packets if p.op == Op.DISCONNECT), b'{"code":0,"reason":""}'))
        return body["code"], body["reason"]


def test_logins_of_a_user() -> None:
    """Who comes too often is told when to come back, and others come in."""
    with running(has_admin=True, comets=2, more=limits(logins_per_user=rate(3))) as fabric:
        for i in range(3):
            Comer(fabric.tcp[f"comet-{i % 2 + 1}"], "7").close()
        late = Comer(fabric.tcp["comet-1"], "7")
        late.wait_closed()
        code, reason = late.word
        assert code == 4207
        assert re.fullmatch(r"too many logins: come back in \d+ s", reason)
        browser = Comer(fabric.ws["comet-2"], "7", is_ws=True)
        assert browser.wait_closed() == 4207
        assert Comer(fabric.tcp["comet-1"], "8").word == (0, "")
        goim = Client(fabric.ws["comet-1"], None, is_ws=True)
        goim.say(Op.AUTH, b"7", seq=1)
        assert goim.wait_closed() == 1013
        assert limited(fabric, "logic-1") == {"logins_per_user": 3}
        assert "AUDIT too many logins client=" in fabric.log
        reload(fabric, f"logins_per_user = {rate(3)}", "")
        assert Comer(fabric.tcp["comet-1"], "7").word == (0, "")


def test_those_whom_nobody_knows_are_not_one_user() -> None:
    """goim's user 0 is all who have no number."""
    with running(more=limits(logins_per_user=rate(1))) as fabric:
        clients = [Client(fabric.tcp["comet-1"], "no number") for _ in range(5)]
        assert not any(client.is_closed for client in clients)


# ---------------------------------------------------------------- what clients send


@pytest.mark.parametrize("is_ws", [False, True])
@pytest.mark.parametrize("what", ["packets", "bytes"])
def test_who_sends_too_much_is_slowed_down_and_closed_if_it_goes_on(what: str, is_ws: bool) -> None:
    limit = {"packets": rate(5, per_s=5), "bytes": rate(5_000, per_s=5_000)}[what]
    with running(has_admin=True, more=limits(**{f"{what}_per_connection": limit})) as fabric:
        address = (fabric.ws if is_ws else fabric.tcp)["comet-1"]
        quiet, flooder = ZimClient(address, "8", is_ws), ZimClient(address, "7", is_ws)

        def flood() -> None:
            body = b'"' + b"x" * 2_000 + b'"' if what == "bytes" else b"1"
            while not flooder.is_closed:
                flooder.say(Op.UPSTREAM, body)

        flooding = gevent.spawn(flood)
        try:
            for _ in range(4):
                quiet.say(Op.HEARTBEAT, b"", seq=3)
                quiet.take(Op.HEARTBEAT_REPLY)
            # Nobody notices it: it reads on, and what it gets of its echoes is what it may send.
            flooder.wait_closed(60.0)
        finally:
            flooding.kill()
        found = [json.loads(p.body) for p in flooder.packets if p.op == Op.DISCONNECT]
        assert found == [{"reason": "too much at once", "code": 4208}]
        assert 10 < limited(fabric, "comet-1")[f"{what}_per_connection"] < 30
        assert 'zim_comet_closed_connections_total{reason="too much at once"} 1.0' in fabric.metrics("comet-1")
        assert not quiet.is_closed


def test_who_sends_much_now_and_then_is_slowed_down_and_stays() -> None:
    """All of it is taken in the end."""
    with running(has_admin=True, more=limits(packets_per_connection=rate(10, per_s=50))) as fabric:
        client = ZimClient(fabric.tcp["comet-1"], "7")
        for n in range(60):
            client.say(Op.UPSTREAM, b"%d" % n)
        client.wait(60)
        assert [p.body for p in client.packets] == [b"%d" % n for n in range(60)]
        assert limited(fabric, "comet-1")["packets_per_connection"] >= 1
        assert not client.is_closed


def test_rooms_of_a_session() -> None:
    """What is one too many is refused in words, at the login and in a join; and a room that is left makes room."""
    with running(has_admin=True, more=limits(rooms_per_session=2)) as fabric:
        client = ZimClient(fabric.tcp["comet-1"], "7", rooms=["a", "b", "c"])
        error = {"error": "too many rooms: at most 2 at once"}
        assert client.auth["streams"]["r:c"] == error
        assert "error" not in client.auth["streams"]["r:b"]
        assert client.ask(Op.JOIN, {"rooms": ["d", "a"]}, 2)["streams"] == {
            "r:d": error,
            "r:a": {"error": "joined already"},
        }
        client.ask(Op.LEAVE, {"rooms": ["a"]}, 3)
        found = client.ask(Op.JOIN, {"rooms": ["e", "f"]}, 4)["streams"]
        assert ("error" in found["r:e"], found["r:f"]) == (False, error)
        there = ["b", "e"]
        wait_until(lambda: fabric.get("/api/users/7")["sessions"][0]["rooms"] == there, "it is where it may be")
        assert limited(fabric, "comet-1") == {"rooms_per_session": 3}
        reload(fabric, "rooms_per_session = 2", "rooms_per_session = 3")
        assert "error" not in client.ask(Op.JOIN, {"rooms": ["f"]}, 5)["streams"]["r:f"]


# ---------------------------------------------------------------- pushes


def push(fabric: Fabric, who: str, body: Any = 1, to: str = "7", **more: Any) -> tuple[int, dict[str, Any], str]:
    """Status, document and Retry-After of a push with an API key; "" for none."""
    connection = http.client.HTTPConnection(fabric.http["logic-1"], timeout=WAIT_S)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {KEYS[who]}"} if who else {})
    connection.request("POST", "/api/push", json.dumps({"to": {"users": [to]}, "body": body, **more}), headers)
    response = connection.getresponse()
    found = json.loads(response.read())
    connection.close()
    return response.status, found, response.headers.get("Retry-After", "")


def test_pushes_of_a_key_over_http() -> None:
    """429, Retry-After, and which limit it is. A batch counts each of its pushes; a key's own limit goes before."""
    more = limits(pushes_per_key=rate(3)) + api_key("acme") + api_key("beta", f"pushes = {rate(5)}")
    with running(has_admin=True, more=more) as fabric:
        assert [push(fabric, "acme")[0] for _ in range(4)] == [200, 200, 200, 429]
        status, found, after = push(fabric, "acme", id="once")
        assert status == found["status"] == 429
        assert found["type"] == "urn:zim:problem:limited"
        assert found["limit"] == "pushes_per_key"
        assert int(after) == found["retry_after_s"] > 1
        assert re.fullmatch(r"nothing was kept: more than pushes_per_key allows; try again in .* s", found["detail"])

        lines = "".join(json.dumps({"to": {"users": ["8"]}, "body": n}) + "\n" for n in range(7))
        headers = {"Content-Type": "application/x-ndjson", "Authorization": f"Bearer {KEYS['beta']}"}
        status, text = fabric.request("POST", "/api/push/batch", lines, headers=headers)
        answers = [json.loads(line) for line in text.splitlines()]
        assert [answer["status"] for answer in answers] == ["accepted"] * 5 + [429] * 2
        assert [(answer["line"], answer["limit"]) for answer in answers[5:]] == [(n, "pushes_per_key") for n in (6, 7)]
        with Publisher(fabric.http["logic-1"], api_key=KEYS["beta"], retry_s=0) as publisher:
            with pytest.raises(PushUnavailable, match="more than pushes_per_key allows") as caught:
                publisher.push(b"1", users=8)
            assert (caught.value.status, caught.value.retry_after_s > 1) == (429, True)
            with pytest.raises(PushUnavailable) as of_goim:
                publisher.push_user(8, b"1")
            assert (of_goim.value.status, of_goim.value.retry_after_s > 1) == (429, True)
        assert limited(fabric, "logic-1") == {"pushes_per_key": 6}
        assert 'zim_logic_pushes_total{status="limited"} 6.0' in fabric.metrics("logic-1")
        wait_until(lambda: re.search("limit=pushes_per_key times=.* last=(acme|beta)", fabric.log), "the log says so")

        reload(fabric, f"pushes_per_key = {rate(3)}", f"pushes_per_key = {rate(1000, per_s=1000)}")
        wait_until(lambda: push(fabric, "acme", id="once")[0] == 200, "it may push again, with the same id")
        assert push(fabric, "beta")[0] == 429


def test_pushes_by_goims_api_and_without_keys() -> None:
    """Without API keys all who come are one."""
    with running(has_admin=True, more=limits(pushes_per_key=rate(2))) as fabric:
        assert [fabric.request("POST", "/1/push?uid=7", b"1")[0] for _ in range(3)] == [200, 200, 429]
        connection = http.client.HTTPConnection(fabric.http["logic-1"], timeout=WAIT_S)
        for path, body in (("/1/push/all", b"1"), ("/1/push/room?rid=1", b"1"), ("/1/pushs", b'{"u":[7],"m":1}')):
            connection.request("POST", path, body)
            response = connection.getresponse()
            assert (response.status, response.read()) == (429, b'{"ret":65535}')
            assert int(response.headers["Retry-After"]) > 1
        connection.close()
        assert push(fabric, "")[0] == 429
        assert limited(fabric, "logic-1") == {"pushes_per_key": 5}


def test_bytes_of_a_key() -> None:
    more = limits(bytes_per_key=rate(70_000)) + api_key("acme")
    with running(has_admin=True, more=more) as fabric:
        assert [push(fabric, "acme", "x" * 40_000)[0] for _ in range(2)] == [200, 429]
        assert [push(fabric, "acme", "x" * 9_000)[0] for _ in range(4)] == [200, 200, 200, 429]
        assert push(fabric, "acme", "x")[0] == 200  # there is room for a small one
        assert limited(fabric, "logic-1") == {"bytes_per_key": 2}


def test_pushes_of_a_key_over_zeromq() -> None:
    more = limits(pushes_per_key=rate(3)) + api_key("acme")
    with running(has_admin=True, more=more) as fabric:
        with ZmqPublisher(fabric.publish["logic-1"], api_key=KEYS["acme"], retry_s=0.5) as publisher:
            pending = [publisher.push(b"1", users=7) for _ in range(5)]
            publisher.flush()
            found = [each.outcome() for each in pending]
        assert [isinstance(outcome, Accepted) for outcome in found] == [True] * 3 + [False] * 2
        error = found[4]
        assert isinstance(error, PushUnavailable)
        assert error.retry_after_s > 1
        assert "more than pushes_per_key allows" in str(error)
        assert not isinstance(error, PushUnknown)
        assert limited(fabric, "logic-1")["pushes_per_key"] >= 2


@pytest.mark.parametrize("way", ["http", "zeromq"])
def test_a_publisher_that_waits_as_told_gets_all_through(way: str) -> None:
    more = limits(pushes_per_key=rate(20, per_s=20)) + api_key("acme")
    with running(has_admin=True, more=more) as fabric:
        if way == "http":
            with Publisher(fabric.http["logic-1"], api_key=KEYS["acme"], retry_s=30) as publisher:
                found: list[Any] = publisher.push_batch([Push(b"1", users=7)] * 50)
        else:
            with ZmqPublisher(fabric.publish["logic-1"], api_key=KEYS["acme"], retry_s=30) as zmq_publisher:
                pending = [zmq_publisher.push(b"1", users=7) for _ in range(50)]
                zmq_publisher.flush()
                found = [each.outcome() for each in pending]
        assert all(isinstance(outcome, Accepted) for outcome in found)
        assert limited(fabric, "logic-1")["pushes_per_key"] >= 1
        assert fabric.request("GET", "/api/users/7", headers={"Authorization": f"Bearer {KEYS['acme']}"})[0] == 200


def test_two_logics_let_through_what_the_limit_says() -> None:
    """Each has half of it."""
    more = limits(pushes_per_key=rate(6))
    with running(has_admin=True, logics=2, more=more) as fabric:
        for logic in ("logic-1", "logic-2"):
            statuses = [fabric.push({"to": {"users": ["7"]}, "body": 1}, logic=logic)[0] for _ in range(4)]
            assert statuses == [200, 200, 200, 429]


def test_pushes_into_a_stream() -> None:
    """429, and which recipient. Nothing of such a push is kept, and its key may be used again."""
    with running(has_admin=True, more=limits(pushes_per_stream=rate(2))) as fabric:
        assert [fabric.push({"to": {"users": ["7"]}, "body": n})[0] for n in range(2)] == [200, 200]
        to = {"users": ["8", "7"], "rooms": ["a"]}
        status, found = fabric.push({"to": to, "body": 3, "id": "k"})
        assert (status, found["type"]) == (429, "urn:zim:problem:limited")
        assert (found["limit"], found["stream"]) == ("pushes_per_stream", "u:7")
        assert found["retry_after_s"] > 1
        assert fabric.get("/api/streams/u%3A8")["head"] == fabric.get("/api/streams/r%3Aa")["head"] == 0
        assert fabric.request("POST", "/1/push?uid=7", b"1")[0] == 429
        assert fabric.push({"to": {"users": ["8"]}, "body": 1})[0] == 200  # others get theirs
        assert limited(fabric, "router-1") == {"pushes_per_stream": 2}
        # What is in the log already is no push more: the same again is answered as it was.
        first = fabric.push({"to": {"users": ["9"]}, "body": 1, "id": "nine"})
        assert [fabric.push({"to": {"users": ["9"]}, "body": 1, "id": "nine"}) for _ in range(3)] == [first] * 3
        reload(fabric, f"pushes_per_stream = {rate(2)}", f"pushes_per_stream = {rate(1000, per_s=1000)}")
        wait_until(lambda: fabric.push({"to": to, "body": 3, "id": "k"})[0] == 200, "the same key, later")
        assert fabric.get("/api/streams/u%3A7")["head"] == 3


def test_a_push_with_a_key_whose_home_is_elsewhere() -> None:
    """The home of its key has taken it, and the router of its stream does not: 429, and later the same key does."""
    with running(has_admin=True, routers=3, more=limits(pushes_per_stream=rate(1))) as fabric:
        assert fabric.push({"to": {"users": ["7"]}, "body": 0})[0] == 200
        for n in range(12):
            status, found = fabric.push({"to": {"users": ["7"]}, "body": n, "id": f"k{n}"})
            assert (status, found["stream"]) == (429, "u:7")
        assert fabric.get("/api/streams/u%3A7")["head"] == 1
        reload(fabric, f"pushes_per_stream = {rate(1)}", f"pushes_per_stream = {rate(1000, per_s=1000)}")
        again = [fabric.push({"to": {"users": ["7"]}, "body": n, "id": f"k{n}"}) for n in range(12)]
        assert [status for status, _ in again] == [200] * 12
        assert fabric.get("/api/streams/u%3A7")["head"] == 13


# ---------------------------------------------------------------- tenants


@contextmanager
def flooding(fabric: Fabric, who: str) -> Iterator[Callable[[], int]]:
    """One floods, by HTTP and by ZeroMQ, for the length of a block; gives how many pushes it has asked for."""
    asked = itertools.count()
    done = False

    def by_http() -> None:
        with Publisher(fabric.http["logic-1"], api_key=KEYS[who], retry_s=0) as publisher:
            while not done:
                publisher.push_batch([Push(b"flood", users=f"{who}-1")] * 200)
                for _ in range(200):
                    next(asked)

    def by_zeromq() -> None:
        with ZmqPublisher(fabric.publish["logic-1"], api_key=KEYS[who], retry_s=0.001) as publisher:
            while not done:
                for pending in [publisher.push(b"flood", users=f"{who}-1") for _ in range(200)]:
                    pending.outcome()
                    next(asked)

    workers = [gevent.get_hub().threadpool.spawn(work) for work in (by_http, by_zeromq)]
    try:
        yield lambda: next(asked)
    finally:
        done = True
        for worker in workers:
            worker.get()


def pushed(fabric: Fabric, who: str, n: int) -> list[Accepted | PushError]:
    """What became of so many, one after the other."""
    found: list[Accepted | PushError] = []
    with Publisher(fabric.http["logic-1"], api_key=KEYS[who], retry_s=0) as publisher:
        for i in range(n):
            try:
                found.append(publisher.push(b"%d" % i, users=f"{who}-1"))
            except PushError as error:
                found.append(error)
    return found


def tenants() -> str:
    of = {name: f'{{ push = ["u:{name}-*"], read = ["u:{name}-*"], count = ["*"] }}' for name in KEYS}
    return limits(pushes_per_key=rate(200, per_s=200)) + "".join(api_key(name, "", of[name]) for name in KEYS)


def test_tenants_do_not_starve_each_other() -> None:
    """One floods at many times its limit, and every push of the other is accepted."""
    with running(has_admin=True, more=tenants()) as fabric:
        with flooding(fabric, "acme") as count:
            wait_until(lambda: limited(fabric, "logic-1"), "it is over its limit")
            before = count()
            found = pushed(fabric, "beta", 150)
            wait_until(lambda: count() - before > 2_000, "it floods")
        assert all(isinstance(outcome, Accepted) for outcome in found)
        assert limited(fabric, "logic-1")["pushes_per_key"] > 1_000
        headers = {"Authorization": f"Bearer {KEYS['beta']}"}
        assert fabric.request("GET", "/api/streams/u%3Abeta-1?limit=1", headers=headers)[1]["head"] == 150


def test_without_a_limit_nothing_is_refused(tmp_path: Path) -> None:
    """Where nothing is said there is no limit, and no metric tells of any."""
    with running(tmp_path, has_admin=True) as fabric:
        assert [fabric.push({"to": {"users": ["7"]}, "body": n})[0] for n in range(50)] == [200] * 50
        assert all(is_let_in(fabric.tcp["comet-1"], "127.1.1.1") for _ in range(50))
        assert [limited(fabric, name) for name in ("comet-1", "logic-1", "router-1")] == [{}, {}, {}]
