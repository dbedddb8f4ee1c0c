"""goim v1, end to end on a real fabric: what its backends and clients do, and what they get."""

from __future__ import annotations

from collections.abc import Iterator

import msgpack
import pytest
import zmq.green as zmq

from tests.harness import Client, Fabric, running, wait_until
from tests.zim_client import ZimClient
from zim.protocol.frame import Op


@pytest.fixture(scope="module")
def fabric() -> Iterator[Fabric]:
    with running(routers=2, logics=2, jobs=2, comets=2) as f:
        yield f


@pytest.mark.parametrize("is_ws", [False, True])
@pytest.mark.parametrize("comet", ["comet-1", "comet-2"])
@pytest.mark.parametrize("logic", ["logic-1", "logic-2"])
def test_a_push_to_a_user_reaches_every_session_of_it(fabric: Fabric, comet: str, logic: str, is_ws: bool) -> None:
    here = Client((fabric.ws if is_ws else fabric.tcp)[comet], "71", is_ws)
    there = Client(fabric.tcp["comet-2"], "71")
    other = Client(fabric.tcp["comet-1"], "72")
    assert fabric.post("/1/push?uid=71", b'{"a":1}', logic) == {"ret": 1}
    for client in (here, there):
        (p,) = client.wait(1)
        assert (p.op, p.seq, p.version, p.body) == (Op.PUSH, 0, 0, b'{"a":1}')
    assert fabric.post("/1/push?uid=72", b"{}", logic) == {"ret": 1}
    assert other.wait(1)[0].body == b"{}"
    assert len(here.packets) == len(there.packets) == len(other.packets) == 1
    for client in (here, there, other):
        client.close()


def test_room_and_broadcast(fabric: Fabric) -> None:
    members = [Client(fabric.tcp["comet-1"], "1"), Client(fabric.ws["comet-2"], "2", is_ws=True)]
    roomless = Client(fabric.tcp["comet-2"], "not a number")
    fabric.post("/1/push/room?rid=1", b'{"r":1}')
    fabric.post("/1/push/room?rid=2", b'{"r":2}')
    fabric.post("/1/push/room?rid=-1", b'{"r":-1}')
    fabric.post("/1/push/all", b'{"all":1}')
    for member in members:
        assert {p.body for p in member.wait(2)} == {b'{"r":1}', b'{"all":1}'}  # two streams: no order between them
    assert [p.body for p in roomless.wait(1)] == [b'{"all":1}']
    wait_until(lambda: fabric.count("room") == {-1: 1, 1: 2}, "all are counted")
    assert fabric.count("server") == {1: 1, 2: 2}
    for client in (*members, roomless):
        client.close()
    wait_until(lambda: fabric.count("room") == {}, "nobody is counted")


def test_pushs_sends_each_user_one_message(fabric: Fabric) -> None:
    clients = [Client(fabric.tcp[f"comet-{1 + i % 2}"], str(100 + i)) for i in range(20)]
    twice = [*range(100, 120), 105, 999]
    assert fabric.post("/1/pushs", f'{{"u":{twice},"m":{{"t": 2}}}}') == {"ret": 1}
    assert fabric.post("/1/push/all", b"last") == {"ret": 1}
    for client in clients:
        assert {p.body for p in client.wait(2)} == {b'{"t": 2}', b"last"}  # and no third one came before either
        client.close()


def test_a_json_client_gets_any_body_as_json(fabric: Fabric) -> None:
    text, binary = Client(fabric.ws["comet-1"], "5", is_ws=True), Client(fabric.tcp["comet-1"], "5")
    bodies = [b"not json", b"\xff\xfe", b"", b"[1,2", b'"\\u00e9"', b"NaN", b"[" * 5000]
    for body in bodies:
        fabric.post("/1/push?uid=5", body)
    assert [p.body for p in binary.wait(len(bodies))] == bodies
    assert [p.body for p in text.wait(len(bodies))] == [
        b'"not json"',
        '"\ufffd\ufffd"'.encode(),
        b"{}",
        b'"[1,2"',
        '"é"'.encode(),
        b'"NaN"',
        b'"' + b"[" * 5000 + b'"',
    ]
    text.close()
    binary.close()


def test_server_del_forgets_and_who_lives_comes_back(fabric: Fabric) -> None:
    client = Client(fabric.tcp["comet-1"], "8")
    assert fabric.post("/1/server/del?server=1") == {"ret": 1}
    wait_until(lambda: fabric.count("server") == {1: 1}, "the comet has registered anew")
    fabric.post("/1/push?uid=8", b"still here")
    assert client.wait(1)[0].body == b"still here"
    client.close()


def test_a_plain_req_socket_can_ask_a_router(fabric: Fabric) -> None:
    client = Client(fabric.tcp["comet-1"], "7")
    found = []
    with zmq.Context() as context:
        for name in ("router-1", "router-2"):
            with context.socket(zmq.REQ) as req:
                req.connect(fabric.binds[name])
                req.send(msgpack.packb({"locate": "7"}))
                found.append(msgpack.unpackb(req.recv()))
                req.send(msgpack.packb({"counts": True}))
                assert set(msgpack.unpackb(req.recv())) == {"rooms", "comets", "roomless"}
                req.send(b"\xc1 no msgpack")
                assert "locate" in msgpack.unpackb(req.recv())["error"]
                req.send(msgpack.packb({"what": 1}))
                assert "locate" in msgpack.unpackb(req.recv())["error"]
    (sessions,) = [f["sessions"] for f in found if "sessions" in f]
    (error,) = [f["error"] for f in found if "error" in f]
    assert sessions[0]["comet"] == "comet-1"
    assert sessions[0]["rooms"] == ["1"]
    assert sessions[0]["key"].startswith("7_")
    assert "belongs to router-" in error
    client.close()


def test_goims_users_and_rooms_are_numbers_and_zims_are_text(fabric: Fabric) -> None:
    """docs/http-api.md says so: who logs in as 007 is user "7", whom `?uid=007` means, and "007" is somebody else."""
    client = ZimClient(fabric.tcp["comet-1"], "0042", rooms=["0042", "42"])
    fabric.post("/1/push?uid=0042", b"1")
    assert client.wait_for("u:42", 1) == [(1, b"1")]
    assert fabric.push({"to": {"users": ["0042"]}, "body": 2})[1]["streams"] == {"u:0042": 1}
    fabric.post("/1/push/room?rid=0042", b"3")
    assert client.wait_for("r:42", 1) == [(1, b"3")]
    assert fabric.push({"to": {"rooms": ["0042"]}, "body": 4})[1]["streams"] == {"r:0042": 1}
    assert client.wait_for("r:0042", 1) == [(1, b"4")]
    assert {stream for stream in client.starts if stream.startswith("u:")} == {"u:42"}
    client.close()
