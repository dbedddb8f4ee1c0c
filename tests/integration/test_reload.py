"""`zim reload` and SIGHUP: what takes effect without a restart, what waits for one, and what changes nothing."""

from __future__ import annotations

import json
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.harness import Fabric, running, wait_until
from tests.zim_client import ZimClient
from zim.protocol.endings import Ending
from zim.protocol.frame import Op

OLD, NEW = "zim_" + "o" * 43, "zim_" + "n" * 43
SECRETS = {"old": "o" * 43, "new": "n" * 43}
ISSUER = 'issuer = "https://app.example.com"\naudience = "zim"\nalgorithms = ["HS256"]'


def api_key(name: str, key: str, scopes: str = '["push", "read"]') -> str:
    return f'[[api_key]]\nid = "{name}"\nsha256 = "{sha256(key.encode()).hexdigest()}"\nscopes = {scopes}\n'


def token(secret: str, user: str = "7", **zim: Any) -> str:
    claims = {"iss": "https://app.example.com", "aud": "zim", "sub": user, "exp": int(time.time()) + 300, "zim": zim}
    return jwt.encode(claims, secret, "HS256")


def reload(fabric: Fabric, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zim", "reload", str(fabric.file), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def edit(fabric: Fabric, change: Callable[[str], str]) -> None:
    text = fabric.file.read_text()
    assert change(text) != text
    fabric.file.write_text(change(text))


def in_force(fabric: Fabric, *options: str) -> list[str]:
    """Reloads; the keys that are in force then."""
    done = reload(fabric, "--json", *options)
    assert (done.returncode, done.stderr) == (0, ""), done
    said = json.loads(done.stdout)
    assert (said["waiting"], said["nodes"]) == ([], {})
    taken: list[str] = said["taken"]
    return taken


def push(fabric: Fabric, key: str, user: str = "7") -> int:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    document = json.dumps({"to": {"users": [user]}, "body": 1})
    status: int = fabric.request("POST", "/api/push", document, headers=headers)[0]
    return status


def refused_as(fabric: Fabric, shown: str) -> int:
    """The code with which a client is closed that shows this token; 0 if it is let in."""
    client = ZimClient.__new__(ZimClient)
    super(ZimClient, client).__init__(fabric.ws["comet-1"], None, is_ws=True)
    client.say_json(Op.AUTH, {"token": shown}, 1)
    wait_until(lambda: client.is_closed or any(p.op == Op.AUTH_REPLY for p in client.packets), "an answer")
    client.close()
    return client.close_code


def test_keys_of_backends_come_and_go(tmp_path: Path) -> None:
    with running(tmp_path, more=api_key("orders", OLD), comets=2, routers=2) as fabric:
        client = ZimClient(fabric.tcp["comet-2"], "7")
        assert (push(fabric, OLD), push(fabric, NEW)) == (200, 401)
        edit(fabric, lambda text: text + api_key("bills", NEW))
        assert in_force(fabric) == ["api_key bills, added"]
        assert (push(fabric, OLD), push(fabric, NEW)) == (200, 200)
        edit(fabric, lambda text: text.replace(api_key("orders", OLD), ""))
        assert in_force(fabric) == ["api_key orders, taken away"]
        assert (push(fabric, OLD), push(fabric, NEW)) == (401, 200)
        wait_until(lambda: len(client.packets) == 4, "all that was accepted has come, over the same connection")
        assert 'AUDIT reloaded by="zim reload" taken="api_key bills, added" waiting=' in fabric.log
        assert in_force(fabric) == []


def test_a_secret_is_replaced_in_its_file_and_sessions_stay(tmp_path: Path) -> None:
    (tmp_path / "jwt").write_text(SECRETS["old"])
    with running(tmp_path, more=f'[[issuer]]\n{ISSUER}\nsecret_file = "jwt"\n', logics=2) as fabric:
        client = ZimClient(fabric.tcp["comet-1"], token(SECRETS["old"]))
        assert refused_as(fabric, token(SECRETS["new"])) == Ending.REFUSED.zim_code
        (tmp_path / "jwt").write_text(SECRETS["new"])
        done = reload(fabric)
        assert (done.returncode, done.stdout) == (0, "In force as before; files with keys were read anew.\n")
        for _ in range(4):  # each logic is asked in its turn
            assert refused_as(fabric, token(SECRETS["old"])) == Ending.REFUSED.zim_code
            assert refused_as(fabric, token(SECRETS["new"])) == 0
        assert fabric.push({"to": {"users": ["7"]}, "body": 1})[0] == 200
        assert client.take(Op.PUSH).body == b"1"


def test_an_issuer_a_policy_of_sessions_and_people_without_a_token(tmp_path: Path) -> None:
    (tmp_path / "jwt").write_text(SECRETS["new"])
    with running(tmp_path) as fabric:
        edit(fabric, lambda text: f'{text}[[issuer]]\n{ISSUER}\nsecret_file = "jwt"\n[sessions]\nper_user = 1\n')
        assert in_force(fabric) == ["issuer https://app.example.com, added", "sessions"]
        assert refused_as(fabric, "7") == Ending.REFUSED.zim_code
        first = ZimClient(fabric.tcp["comet-1"], token(SECRETS["new"]))
        ZimClient(fabric.tcp["comet-1"], token(SECRETS["new"]))
        assert json.loads(first.take(Op.DISCONNECT).body)["code"] == Ending.REPLACED.zim_code
        ws = fabric.ws["comet-1"]
        edit(
            fabric,
            lambda text: (
                text.replace(f'ws = "{ws}"', f'ws = {{ address = "{ws}", anonymous = true }}')
                + '[anonymous]\nrooms = ["lobby"]\n'
            ),
        )
        assert set(in_force(fabric)) == {"anonymous", "comet-1.ws"}
        somebody = ZimClient(ws, "", is_ws=True)
        assert fabric.push({"to": {"rooms": ["lobby"]}, "body": 2})[0] == 200
        assert somebody.take(Op.PUSH).body == b"2"


def test_limits_of_clients_pages_and_the_level_of_the_log(tmp_path: Path) -> None:
    with running(tmp_path, has_admin=True) as fabric:
        first = ZimClient(fabric.tcp["comet-1"], "1")
        page = {"Origin": "https://app.example.com"}
        http = fabric.http["logic-1"]
        assert fabric.request("POST", "/1/push/all", b"1", headers=page)[0] == 403
        assert "push asked for" not in fabric.log
        edit(
            fabric,
            lambda text: (
                text.replace(f'http = "{http}"', f'http = {{ address = "{http}", origins = ["{page["Origin"]}"] }}')
                .replace("[[comet]]", "[[comet]]\nmax_connections = 1")
                .replace("[fabric]", '[fabric]\nlog_level = "debug"')
            ),
        )
        assert set(in_force(fabric)) == {"logic-1.http", "comet-1.max_connections", "fabric.log_level"}
        assert fabric.request("POST", "/1/push/all", b"2", headers=page)[0] == 200
        wait_until(lambda: "push asked for" in fabric.log, "the log says more")
        assert first.take(Op.PUSH).body == b"2"
        with pytest.raises((OSError, AssertionError)):
            ZimClient(fabric.tcp["comet-1"], "2")
        edit(fabric, lambda text: text.replace('log_level = "debug"', 'log_level = "warning"'))
        assert in_force(fabric) == ["fabric.log_level"]
        before = fabric.log.count(" INFO ")
        first.close()
        wait_until(lambda: "zim_comet_open_connections 0" in fabric.metrics("comet-1"), "it has gone")
        assert fabric.log.count(" INFO ") == before


def test_less_is_kept(tmp_path: Path) -> None:
    with running(tmp_path) as fabric:
        for i in range(50):
            fabric.push({"to": {"users": ["7"]}, "body": i})
        edit(fabric, lambda text: text + "[retention]\nusers = { count = 3 }\n")
        assert in_force(fabric) == ["retention"]

        def kept() -> list[int]:
            return [m["body"] for m in fabric.get("/api/streams/u:7?limit=100")["messages"]]

        wait_until(lambda: len(kept()) <= 3, "the rest is let go of", timeout_s=30)
        assert kept() == [47, 48, 49]


WRONG: dict[str, tuple[Callable[[str], str], str]] = {
    "a value": (lambda text: text.replace("[[comet]]", "[[comet]]\nmax_connections = 0"), "comet[0].max_connections"),
    "TOML": (lambda text: text + "[[issuer\n", "is not TOML"),
    "a key that is not there": (
        lambda text: f'{text}[[issuer]]\n{ISSUER}\nsecret_file = "nowhere"\n',
        "cannot be read: No such file",
    ),
    "a key that is too short": (lambda text: f'{text}[[issuer]]\n{ISSUER}\nsecret_file = "short"\n', "short"),
}


def test_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("0123456789")
    with running(tmp_path, more=api_key("orders", OLD)) as fabric:
        right = fabric.file.read_text()
        for change, says in WRONG.values():
            fabric.file.write_text(change(right).replace(api_key("orders", OLD), api_key("orders", NEW)))
            done = reload(fabric)
            assert (done.returncode, done.stdout) == (1, "")
            assert says in done.stderr, done.stderr
            assert "0123456789" not in done.stderr + fabric.log
            assert (push(fabric, OLD), push(fabric, NEW)) == (200, 401)
        assert fabric.process
        fabric.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "ERROR not reloaded, nothing has changed problem=" in fabric.log, "it says so")
        assert (push(fabric, OLD), push(fabric, NEW)) == (200, 401)


def test_what_cannot_be_is_named_and_the_rest_is_done(tmp_path: Path) -> None:
    with running(tmp_path, more=api_key("orders", OLD)) as fabric:
        edit(
            fabric,
            lambda text: (
                text.replace("[fabric]", "[fabric]\nmax_body_bytes = 70000").replace(
                    "[[job]]", "[[job]]\nqueue_bytes = 70000"
                )
                + api_key("bills", NEW)
            ),
        )
        for taken in (["In force:", "  api_key bills, added"], ["In force as before; files with keys were read anew."]):
            done = reload(fabric)
            waits = ["Waits for a restart of zim up:", "  fabric.max_body_bytes", "  job-1.queue_bytes"]
            assert (done.returncode, done.stdout.splitlines()) == (0, [*taken, *waits])
        assert push(fabric, NEW) == 200


def test_sighup_reloads_too(tmp_path: Path) -> None:
    with running(tmp_path, more=api_key("orders", OLD)) as fabric:
        edit(fabric, lambda text: text + api_key("bills", NEW))
        assert fabric.process
        fabric.process.send_signal(signal.SIGHUP)
        wait_until(lambda: push(fabric, NEW) == 200, "it is in force")
        wait_until(lambda: "AUDIT reloaded by=SIGHUP" in fabric.log, "and in the log")


def test_nodes_that_cannot_are_named(tmp_path: Path) -> None:
    with running(tmp_path, more=api_key("orders", OLD), comets=2) as fabric:
        edit(fabric, lambda text: text + api_key("bills", NEW))
        fabric.kill("comet-2", signal.SIGSTOP)
        done = reload(fabric)
        fabric.kill("comet-2", signal.SIGCONT)
        assert (done.returncode, done.stderr) == (3, "zim reload: comet-2 has not answered within 10 s\n")
        assert push(fabric, NEW) == 200
        wait_until(lambda: re.search(r"comet-2 INFO reloaded taken=.api_key bills, added", fabric.log), "it has now")
        # One that dies while it is asked starts with the new file.
        edit(fabric, lambda text: text.replace("[[comet]]", "[[comet]]\nheartbeat_s = 77", 1))
        fabric.kill("comet-1", signal.SIGSTOP)
        command = [sys.executable, "-m", "zim", "reload", str(fabric.file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as asking:
            wait_until(lambda: "taken=comet-1.heartbeat_s" in fabric.log, "it is asked")
            fabric.kill("comet-1")
            assert "comet-1 has died, and starts with it" in asking.communicate(timeout=30)[1]
        wait_until(lambda: "node ready again" in fabric.log, "it is there again")


def test_the_socket_is_for_its_user_and_outlives_nobody(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 25) / ("path" * 10)  # longer than the address of a socket may be
    folder.mkdir(parents=True)
    with running(folder) as fabric:
        path = folder / "var" / "control.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert in_force(fabric) == []
        fabric.kill_all()
        assert path.exists()
        done = reload(fabric)
        assert done.returncode == 3
        assert done.stderr.startswith(f"zim reload: no zim up takes orders at {path}; ")
        fabric.start()
        assert in_force(fabric) == []
        fabric.stop()
        assert not path.exists()


def test_keys_that_all_go_are_not_missed(tmp_path: Path) -> None:
    with running(tmp_path, more=api_key("orders", OLD)) as fabric:
        edit(fabric, lambda text: text.replace(api_key("orders", OLD), ""))
        done = reload(fabric)
        assert (done.returncode, done.stdout) == (0, "In force:\n  api_key orders, taken away\n")
        assert re.fullmatch(r"zim reload: WARNING: from now on whoever reaches the HTTP API .*\n", done.stderr)
        assert 'AUDIT believed without proof from now on by="zim reload" reason="whoever reaches' in fabric.log
        done = reload(fabric)
        assert done.stderr == ""


def test_what_is_no_order(tmp_path: Path) -> None:
    with running(tmp_path) as fabric:
        for line in (b"hello\n", b"[]\n", b'{"do":"fly"}\n', b"\xff\n", b'{"do":[]}\n', b"[" * 70_000):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
                s.connect(str(tmp_path / "var" / "control.sock"))
                s.sendall(line)
                answer = json.loads(s.makefile().readline())
                (problem,) = answer["problems"]
                assert problem.startswith('this is no order; right is {"do": "reload"} or {"do": "status"} or ')
        other = tmp_path / "other.toml"
        other.write_text(fabric.file.read_text())
        done = subprocess.run([sys.executable, "-m", "zim", "reload", str(other)], capture_output=True, text=True)
        assert done.returncode == 1
        assert f"this fabric runs with {fabric.file}, not with {other}" in done.stderr


def test_a_node_that_dies_starts_with_what_is_in_force(tmp_path: Path) -> None:
    """The file has been edited: what needs a restart of everything is not taken over by one node alone."""
    with running(tmp_path, more=api_key("orders", OLD)) as fabric:
        assert push(fabric, OLD) == 200
        edit(fabric, lambda text: text.replace('data_dir = "var"', 'data_dir = "elsewhere"') + api_key("bills", NEW))
        fabric.kill("router-1")
        wait_until(lambda: push(fabric, OLD) == 200, "the router is there again")
        status, stream = fabric.request("GET", "/api/streams/u:7", headers={"Authorization": f"Bearer {OLD}"})
        assert (status, [m["offset"] for m in stream["messages"]][:2]) == (200, [1, 2])
        fabric.kill("logic-1")
        wait_until(lambda: "node ready again node=logic-1" in fabric.log, "the logic is there again")
        assert push(fabric, NEW) == 401
        fabric.file.write_text("not TOML")
        fabric.kill("comet-1")
        wait_until(lambda: "node ready again node=comet-1" in fabric.log, "the comet is there again")
        assert ZimClient(fabric.tcp["comet-1"], "7").auth
        assert not (tmp_path / "elsewhere").exists()
