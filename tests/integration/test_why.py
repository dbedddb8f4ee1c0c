"""What the log and the metrics say of clients: who came, who went and why, who was not let in."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator

import pytest

from tests.harness import Client, Fabric, running, wait_until
from tests.zim_client import ZimClient
from zim.client import Listener, SentAway, State
from zim.protocol.endings import Ending
from zim.protocol.frame import Op


@pytest.fixture(scope="module")
def fabric() -> Iterator[Fabric]:
    with running(has_admin=True, comet={"heartbeat_s": 2}) as f:
        yield f


def lines(fabric: Fabric, event: str, *fields: str) -> list[str]:
    """Of the log, those of an event that have all these fields."""
    found = [line for line in fabric.log.splitlines() if f" INFO {event} " in line]
    return [line for line in found if all(f" {field}" in f"{line} " for field in fields)]


def closed(fabric: Fabric, ending: Ending) -> int:
    """How many connections ended so."""
    found = re.search(
        rf'zim_comet_closed_connections_total{{reason="{ending.word}"}} ([0-9]+)', fabric.metrics("comet-1")
    )
    assert found is not None
    return int(found[1])


def test_who_comes_and_goes(fabric: Fabric) -> None:
    client = ZimClient(fabric.tcp["comet-1"], "7", rooms=["a", "b"])
    address = "{}:{}".format(*client.socket.getsockname())
    wait_until(lambda: lines(fabric, "connected", f"client={address}", "key=7_", "rooms=2"), "a line in the log")
    fabric.push({"to": {"users": [7]}, "body": "x" * 10_000})
    client.wait_for("u:7", 1)
    client.say(Op.HEARTBEAT, seq=5)
    wait_until(lambda: client.packets[-1].seq == 5, "what it was sent is confirmed")
    client.close()
    gone = "disconnected", f"client={address}", "key=7_", 'reason="closed by the client"'
    (line,) = wait_until(lambda: lines(fabric, *gone), "another one")
    numbers = {name: float(n) for name, n in re.findall(r"([a-z_]+)=([0-9.]+)(?= |$)", line)}
    assert numbers["acked_bytes"] > 10_000
    assert numbers["received_bytes"] > 30
    assert 0 <= numbers["seconds"] < 60
    assert closed(fabric, Ending.CLIENT) == 1


def test_who_only_looks_whether_it_lives_is_no_line(fabric: Fabric) -> None:
    host, port = fabric.tcp["comet-1"].split(":")
    probes = [socket.create_connection((host, int(port))) for _ in range(3)]
    addresses = ["{}:{}".format(*probe.getsockname()) for probe in probes]
    before = closed(fabric, Ending.CLIENT)
    for probe in probes:
        probe.close()
    wait_until(lambda: closed(fabric, Ending.CLIENT) == before + 3, "all are gone")
    assert not [line for address in addresses for line in lines(fabric, "disconnected", f"client={address}")]


def test_a_receipt_names_who_was_offline_and_rooms_with_nobody_in_them() -> None:
    with running(routers=2) as fabric:
        client = ZimClient(fabric.tcp["comet-1"], "7")
        users = [7, *range(1000, 1120)]
        _, few = fabric.push({"to": {"users": users[:3], "rooms": ["a"]}, "body": 1, "wait_s": 10})
        _, rooms = fabric.push({"to": {"rooms": [f"empty-{n}" for n in range(120)]}, "body": 1, "wait_s": 10})
        _, many = fabric.push({"to": {"users": users}, "body": 1, "wait_s": 10})
        client.wait_for("u:7", 2)
        assert few["receipt"]["offline"] == 2
        assert sorted(few["receipt"]["offline_users"]) == ["1000", "1001"]
        assert few["receipt"]["empty_rooms"] == ["a"]
        assert (rooms["receipt"]["offline"], rooms["receipt"]["offline_users"]) == (0, [])
        assert len(set(rooms["receipt"]["empty_rooms"])) == 100
        assert many["receipt"]["offline"] == 120
        assert len(set(many["receipt"]["offline_users"]) & set(map(str, users[1:]))) == 100
        wait_until(lambda: fabric.get(f"/api/pushes/{few['id']}") == few["receipt"], "it is the same from the disk")


@pytest.mark.parametrize("is_ws", [False, True], ids=["tcp", "ws"])
def test_why_somebody_was_closed(fabric: Fabric, is_ws: bool) -> None:
    address = (fabric.ws if is_ws else fabric.tcp)["comet-1"]
    before = {ending: closed(fabric, ending) for ending in Ending}
    for said in ("anna", {"token": 7, "rom": ["a"]}):
        client = Client(address, None, is_ws)
        client.version = 3
        client.say(Op.AUTH, json.dumps(said if isinstance(said, dict) else {"token": said}).encode())
        client.wait_closed()
    ZimClient(address, "7", is_ws).say_json(77, {}, 1)
    ZimClient(address, "7", is_ws)  # and says nothing
    for ending, why in (
        (Ending.REFUSED, 'reason="login refused: the token is no number; a user\'s number is right, such as 7"'),
        (Ending.AUTH, 'reason="auth: no field is called rom; there are token, rooms, resume, device, platform"'),
        (Ending.OPERATION, 'reason="operation not known"'),
        (Ending.SILENT, 'reason="heartbeat timeout"'),
    ):
        wait_until(lambda: closed(fabric, ending) == before[ending] + 1, f"{ending} is counted")  # noqa: B023
        wait_until(lambda: lines(fabric, "disconnected", why), f"{why} is in the log")  # noqa: B023


@pytest.mark.parametrize("is_ws", [False, True], ids=["tcp", "ws"])
def test_who_forgets_the_version_is_user_0_and_the_log_says_why(fabric: Fabric, is_ws: bool) -> None:
    address = (fabric.ws if is_ws else fabric.tcp)["comet-1"]
    hint = """hint="an auth packet of zim's protocol has version 3\""""
    for said, hints in (('{"token":"7"}', 1), ('{"uid":"7"}', 0), ('"anna"', 0)):
        client = Client(address, said, is_ws)
        whose = "client={}:{}".format(*client.socket.getsockname())
        wait_until(lambda: lines(fabric, "connected", whose, "key=0_"), "a line in the log")  # noqa: B023
        assert len(lines(fabric, "goim's user 0 has a token", whose, hint)) == hints
        client.close()


def test_who_speaks_something_else_is_told_so_in_the_log(fabric: Fabric) -> None:
    for is_ws, said, why in (
        (False, b"GET /sub HTTP/1.1\r\nHost: localhost\r\n\r\n", "packet too large: it looks like HTTP; "),
        (True, b'[{"ver":3,"op":7,"seq":1,"body":{"token":"7"}}]', "an array; right is one object a frame"),
    ):
        client = Client((fabric.ws if is_ws else fabric.tcp)["comet-1"], None, is_ws)
        client.frame(said) if is_ws else client.send(said)
        client.wait_closed()
        assert (client.packets, client.close_code) == ([], 0)  # as goim does
        wait_until(lambda: f'reason="{why}' in fabric.log, f"{why} is in the log")  # noqa: B023


def test_a_push_to_a_port_that_is_not_for_pushes_is_told_so_and_in_the_log(fabric: Fabric) -> None:
    address, size = fabric.ws["comet-1"], len(lines(fabric, "request refused"))
    for path, status, words in (
        ("/1/push?uid=7", 404, "WebSocket clients connect to /sub; pushes go to a logic's `http`"),
        ("/sub", 405, "a WebSocket upgrade is a GET"),
    ):
        for body in (b"", b"hello", b"x" * 9000):
            connection = http.client.HTTPConnection(address, timeout=10)
            connection.request("POST", path, body)
            answer = connection.getresponse()
            assert (answer.status, answer.read().decode()) == (status, f"{words}\n")
            connection.close()
            size += 1
            wait_until(lambda: len(lines(fabric, "request refused")) == size, "a line in the log")  # noqa: B023
            assert f"status={status} " in lines(fabric, "request refused")[-1]


@pytest.mark.parametrize("is_ws", [False, True], ids=["tcp", "ws"])
def test_who_is_sent_away_for_good_does_not_come_back(fabric: Fabric, is_ws: bool) -> None:
    address = (fabric.ws if is_ws else fabric.tcp)["comet-1"]
    states: list[State] = []
    listener = Listener(f"ws://{address}/sub" if is_ws else address, token="anna", on_state=states.append)
    with pytest.raises(SentAway, match="the token is no number") as raised:
        list(listener)
    assert raised.value.code == Ending.REFUSED.zim_code
    assert [state.name for state in states] == ["connecting", "refused"]


def test_with_v_the_way_of_a_push_is_in_the_log() -> None:
    with running(options=["-v"]) as fabric:
        client = ZimClient(fabric.tcp["comet-1"], "7")
        _, accepted = fabric.push({"to": {"users": [7]}, "body": 1})
        client.wait_for("u:7", 1)
        for node, event in (
            ("logic-1", "push asked for"),
            ("router-1", "push in the log"),
            ("router-1", "push handed down"),
            ("job-1", "push handed on"),
            ("comet-1", "push here"),
        ):
            found = f" {node} DEBUG {event} push_id={accepted['id']} "
            wait_until(lambda: found in fabric.log, f"a line of {node}")  # noqa: B023
