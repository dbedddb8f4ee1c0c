"""Names in links: resolved outside of libzmq, as often as it takes, and wherever they come to point."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gevent
import pytest

from tests.harness import free_ports, wait_until
from zim.net import names
from zim.net.names import follow, host_and_port, is_same, look_up
from zim.net.transport import Dealer, Server


@pytest.mark.parametrize(
    ("endpoint", "found"),
    [
        ("tcp://127.0.0.1:7270", None),
        ("tcp://[::1]:7270", None),
        ("ipc:///run/zim/router-1", None),
        ("tcp://localhost:7270", ("localhost", 7270)),
        ("tcp://router.example.com:1", ("router.example.com", 1)),
    ],
)
def test_what_is_a_name(endpoint: str, found: tuple[str, int] | None) -> None:
    assert host_and_port(endpoint) == found


def test_one_address_in_two_ways() -> None:
    assert is_same("tcp://127.0.0.1:1", "tcp://[::ffff:127.0.0.1]:1")
    assert is_same("tcp://[::1]:1", "tcp://[0::1]:1")
    assert not is_same("tcp://127.0.0.1:1", "tcp://127.0.0.1:2")
    assert not is_same("tcp://127.0.0.1:1", "tcp://127.0.0.2:1")


def test_looking_up() -> None:
    assert "tcp://127.0.0.1:7270" in look_up("localhost", 7270)
    assert look_up("::1", 7270) == ["tcp://[::1]:7270"]
    for name in ("no-such-host.invalid", "a..b", "x" * 64):
        with pytest.raises(OSError, match=r"\w"):
            look_up(name, 7270)


MANY_AT_ONCE = """
from gevent import monkey
monkey.patch_all()
import sys
from gevent.monkey import get_original
import gevent
from zim.net.names import look_up

thread = get_original("_thread", "get_ident")
hub, imported = thread(), []
sys.addaudithook(lambda event, args: imported.append(args[0]) if event == "import" and thread() != hub else None)
asked = [gevent.spawn(look_up, "localhost", port) for port in range(1, 9)]
gevent.joinall(asked, timeout=30)
print(sum(one.successful() for one in asked), imported)
"""


def test_of_many_lookups_at_once_none_is_forgotten() -> None:
    """The first ones of a process. What Python imports in threads, two of them may import, and wait for ever."""
    told = subprocess.run([sys.executable, "-c", MANY_AT_ONCE], capture_output=True, check=True, text=True).stdout
    assert told == "8 []\n"


class Names:
    """What a name means, as a test says; and how often somebody asked."""

    def __init__(self, found: list[str] | OSError) -> None:
        self.found, self.asked = found, 0

    def look_up(self, host: str, port: int) -> list[str]:
        assert (host, port) == ("router.example", 7270)
        self.asked += 1
        if isinstance(self.found, OSError):
            raise self.found
        return self.found


class Link:
    """A link to router.example, in its greenlets."""

    def __init__(self, meaning: Names) -> None:
        self.dealer = Dealer("tcp://router.example:7270")
        self.changes: list[bool | str] = []
        self.got: list[bytes] = []
        self.greenlets: list[gevent.Greenlet[..., Any]] = [
            gevent.spawn(self._watch),
            gevent.spawn(self.dealer.receive, self.got.append),
            gevent.spawn(follow, self.dealer, "router-1", meaning.look_up),
        ]

    def _watch(self) -> None:
        for is_connected in self.dealer.watch():
            self.changes.append(is_connected)

    def close(self) -> None:
        gevent.killall(self.greenlets)
        self.dealer.close()


class Echo:
    """Answers with its address, while it is there."""

    def __init__(self, endpoint: str) -> None:
        self._server = Server(endpoint)
        self._greenlet = gevent.spawn(
            self._server.receive, lambda envelope, *_: self._server.send(envelope, endpoint.encode())
        )

    def close(self) -> None:
        self._server.close()
        self._greenlet.join()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "TRY_S", 0.2)
    monkeypatch.setattr(names, "MOST_S", 0.2)


def answers(link: Link, endpoint: str) -> bool:
    """Whoever is connected is the one there."""
    link.dealer.send(b"who?")
    gevent.sleep(0.02)
    return bool(link.got) and link.got[-1] == endpoint.encode()


@pytest.mark.usefixtures("quick")
def test_a_name_that_means_nothing_is_told_once_and_tried_until_it_does(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "zim.net.names")
    endpoint = f"tcp://127.0.0.1:{free_ports(1)[0]}"
    meaning = Names(OSError(-2, "Name or service not known"))
    echo, link = Echo(endpoint), Link(meaning)
    wait_until(lambda: meaning.asked > 3, "it is tried again")
    assert not link.dealer.send(b"nobody is there")
    (told,) = caplog.records
    assert (told.message, vars(told)["peer"], vars(told)["host"]) == (
        "a peer's name cannot be resolved",
        "router-1",
        "router.example",
    )
    meaning.found = [endpoint]
    wait_until(lambda: answers(link, endpoint), "it is connected")
    assert [r.message for r in caplog.records[1:]] == ["a peer's name is resolved"]
    link.close()
    echo.close()


@pytest.mark.usefixtures("quick")
def test_a_peer_that_moved_is_found_and_one_that_restarts_stays() -> None:
    port = free_ports(1)[0]
    here, there = f"tcp://127.0.0.1:{port}", f"tcp://127.0.0.2:{port}"
    meaning = Names([here])
    echo, link = Echo(here), Link(meaning)
    wait_until(lambda: answers(link, here), "it is connected")
    asked = meaning.asked
    echo.close()
    wait_until(lambda: meaning.asked > asked + 2, "a link that broke looks its name up anew")
    echo = Echo(here)
    wait_until(lambda: link.dealer.is_connected and answers(link, here), "it is there again")
    echo.close()
    meaning.found = [there]
    echo = Echo(there)
    wait_until(lambda: answers(link, there), "it has moved")
    assert link.changes[-1]
    back = Echo(here)  # nobody is connected there any more
    link.dealer.send(b"who?")
    wait_until(lambda: answers(link, there), "one peer, as before")
    for one in (link, echo, back):
        one.close()


@pytest.mark.usefixtures("quick")
def test_a_name_with_several_addresses() -> None:
    port = free_ports(1)[0]
    first, second = f"tcp://127.0.0.1:{port}", f"tcp://127.0.0.2:{port}"
    echo, link = Echo(second), Link(Names([first, second]))
    wait_until(lambda: answers(link, second), "the one that is served is found")
    link.close()
    echo.close()


def test_a_real_name() -> None:
    port = free_ports(1)[0]
    echo = Echo(f"tcp://127.0.0.1:{port}")
    dealer = Dealer(f"tcp://localhost:{port}")
    greenlets: list[Any] = [gevent.spawn(list, dealer.watch()), gevent.spawn(follow, dealer, "router-1")]
    assert dealer.wait(is_connected=True, timeout_s=20)
    gevent.killall(greenlets)
    dealer.close()
    echo.close()
