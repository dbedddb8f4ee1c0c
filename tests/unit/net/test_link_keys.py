"""Who may connect by which key; links with keys on real sockets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from tests.harness import free_ports, wait_until
from zim.identity import link_keys
from zim.net.link_keys import LINKS, PUBLISHERS, Follower, LinkKeys
from zim.net.links import PeerLink
from zim.net.transport import Dealer, Outlet, Server
from zim.net.zap import ZapServer, public_of
from zim.protocol.message import Message

SECRETS = {name: os.urandom(32).hex() for name in ("router-1", "comet-1", "comet-2", "logic-1")}
PUBLIC = {name: public_of(secret) for name, secret in SECRETS.items()}


def keys_of(name: str, **changed: str) -> LinkKeys:
    """changed: keys of others than the list has; "" for none."""
    public = {name: key for name, key in {**PUBLIC, **changed}.items() if key}
    return LinkKeys(name, bytes.fromhex(SECRETS[name]), public)


def follow(keys: LinkKeys, secret: bytes, public: dict[str, str]) -> None:
    """As a node does it."""
    for rest in keys.follow(secret, public):
        gevent.spawn(rest)


def question(domain: bytes = LINKS, mechanism: bytes = b"CURVE", *credentials: bytes) -> list[bytes]:
    return [b"1.0", b"1", domain, b"10.0.0.1", b"", mechanism, *credentials]


KNOWN, UNKNOWN = bytes.fromhex(PUBLIC["comet-1"]), os.urandom(32)
QUESTIONS: dict[str, tuple[list[bytes], bool]] = {
    "a node": (question(LINKS, b"CURVE", KNOWN), True),
    "somebody": (question(LINKS, b"CURVE", UNKNOWN), False),
    "a publisher": (question(PUBLISHERS, b"CURVE", UNKNOWN), True),
    "a node as publisher": (question(PUBLISHERS, b"CURVE", KNOWN), True),
    "another door": (question(b"", b"CURVE", KNOWN), False),
    "in clear": (question(LINKS, b"NULL"), False),
    "a publisher in clear": (question(PUBLISHERS, b"NULL"), False),
    "a password": (question(LINKS, b"PLAIN", KNOWN), False),
    "no key": (question(LINKS, b"CURVE"), False),
    "half a key": (question(LINKS, b"CURVE", KNOWN[:16]), False),
    "two keys": (question(LINKS, b"CURVE", KNOWN, KNOWN), False),
    "a longer key": (question(LINKS, b"CURVE", KNOWN + b"x"), False),
}


@pytest.mark.parametrize(("asked", "is_right"), QUESTIONS.values(), ids=QUESTIONS)
def test_who_may_connect(asked: list[bytes], is_right: bool) -> None:
    keys = keys_of("router-1")
    answer = keys.answer(asked)
    assert answer is not None
    version, request_id, status, _, user_id, metadata = answer
    assert (version, request_id, metadata) == (b"1.0", b"1", b"")
    assert status == (b"200" if is_right else b"400")
    assert bool(user_id) == is_right
    assert keys.refused_links == (not is_right)
    assert not is_right or asked[2] != LINKS or keys.name_of(user_id.decode()) == "comet-1"


@given(st.lists(st.binary(max_size=40), max_size=9))
def test_no_question_opens_the_door_by_chance(frames: list[bytes]) -> None:
    answer = keys_of("router-1").answer(frames)
    assert answer is None or (answer[2], answer[4]) == (b"400", b"")


@given(st.sampled_from([LINKS, b"links "]), st.binary(max_size=40) | st.just(KNOWN))
def test_only_listed_keys_open_it(domain: bytes, key: bytes) -> None:
    keys = keys_of("router-1")
    answer = keys.answer(question(domain, b"CURVE", key))
    assert answer is not None
    assert (answer[2] == b"200") == (domain == LINKS and keys.name_of(key.hex()) != "")


def test_what_has_changed_is_told() -> None:
    keys, told = keys_of("router-1"), list[tuple[set[str], set[str]]]()
    keys.call_on_change(lambda changed, lost: told.append((set(changed), set(lost))))
    own = keys.secret
    follow(keys, own, PUBLIC)
    assert told == []
    follow(keys, own, {**PUBLIC, "comet-3": "00" * 32})
    assert told.pop() == ({"comet-3"}, set())
    follow(keys, own, {**PUBLIC, "comet-2": "11" * 32})
    assert told.pop() == ({"comet-2", "comet-3"}, {"comet-2", "comet-3"})
    assert keys.name_of(PUBLIC["comet-2"]) == ""
    assert keys.name_of("11" * 32) == "comet-2"
    follow(keys, os.urandom(32), {**PUBLIC, "comet-2": "11" * 32})
    assert told.pop() == ({"router-1"}, set())


def test_two_libraries_agree_on_a_public_key() -> None:
    for secret in SECRETS.values():
        assert public_of(secret) == link_keys.public_of(secret)


# ---------------------------------------------------------------- on sockets


class Uncut(LinkKeys):
    """Nobody is told of changes, so that connections stay as they are."""

    @override
    def call_on_change(self, follower: Follower) -> None:
        pass


class Here:
    """A node of the test: it serves, and writes down who says what."""

    def __init__(self, endpoint: str, keys: LinkKeys) -> None:
        self.keys, self.heard = keys, list[tuple[str, bytes]]()
        self._server = Server(endpoint, keys)
        self._greenlet = gevent.spawn(self._server.receive, self._take)

    def _take(self, envelope: tuple[bytes, ...], frame: bytes, speaker: str) -> None:
        self.heard.append((speaker, frame))
        self._server.send(envelope, b"yes")

    def close(self) -> None:
        self._server.close()
        self._greenlet.join()


class There:
    """A link to it."""

    def __init__(self, endpoint: str, keys: LinkKeys) -> None:
        self.keys, self.changes, self.answers = keys, list[bool](), list[bytes]()
        self.dealer = Dealer(endpoint, keys, "router-1")
        self.link: PeerLink[Message] = PeerLink(
            "router-1", self.dealer, 1 << 20, on_change=lambda _, there: self.changes.append(there)
        )
        self.greenlets: list[Any] = []
        self.link.spawn(lambda run, *args: self.greenlets.append(gevent.spawn(run, *args)))
        self.greenlets.append(gevent.spawn(self.link.receive, self.answers.append))

    def say(self, frame: bytes) -> None:
        wait_until(lambda: self.link.is_connected, "connected")
        wait_until(lambda: self.dealer.send(frame), "sent")

    def close(self) -> None:
        gevent.killall(self.greenlets)
        self.dealer.close()


@pytest.fixture(params=["tcp", "ipc"])
def endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"ipc://{tmp_path / 'link'}" if request.param == "ipc" else f"tcp://127.0.0.1:{free_ports(1)[0]}"


@pytest.fixture
def opened() -> Iterator[list[Any]]:
    """What is to be closed in the end."""
    found: list[Any] = []
    yield found
    for one in found:
        one.close()


def serve(endpoint: str, keys: LinkKeys, opened: list[Any]) -> Here:
    door = ZapServer(keys.answer)
    guard = gevent.spawn(door.serve)
    here = Here(endpoint, keys)
    opened += [here, door]
    guard.link_exception(lambda _: pytest.fail("the ZAP server has failed"))
    return here


def connect(endpoint: str, keys: LinkKeys, opened: list[Any]) -> There:
    there = There(endpoint, keys)
    opened.insert(0, there)
    return there


def test_a_message_comes_with_the_name_of_who_said_it(endpoint: str, opened: list[Any]) -> None:
    here = serve(endpoint, keys_of("router-1"), opened)
    for name in ("comet-1", "logic-1"):
        there = connect(endpoint, keys_of(name), opened)
        there.say(name.encode())
        wait_until(lambda there=there: there.answers == [b"yes"], "answered")  # type: ignore[misc]
    assert here.heard == [("comet-1", b"comet-1"), ("logic-1", b"logic-1")]


def test_who_is_refused_knocks_until_it_is_let_in(endpoint: str, opened: list[Any]) -> None:
    without = keys_of("router-1", **{"comet-1": ""})
    here = serve(endpoint, without, opened)
    there = connect(endpoint, keys_of("comet-1"), opened)
    wait_until(lambda: there.link.trouble == "it does not know our link key", "it is told why")
    wait_until(lambda: without.refused_links > 1, "it tries again")
    assert not there.link.is_connected
    follow(without, without.secret, PUBLIC)
    there.say(b"hello")
    wait_until(lambda: here.heard == [("comet-1", b"hello")], "heard")
    assert there.link.trouble == ""


def test_who_speaks_in_clear_is_not_heard(endpoint: str, opened: list[Any]) -> None:
    here = serve(endpoint, keys_of("router-1"), opened)
    plain = Outlet(endpoint)
    opened.insert(0, plain)
    there = connect(endpoint, keys_of("comet-1"), opened)
    there.say(b"hello")  # by then the other one has tried, too
    assert not plain.send(b"forged")
    wait_until(lambda: len(here.heard) == 1, "heard")


def test_a_link_with_a_key_does_not_speak_in_clear(endpoint: str, opened: list[Any]) -> None:
    server = Server(endpoint)
    opened.append(server)
    there = connect(endpoint, keys_of("comet-1"), opened)
    wait_until(lambda: "are its links encrypted" in there.link.trouble, "it is told why")
    assert not there.dealer.send(b"secret")


def test_a_peer_with_another_key_than_the_list_has_is_not_spoken_to(endpoint: str, opened: list[Any]) -> None:
    serve(endpoint, keys_of("router-1"), opened)
    there = connect(endpoint, keys_of("comet-1", **{"router-1": PUBLIC["comet-2"]}), opened)
    wait_until(lambda: "has it the link key that our list has" in there.link.trouble, "it is told why")
    assert not there.dealer.send(b"secret")
    follow(there.keys, there.keys.secret, PUBLIC)
    there.say(b"hello")


def test_a_key_that_is_taken_away_says_nothing_any_more(endpoint: str, opened: list[Any]) -> None:
    uncut = Uncut("router-1", bytes.fromhex(SECRETS["router-1"]), PUBLIC)
    here = serve(endpoint, uncut, opened)
    there = connect(endpoint, keys_of("comet-1"), opened)
    there.say(b"before")
    wait_until(lambda: there.answers == [b"yes"], "answered")
    follow(uncut, uncut.secret, {name: key for name, key in PUBLIC.items() if name != "comet-1"})
    there.say(b"after")
    wait_until(lambda: uncut.refused_messages == 1, "passed over, and counted")
    assert here.heard == [("comet-1", b"before")]


def test_its_connection_is_cut_and_others_come_back(endpoint: str, opened: list[Any]) -> None:
    here = serve(endpoint, keys_of("router-1"), opened)
    gone, stays = (connect(endpoint, keys_of(name), opened) for name in ("comet-1", "comet-2"))
    gone.say(b"1")
    stays.say(b"2")
    wait_until(lambda: len(here.heard) == 2, "heard")
    follow(here.keys, here.keys.secret, {name: key for name, key in PUBLIC.items() if name != "comet-1"})
    wait_until(lambda: gone.link.trouble and not gone.link.is_connected, "refused")
    wait_until(lambda: False in stays.changes and stays.link.is_connected, "cut, and back")
    stays.say(b"3")
    wait_until(lambda: here.heard[-1:] == [("comet-2", b"3")], "heard")


def test_both_ends_take_another_key_of_the_server(endpoint: str, opened: list[Any]) -> None:
    here = serve(endpoint, keys_of("router-1"), opened)
    there = connect(endpoint, keys_of("comet-1"), opened)
    there.say(b"1")
    wait_until(lambda: there.answers == [b"yes"], "answered")
    secret = os.urandom(32)
    public = {**PUBLIC, "router-1": public_of(secret.hex())}
    follow(here.keys, secret, public)
    follow(there.keys, there.keys.secret, public)
    assert not there.link.is_connected
    there.say(b"2")
    wait_until(lambda: here.heard[-1:] == [("comet-1", b"2")], "heard")


def test_a_peer_without_a_key_is_not_spoken_to(endpoint: str, opened: list[Any]) -> None:
    serve(endpoint, keys_of("router-1"), opened)
    there = connect(endpoint, keys_of("comet-1", **{"router-1": ""}), opened)
    assert there.link.trouble == "router-1 has no link key in the list"
    follow(there.keys, there.keys.secret, PUBLIC)
    there.say(b"hello")


def test_without_a_zap_server_nobody_is_let_in(endpoint: str, opened: list[Any]) -> None:
    opened.append(Here(endpoint, keys_of("router-1")))
    there = connect(endpoint, keys_of("comet-1"), opened)
    wait_until(lambda: there.link.trouble, "refused")
    assert not there.link.is_connected
    assert not there.dealer.send(b"hello")
