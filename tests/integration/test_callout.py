"""The page "sessions by callout", word for word but for the ports: its application, tokens, a cookie, no answers."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

import pytest

from tests.harness import is_listening, wait_until
from tests.integration.test_pages import Browser
from tests.pages import Page, assert_says, environment, follow, free_offset, listening, ran, sh, told, up
from tests.programs import ROOT, program
from zim.client import Listener, Message

PAGE = Page("callout", free_offset())
APP = f"127.0.0.1:{PAGE.port(5000)}"
TCP, WS = f"127.0.0.1:{PAGE.port(8080)}", f"127.0.0.1:{PAGE.port(8090)}"


@contextmanager
def application(folder: Path) -> Iterator[None]:
    """The page's, as the page runs it."""
    _, line = PAGE.blocks("sh", "The application")
    with (folder / "app.log").open("ab") as log:
        command = ["sh", "-c", f"exec {line}"]
        process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=log, stderr=log)
    try:
        wait_until(lambda: is_listening(APP) or process.poll() is not None, "the application listens")
        assert process.poll() is None, (folder / "app.log").read_text()
        yield
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the page's `zim up` runs. Its application does not."""
    program("curl", "curl")
    found = PAGE.begin(tmp_path_factory.mktemp("callout"), "The application")
    (text,) = PAGE.blocks("python")
    (found / "app.py").write_text(text)
    (setup,) = PAGE.blocks("sh", "zim")
    assert "OK: topology.toml describes 4 nodes." in ran(PAGE.setup(setup), found)
    with up(found):
        yield found


def asked(folder: Path, path: str) -> int:
    """How often the application was."""
    return (folder / "app.log").read_text().count(f'"POST {path} ')


def push(where: str, name: str, folder: Path, body: str = "hello") -> None:
    ran(f"zim push --key-file secrets/app.key {where} {name} {body}", folder)


def test_try_it(folder: Path) -> None:
    allowed, refused, pushed, stranger = PAGE.blocks("sh", "Try it")
    with application(folder):
        *asking, (listen, says) = told(allowed)
        follow("".join(f"{command}\n# {text}" if text else f"{command}\n" for command, text in asking), folder)
        with listening(listen, folder, "members only") as out:
            assert_says(out.read_text(), says)
            push("room", "lobby", folder, "one")
            push("room", "chat-2", folder, "two")
            push("room", "chat-1", folder, "three")
            push("user", "anna", folder, "four")
            ran(pushed, folder)
            wait_until(lambda: "hello" in out.read_text(), "all has come")
            assert out.read_text().splitlines()[2:] == ["one", "three", "four", "hello"]
        follow(stranger, folder)
        follow(refused, folder)
        assert sh(told(refused)[-1][0], folder).returncode == 1


def test_answers_hold_as_long_as_they_say(folder: Path) -> None:
    """The first login asks; the second one is answered from the cache; who is logged out gets in until it is over."""
    with application(folder):
        token = ran(f"curl -s -d user=carl http://{APP}/login", folder)
        before = asked(folder, "/zim/connect")
        for _ in range(3):
            with Listener(TCP, token) as listener:
                push("user", "carl", folder)
                (event,) = islice(listener, 1)
                assert isinstance(event, Message)
        assert asked(folder, "/zim/connect") == before + 1
    # Another one of the same name, which knows no sessions.
    with application(folder), Listener(TCP, token) as listener:
        assert isinstance(next(iter(listener)), Message)


def test_a_browser_with_its_cookie(folder: Path, tmp_path: Path) -> None:
    (line,) = PAGE.blocks("toml", "A cookie")
    topology = folder / "topology.toml"
    text, count = re.subn(r'^ws = ".*"$', line.strip(), topology.read_text(), flags=re.MULTILINE)
    assert count == 1
    topology.write_text(text)
    (reload,) = PAGE.blocks("sh", "A cookie")
    ran(reload, folder)
    # A short time, so that the test sees its end.
    app = folder / "app.py"
    code = app.read_text()
    assert '"expires_s": 3600, "cache_s": 60' in code
    app.write_text(code.replace('"expires_s": 3600, "cache_s": 60', '"expires_s": 4'))
    how_to = (ROOT / "docs" / "how-to" / "browser.md").read_text()
    (folder / "static").mkdir()
    for name, language in (("zim.js", "js"), ("page.html", "html")):
        (block,) = re.findall(rf"^```{language}\n(.*?)^```", how_to, re.DOTALL | re.MULTILINE)
        (folder / "static" / name).write_text(block.replace("token: () => uid", "token: () => undefined"))
    browser = Browser(tmp_path)
    page = f"http://{APP}/static/page.html?uid=berta&comet=ws://{WS}/sub"
    login = "fetch('/login', {method: 'POST', body: new URLSearchParams({user: 'berta'})}).then(arguments[0])"
    try:
        with application(folder):
            browser.driver.get(page)
            browser.wait_for_state("refused: login refused: a token is needed")
            browser.driver.execute_async_script(login)
            assert browser.driver.execute_script("return document.cookie") == ""
            browser.driver.get(page)
            browser.wait_for_state("connected")
            push("user", "berta", folder, "1")
            push("room", "lobby", folder, "2")
            wait_until(lambda: re.fullmatch(r"u:berta 1 1\nr:lobby \d 2", "\n".join(browser.lines())), "both are there")
            before = asked(folder, "/zim/connect")
            wait_until(lambda: asked(folder, "/zim/connect") > before, "its token has ended, and it comes back", 60)
            browser.wait_for_state("connected")
            push("user", "berta", folder, "3")
            wait_until(lambda: browser.lines()[2:] == ["u:berta 2 3"], "it goes on")
            assert 'reason="token expired"' in (folder / "up" / "err").read_text()
    finally:
        browser.driver.quit()
        app.write_text(code)


def test_the_application_is_away(folder: Path) -> None:
    """Who is there stays, nobody is let in and nobody refused for good; the circuit opens; then all is as before."""
    (says,) = PAGE.blocks("text")
    (metrics,) = PAGE.blocks("sh", "When the application is slow, or away")
    ((command, text),) = told(metrics)
    ran("echo of-nobody > nobody.token", folder)
    with ExitStack() as stack:
        with application(folder):
            ran(f"curl -s -d user=dora http://{APP}/login > dora.token", folder)
            dora = stack.enter_context(listening("zim listen --token-file dora.token", folder, name="dora"))
        nobody = "zim listen --token-file nobody.token"
        out = stack.enter_context(listening(nobody, folder, "again in", "nobody"))
        assert_says(re.sub(r"in [\d.]+ s$", "in 0.4 s", out.read_text().splitlines()[0]), says)
        wait_until(lambda: 'circuit_open{callout="connect"} 1.0' in ran(command, folder), "the circuit is open")
        assert_says(ran(command, folder), text)
        push("user", "dora", folder, "stays")
        wait_until(lambda: "stays" in dora.read_text(), "who is there gets it")
        assert "lost" not in dora.read_text()
        with application(folder):
            wait_until(lambda: "login refused: log in first" in out.read_text(), "it is asked again", 60)


def test_a_room_that_the_application_cannot_tell_of_is_joined_when_it_can(folder: Path) -> None:
    with ExitStack() as stack:
        listen = "zim listen --token-file eva.token --room lobby --room chat-1"
        app = folder / "app.py"
        code = app.read_text()
        app.write_text(code.replace('{"anna", "berta"}', '{"anna", "berta", "eva"}'))
        stack.callback(app.write_text, code)
        with application(folder):
            ran(f"curl -s -d user=eva http://{APP}/login > eva.token", folder)
            with listening(listen, folder, name="before"):
                pass
        out = stack.enter_context(listening(listen, folder, "not joined, retrying", "eva"))
        assert "nothing of r:chat-1 comes: not joined, retrying" in out.read_text()
        push("room", "lobby", folder, "one")
        wait_until(lambda: "one" in out.read_text(), "the others are joined")
        with application(folder):
            until = "delivered to 1 session"
            command = "zim push --key-file secrets/app.key room chat-1 two --wait 1"
            wait_until(lambda: until in ran(command, folder), "it is asked again, and joined", 60)
            wait_until(lambda: "two" in out.read_text(), "it has come")
