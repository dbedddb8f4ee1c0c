"""The page "tokens in five minutes", word for word but for the ports: a browser and a Python client in with a token of
the page's backend, one API key, strangers refused."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import free_ports, is_listening, wait_until
from tests.integration.test_pages import Browser
from tests.pages import free_offset
from tests.programs import ROOT, program, started

PAGE = (ROOT / "docs" / "how-to" / "jwt.md").read_text()
OFFSET = free_offset()
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
    begin, topology, *_ = blocks("sh")
    topology = topology.replace("zim init", f"zim init --offset {OFFSET}").replace("zim up\n", "")
    at = tmp_path_factory.mktemp("jwt")
    found = at / "tokens"
    for text, where in ((begin, at), (topology, found)):
        done = sh(text, where)
        assert done.returncode == 0, done.stderr
    assert [stat.S_IMODE((found / name).stat().st_mode) for name in ("secrets", "secrets/jwt")] == [0o700, 0o600]
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
    """The page's backend, which has its client for browsers, too."""
    (port,) = free_ports(1)
    signing, flask, _ = blocks("python")
    how_to = (ROOT / "docs" / "how-to" / "browser.md").read_text()
    client, page, token = (
        re.findall(rf"^```{language}\n(.*?)^```", how_to, re.DOTALL | re.MULTILINE)[0]
        for language in ("js", "html", "javascript")
    )
    page = page.replace("token: () => uid", "token").replace("const uid =", f"{token}\nconst uid =")
    page = page.replace('rooms: ["lobby"]', 'rooms: ["lobby", "staff"]')
    (folder / "static").mkdir()
    for name, text in (("zim.js", client), ("page.html", page)):
        (folder / "static" / name).write_text(text)
    (folder / "backend.py").write_text(f"{signing}\n{flask}".replace("127.0.0.1:7172", f"127.0.0.1:{HTTP}"))
    (line,) = blocks("sh")[5].splitlines()
    with (folder / "backend.log").open("wb") as log:
        command = ["sh", "-c", "exec " + line.replace("5000", str(port))]
        process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=log, stderr=log)
    try:
        wait_until(lambda: is_listening(f"127.0.0.1:{port}") or process.poll() is not None, "the backend listens")
        assert process.poll() is None, (folder / "backend.log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def test_the_backend_pushes(folder: Path, backend: str, tmp_path: Path) -> None:
    program("curl", "curl")
    (tmp_path / "anna.token").write_text(sh("zim token make anna --room lobby", folder).stdout)
    command = [sys.executable, "-m", "zim", "listen", "--token-file", "anna.token", "--tcp", f"127.0.0.1:{TCP}"]
    with started(command, tmp_path) as (_, out, err):
        wait_until(lambda: "connected" in err.read_text(), "anna is there")
        said = sh(blocks("sh")[6].replace("http://127.0.0.1:5000", backend), folder)
        assert said.returncode == 0, said.stderr
        user, token, pushed = map(json.loads, re.findall(r"{.*?}", said.stdout))
        assert (user, list(token), list(pushed)) == ({"user": "anna"}, ["token"], ["push"])
        wait_until(lambda: '{"order":"taken"}' in out.read_text(), "she has got it")


def push(folder: Path, *words: str) -> None:
    done = sh(shlex.join(["zim", "push", "--key-file", "secrets/app.key", *words]), folder)
    assert done.returncode == 0, done.stderr


def test_a_browser_is_in(folder: Path, backend: str, tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    try:
        where = f"{backend}/static/page.html?uid=berta&comet=ws://127.0.0.1:{WS}/sub"
        browser.driver.get(where)
        browser.wait_for_state("no token: Error: /zim-token answers 401")
        login = "fetch('/login', {method: 'POST', body: new URLSearchParams({user: 'berta'})}).then(arguments[0])"
        browser.driver.execute_async_script(login)
        browser.driver.get(where)
        browser.wait_for_state("connected; r:staff: not allowed")
        push(folder, "user", "berta", '{"n":1}')
        push(folder, "room", "lobby", '{"n":2}')
        browser.wait_for('u:berta 1 {"n":1}', 'r:lobby 1 {"n":2}')
        browser.driver.delete_all_cookies()
        browser.driver.refresh()
        browser.wait_for_state("no token")
    finally:
        browser.driver.quit()


def test_a_python_client_is_in(folder: Path, backend: str, tmp_path: Path) -> None:
    """As it stands, with the login of its own."""
    code = blocks("python")[2].replace("127.0.0.1:8080", f"127.0.0.1:{TCP}").replace("http://127.0.0.1:5000", backend)
    (tmp_path / "device.py").write_text(code)
    with started([sys.executable, "-u", "device.py"], tmp_path) as (process, out, err):
        wait_until(lambda: "State(name='connected'" in out.read_text() or process.poll() is not None, "it is in")
        push(folder, "user", "anna", "for the device")
        wait_until(lambda: "body=b'for the device'" in out.read_text(), "it has got it")
        process.kill()
    assert err.read_text() == ""
