"""Secrets, planted in a fabric, and where they would turn up."""

from __future__ import annotations

import hmac
import json
import os
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
from gevent import socket

from tests.harness import Client, Fabric, free_ports, running
from tests.integration.liar import Liar, lying
from tests.integration.visits import ISSUER, claims
from tests.unit.identity.signers import compact

SECRET, OTHER = b"planted-hs-secret-Zk3vQ9x7LmT2pWb8", b"planted-env-secret-R5nYc1hJ6sDf4gKa"
KEY, PUSH_KEY, UNKNOWN_KEY = (f"zim_planted{what}{'Qx7' * 10}" for what in ("All", "Push", "Unknown"))
OPAQUE = "planted-opaque-session-8hGq2Lw9"
LASTS_S = 7_200  # for longer than all tests: these are made when the first of them is collected
PASSWORD = "planted-password-of-a-url"


def signed(secret: bytes = SECRET, header: Any = None, **more: Any) -> str:
    document = claims(**{"exp": int(time.time()) + LASTS_S, **more})
    return compact(header or {"alg": "HS256"}, document, lambda text: hmac.digest(secret, text, sha256)).decode()


TOKENS = {
    "good": signed(zim={"rooms": ["lobby"]}),
    "expired": signed(exp=1),
    "early": signed(nbf=int(time.time()) + LASTS_S),
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

    def look_at_all(self) -> None:
        """All that somebody could see by now."""
        for client in list(Client.open):
            for packet in client.packets:
                look_for_all("what a client is told", packet.body.decode(errors="replace"))
            look_for_all("a reason", client.close_reason)
            client.close()
        log, seen = self.fabric.log, self.seen
        self.seen = max(0, len(log) - 2_000)  # lines may come a little later than what they are about
        look_for_all("the log", log[seen:])
        self.look_at_what_others_see()
        assert "Traceback" not in log

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


@contextmanager
def planting(folder: Path) -> Iterator[tuple[Told, Liar]]:
    """A fabric with all of it, and with DEBUG, and an application that lies."""
    liar, (port,) = Liar(), free_ports(1)
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
            yield Told(fabric, folder), liar
    finally:
        del os.environ["ZIM_OTHER_SECRET"]
