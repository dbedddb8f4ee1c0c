"""Who is there, as the HTTP API and `zim who` tell it, on a fabric with two routers and two comets."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.harness import Client, Fabric, running, wait_until
from tests.zim_client import ZimClient
from zim.fabric.sharding import Shards
from zim.protocol.frame import Op

ROUTERS = ["router-1", "router-2"]
OWNER = Shards(ROUTERS).of
ODD = "a/b %2F é"


@pytest.fixture(scope="module")
def fabric() -> Iterator[Fabric]:
    with running(routers=2, comets=2) as fabric:
        yield fabric


def zim_who(fabric: Fabric, *arguments: str) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "zim", "who", *arguments, "--topology", str(fabric.file)]
    return subprocess.check_output(command, text=True)


def wait_for_room(fabric: Fabric, room: str, sessions: int, users: int) -> None:
    want = {"room": room, "sessions": sessions, "users": users}
    wait_until(lambda: fabric.get(f"/api/rooms/{quote(room, safe='')}") == want, f"{want}")


def test_who_is_there(fabric: Fabric) -> None:
    uids = [str(n) for n in range(10, 20)]
    assert {OWNER(f"u:{uid}") for uid in uids} == set(ROUTERS)
    one, two = fabric.tcp["comet-1"], fabric.ws["comet-2"]
    crowd = [ZimClient(one, uid, rooms=["lobby", ODD]) for uid in uids]
    again = [ZimClient(two, uid, is_ws=True, rooms=["lobby"]) for uid in uids[:4]]
    goim = Client(one, "7")

    wait_for_room(fabric, "lobby", 14, 10)
    wait_for_room(fabric, ODD, 10, 10)
    wait_for_room(fabric, "1", 1, 1)
    wait_for_room(fabric, "nobody", 0, 0)
    sizes = [("lobby", 14), (ODD, 10), ("1", 1)]
    assert [(size["room"], size["sessions"]) for size in fabric.get("/api/rooms")["rooms"]] == sizes
    assert fabric.get("/api/rooms?limit=1") == {"rooms": [{"room": "lobby", "sessions": 14}]}
    found = fabric.get("/api/users/10")
    assert (found["user"], found["online"], found["left_out"]) == ("10", True, 0)
    places = {(place["comet"], tuple(place["rooms"])) for place in found["sessions"]}
    assert places == {("comet-1", ("lobby", ODD)), ("comet-2", ("lobby",))}
    assert {place["key"].partition("_")[0] for place in found["sessions"]} == {"10"}
    nobody = {"user": "99", "online": False, "sessions": [], "left_out": 0}
    assert fabric.get("/api/users/99") == nobody

    assert zim_who(fabric, "room", ODD) == f"room {ODD}: 10 sessions of 10 users\n"
    assert zim_who(fabric, "user", "99") == "user 99 is not online\n"
    assert json.loads(zim_who(fabric, "rooms", "--limit", "2", "--json"))["rooms"][1] == {"room": ODD, "sessions": 10}

    crowd[0].ask(Op.LEAVE, {"rooms": [ODD]}, seq=9)
    again[0].ask(Op.JOIN, {"rooms": ["den"]}, seq=9)
    wait_for_room(fabric, ODD, 9, 9)
    wait_for_room(fabric, "den", 1, 1)
    for client in (*crowd[2:], *again[1:], goim):
        client.close()
    wait_for_room(fabric, "lobby", 3, 2)
    wait_until(lambda: fabric.get("/api/users/7")["online"] is False, "the goim client is gone")
    wait_for_room(fabric, "1", 0, 0)


def test_without_a_router_nobody_is_told_too_little(fabric: Fabric) -> None:
    client = ZimClient(fabric.tcp["comet-1"], "7", rooms=["hall"])
    wait_for_room(fabric, "hall", 1, 1)
    silent = next(router for router in ROUTERS if router != OWNER("u:7"))
    fabric.kill(silent, signal.SIGSTOP)
    try:
        for path in ("/api/rooms/hall", "/api/rooms"):
            status, said = fabric.request("GET", path)
            assert (status, said["silent"]) == (503, [silent])
        assert fabric.get("/api/users/7")["online"]
    finally:
        fabric.kill(silent, signal.SIGCONT)
    wait_for_room(fabric, "hall", 1, 1)
    client.close()


def test_what_became_of_a_push(fabric: Fabric) -> None:
    def told(*words: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "zim", "receipt", *words, "--topology", str(fabric.file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code, done
        return done.stdout + done.stderr

    client = ZimClient(fabric.tcp["comet-1"], "901")
    push_id = fabric.push({"to": {"users": ["901", "902", "no body"], "rooms": ["lobi"]}, "body": 1})[1]["id"]
    assert client.take(Op.PUSH).body == b"1"
    said = told(push_id, "--wait", "5").splitlines()
    assert said[:2] == [
        "delivered to 1 session; 2 users are offline; nobody is in room 'lobi'",
        "offline: 902, no body",
    ]
    assert said[2].startswith("kept after ")
    found = json.loads(told(push_id, "--json"))
    assert (found["offline_users"], found["empty_rooms"]) == (["902", "no body"], ["lobi"])
    assert told("0" * 32, code=1) == "zim receipt: there was no such push, or it is forgotten\n"
    assert told("order-1", code=1) == "zim receipt: this is no push id; right is: the id in the answer to the push\n"
