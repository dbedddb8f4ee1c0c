"""What zim's dialect promises when processes die: what was accepted is there again, in order, once; or the client is
told so."""

from __future__ import annotations

import json
import signal
from typing import Any

import gevent
import pytest

from tests.harness import Client, Fabric, running, wait_until
from tests.zim_client import ZimClient
from zim.fabric.sharding import Shards
from zim.protocol.frame import Op

LIVE = '[[room_class]]\nname = "live"\nrooms = ["live-*"]\ncount = 0\nage_s = 0\n'
SHORT = "[retention]\nusers = { count = 5, age_s = 3600 }\n"
ROUTERS = ["router-1", "router-2"]


def push(fabric: Fabric, to: dict[str, Any], body: Any, key: str = "", logic: str = "logic-1") -> dict[str, int]:
    """Pushes, and returns the offsets by stream."""
    status, answer = fabric.push({"to": to, "body": body}, key, logic)
    assert status == 200, answer
    offsets: dict[str, int] = answer["streams"]
    return offsets


def restart(fabric: Fabric, name: str) -> None:
    """kill -9, and waits until it runs again and knows all comets."""
    pid = fabric.kill(name)
    wait_until(lambda: fabric.pid(name) not in (0, pid), f"{name} runs again")
    wait_until(lambda: fabric.request("GET", "/1/count?type=server")[0] == 200, "the directory is whole")


def bodies(client: ZimClient, stream: str, count: int) -> list[int]:
    return [json.loads(body) for _, body in client.wait_for(stream, count)]


def test_everything_is_there_after_the_power_failed() -> None:
    with running(routers=2, logics=2, jobs=2, comets=2) as fabric:
        client = ZimClient(fabric.tcp["comet-1"], "7", rooms=["a", "b"])
        rooms = {"rooms": ["a", "b"], "users": ["7"], "everybody": True}
        streams = push(fabric, rooms, 1, "first")
        for stream in streams:
            assert bodies(client, stream, 1) == [1]
        assert client.ask(Op.ACKNOWLEDGE, {"u:7": 1}, 3) == {"u:7": 1}
        client.close()
        push(fabric, rooms, 2)
        fabric.kill_all()
        fabric.start()
        assert push(fabric, rooms, 1, "first", "logic-2") == streams  # its key is known
        again = ZimClient(fabric.ws["comet-2"], "7", True, ["a", "b"], client.has)
        assert all(start["recovered"] for start in again.starts.values())
        assert {stream: s["epoch"] for stream, s in again.starts.items()} == {
            stream: s["epoch"] for stream, s in client.starts.items()
        }
        assert again.auth["key"] != client.auth["key"]
        push(fabric, rooms, 3)
        for stream in streams:
            assert bodies(again, stream, 2) == [2, 3]
        fresh = ZimClient(fabric.tcp["comet-1"], "7")
        assert fresh.starts["u:7"]["offset"] == 1  # where the cursor was
        assert bodies(fresh, "u:7", 2) == [2, 3]


@pytest.mark.parametrize("is_ws", [False, True], ids=["tcp", "ws"])
def test_who_stays_misses_nothing_when_routers_and_jobs_die(is_ws: bool) -> None:
    with running(routers=2, logics=2, jobs=2, comets=2) as fabric:
        addresses = (fabric.ws if is_ws else fabric.tcp).values()
        clients = [ZimClient(address, uid, is_ws, ["a"]) for address in addresses for uid in ("7", "8")]
        accepted: dict[str, list[int]] = {"r:a": [], "u:7": [], "*": []}
        is_over = False

        def publish() -> None:
            n = 0
            while not is_over:
                n += 1
                to = {"rooms": ["a"], "users": ["7"], "everybody": True}
                status, answer = fabric.push({"to": to, "body": n}, f"key-{n}", f"logic-{1 + n % 2}")
                if status == 200:
                    for stream, offset in answer["streams"].items():
                        accepted[stream].append(offset)

        publisher = gevent.spawn(publish)
        for name in ("router-1", "job-1", "router-2", "job-2"):
            before = len(accepted["*"])
            restart(fabric, name)
            wait_until(lambda at=before: len(accepted["*"]) > at + 20, "it goes on")  # type: ignore[misc]
        is_over = True
        publisher.get()
        for client in clients:
            uid = client.auth["key"].split("_")[0]
            for stream in ("r:a", "*", *(["u:7"] if uid == "7" else [])):
                last = accepted[stream][-1]
                wait_until(lambda c=client, s=stream, n=last: n in dict(c.places(s)), f"{stream} gets {last}")  # type: ignore[misc]
                offsets = [offset for offset, _ in client.places(stream)]
                assert offsets == list(range(1, len(offsets) + 1))
            assert not [p for p in client.packets if p.op == Op.GAP]


def test_a_comet_that_stood_still_for_longer_than_its_lease_misses_nothing() -> None:
    with running(routers=2, jobs=2, comets=2) as fabric:
        client, goim = ZimClient(fabric.tcp["comet-1"], "7", rooms=["a"]), Client(fabric.tcp["comet-1"], "7")
        for n in range(1, 4):
            push(fabric, {"rooms": ["a"], "users": ["7"]}, n)
        fabric.kill("comet-1", signal.SIGSTOP)
        wait_until(lambda: fabric.count("server") == {}, "its lease is over")
        for n in range(4, 50):
            push(fabric, {"rooms": ["a"], "users": ["7"]}, n)
        fabric.kill("comet-1", signal.SIGCONT)
        push(fabric, {"rooms": ["a"], "users": ["7"]}, 50)
        for stream in ("r:a", "u:7"):
            assert client.wait_for(stream, 50) == [(n, b"%d" % n) for n in range(1, 51)]
        assert [p.body for p in goim.wait(50)] == [b"%d" % n for n in range(1, 51)]


def test_a_key_is_known_after_its_router_died() -> None:
    with running(routers=2, logics=2) as fabric:
        client = ZimClient(fabric.tcp["comet-1"], "7", rooms=["a"])
        to = {"users": ["7"], "rooms": ["a"]}
        first = push(fabric, to, 1, "mine")
        for router in ROUTERS:
            restart(fabric, router)
            jobs = [gevent.spawn(push, fabric, to, 1, "mine", logic) for logic in [*fabric.http] * 3]
            assert [job.get() for job in jobs] == [first] * 6
            assert fabric.push({"to": to, "body": 2}, "mine")[0] == 422
        push(fabric, to, 2)
        for stream in first:
            assert bodies(client, stream, 2) == [1, 2]


def test_a_live_only_room_starts_anew_with_its_router_and_says_so() -> None:
    with running(routers=2, more=LIVE) as fabric:
        client = ZimClient(fabric.tcp["comet-1"], "7", rooms=["live-a", "a"])
        push(fabric, {"rooms": ["live-a", "a"]}, 1)
        assert bodies(client, "r:live-a", 1) == bodies(client, "r:a", 1) == [1]
        restart(fabric, Shards(ROUTERS).of("r:live-a"))
        push(fabric, {"rooms": ["live-a", "a"]}, 2)
        assert bodies(client, "r:live-a", 2) == bodies(client, "r:a", 2) == [1, 2]
        gap = json.loads(client.take(Op.GAP).body)
        assert (gap["stream"], gap["from"], gap["to"], gap["reason"]) == ("r:live-a", 0, 0, "epoch")
        assert gap["epoch"] != client.starts["r:live-a"]["epoch"]
        assert client.places("r:live-a") == [(1, b"1"), (1, b"2")]
        again = ZimClient(fabric.tcp["comet-1"], "7", rooms=["live-a"], resume=client.has)
        assert again.starts["r:live-a"] == {"epoch": gap["epoch"], "offset": 1, "recovered": False}


def test_a_room_whose_router_is_away_is_joined_later() -> None:
    with running(routers=2) as fabric:
        owner = Shards(ROUTERS).of
        room = next(f"room-{n}" for n in range(99) if owner(f"r:room-{n}") != owner("u:7"))
        push(fabric, {"rooms": [room]}, 1)
        pid = fabric.kill(owner(f"r:{room}"), signal.SIGSTOP)
        client = ZimClient(fabric.tcp["comet-1"], "7", rooms=[room])
        assert client.starts[f"r:{room}"] == {"error": "not joined, retrying"}
        assert client.starts["u:7"]["recovered"]
        assert fabric.kill(owner(f"r:{room}"), signal.SIGCONT) == pid
        joined = json.loads(client.take(Op.JOINED).body)["streams"]
        assert joined[f"r:{room}"]["offset"] == 1
        push(fabric, {"rooms": [room]}, 2)
        assert client.wait_for(f"r:{room}", 1) == [(2, b"2")]


def test_where_retention_has_passed_the_client_is_told() -> None:
    with running(more=SHORT) as fabric:
        client = ZimClient(fabric.tcp["comet-1"], "7")
        for n in range(1, 21):
            push(fabric, {"users": ["7"]}, n)
        assert bodies(client, "u:7", 20) == list(range(1, 21))
        epoch = client.starts["u:7"]["epoch"]
        client.close()

        def first() -> int:
            """Nothing younger than ten seconds goes, and nothing in the first ten after a start."""
            found: int = fabric.get("/api/streams/u%3A7")["first"]
            return found if found == 16 else 0

        wait_until(first, "only five are kept", 60.0)
        for has, start in ((0, 15), (14, 15), (15, 15), (18, 18)):
            again = ZimClient(fabric.tcp["comet-1"], "7", resume={"u:7": (epoch, has)})
            assert again.starts["u:7"] == {"epoch": epoch, "offset": start, "recovered": has == start}
            assert bodies(again, "u:7", 20 - start) == list(range(start + 1, 21))
        unread = fabric.get("/api/users/7/unread")
        assert (unread["unread"], unread["acknowledged"], unread["head"]) == (5, 0, 20)
        fresh = ZimClient(fabric.tcp["comet-1"], "7")
        assert fresh.starts["u:7"] == {"epoch": epoch, "offset": 15, "recovered": False}
