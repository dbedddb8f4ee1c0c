"""Tokens that are wrong, and tokens that reach for more than they have: each is answered, and disturbs nobody."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import pairwise
from typing import Any

import gevent
import pytest
from gevent import socket

from tests.harness import Client, Fabric, running, wait_until
from tests.integration.visits import AT_ONCE_S, ISSUER, claims, enter, issuer_table, knock, sent_away, token
from tests.unit.identity.signers import TokenSigner, compact, key_set, pem
from tests.unit.test_asking import Application, serving
from tests.zim_client import ZimClient
from zim.nodes.logic.keysets import COOL_DOWN_S
from zim.protocol.endings import Ending
from zim.protocol.frame import Op

RS, JWKS = "https://rs.example.com", "https://jwks.example.com"
HONEST, OTHER, RSA = TokenSigner("HS256"), TokenSigner("HS256", number=1), TokenSigner("RS256")
FIRST, SECOND = TokenSigner("ES256", "first"), TokenSigner("ES256", "second", 1)


@pytest.fixture(scope="module")
def jwks() -> Application:
    """What the third issuer's server answers."""
    found = Application()
    found.body = key_set(FIRST.jwk())
    return found


@pytest.fixture(scope="module")
def fabric(tmp_path_factory: pytest.TempPathFactory, jwks: Application) -> Iterator[Fabric]:
    """It has an issuer with a secret, one with a public key, and one with keys at a URL."""
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "rs.pem").write_bytes(pem("RSA"))
    with serving(jwks) as url:
        more = (
            issuer_table(folder / "jwt")
            + f'[[issuer]]\nissuer = "{RS}"\naudience = "zim"\nalgorithms = ["RS256"]\npublic_key_file = "rs.pem"\n'
            + f'[[issuer]]\nissuer = "{JWKS}"\naudience = "zim"\nalgorithms = ["ES256"]\njwks = "{url}"\n'
        )
        pages = {"origins": ["https://app.example.com"], "cookie": "session"}
        with running(folder, more=more, listeners={"ws": pages}) as found:
            yield found
            assert "Traceback" not in found.log


@pytest.fixture(scope="module")
def bystander(fabric: Fabric) -> ZimClient:
    return enter(fabric, token("77"))


@pytest.fixture(autouse=True)
def _nobody_is_disturbed(fabric: Fabric, bystander: ZimClient) -> Iterator[None]:
    pids = fabric.pid("comet-1"), fabric.pid("logic-1")
    yield
    for client in list(Client.open):
        if client is not bystander:
            client.close()
    before = len(bystander.places("u:77"))
    assert fabric.push({"to": {"users": ["77"]}, "body": "still there?"})[0] == 200
    assert len(bystander.wait_for("u:77", before + 1)) == before + 1
    assert (fabric.pid("comet-1"), fabric.pid("logic-1")) == pids


# ---------------------------------------------------------------- tokens that are wrong


def hs_with_public_key(issuer: str) -> str:
    """The public key of the issuer, which everybody has, taken for a secret."""
    key = pem("RSA")
    return compact({"alg": "HS256"}, claims(iss=issuer), lambda text: hmac.digest(key, text, sha256)).decode()


def changed(shown: str) -> str:
    """Another user's, with the signature as it was."""
    head, _, signature = shown.split(".")
    return ".".join([head, token("8").split(".")[1], signature])


def own_key() -> str:
    """Signed with a key that it brings."""
    return RSA.token(claims(iss=RS), header={"jwk": TokenSigner("RS256", number=1).jwk()}).decode()


WRONG: dict[str, tuple[Callable[[], str], Ending, str]] = {
    "expired": (lambda: token(exp=int(time.time()) - 60), Ending.EXPIRED, "the token expired"),
    "not yet valid": (lambda: token(nbf=time.time() + 600), Ending.REFUSED, "not valid yet"),
    "wrong aud": (lambda: token(aud="other"), Ending.REFUSED, "aud is 'other'"),
    "wrong iss": (lambda: token(iss="https://evil.example.com"), Ending.REFUSED, "which is not known"),
    "no exp": (lambda: token(exp=None), Ending.REFUSED, "no exp"),
    "exp is text": (lambda: token(exp="9999999999"), Ending.REFUSED, "exp is no number"),
    "exp in another life": (lambda: token(exp=1e300), Ending.REFUSED, "exp is no number"),
    "no sub": (lambda: token(sub=None), Ending.REFUSED, "no sub"),
    "sub of another stream": (lambda: token("a\nb"), Ending.REFUSED, "cannot be"),
    "alg none": (
        lambda: compact({"alg": "none"}, claims(), lambda _: b"").decode(),
        Ending.REFUSED,
        "signed by 'none'",
    ),
    "alg nOnE": (lambda: compact({"alg": "nOnE"}, claims(), lambda _: b"").decode(), Ending.REFUSED, "signed by"),
    "no signature": (lambda: token().rpartition(".")[0] + ".", Ending.REFUSED, "signature"),
    "another secret": (lambda: OTHER.token(claims()).decode(), Ending.REFUSED, "signature is not right"),
    "changed": (lambda: changed(token()), Ending.REFUSED, "signature is not right"),
    "public key as a secret": (lambda: hs_with_public_key(RS), Ending.REFUSED, "signed by 'HS256'; right is RS256"),
    "public key as the other's secret": (lambda: hs_with_public_key(ISSUER), Ending.REFUSED, "signature is not right"),
    "public key as a key of the set": (lambda: hs_with_public_key(JWKS), Ending.REFUSED, "right is ES256"),
    "the other issuer's key": (lambda: RSA.token(claims()).decode(), Ending.REFUSED, "signed by 'RS256'"),
    "embedded jwk": (own_key, Ending.REFUSED, "header has jwk"),
    "jku": (lambda: RSA.token(claims(iss=RS), header={"jku": "http://127.0.0.1/"}).decode(), Ending.REFUSED, "has jku"),
    "crit": (lambda: HONEST.token(claims(), header={"crit": ["exp"]}).decode(), Ending.REFUSED, "header has crit"),
    "unknown claim": (lambda: token(zim={"admin": True}), Ending.REFUSED, "no field is called 'admin'"),
    "huge": (lambda: token(zim={"rooms": ["x" * 200] * 50}), Ending.REFUSED, "at most 8192"),
    "no JWT": (lambda: "7", Ending.REFUSED, "no JWT"),
    "nothing": (lambda: "", Ending.REFUSED, "a token is needed"),
}


@pytest.mark.parametrize("is_ws", [False, True], ids=["tcp", "ws"])
@pytest.mark.parametrize(("make", "ending", "says"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_token_is_refused_at_once(
    fabric: Fabric, make: Callable[[], str], ending: Ending, says: str, is_ws: bool
) -> None:
    client = knock(fabric, make(), is_ws)
    assert says in sent_away(client, ending)
    assert len(client.packets) == 1


@pytest.mark.parametrize(("make", "ending", "says"), WRONG.values(), ids=WRONG.keys())
def test_a_goim_client_with_a_wrong_token_is_closed_at_once(
    fabric: Fabric, make: Callable[[], str], ending: Ending, says: str
) -> None:
    on_ws, on_tcp = Client(fabric.ws["comet-1"], None, is_ws=True), Client(fabric.tcp["comet-1"], None)
    on_ws.say(Op.AUTH, json.dumps(make()).encode())
    on_tcp.say(Op.AUTH, make().encode())
    assert on_ws.wait_closed(AT_ONCE_S) == ending.code
    on_tcp.wait_closed(AT_ONCE_S)
    assert (on_ws.packets, on_tcp.packets) == ([], [])


@pytest.mark.parametrize("is_ws", [False, True], ids=["tcp", "ws"])
def test_the_table_is_wrong_in_one_thing_only(fabric: Fabric, is_ws: bool) -> None:
    """So what is refused above is refused for what it says there."""
    for shown in (token(), RSA.token(claims(iss=RS)).decode(), FIRST.token(claims(iss=JWKS)).decode()):
        assert set(enter(fabric, shown, is_ws).starts) == {"u:7", "*"}


@pytest.mark.parametrize("is_ws", [False, True], ids=["tcp", "ws"])
@pytest.mark.parametrize(("make", "ending", "says"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_token_does_not_refresh(
    fabric: Fabric, make: Callable[[], str], ending: Ending, says: str, is_ws: bool
) -> None:
    client = enter(fabric, token(), is_ws)
    client.say_json(Op.REFRESH, {"token": make()}, 2)
    sent_away(client, ending)


def test_another_users_token_does_not_refresh(fabric: Fabric) -> None:
    client = enter(fabric, token())
    client.say_json(Op.REFRESH, {"token": token("8")}, 2)
    assert "another user's" in sent_away(client, Ending.REFUSED)


# ---------------------------------------------------------------- tokens in the wrong place


def upgrade(fabric: Fabric, path: str, headers: str) -> tuple[bytes, Any]:
    """The first line of the answer, and the socket."""
    host, _, port = fabric.ws["comet-1"].rpartition(":")
    s = socket.create_connection((host, int(port)), timeout=10)
    s.sendall(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Upgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    answer = s.recv(4096)
    return answer.split(b"\r\n")[0], s


class Page(Client):
    """A page in a browser: it is known by a cookie, and its address may have a query."""

    def __init__(self, fabric: Fabric, path: str, headers: str) -> None:
        self._path = path
        super().__init__(fabric.ws["comet-1"], None, is_ws=True, headers=headers)
        self.version = 3
        self.say(Op.AUTH, b"{}", 1)

    def _upgrade(self, address: str) -> bytes:
        self.socket.sendall(
            f"GET {self._path} HTTP/1.1\r\nHost: localhost\r\n{self._headers}Upgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = self.socket.recv(4096)
            assert data, answer
            answer += data
        head, rest = answer.split(b"\r\n\r\n", 1)
        assert head.startswith(b"HTTP/1.1 101 "), head
        return rest


def test_a_foreign_page_cannot_use_the_cookie_of_a_user(fabric: Fabric) -> None:
    cookie = f"Cookie: session={token()}\r\n"
    for origin in (
        "https://evil.example.com",
        "null",
        "https://app.example.com.evil.example",
        "http://app.example.com",
    ):
        line, s = upgrade(fabric, "/sub", f"Origin: {origin}\r\n{cookie}")
        s.close()
        assert line.startswith(b"HTTP/1.1 403 "), (origin, line)
    page = Page(fabric, "/sub", f"Origin: https://app.example.com\r\n{cookie}")
    assert page.wait(1)[0].op == Op.AUTH_REPLY


def test_a_token_in_a_url_is_not_looked_at(fabric: Fabric) -> None:
    shown = token()
    page = Page(fabric, f"/sub?token={shown}&session={shown}", "Origin: https://app.example.com\r\n")
    assert "a token is needed" in sent_away(page, Ending.REFUSED)
    bearer = Page(fabric, "/sub", f"Authorization: Bearer {shown}\r\nOrigin: https://app.example.com\r\n")
    assert "a token is needed" in sent_away(bearer, Ending.REFUSED)
    assert shown not in fabric.log


# ---------------------------------------------------------------- tokens that reach for more


def push(fabric: Fabric, body: Any, **to: Any) -> None:
    assert fabric.push({"to": to, "body": body})[0] == 200


@pytest.mark.parametrize("is_ws", [False, True], ids=["tcp", "ws"])
def test_another_users_stream_is_not_resumed(fabric: Fabric, is_ws: bool) -> None:
    push(fabric, "secret of 8", users=["8"])
    epoch = fabric.get("/api/streams/u:8?after=0")["epoch"]
    client = enter(
        fabric, token(), is_ws, rooms=[], resume={"u:8": (epoch, 0), "r:vip": (epoch, 0), "r:u:8": (epoch, 0)}
    )
    assert set(client.starts) == {"u:7", "*"}
    push(fabric, "another secret of 8", users=["8"])
    push(fabric, "of 7", users=["7"])
    wait_until(lambda: b'"of 7"' in client.bodies, "what is for it")
    assert not {p.stream for p in client.packets} - {"u:7", "*"}


@pytest.mark.parametrize("is_ws", [False, True], ids=["tcp", "ws"])
def test_a_room_outside_of_the_token_is_not_joined(fabric: Fabric, is_ws: bool) -> None:
    shown = token(zim={"rooms": ["lobby"], "join": ["chat-*"]})
    client = enter(fabric, shown, is_ws, rooms=["vip", "lobby", "chat-1"])
    assert client.starts["r:vip"] == {"error": "not allowed"}
    answer = client.ask(Op.JOIN, {"rooms": ["vip", "chat-2", "xchat-1", "u:8"]}, 2)["streams"]
    refused = {stream for stream, start in answer.items() if start == {"error": "not allowed"}}
    assert refused == {"r:vip", "r:xchat-1", "r:u:8"}
    for room in ("vip", "xchat-1", "u:8", "lobby", "chat-1", "chat-2"):
        push(fabric, room, rooms=[room])
    for room in ("lobby", "chat-1", "chat-2"):
        client.wait_for(f"r:{room}", 1)
    push(fabric, "last", users=["7"])
    wait_until(lambda: b'"last"' in client.bodies, "what comes last")
    assert {p.stream for p in client.packets} == {"r:lobby", "r:chat-1", "r:chat-2", "u:7"}


@pytest.mark.parametrize("is_ws", [False, True], ids=["tcp", "ws"])
def test_a_room_that_a_refresh_takes_away_is_gone(fabric: Fabric, is_ws: bool) -> None:
    client = enter(fabric, token(zim={"rooms": ["before", "stays"]}), is_ws)
    push(fabric, "1", rooms=["before", "stays"])
    client.wait_for("r:before", 1)
    after = token(zim={"rooms": ["stays"]})
    assert 590 < client.ask(Op.REFRESH, {"token": after}, 2)["expires_s"] <= 600
    left = client.take(Op.LEFT)
    assert (left.seq, json.loads(left.body)["streams"]) == (0, ["r:before"])
    has = client.has
    push(fabric, "2", rooms=["before"])
    push(fabric, "2", rooms=["stays"])
    client.wait_for("r:stays", 2)
    assert client.places("r:before")[1:] == []
    assert client.ask(Op.JOIN, {"rooms": ["before"]}, 3)["streams"] == {"r:before": {"error": "not allowed"}}
    again = enter(fabric, after, is_ws, rooms=["before", "stays"], resume=has)
    assert again.starts["r:before"] == {"error": "not allowed"}
    assert again.wait_for("r:stays", 1)[0][1] == b'"2"'
    assert again.places("r:before") == []


# ---------------------------------------------------------------- a flood of keys that nobody has


def test_a_flood_of_unknown_keys_has_the_set_fetched_once_in_a_cool_down(fabric: Fabric, jwks: Application) -> None:
    fetched: list[float] = []
    until = time.monotonic() + COOL_DOWN_S + 2
    numbers = iter(range(1_000_000))

    def flood() -> None:
        while time.monotonic() < until:
            client = knock(fabric, TokenSigner("ES256", f"k{next(numbers)}").token(claims(iss=JWKS)).decode())
            client.wait_closed()
            code = json.loads(client.packets[-1].body)["code"]
            assert code in (Ending.REFUSED.zim_code, Ending.TRY_AGAIN.zim_code)
            client.close()
            gevent.sleep(0.01)

    def watch() -> None:
        seen = len(jwks.asked)
        while time.monotonic() < until:
            if len(jwks.asked) > seen:
                fetched.extend([time.monotonic()] * (len(jwks.asked) - seen))
                seen = len(jwks.asked)
            gevent.sleep(0.005)

    flooders = [gevent.spawn(flood) for _ in range(4)] + [gevent.spawn(watch)]
    while time.monotonic() < until:
        enter(fabric, FIRST.token(claims("9", iss=JWKS)).decode()).close()
        gevent.sleep(0.3)
    gevent.joinall(flooders, raise_error=True)
    assert 1 <= len(fetched) <= 2
    assert all(later - at > COOL_DOWN_S - 0.5 for at, later in pairwise(fetched))
    assert next(numbers) > 50
    jwks.body = key_set(FIRST.jwk(), SECOND.jwk())

    def is_in() -> bool:
        client = knock(fabric, SECOND.token(claims(iss=JWKS)).decode())
        wait_until(lambda: client.packets, "an answer")
        return client.packets[0].op == Op.AUTH_REPLY

    wait_until(is_in, "the new key is known")
