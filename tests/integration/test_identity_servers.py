"""Servers that zim asks who somebody is, and that are slow, lying or absent: nobody comes in by that, and others do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import socket

from tests.harness import Client, Fabric, free_ports, running, wait_until
from tests.integration.liar import WAYS, Liar, lying, reply
from tests.integration.visits import AT_ONCE_S, Stranger, claims, enter, issuer_table, knock, sent_away, token
from tests.unit.identity.signers import TokenSigner, key_set
from zim.nodes.logic.callouts import MOST_OPEN_S
from zim.nodes.logic.keysets import COOL_DOWN_S
from zim.protocol.endings import Ending
from zim.protocol.frame import Op

TIMEOUT_S = 1.0
OPAQUE = "a session of the application"
HONEST = reply({"user": "7"})

LIES: dict[str, Callable[[socket.socket], Any]] = WAYS | {
    f"answers {body}": lambda client, body=body: client.sendall(reply(body))
    for body in (
        {"user": ""},
        {"user": None},
        {"user": 7.5},
        {"user": True},
        {"user": ["7"]},
        {"user": {"name": "7"}},
        {"user": "a\nb"},
        {"user": "x" * 254},
        {"user": "7", "rooms": "lobby"},
        {"user": "7", "rooms": [7]},
        {"user": "7", "rooms": ["*"]},
        {"user": "7", "join": [7]},
        {"user": "7", "sessions": 0},
        {"user": "7", "expires_s": -1},
        {"user": "7", "cache_s": "for ever"},
        {"user": "7", "admin": True},
    )
}


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def fabric(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Fabric]:
    """It has an issuer, and a callout at the port."""
    folder = tmp_path_factory.mktemp("callout")
    url = f"http://127.0.0.1:{port}"
    more = (
        issuer_table(folder / "jwt")
        + f'[callout]\nconnect = "{url}/connect"\njoin = "{url}/join"\ntimeout_s = {TIMEOUT_S}\nmax_requests = 4\n'
    )
    with running(folder, more=more) as found:
        yield found
        assert "Traceback" not in found.log


@pytest.fixture(autouse=True)
def _nobody_stays() -> Iterator[None]:
    yield
    for client in list(Client.open):
        client.close()


def is_in(client: Stranger) -> bool:
    """It is answered, and let in."""
    wait_until(lambda: client.packets, "an answer")
    return client.packets[0].op == Op.AUTH_REPLY


def answers_again(fabric: Fabric) -> None:
    """The application answers, and zim asks it."""
    wait_until(lambda: is_in(knock(fabric, OPAQUE)), "a session of the application", MOST_OPEN_S + 10)


@pytest.mark.parametrize("way", LIES.values(), ids=LIES.keys())
def test_a_lie_lets_nobody_in_and_whoever_needs_no_application_comes_in(
    fabric: Fabric, port: int, way: Callable[[socket.socket], Any]
) -> None:
    liar = Liar()
    with lying(liar, port):
        liar.way["*"] = lambda client: client.sendall(HONEST)
        answers_again(fabric)
        liar.way["/join"] = liar.way["*"] = way
        before = len(liar.asked)
        stranger = knock(fabric, OPAQUE, is_ws=True)
        honest = enter(fabric, token())
        assert "try again" in sent_away(stranger, Ending.TRY_AGAIN, TIMEOUT_S + AT_ONCE_S)
        assert len(stranger.packets) == 1
        assert "try again" in honest.ask(Op.REFRESH, {"token": OPAQUE}, 2)["error"]
        assert liar.asked[before:].count("/connect") == 2


JOIN_LIES = {name: way for name, way in LIES.items() if name != "nothing to do with it"}  # {} is: in none of them


@pytest.mark.parametrize("way", JOIN_LIES.values(), ids=JOIN_LIES.keys())
def test_a_lie_about_rooms_lets_nobody_into_them(
    fabric: Fabric, port: int, way: Callable[[socket.socket], Any]
) -> None:
    liar = Liar()
    liar.way["*"] = way
    with lying(liar, port):
        client = enter(fabric, token(zim={"rooms": ["lobby"]}), rooms=["lobby", "club"])
        assert (client.starts["r:lobby"]["recovered"], "error" in client.starts["r:club"]) == (True, True)
        assert fabric.push({"to": {"rooms": ["club", "lobby"]}, "body": 1})[0] == 200
        client.wait_for("r:lobby", 1)
        assert client.places("r:club") == []


def test_while_nobody_can_tell_what_the_application_had_allowed_stays(fabric: Fabric, port: int) -> None:
    """Else all who are in by its word would be out whenever it stumbles; and what a token had allowed ends with it."""
    liar = Liar()
    with lying(liar, port):
        liar.way["/join"] = lambda client: client.sendall(reply({"rooms": ["club"]}))

        def is_asked_again() -> bool:
            return "error" not in enter(fabric, token(), rooms=["club"]).starts["r:club"]

        wait_until(is_asked_again, "the application is asked about rooms", MOST_OPEN_S + 10)
        client = enter(fabric, token(zim={"join": ["vip"]}), rooms=["club", "vip"])
        liar.way["/join"] = WAYS["an error"]
        client.ask(Op.REFRESH, {"token": token()}, 2)
        assert json.loads(client.take(Op.LEFT).body)["streams"] == ["r:vip"]
        assert fabric.push({"to": {"rooms": ["club", "vip"]}, "body": 1})[0] == 200
        client.wait_for("r:club", 1)
        assert client.ask(Op.JOIN, {"rooms": ["other"]}, 3)["streams"]["r:other"]["error"] == "not joined, retrying"
        liar.way["/join"] = lambda client: client.sendall(reply({"rooms": []}))
        later = client.take(Op.JOINED)
        assert (later.seq, json.loads(later.body)["streams"]) == (0, {"r:other": {"error": "not allowed"}})
        client.ask(Op.REFRESH, {"token": token()}, 4)
        assert json.loads(client.take(Op.LEFT).body)["streams"] == ["r:club"]
        assert client.places("r:vip") == []


def test_a_redirect_is_not_followed(fabric: Fabric, port: int) -> None:
    liar, other, (elsewhere,) = Liar(), Liar(), free_ports(1)
    liar.way["*"] = other.way["*"] = lambda client: client.sendall(HONEST)
    with lying(liar, port), lying(other, elsewhere):
        answers_again(fabric)
        for status in ("301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"):
            said = reply({"user": "7"}, status, f"Location: http://127.0.0.1:{elsewhere}/connect")
            liar.way["*"] = lambda client, said=said: client.sendall(said)  # type: ignore[misc]
            sent_away(knock(fabric, OPAQUE), Ending.TRY_AGAIN)
            liar.way["*"] = lambda client: client.sendall(HONEST)
            answers_again(fabric)
        assert other.asked == []


def test_while_the_application_is_slow_others_come_in(fabric: Fabric, port: int) -> None:
    liar = Liar()
    with lying(liar, port):
        liar.way["*"] = lambda client: client.sendall(HONEST)
        answers_again(fabric)
        liar.way["*"] = WAYS["silence"]
        asked = [knock(fabric, f"{OPAQUE} {n}") for n in range(40)]
        wait_until(lambda: len(liar.asked) >= 5, "as many are asked about as may be at once")
        came = 0
        while not any(client.is_closed for client in asked):
            enter(fabric, token(str(came)), is_ws=bool(came % 2)).close()
            came += 1
        assert came > 3  # while all of these waited
        for client in asked:
            assert "try again" in sent_away(client, Ending.TRY_AGAIN, 2 * TIMEOUT_S + AT_ONCE_S)


def test_an_absent_application_is_asked_again_when_it_is_back(fabric: Fabric, port: int) -> None:
    for n in range(12):
        assert "try again" in sent_away(knock(fabric, f"{OPAQUE} {n}", bool(n % 2)), Ending.TRY_AGAIN)
        enter(fabric, token())
    liar = Liar()
    liar.way["*"] = lambda client: client.sendall(HONEST)
    with lying(liar, port):
        answers_again(fabric)
    assert "callout does not answer, nobody is asked for a while" in fabric.log
    assert "callout answered again" in fabric.log


# ---------------------------------------------------------------- keys at a URL

FIRST = TokenSigner("ES256", "first")
KEYS = key_set(FIRST.jwk())
KEY_LIES: dict[str, Callable[[socket.socket], Any]] = WAYS | {
    name: lambda client, said=said: client.sendall(said)
    for name, said in {
        "keys of text": reply({"keys": "first"}),
        "keys of another type": reply({"keys": [7, None, "x"]}),
        "no keys": reply({"keys": []}),
        "a key of text": reply({"keys": [{"kty": "EC", "crv": "P-256", "kid": "first", "x": 7, "y": []}]}),
        "a point that is not on the curve": reply({"keys": [FIRST.jwk(x="AAAA")]}),
        "a secret": reply({"keys": [{"kty": "oct", "kid": "first", "k": "c2VjcmV0"}]}),
        "a private key": reply({"keys": [FIRST.private_jwk() | {"kid": "first"}]}),
        "right keys with a wrong status": reply(KEYS, "500 Internal Server Error"),
    }.items()
}
NAMES = {f"https://{n}.example.com": (f"/{n}", way) for n, way in enumerate(KEY_LIES.values())}


def signed(issuer: str, signer: TokenSigner = FIRST) -> str:
    return signer.token(claims(iss=issuer)).decode()


def test_keys_that_are_absent_false_right_and_false_again(tmp_path: Any) -> None:
    """An issuer for each way to lie. While there are no keys nobody comes in; once they are there they stay."""
    (port,), liar = free_ports(1), Liar()
    more = issuer_table(tmp_path / "jwt") + "".join(
        f'[[issuer]]\nissuer = "{name}"\naudience = "zim"\nalgorithms = ["ES256"]\n'
        f'jwks = "http://127.0.0.1:{port}{path}"\n'
        for name, (path, _) in NAMES.items()
    )
    with running(tmp_path, more=more) as fabric:
        for name in NAMES:
            assert "try again" in sent_away(knock(fabric, signed(name)), Ending.TRY_AGAIN)
        enter(fabric, token())
        with lying(liar, port):
            liar.way = dict(NAMES.values())
            wait_until(lambda: set(liar.asked) == set(liar.way), "all are asked for", 40)
            knocking = [knock(fabric, signed(name)) for name in NAMES]
            enter(fabric, token())
            for client in knocking:
                sent_away(client, Ending.TRY_AGAIN, 12)
            liar.way = {"*": lambda client: client.sendall(reply(KEYS))}
            for name in NAMES:
                wait_until(lambda name=name: is_in(knock(fabric, signed(name))), f"the keys of {name}", 40)  # type: ignore[misc]
            liar.way = dict(NAMES.values())
            liar.asked.clear()
            until = time.monotonic() + COOL_DOWN_S + 10
            while set(liar.asked) != set(liar.way):
                assert time.monotonic() < until, set(liar.way) - set(liar.asked)
                for client in [knock(fabric, signed(name, TokenSigner("ES256", "new", 1))) for name in NAMES]:
                    assert not client.packets or client.packets[0].op != Op.AUTH_REPLY
                gevent.sleep(0.5)
            for name in NAMES:
                enter(fabric, signed(name))
        for name in NAMES:  # it is absent again
            enter(fabric, signed(name))
        assert "Traceback" not in fabric.log
