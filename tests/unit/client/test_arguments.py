"""A string where a list is meant, and what else an application may hand over by mistake, is an error that says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.client.http_peer import Answer, serving
from tests.unit.client.logic_peer import logic
from tests.unit.client.test_publisher import accept
from zim.client import AddressError, ClientError, GoimListener, Listener, Publisher, Push, PushRefused, ZmqPublisher

ADDRESS = "127.0.0.1:1"
LISTENER: Any = Listener  # the type checker would say it before


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: LISTENER(ADDRESS, 7, rooms="lobby"), "not 'lobby'; for one, write rooms=['lobby']"),
        (lambda: LISTENER(ADDRESS, 7, rooms=b"lobby"), "write rooms="),
        (lambda: LISTENER(ADDRESS, 7, rooms=5), "for one, write rooms=[5]"),
        (lambda: LISTENER(ADDRESS, 7, rooms=""), "write rooms="),
        (lambda: LISTENER(ADDRESS, 7, rooms=[None]), "no room can be called None"),
        (lambda: LISTENER(ADDRESS, 7, rooms=[True]), "no room can be called True"),
        (lambda: LISTENER(ADDRESS, 7, rooms=[7.0]), "no room can be called 7.0"),
        (lambda: LISTENER(ADDRESS, 7).join(["a", "b"]), "for several, write join(*rooms)"),
        (lambda: LISTENER(ADDRESS, 7).leave(["a", "b"]), "no room can be called ['a', 'b']"),
        (lambda: LISTENER(ADDRESS, 7, resume="u:7"), "resume is {stream: [epoch, offset]}, not 'u:7'"),
        (lambda: LISTENER(ADDRESS, 7).join("a", resume=[1]), "resume is"),
    ],
)
def test_what_a_listener_says(act: Callable[[], object], says: str) -> None:
    with pytest.raises(ClientError) as found:
        act()
    assert says in str(found.value)


@pytest.mark.parametrize("addresses", [None, 7, b"127.0.0.1:1", [7], [b"127.0.0.1:1"], [["127.0.0.1:1"]]])
@pytest.mark.parametrize(
    "connect",
    [lambda found: Listener(found, 7), lambda found: GoimListener(found, 7), Publisher, ZmqPublisher],
    ids=["Listener", "GoimListener", "Publisher", "ZmqPublisher"],
)
def test_what_is_no_address_at_all(connect: Callable[[Any], object], addresses: object) -> None:
    with pytest.raises(AddressError, match="is not an address; right is a string such as"):
        connect(addresses)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("short", "'short' is no server key; right are 64 hexadecimal digits"),
        ("A" * 64, "is no server key"),
        (7, "7 is no server key"),
        (None, "None is no server key"),
        (b"a" * 64, "is no server key"),
        (["a" * 64, ""], "'' is no server key"),
        (["a" * 64, "b" * 64], "there are 2 server keys and 1 endpoints; right is one for each, in order"),
    ],
)
def test_what_is_no_server_key(keys: Any, says: str) -> None:
    with pytest.raises(ClientError) as found:
        ZmqPublisher("tcp://127.0.0.1:1", server_key=keys)
    assert says in str(found.value)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"users": b"7"}, "users: b'7' is no name"),
    ({"users": None}, "users: None is no name"),
    ({"users": True}, "users: True is no name"),
    ({"rooms": 1.0}, "rooms: 1.0 is no name"),
    ({"users": ["7", 8.0]}, "users[1]: 8.0 is no name"),
    ({"rooms": [["a"]]}, "rooms[0]: ['a'] is no name"),
    ({"keys": [None]}, "keys[0]: None is no name"),
    ({"everybody": "no"}, "everybody: it is 'no'; right is True or False"),
]


@pytest.mark.parametrize(("options", "says"), WRONG)
def test_what_is_no_recipient(options: dict[str, Any], says: str) -> None:
    with ZmqPublisher("tcp://127.0.0.1:1") as by_zmq:
        for push in (Publisher(ADDRESS).push, by_zmq.push, _batch):
            with pytest.raises(PushRefused) as found:
                push(b"x", **options)
            assert says in str(found.value)
        assert by_zmq.in_flight == 0


def _batch(body: bytes, **options: Any) -> object:
    return Publisher(ADDRESS).push_batch([Push(body, **options)])


@pytest.mark.parametrize("body", [{"hello": 1}, None, 7, ["x"]])
def test_a_body_that_has_no_bytes(body: Any) -> None:
    with ZmqPublisher("tcp://127.0.0.1:1") as by_zmq:
        for push in (Publisher(ADDRESS).push, by_zmq.push, _batch):
            with pytest.raises(PushRefused, match=r"bytes or a string, not \w+; json\.dumps"):
                push(body, users=7)
    with pytest.raises(PushRefused, match="bytes or a string"):
        Publisher(ADDRESS).push_user(7, body)


@pytest.mark.parametrize("pushes", ["x", b"x", 7, Push(b"x", users=7), ["x"], [{"users": 7}]])
def test_what_is_no_batch(pushes: Any) -> None:
    with pytest.raises(PushRefused, match=r"a batch is a list of Push\(…\)"):
        Publisher(ADDRESS).push_batch(pushes)


@pytest.mark.parametrize("uids", ["78", b"78", 7])
def test_a_string_is_no_list_of_uids(uids: Any) -> None:
    with pytest.raises(PushRefused, match=r"uids are a list such as \[7, 8\], not .*; push_user takes one"):
        Publisher(ADDRESS).push_users(uids, b"1")


def test_one_name_is_one_name_and_several_are_several() -> None:
    """`users="78"` is user 78: where one name may stand for a list it is not taken apart."""
    body: Any = bytearray(b"x")
    wanted = (["u:78", "u:9", "r:lobby"], ("9_1",))
    with serving(Answer(200, accept)) as server, Publisher(server.address) as publisher:
        publisher.push(b"x", users="78", rooms="lobby", keys="9_1")
    assert b'"users":["78"],"rooms":["lobby"],"keys":["9_1"]' in server.requests[0][1]
    with logic() as peer, ZmqPublisher(peer.endpoint) as by_zmq:
        by_zmq.push(b"x", users="78", rooms="lobby", keys="9_1").result(20)
        by_zmq.push(body, users=(name for name in ("78",)), rooms={"lobby"}, keys=["9_1"]).result(20)
    assert [(sorted(s.streams), s.only) for s in peer.submits] == [(sorted(wanted[0]), wanted[1])] * 2
