"""Full has a name: each limit of the topology, reached on a real fabric."""

from __future__ import annotations

import http.client
import signal
import struct
import time

import gevent
from gevent import socket

from tests.harness import Client, Fabric, running, wait_until
from tests.zim_client import ZimClient
from zim.protocol.frame import Op


def test_publishers_to_a_comet_that_is_behind_get_503_and_nobody_else_does() -> None:
    with running(routers=1, comets=2, router={"max_behind_bytes": 50_000}) as fabric:
        stuck, fine = Client(fabric.tcp["comet-1"], "1"), Client(fabric.tcp["comet-2"], "2")
        accepted = 0

        def gets_503() -> bool:
            """Fills the comet, which is stopped; on a machine so slow that its lease ends first it is another try."""
            nonlocal accepted
            fabric.kill("comet-1", signal.SIGSTOP)
            try:
                for _ in range(10):
                    status, retry_after = _push(fabric, "/1/push?uid=1", b"x" * 10_000)
                    if status == 503:
                        assert retry_after == "1"
                        assert fabric.request("POST", "/1/push?uid=2", b"y")[0] == 200
                        return True
                    accepted += 1
                return False
            finally:
                fabric.kill("comet-1", signal.SIGCONT)

        wait_until(gets_503, "publishers are told to wait")
        assert fine.wait(1)[0].body == b"y"
        wait_until(lambda: fabric.request("POST", "/1/push?uid=1", b"last")[0] == 200, "the comet has caught up")
        wait_until(lambda: b"last" in stuck.bodies, "all of it arrives")
        assert len([b for b in stuck.bodies if len(b) == 10_000]) == accepted


def test_a_comet_that_dies_costs_nobody_a_503_before_its_lease_is_over() -> None:
    with running(comets=2) as fabric:
        Client(fabric.tcp["comet-1"], "1")
        fabric.kill("comet-1", signal.SIGSTOP)
        until = time.monotonic() + 4.0
        while time.monotonic() < until:
            assert fabric.request("POST", "/1/push/room?rid=1", b"x" * 1000) == (200, {"ret": 1})
        wait_until(lambda: fabric.count("server") == {}, "its lease is over")
        fabric.kill("comet-1", signal.SIGCONT)


def test_a_comet_that_is_full_refuses_and_goes_on() -> None:
    with running(comet={"max_connections": 3}) as fabric:
        inside = [Client(fabric.tcp["comet-1"], str(i)) for i in range(3)]
        refused = Client(fabric.tcp["comet-1"], None)
        refused.wait_closed(5.0)
        host, port = fabric.ws["comet-1"].split(":")
        with socket.create_connection((host, int(port)), timeout=5) as s:
            assert s.recv(100).startswith(b"HTTP/1.1 503 ")
        inside.pop().close()
        wait_until(lambda: fabric.count("server") == {1: 2}, "a place is free")
        inside.append(Client(fabric.ws["comet-1"], "9", is_ws=True))
        fabric.post("/1/push/all", b"{}")
        for client in inside:
            client.wait(1)


def test_a_socket_that_lingers_after_its_close_frame_still_takes_a_place() -> None:
    with running(comet={"max_connections": 3}) as fabric:
        bad = [Client(fabric.ws["comet-1"], "1", is_ws=True) for _ in range(3)]
        for client in bad:
            client.frame(b"{}", is_masked=False)
        for client in bad:
            assert client.wait_closed() == 1002  # and hangs up only when the test does, or after 2 s
        assert fabric.count("server") == {}
        Client(fabric.tcp["comet-1"], None).wait_closed(1.0)
        for client in bad:
            client.close()

        def comes_in() -> bool:
            client = Client(fabric.tcp["comet-1"], None)
            client.say(Op.AUTH, b"9")
            wait_until(lambda: client.packets or client.is_closed, "an answer")
            return bool(client.packets)

        wait_until(comes_in, "their places are free")


def test_a_slow_consumer_may_lose_its_oldest_messages_instead_of_its_connection() -> None:
    with running(comet={"slow_consumer": "drop", "outbox_bytes": 100_000}) as fabric:
        slow = Client(fabric.tcp["comet-1"], "1")
        slow.pause()
        for n in range(800):
            fabric.post("/1/push?uid=1", b"%06d" % n + b"x" * 20_000)
        while not slow.bodies or not slow.bodies[-1].startswith(b"000799"):
            slow.hear(slow.socket.recv(1 << 20))
        numbers = [int(body[:6]) for body in slow.bodies]
        assert numbers == sorted(set(numbers))
        assert 1 < len(numbers) < 800
        wait_until(lambda: "slow consumer uid=1" in fabric.log, "the log says so")
        assert fabric.count("server") == {1: 1}


def test_slow_consumers_that_reset_are_no_news() -> None:
    with running(comet={"outbox_bytes": 16 << 20}) as fabric:
        clients = [Client(fabric.tcp["comet-1"], "1") for _ in range(20)]
        for client in clients:
            client.pause()
        for _ in range(200):  # 10 MB for each: more than the kernel takes
            fabric.post("/1/push?uid=1", b"x" * 50_000)
        for client in clients:  # something to read, and a reset, at the same moment
            client.say(Op.HEARTBEAT)
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        wait_until(lambda: fabric.count("server") == {}, "they are gone")
        assert "Traceback" not in fabric.log


def test_a_slow_consumer_is_cut_off_with_a_reason_and_slows_nobody() -> None:
    with running(comet={"outbox_bytes": 100_000}) as fabric:
        slow, fast = Client(fabric.ws["comet-1"], "1", is_ws=True), Client(fabric.tcp["comet-1"], "2")
        slow.pause()
        pushed = 0
        while "slow consumer uid=1" not in fabric.log:
            fabric.post("/1/push/room?rid=1", b'"%s"' % (b"x" * 20_000))
            pushed += 1
            assert pushed < 2000
        fast.wait(pushed)
        wait_until(lambda: fabric.count("server") == {1: 1}, "it is gone")
        slow.socket.settimeout(5)
        try:
            while data := slow.socket.recv(1 << 20):
                slow.hear(data)
        except OSError:
            pass  # reset, if its half-sent frame did not get through in time
        assert slow.close_code in (0, 1008)


def _push(fabric: Fabric, path: str, body: bytes) -> tuple[int, str | None]:
    """Status and Retry-After."""
    connection = http.client.HTTPConnection(fabric.http["logic-1"], timeout=10)
    try:
        connection.request("POST", path, body)
        response = connection.getresponse()
        response.read()
        return response.status, response.headers["Retry-After"]
    finally:
        connection.close()


HISTORY = "[retention]\nusers = { count = 10000, age_s = 3600 }\n"


def test_who_reads_slowly_may_still_resume() -> None:
    with running(comet={"outbox_bytes": 200_000}, more=HISTORY) as fabric:
        for n in range(400):  # 20 MB: more than the kernel and an outbox take
            fabric.post("/1/push?uid=1", b"%06d" % n + b"x" * 50_000)
        slow = ZimClient(fabric.tcp["comet-1"], "1", rooms=[])
        slow.pause()
        before = 0
        while len(slow.places("u:1")) < 400:  # it reads when the comet has nothing more to say for the moment
            gevent.sleep(0.01)
            data = slow.socket.recv(1 << 18)
            assert data, fabric.log
            slow.hear(data)
            assert len(slow.places("u:1")) >= before
            before = len(slow.places("u:1"))
        assert [offset for offset, _ in slow.places("u:1")] == list(range(1, 401))


def test_a_zim_client_that_is_slow_is_closed_and_resumes_whatever_the_policy() -> None:
    with running(
        comet={"slow_consumer": "drop", "outbox_bytes": 100_000}, more="[retention]\nusers = { count = 100000 }"
    ) as fabric:
        slow = ZimClient(fabric.tcp["comet-1"], "1", rooms=[])
        slow.pause()  # it does not read any more
        pushed = 0
        while "slow consumer uid=1" not in fabric.log:  # the kernel takes some megabytes
            pushed += 1
            fabric.post("/1/push?uid=1", b"%06d" % pushed + b"x" * 50_000)
        start = slow.starts["u:1"]
        again = ZimClient(fabric.tcp["comet-1"], "1", rooms=[], resume={"u:1": (start["epoch"], start["offset"])})
        assert [offset for offset, _ in again.wait_for("u:1", pushed)] == list(range(1, pushed + 1))
