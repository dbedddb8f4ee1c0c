"""Secrets are planted, everything is made to fail, with DEBUG on: they turn up in no log, answer, metric, command, or
file of the fabric."""

from __future__ import annotations

import hmac
import json
import os
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import pytest
from gevent import socket

from tests.harness import Client, Fabric, free_ports, running, wait_until
from tests.integration.liar import WAYS, Liar, lying, reply
from tests.integration.visits import ISSUER, Stranger, claims, knock
from tests.unit.identity.signers import compact
from zim.client import PushError, ZmqPublisher
from zim.protocol.frame import Op

SECRET, OTHER = b"planted-hs-secret-Zk3vQ9x7LmT2pWb8", b"planted-env-secret-R5nYc1hJ6sDf4gKa"
KEY, PUSH_KEY, UNKNOWN_KEY = (f"zim_planted{what}{'Qx7' * 10}" for what in ("All", "Push", "Unknown"))
OPAQUE = "planted-opaque-session-8hGq2Lw9"
PASSWORD = "planted-password-of-a-url"


def signed(secret: bytes = SECRET, header: Any = None, **more: Any) -> str:
    document = claims(**more)
    return compact(header or {"alg": "HS256"}, document, lambda text: hmac.digest(secret, text, sha256)).decode()


TOKENS = {
    "good": signed(zim={"rooms": ["lobby"]}),
    "expired": signed(exp=1),
    "early": signed(nbf=int(time.time()) + 900),
    "aud": signed(aud="x"),
    "iss": signed(iss="https://nobody.example.com"),
    "crit": signed(header={"alg": "HS256", "crit": ["x"]}),
    "claim": signed(zim={"rooms": 7}),
    "sub": signed(sub=None),
    "wrong key": signed(b"x" * 40),
    "huge": signed(zim={"rooms": ["x" * 9_000]}),
}


def planted() -> dict[str, str]:
    """All that must be nowhere. Of a token its signature, without which the rest is worth nothing."""
    found = {f"signature of the token {name}": shown.rpartition(".")[2] for name, shown in TOKENS.items()}
    for name, secret in (("secret", SECRET), ("other secret", OTHER)):
        found[name] = secret.decode()
        found[f"{name} in base64"] = b64encode(secret).decode()[:40]
        found[f"{name} in hexadecimal"] = secret.hex()
    return found | {
        "key": KEY,
        "key for pushes": PUSH_KEY,
        "unknown key": UNKNOWN_KEY,
        "opaque": OPAQUE,
        "password": PASSWORD,
    }


def look_for_all(what: str, text: str) -> None:
    there = [name for name, secret in planted().items() if secret in text]
    lines = [line[:300] for line in text.splitlines() if any(planted()[name] in line for name in there)]
    assert not there, f"{what} has: {there}: {lines[:3]}"


class Told:
    """All that the fabric, and its commands, have said to anybody."""

    def __init__(self, fabric: Fabric, folder: Path) -> None:
        self.fabric, self.folder = fabric, folder
        self.statuses: set[int] = set()
        self.seen = 0  # of the log

    def ask(self, method: str, path: str, body: bytes | str = b"", **headers: str) -> int:
        """Over HTTP."""
        status, answer = self.fabric.request(
            method, path, body, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
        look_for_all(f"the answer to {method} {path[:20]}", json.dumps(answer))
        self.statuses.add(status)
        return status

    def say(self, address: str, data: bytes) -> None:
        """Anything, to a port."""
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=2) as s, suppress(OSError):
            s.sendall(data)
            answer = s.recv(1 << 16)
            look_for_all(f"what {address} answers", answer.decode(errors="replace"))

    def look_at_what_others_see(self) -> None:
        """Metrics, command lines, and the disk."""
        fabric = self.fabric
        for name, address in fabric.admin.items():
            for path in ("/metrics", "/healthz", "/readyz", "/nothing"):
                fabric.http["admin"] = address
                status, text = fabric.request("GET", path, logic="admin")
                look_for_all(f"{path} of {name}", str(text))
                assert status == (404 if path == "/nothing" else 200)
        assert fabric.process
        processes = [psutil.Process(fabric.process.pid), *fabric.children()]
        assert len(processes) == 5
        for process in processes:
            look_for_all("a command line", "\0".join(process.cmdline()))
        files = [file for file in (self.folder / "var").rglob("*") if file.is_file()]
        assert any(file.stat().st_size > 10_000 for file in files)
        for file in [*files, fabric.file]:
            look_for_all(str(file), file.read_bytes().decode("latin-1"))

    def run(self, *words: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """A command of zim."""
        done = subprocess.run(
            [sys.executable, "-m", "zim", *words],
            cwd=self.folder,
            env={**os.environ, "ZIM_OTHER_SECRET": OTHER.decode(), **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
        look_for_all(f"what zim {' '.join(words)[:60]} says", done.stdout + done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        return done


@pytest.fixture(scope="module")
def liar() -> Liar:
    return Liar()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, liar: Liar) -> Iterator[Told]:
    folder, (port,) = tmp_path_factory.mktemp("secrets"), free_ports(1)
    (folder / "jwt").write_bytes(SECRET + b"\n")
    for name, content in (("key", KEY), ("push.key", PUSH_KEY), ("unknown.key", UNKNOWN_KEY)):
        (folder / name).write_text(content + "\n")
    digests = {name: sha256(key.encode()).hexdigest() for name, key in (("all", KEY), ("push", PUSH_KEY))}
    more = f"""
[[issuer]]
issuer = "{ISSUER}"
audience = "zim"
algorithms = ["HS256"]
secret_file = "jwt"

[[issuer]]
issuer = "https://other.example.com"
audience = "zim"
algorithms = ["HS256"]
secret_env = "ZIM_OTHER_SECRET"

[callout]
connect = "http://127.0.0.1:{port}/connect"
join = "http://127.0.0.1:{port}/join"
timeout_s = 0.5

[[api_key]]
id = "all"
sha256 = "{digests["all"]}"
scopes = ["push", "read", "count", "kick", "ban", "operate", "metrics"]

[[api_key]]
id = "push"
sha256 = "{digests["push"]}"
scopes = {{ push = ["r:lobby"] }}
"""
    os.environ["ZIM_OTHER_SECRET"] = OTHER.decode()
    try:
        with (
            lying(liar, port),
            running(
                folder,
                more=more,
                has_admin=True,
                options=["-v"],
                logic={"goim_key_header": "X-Push-Key"},
                listeners={"ws": {"origins": ["https://app.example.com"], "cookie": "session"}},
            ) as fabric,
        ):
            yield Told(fabric, folder)
    finally:
        del os.environ["ZIM_OTHER_SECRET"]


@pytest.fixture(autouse=True)
def _nothing_is_told(told: Told) -> Iterator[None]:
    yield
    for client in list(Client.open):
        for packet in client.packets:
            look_for_all("what a client is told", packet.body.decode(errors="replace"))
        look_for_all("a reason", client.close_reason)
        client.close()
    log, seen = told.fabric.log, told.seen
    told.seen = max(0, len(log) - 2_000)  # lines may come a little later than what they are about
    look_for_all("the log", log[seen:])
    told.look_at_what_others_see()
    assert "Traceback" not in log


def test_the_search_finds_what_is_there(told: Told) -> None:
    for secret in planted().values():
        with pytest.raises(AssertionError, match="has: "):
            look_for_all("a line", f'2026 logic-1 AUDIT reason="{secret}"')
    for name in ("key", "jwt"):
        with pytest.raises(AssertionError):
            look_for_all("a file", (told.folder / name).read_text())


@pytest.mark.parametrize("name", TOKENS)
def test_tokens(told: Told, liar: Liar, name: str) -> None:
    liar.way["*"] = lambda client: client.sendall(reply({"reason": "no"}))
    fabric, shown = told.fabric, TOKENS[name]
    for is_ws in (False, True):
        client = knock(fabric, shown, is_ws)
        wait_until(lambda client=client: client.packets or client.is_closed, "an answer")  # type: ignore[misc]
        with_more = knock(fabric, shown + "x", is_ws)
        with_more.wait_closed()
        broken = Stranger((fabric.ws if is_ws else fabric.tcp)["comet-1"], None, is_ws)
        broken.say(Op.AUTH, b'{"token":"%b","%b":1}' % (shown.encode(), b"field"))
        broken.wait_closed()
        goim = Client((fabric.ws if is_ws else fabric.tcp)["comet-1"], None, is_ws)
        goim.say(Op.AUTH, json.dumps(shown).encode(), 1)
        wait_until(lambda goim=goim: goim.packets or goim.is_closed, "an answer")  # type: ignore[misc]
        in_zims_body = Client((fabric.ws if is_ws else fabric.tcp)["comet-1"], None, is_ws)
        in_zims_body.say(Op.AUTH, json.dumps({"token": shown}).encode(), 1)
        in_zims_body.wait_closed()
        refreshed = knock(fabric, TOKENS["good"], is_ws)
        refreshed.wait(1)
        refreshed.say(Op.REFRESH, json.dumps({"token": shown}).encode(), 2)
        wait_until(lambda r=refreshed: len(r.packets) > 1, "an answer")  # type: ignore[misc]
    assert "login refused" in fabric.log


def echoes(client: socket.socket) -> None:
    """What it has been asked, as it came, in place of an answer."""
    client.sendall(json.dumps({"token": OPAQUE, "device": ""}).encode() + b"\r\n\r\n")


ECHOES = {
    "in place of HTTP": echoes,
    "as a header": lambda client: client.sendall(b"HTTP/1.1 200 OK\r\n" + OPAQUE.encode() + b"\r\n\r\n"),
    "as a status": lambda client: client.sendall(b"HTTP/1.1 " + OPAQUE.encode() + b"\r\n\r\n"),
    "as a length": lambda client: client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\n" % OPAQUE.encode()),
    "as a chunk": lambda client: client.sendall(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b\r\n" % OPAQUE.encode()
    ),
    "as an encoding": lambda client: client.sendall(
        reply({"user": 7.5}, "200 OK", f"Content-Encoding: {OPAQUE}", f"Location: http://{OPAQUE}/")
    ),
    "as a pattern": lambda client: client.sendall(reply({"user": "7", "join": OPAQUE})),
    "as a number": lambda client: client.sendall(reply({"user": "7", "sessions": OPAQUE})),
    "as text": lambda client: client.sendall(reply(OPAQUE)),
    "as no JSON": lambda client: client.sendall(reply(b"{" + OPAQUE.encode())),
}


@pytest.mark.parametrize("name", [*WAYS, *ECHOES])
def test_an_application_that_lies(told: Told, liar: Liar, name: str) -> None:
    """What it answers may have the token in it, in any place but a name, for which it is then taken."""
    liar.way["*"] = lambda client: client.sendall(reply({"user": "7"}))

    def is_in() -> bool:
        client = knock(told.fabric, f"another {time.monotonic()}")
        wait_until(lambda: client.packets, "an answer")
        return client.packets[0].op == Op.AUTH_REPLY

    wait_until(is_in, "it is asked", 40)
    liar.way["*"] = (WAYS | ECHOES)[name]
    before = len(liar.asked)
    for is_ws in (False, True):
        knock(told.fabric, OPAQUE, is_ws).wait_closed()
    assert len(liar.asked) > before
    wait_until(lambda: "callout failed" in told.fabric.log, "the log says so")


def test_tokens_in_the_wrong_place(told: Told) -> None:
    shown, fabric = TOKENS["good"], told.fabric
    for address in (fabric.ws["comet-1"], fabric.http["logic-1"], fabric.admin["comet-1"]):
        for secret in (shown, KEY, OPAQUE):
            for head in (
                f"GET /sub?token={secret} HTTP/1.1\r\nHost: localhost\r\n",
                f"GET /sub?token={secret} HTTP/1.1\r\nHost: evil.example.com\r\n",
                f"GET /sub?token={secret} HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example.com\r\n",
                f"GET /sub?token={secret} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
                f"GET /sub?token={secret} HTTP/9.9\r\nHost: localhost\r\n",
                f"GET /sub?token={secret}\r\n",
                f"GET /sub?token={secret} x y z HTTP/1.1\r\n",
                f"{secret} /sub HTTP/1.1\r\nHost: localhost\r\n",
                f"GET /sub HTTP/1.1\r\nHost: localhost\r\nAuthorization {secret}\r\n",
                f"GET /sub HTTP/1.1\r\nHost: localhost\r\nContent-Length: {secret}\r\n",
                f"GET /sub HTTP/1.1\r\nHost: localhost\r\nCookie: session={secret}\r\nUpgrade: websocket\r\n",
                f"GET /sub HTTP/1.1\r\nHost: localhost\r\nCookie: session={secret}\r\n\0\r\n",
            ):
                told.say(address, head.encode() + b"\r\n")
    for address in (
        fabric.tcp["comet-1"],
        fabric.binds["logic-1"],
        fabric.binds["router-1"],
        fabric.publish["logic-1"],
    ):
        told.say(address, shown.encode() + b"\r\n\r\n" + KEY.encode())


def test_api_keys(told: Told) -> None:
    fabric, document = told.fabric, '{"to":{"rooms":["lobby"]},"body":1}'
    json_type = {"Content_Type": "application/json"}
    for query in ("api_key", "key", "access_token", "token", "authorization", "X-Push-Key"):
        assert told.ask("POST", f"/api/push?{query}={KEY}", document, **json_type) == 401
        assert told.ask("POST", f"/1/push/all?{query}={KEY}", b"x") == 401
    for shown in (f"Bearer {UNKNOWN_KEY}", f"Basic {KEY}", f"Bearer {KEY} {KEY}", KEY, f"Bearer {KEY[:-1]}", "Bearer"):
        assert told.ask("POST", "/api/push", document, Authorization=shown, **json_type) == 401
    assert told.ask("POST", "/1/push/all", b"x", X_Push_Key=UNKNOWN_KEY) == 401
    assert told.ask("POST", "/1/push/all", b"x", X_Push_Key=PUSH_KEY) == 403
    assert told.ask("POST", "/api/push", document, Authorization=f"Bearer {PUSH_KEY}", **json_type) == 200
    may_all = {"Authorization": f"Bearer {KEY}"}
    for path in ("/api/ledger", "/api/bans", "/api/rooms", "/api/users/7", "/api/streams/r:lobby?after=0"):
        assert told.ask("GET", path, Authorization=f"Bearer {PUSH_KEY}") in (400, 403)
        told.ask("GET", path, **may_all)
    for body in (b"{oops", b"", b"\xff", b'{"to":{}}', b'{"to":{"users":["*\\n"]},"body":1}', b"[" * 10_000):
        assert told.ask("POST", "/api/push", body, **json_type, **may_all) == 400
    too_large = json.dumps({"to": {"users": ["7"]}, "body": "x" * 100_000})
    told.ask("POST", "/api/push", too_large, **json_type, **may_all)
    told.ask("POST", "/api/bans", b'{"user":"666","reason":"spam"}', **json_type, **may_all)
    told.ask("POST", "/api/kick", b'{"user":"7"}', **json_type, **may_all)
    told.ask("GET", "/api/nothing", **may_all)
    told.ask("GET", "/api/openapi.json")
    told.ask("GET", "/")
    told.ask("GET", "/healthz")
    told.ask("GET", "/readyz")
    assert {200, 400, 401, 403, 404, 413} <= told.statuses
    for key in (KEY, PUSH_KEY, UNKNOWN_KEY):
        with ZmqPublisher(fabric.publish["logic-1"], api_key=key) as publisher:
            pending = publisher.push(b"1", users="7")
            publisher.flush(20)
            outcome = pending.outcome()
            assert isinstance(outcome, PushError) == (key != KEY)
            look_for_all("an outcome", repr(outcome) + str(outcome))
            look_for_all("a publisher", repr(publisher) + repr(pending))
    for event in (" DEBUG push asked for", "request refused", "banned", "pushes refused"):
        wait_until(lambda event=event: event in fabric.log, event)  # type: ignore[misc]


def test_commands(told: Told) -> None:
    fabric, folder, secret = told.fabric, told.folder, {"ZIM_API_KEY": UNKNOWN_KEY}
    file, http = str(fabric.file), ["--http", fabric.http["logic-1"]]
    for name, shown in TOKENS.items():
        (folder / "token").write_text(shown)
        done = told.run("token", "check", "--topology", file, ZIM_TOKEN=shown)
        assert done.returncode == (name != "good"), done.stderr
        if name in ("good", "expired"):
            told.run("token", "check", "--topology", file, "--token-file", "token")
            told.run("token", "check", "--topology", file, stdin=f"Bearer {shown}!")
            tcp = fabric.tcp["comet-1"]
            told.run("listen", "--tcp", tcp, "--token-file", "token", "--timeout", "0.5", "-v")
            told.run("listen", "--tcp", tcp, "--goim", "--timeout", "0.5", "-v", ZIM_TOKEN=shown)
    told.run("token", "check", "--topology", file, stdin=OPAQUE + "\n")
    told.run("token", "make", "7", "--topology", file, "--issuer", ISSUER, "--private-key-file", "key")
    told.run(
        "token", "make", "7", "--topology", file, "--issuer", "https://other.example.com", "--private-key-file", "jwt2"
    )
    for key_file, code in (("key", 0), ("push.key", 0), ("unknown.key", 1), ("jwt", 1), ("topology.toml", 1)):
        assert told.run("api-key", "check", file, "--key-file", key_file).returncode == code
        told.run("push", "room", "lobby", "hello", *http, "--key-file", key_file)
    for command in (["who"], ["ledger"], ["push", "all", "hello"]):
        told.run(*command, *http, "--key-file", "push.key")
    told.run("api-key", "check", file, **secret)
    told.run("push", "user", "7", "hello", *http, **secret)
    told.run("push", "user", "7", "hello", "--goim", *http, **secret)
    told.run("push", "user", "7", "hello", "--http", f"127.0.0.1:{free_ports(1)[0]}", **secret)
    told.run("push", "user", "7", "hello", *http, ZIM_API_KEY=KEY + "\u00e9 \x7f")
    told.run("api-key", "list", file)
    told.run("check", file)


WRONG_TOPOLOGIES: dict[str, Sequence[tuple[str, str]]] = {
    "a secret in it": [('secret_file = "jwt"', f'secret = "{SECRET.decode()}"')],
    "a key in it": [('sha256 = "', f'sha256 = "{KEY}" # "')],
    "keys in it": [('sha256 = "', f'sha256 = ["{KEY}", "{PUSH_KEY}"] # "')],
    "a password in a URL": [('connect = "http://', f'connect = "https://zim:{PASSWORD}@')],
    "a password in a URL of rooms": [('join = "http://', f'join = "https://{PASSWORD}@app/')],
}


@pytest.mark.parametrize("name", WRONG_TOPOLOGIES)
def test_topologies_that_are_wrong(told: Told, name: str) -> None:
    text = told.fabric.file.read_text()
    for old, new in WRONG_TOPOLOGIES[name]:
        if old not in text:
            pytest.fail(f"the topology has no {old}")
        text = text.replace(old, new, 1)
    file = told.folder / "wrong.toml"
    file.write_text(text)
    for command in (["check"], ["up", "-v"], ["api-key", "list"], ["token", "make", "7", "--topology"]):
        assert told.run(*command, str(file)).returncode != 0
    file.unlink()


@pytest.mark.parametrize("content", [SECRET[:20], b"", b"\n", b"-----BEGIN PRIVATE KEY-----\n" + SECRET, b"x" * 70_000])
def test_secrets_that_are_none(told: Told, content: bytes) -> None:
    """The node says what is wrong with it and not what it is."""
    (told.folder / "bad").write_bytes(content)
    file = told.folder / "bad.toml"
    file.write_text(told.fabric.file.read_text().replace('secret_file = "jwt"', 'secret_file = "bad"'))
    for command in (["token", "check", "--topology", str(file)], ["node", "logic-1", str(file)]):
        done = told.run(*command, stdin=TOKENS["good"] + "\n")
        assert done.returncode != 0
        assert not content.strip() or content[:20].decode() not in done.stderr + done.stdout
    file.unlink()
    (told.folder / "bad").unlink()
