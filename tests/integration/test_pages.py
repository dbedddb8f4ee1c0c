"""Pages in a real browser: the example's, and the client of docs/how-to/browser.md as it stands there."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from tests.harness import Fabric, free_ports, running, wait_until
from tests.integration.test_drain import zim
from tests.programs import ROOT, program, serving
from tests.unit.client.comet import Fabric as Repeating
from tests.unit.client.comet import ws_comet

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


class Browser:
    """Chromium, with one page."""

    def __init__(self, folder: Path, *flags: str) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = program("chromium", "chromium")
        for flag in (*FLAGS, *flags, f"--user-data-dir={folder}"):
            options.add_argument(flag)
        service = Service(program("chromedriver", "chromium-driver"))
        self.driver = webdriver.Chrome(options=options, service=service)

    def lines(self) -> list[str]:
        """What the list on the page has."""
        return [item.text for item in self.driver.find_elements(By.CSS_SELECTOR, "#list li")]

    def wait_for(self, *lines: str) -> None:
        wait_until(lambda: self.lines() == list(lines), f"{lines} on the page")

    def wait_for_state(self, state: str) -> None:
        wait_until(lambda: state in self.driver.find_element(By.ID, "state").text, f"the page is {state}")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("browser"))
    yield found
    found.driver.quit()


@pytest.fixture(scope="module")
def fabric() -> Iterator[Fabric]:
    with running(comets=2) as found:
        yield found


@pytest.fixture(scope="module")
def page(fabric: Fabric, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the how-to's page is."""
    folder = tmp_path_factory.mktemp("page")
    text = (ROOT / "docs" / "how-to" / "browser.md").read_text()
    for name, language in (("zim.js", "js"), ("page.html", "html")):
        (block,) = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        (folder / name).write_text(block)
    (port,) = free_ports(1)
    with serving([sys.executable, "-m", "http.server", str(port), "--directory", str(folder)], port, folder):
        yield f"http://127.0.0.1:{port}/page.html?comet=ws://{fabric.ws['comet-1']}/sub"


def push(fabric: Fabric, body: object, **to: list[str]) -> None:
    assert fabric.push({"to": to, "body": body})[0] == 200


def test_the_example(fabric: Fabric, browser: Browser, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    options = ["--port", str(port), "--comet", f"ws://{fabric.ws['comet-1']}/sub"]
    with serving([sys.executable, "examples/browser.py", *options], port, tmp_path):
        push(fabric, {"text": "<b>early</b>"}, users=["61"])
        browser.driver.get(f"http://127.0.0.1:{port}/?uid=61")
        browser.wait_for('u:61 1 {"text":"<b>early</b>"}')
        push(fabric, "é", rooms=["lobby"])
        browser.wait_for('u:61 1 {"text":"<b>early</b>"}', 'r:lobby 1 "é"')
        browser.driver.get("about:blank")


def test_the_page_of_the_how_to(fabric: Fabric, browser: Browser, page: str) -> None:
    browser.driver.get(f"{page}&uid=62")
    browser.wait_for_state("connected")
    push(fabric, 1, users=["62"])
    browser.wait_for("u:62 1 1")
    wait_until(lambda: fabric.get("/api/users/62/unread")["unread"] == 0, "it is acknowledged")

    fabric.kill("comet-1")
    push(fabric, 2, users=["62"])
    browser.wait_for("u:62 1 1", "u:62 2 2")
    browser.wait_for_state("connected")
    wait_until(lambda: fabric.get("/api/users/62/unread")["unread"] == 0, "it is acknowledged")

    browser.driver.refresh()
    browser.wait_for_state("connected")
    push(fabric, 3, users=["62"])
    browser.wait_for("u:62 3 3")


def test_the_page_names_rooms_that_it_is_not_in(browser: Browser, page: str) -> None:
    comet = Repeating()
    comet.forbidden.add("lobby")
    with ws_comet(comet) as address:
        browser.driver.get(f"{page.partition('?')[0]}?uid=7&comet={address}/sub")
        browser.wait_for_state("connected; r:lobby: not allowed")
        browser.driver.get("about:blank")


def test_it_drops_repeats(browser: Browser, page: str) -> None:
    behind = Repeating()
    behind.repeats = 1
    with ws_comet(behind) as comet:
        browser.driver.get(f"{page.partition('?')[0]}?uid=7&comet={comet}/sub")
        browser.wait_for_state("connected")
        for n in (b"1", b"2", b"3"):
            behind.push("u:7", n)
        behind.wait_for(lambda: behind.cursors.get("u:7") == 3)
        browser.wait_for("u:7 1 1", "u:7 2 2", "u:7 3 3")
        browser.driver.get("about:blank")


def test_it_comes_back_when_the_whole_fabric_was_away(fabric: Fabric, browser: Browser, page: str) -> None:
    browser.driver.get(f"{page}&uid=63")
    browser.wait_for_state("connected")
    fabric.stop()
    browser.wait_for_state("disconnected")
    fabric.start()
    push(fabric, "back", users=["63"])
    browser.wait_for('u:63 1 "back"')


def test_it_stays_away_where_it_is_refused(browser: Browser, page: str) -> None:
    browser.driver.get(f"{page}&uid=nobody")
    browser.wait_for_state("refused: login refused")


def test_it_goes_where_a_comet_that_is_drained_sends_it(fabric: Fabric, browser: Browser, page: str) -> None:
    browser.driver.get(f"{page}&uid=77")
    browser.wait_for_state("connected")
    assert zim(fabric, "drain", "comet-1")[0] == 0
    wait_until(lambda: fabric.count("server").get(2) == 1, "it is at the other one")
    push(fabric, {"test": 1}, users=["77"])
    browser.wait_for('u:77 1 {"test":1}')
    browser.wait_for_state("connected")
    assert zim(fabric, "start", "comet-1")[0] == 0
    browser.driver.get(f"{page}&comet=ws://{fabric.ws['comet-2']}/sub&uid=77")  # a list: either will do
    browser.wait_for_state("connected")
