"""The page "tokens in five minutes", word for word but for the ports: a browser and a Python client in with a token of
the page's backend, one API key, strangers refused."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.harness import free_ports, wait_until
from tests.integration.test_pages import Browser
from tests.programs import ROOT, serving, started
from zim.client import Listener, Message

PAGE = (ROOT / "docs" / "how-to" / "jwt.md").read_text()
OFFSET = 1_100  # below the ports that other tests take
HTTP, TCP, WS = 7172 + OFFSET, 8080 + OFFSET, 8090 + OFFSET


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def sh(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-ec", text], cwd=folder, env=environment(), capture_output=True, text=True, timeout=60
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the page's first two blocks have been followed, and `zim up` runs."""
    found = tmp_path_factory.mktemp("jwt")
    secret, topology, *_ = blocks("sh")
    topology = topology.replace("zim init", f"zim init --offset {OFFSET}").replace("zim up\n", "")
    for text in (secret, topology):
        done = sh(text, found)
        assert done.returncode == 0, done.stderr
    assert "OK: topology.toml describes 4 nodes." in done.stdout
    with started([sys.executable, "-m", "zim", "up"], found) as (process, out, err):
        wait_until(lambda: "is up" in out.read_text() or process.poll() is not None, "it is up")
        assert process.poll() is None, err.read_text()
        yield found
        process.send_signal(signal.SIGINT)
        process.wait(30)
    secrets = [(found / "secrets" / name).read_text().strip() for name in ("jwt", "app.key")]
    assert not [secret for secret in secrets if secret in out.read_text() + err.read_text()]


def test_strangers_are_refused(folder: Path) -> None:
    text = blocks("sh")[2]
    commands = re.findall(r"^(zim .*)\n# '(.*)'$", text, re.MULTILINE)
    assert len(commands) == 2
    for command, says in commands:
        done = sh(command, folder)
        assert (done.returncode, done.stdout, done.stderr.splitlines()[-1]) == (1, "", says)


def test_a_token_to_try_it(folder: Path) -> None:
    make, check, listen = blocks("sh")[3].splitlines()
    assert sh(make, folder).stderr == ""
    told = sh(check, folder).stdout
    assert told.startswith("it is anna's, until ")
    assert re.search(r"^  rooms +lobby$", told, re.MULTILINE)
    (push,) = blocks("sh")[4].splitlines()
    command = [*shlex.split(listen.replace("zim", f"{sys.executable} -m zim")), "--count", "1", "--timeout", "20"]
    with started(command, folder) as (process, out, err):
        wait_until(lambda: "connected" in err.read_text(), "anna is there")
        assert sh(push, folder).returncode == 0
        wait_until(lambda: process.poll() is not None, "she has got it")
        assert (process.returncode, out.read_text()) == (0, "hello\n")


@pytest.fixture(scope="module")
def backend(folder: Path) -> Iterator[str]:
    """The page's backend, with a login that believes everybody, and its client for browsers."""
    signing, flask, _ = blocks("python")
    browser = (ROOT / "docs" / "how-to" / "browser.md").read_text()
    for name, language in (("zim.js", "js"), ("page.html", "html")):
        (block,) = re.findall(rf"^```{language}\n(.*?)^```", browser, re.DOTALL | re.MULTILINE)
        block = block.replace("token: () => uid", 'token: async () => (await (await fetch("/zim-token")).json()).token')
        (folder / name).write_text(block)
    login = """
app.secret_key = "of the test"

@app.get("/login/<user>")
def login(user: str) -> str:
    session["user"] = user
    return user

@app.get("/<name>")
def file(name: str):
    from flask import send_from_directory
    return send_from_directory(".", name)
"""
    (port,) = free_ports(1)
    here = f"import os\nos.chdir({str(folder)!r})\n"
    text = f"{here}{signing}\n{flask}\n{login}\napp.root_path = os.getcwd()\napp.run(port={port})\n"
    (folder / "backend.py").write_text(text)
    with serving([sys.executable, str(folder / "backend.py")], port, folder):
        yield f"http://127.0.0.1:{port}"


def push(folder: Path, *words: str) -> None:
    done = sh(shlex.join(["zim", "push", "--key-file", "secrets/app.key", *words]), folder)
    assert done.returncode == 0, done.stderr


def test_a_browser_is_in(folder: Path, backend: str, tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    try:
        browser.driver.get(f"{backend}/login/berta")
        browser.driver.get(f"{backend}/page.html?uid=berta&comet=ws://127.0.0.1:{WS}/sub")
        browser.wait_for_state("connected")
        push(folder, "user", "berta", '{"n":1}')
        push(folder, "room", "lobby", '{"n":2}')
        browser.wait_for('u:berta 1 {"n":1}', 'r:lobby 1 {"n":2}')
        browser.driver.get(f"{backend}/page.html?uid=berta&comet=ws://127.0.0.1:{WS}/sub")
        browser.driver.delete_all_cookies()
        browser.driver.refresh()
        browser.wait_for_state("no token")
    finally:
        browser.driver.quit()


def test_a_python_client_is_in(folder: Path, backend: str) -> None:
    code = blocks("python")[2].replace("127.0.0.1:8080", f"127.0.0.1:{TCP}").split("\nwith Listener")[0]
    import http.cookiejar
    import urllib.request

    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    opener.open(f"{backend}/login/carl").read()
    names: dict[str, Any] = {}
    exec(code.replace("http://127.0.0.1:5000", backend), names)
    names["urlopen"] = opener.open  # with the cookie of the login
    with Listener(f"127.0.0.1:{TCP}", names["fetch_token"]) as listener:
        push(folder, "user", "carl", "hello")
        (event,) = islice(listener, 1)
    assert isinstance(event, Message)
    assert (event.stream, event.body) == ("u:carl", b"hello")
