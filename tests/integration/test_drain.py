"""Nodes that are drained while people are connected and pushes come: real processes, and zim's own client.

Nobody who speaks zim's protocol may miss anything, or get anything twice.
"""

from __future__ import annotations

import http.client
import json
import math
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import gevent
import pytest

from tests.harness import Client, Fabric, running, wait_until
from tests.zim_client import ZimClient
from zim.client import Listener, Message
from zim.client.values import Gap, NotRecovered, State
from zim.protocol.frame import Op
from zim.supervisor.control import ask, control_path

PEOPLE = 60  # the fabric, its clients and the pushes share one machine's cores


class Person:
    """A listener in a greenlet.

    Attributes:
        got: bodies of the room's pushes, in the order in which they came.
        lost: what it was told that it does not get.
        places: addresses of comets where it was connected, one after the other.
    """

    def __init__(self, uid: int, addresses: list[str]) -> None:
        self.got: list[int] = []
        self.lost: list[Any] = []
        self.places: list[str] = []
        self._listener = Listener(addresses, str(uid), rooms=["a"], on_state=self._on_state)
        self._greenlet = gevent.spawn(self._run)

    def _on_state(self, state: State) -> None:
        if state.name == "connected":
            self.places.append(state.address)

    def _run(self) -> None:
        for event in self._listener:
            if isinstance(event, Message) and event.stream == "r:a":
                self.got.append(json.loads(event.body))
            elif isinstance(event, Gap | NotRecovered):
                self.lost.append(event)

    def close(self) -> None:
        self._listener.close()
        self._greenlet.join(10)


class Pushes:
    """Numbers for room a, one after the other, over connections that stay open as long as the logic lets them.

    Attributes:
        made: how many were accepted; refused: answers that were no success; broken: connections that gave no answer.
    """

    def __init__(self, fabric: Fabric, pause_s: float = 0.02) -> None:
        self.made = 0
        self.refused: list[Any] = []
        self.broken: list[str] = []
        self._addresses = list(fabric.http.values())
        self._is_over = False
        self._pause_s = pause_s
        self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        turn = 0
        while not self._is_over:
            address = self._addresses[turn % len(self._addresses)]
            turn += 1
            with closing(http.client.HTTPConnection(address, timeout=20)) as connection:
                self._push_over(connection)

    def _push_over(self, connection: http.client.HTTPConnection) -> None:
        is_open = True
        while is_open and not self._is_over:
            document = json.dumps({"to": {"rooms": ["a"]}, "body": self.made, "id": f"push-{self.made}"})
            try:
                connection.request("POST", "/api/push", document, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                text = answer.read()
            except ConnectionRefusedError:  # nobody listens: what a balancer takes the next one for
                return
            except (OSError, http.client.HTTPException) as e:
                self.broken.append(repr(e))
                return
            if answer.status == 200:
                self.made += 1
            else:
                self.refused.append((answer.status, text))
            is_open = answer.getheader("Connection") != "close"
            gevent.sleep(self._pause_s)

    def stop(self) -> int:
        """No more; returns how many were accepted."""
        self._is_over = True
        self._greenlet.get(timeout=30)
        return self.made


def zim(fabric: Fabric, *words: str) -> tuple[int, str]:
    """A command, with the topology; its exit code and all that it says."""
    command = [sys.executable, "-m", "zim", words[0], "--topology", str(fabric.file), *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def ask_admin(fabric: Fabric, node: str, method: str, path: str, origin: str = "") -> tuple[int, str]:
    with closing(http.client.HTTPConnection(fabric.admin[node], timeout=20)) as connection:
        connection.request(method, path, headers={"Origin": origin} if origin else {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def statuses(fabric: Fabric) -> dict[str, dict[str, Any]]:
    said = json.loads(zim(fabric, "status", "--json")[1])
    return {one["node"]: one for one in said["nodes"]}


@contextmanager
def people(fabric: Fabric, count: int, at: Callable[[int], list[str]]) -> Iterator[list[Person]]:
    """So many who listen, once all are there."""
    found = [Person(100 + n, at(n)) for n in range(count)]
    try:
        wait_until(lambda: all(one.places for one in found), "everybody is connected", 60)
        yield found
    finally:
        for one in found:
            one.close()


def check_all_got(found: list[Person], made: int) -> None:
    """Everybody got every number once, in order."""
    wait_until(lambda: all(len(one.got) >= made for one in found), f"all have got {made}", 60)
    for one in found:
        assert one.lost == []
        assert one.got == list(range(made)), [n for n, times in Counter(one.got).items() if times > 1]


def test_a_comet_is_drained_and_nobody_misses_anything() -> None:
    with running(comets=3, comet={"drain_per_s": 60}, has_admin=True) as fabric:
        tcp = list(fabric.tcp.values())
        goim = [Client(fabric.tcp["comet-1"], str(n)) for n in range(5)]
        goim += [Client(fabric.ws["comet-1"], str(n), is_ws=True) for n in range(5, 10)]
        with people(fabric, PEOPLE, lambda n: tcp[n % 3 :] + tcp[: n % 3]) as found:
            pushes = Pushes(fabric)
            wait_until(lambda: pushes.made > 20, "pushes come")
            code, said = zim(fabric, "drain", "comet-1")
            assert code == 0, said
            assert f"zim start comet-1 --topology {fabric.file} brings it back" in said
            assert all(client.is_closed for client in goim)
            assert {client.close_code for client in goim} == {0, 1001}  # goim's TCP has no word for it
            wait_until(lambda: pushes.made > 150, "pushes come")
            check_all_got(found, pushes.stop())
            there = [one for n, one in enumerate(found) if n % 3 == 0]
            assert all(one.places[0] == tcp[0] and one.places[1:] and tcp[0] not in one.places[1:] for one in there)
            assert all(len(one.places) == 2 for one in there)
            assert all(len(one.places) == 1 for one in found if one not in there)
            status = statuses(fabric)
            assert (status["comet-1"]["state"], status["comet-1"]["pid"]) == ("drained", 0)
            assert pushes.refused == []
        code, said = zim(fabric, "status")
        assert code == 0, said  # that others miss it is as it should be
        assert fabric.pid("comet-1") == 0  # it is not started again
        assert "node died" not in fabric.log
        assert "not all is reported" not in fabric.log
        code, said = zim(fabric, "start", "comet-1")
        assert code == 0, said
        assert statuses(fabric)["comet-1"]["state"] == "ready"
        ZimClient(fabric.tcp["comet-1"], "7")
        ledger = fabric.get("/api/ledger")
        assert (ledger["balanced"], ledger["unknown"]) == (True, 0)
        assert fabric.stop() == 0


def test_a_client_is_told_where_to_go_and_a_comet_that_is_drained_lets_nobody_in() -> None:
    with running(comets=2, comet={"drain_per_s": 1}, has_admin=True) as fabric:
        first = [ZimClient(fabric.tcp["comet-1"], str(n), is_ws=False) for n in range(2)]
        third = ZimClient(fabric.ws["comet-1"], "9", is_ws=True)
        for n in range(300):  # for minutes, at one a second
            Client(fabric.tcp["comet-1"], str(n))
        assert ask_admin(fabric, "comet-1", "POST", "/drain", "https://evil.example")[0] == 403
        assert ask_admin(fabric, "comet-1", "POST", "/drain") == (202, "comet-1 is being drained\n")
        wait_until(lambda: statuses(fabric)["comet-1"]["state"] == "draining", "zim up has heard")
        with pytest.raises(ConnectionRefusedError):
            Client(fabric.tcp["comet-1"])
        status, text = ask_admin(fabric, "comet-1", "GET", "/readyz")
        assert (status, "it is being drained" in text) == (503, True)
        assert zim(fabric, "drain", "comet-1", "--per-second", "1000")[0] == 0  # it need not take so long
        assert statuses(fabric)["comet-1"]["state"] == "drained"
        for client, to in [(first[0], fabric.tcp), (first[1], fabric.tcp), (third, fabric.ws)]:
            said = json.loads(client.take(Op.DISCONNECT).body)
            address = f"ws://{to['comet-2']}/sub" if to is fabric.ws else to["comet-2"]
            assert 0.0 <= said.pop("after_s") < 1.0
            assert said == {"reason": "the comet is being drained", "code": 4002, "to": [address]}
        assert third.close_code == 4002
        code, said_ = zim(fabric, "drain", "comet-2")
        assert code == 1
        assert "without comet-2 its clients are cut off" in said_
        assert fabric.pid("comet-2")
        assert zim(fabric, "drain", "comet-7")[1].startswith("zim drain: no node comet-7 runs here; there are router-1")


def test_a_logic_under_load_is_drained_and_publishers_see_nothing_of_it() -> None:
    with running(logics=2) as fabric, people(fabric, 5, lambda n: list(fabric.tcp.values())) as found:
        pushes = Pushes(fabric, 0.005)
        wait_until(lambda: pushes.made > 20, "pushes come")
        for name in ("logic-1", "logic-2"):
            code, said = zim(fabric, "drain", name)
            assert code == 0, said
            assert zim(fabric, "start", name)[0] == 0
        more = pushes.made + 20
        wait_until(lambda: pushes.made > more, "pushes come")
        check_all_got(found, pushes.stop())
        assert (pushes.refused, pushes.broken) == ([], [])


def test_a_job_is_drained_under_load() -> None:
    with running(jobs=2, comets=2) as fabric, people(fabric, 10, lambda n: list(fabric.tcp.values())) as found:
        pushes = Pushes(fabric, 0.005)
        wait_until(lambda: pushes.made > 20, "pushes come")
        for name in ("job-1", "job-2"):
            assert zim(fabric, "drain", name)[0] == 0
            assert zim(fabric, "start", name)[0] == 0
        more = pushes.made + 20
        wait_until(lambda: pushes.made > more, "pushes come")
        check_all_got(found, pushes.stop())
        assert (pushes.refused, pushes.broken) == ([], [])


def test_a_router_with_a_log_of_its_own_is_drained_only_with_consent() -> None:
    with running() as fabric:
        code, said = zim(fabric, "drain", "router-1")
        assert code == 1
        assert "they pause until it is back" in said
        assert "--yes does it all the same" in said
        assert zim(fabric, "drain", "router-1", "--yes")[0] == 0
        assert statuses(fabric)["router-1"]["state"] == "drained"
        assert zim(fabric, "start", "router-1")[0] == 0
        wait_until(lambda: fabric.push({"to": {"users": ["7"]}, "body": 1})[0] == 200, "it is back")


def test_orders_that_make_no_sense_are_answered_and_change_nothing() -> None:
    senseless: list[tuple[str, dict[str, Any], str]] = [
        ("drain", {"node": "comet-1", "per_s": math.inf}, "per_s is inf; right is a whole number, at most 1,000,000"),
        ("drain", {"node": "comet-1", "per_s": True}, "per_s is True; right is"),
        ("drain", {"node": "comet-1", "per_s": -1}, "per_s is -1; right is"),
        ("drain", {"node": ["comet-1"]}, "no node ['comet-1'] runs here"),
        ("restart", {"nodes": 5}, "nodes is 5; right is a list of names"),
        ("restart", {"nodes": ""}, "nodes is ''; right is a list of names"),
        ("restart", {"nodes": ["comet-9"]}, "no node comet-9 runs here"),
        ("restart", {"nodes": [["comet-1"]]}, "no node ['comet-1'] runs here"),
        ("start", {}, "no node None runs here"),
    ]
    with running() as fabric:
        for do, asked, problem in senseless:
            said = ask(control_path(fabric.file.parent / "var", None), do, 5.0, **asked)
            assert said["problems"][0].startswith(problem)
        assert {one["state"] for one in statuses(fabric).values()} == {"ready"}


def test_a_drain_that_is_cut_short_ends_all_the_same_and_says_so() -> None:
    with running(comets=2, comet={"drain_per_s": 1}) as fabric:
        for n in range(5):
            Client(fabric.tcp["comet-1"], str(n))
        assert zim(fabric, "drain", "comet-1", "--no-wait")[0] == 0
        fabric.kill("comet-1", signal.SIGKILL)
        wait_until(lambda: statuses(fabric)["comet-1"]["state"] == "drained", "zim up has seen it")
        assert statuses(fabric)["comet-1"]["why"] == "ended before it was done: SIGKILL"
        assert zim(fabric, "start", "comet-1")[0] == 0
        wait_until(lambda: zim(fabric, "status")[0] == 0, "it is registered, and answers")


def test_the_whole_fabric_is_restarted_under_load() -> None:
    """Embedded logs: pushes for a router's streams wait or are refused while it restarts, so that needs consent."""
    with running(routers=2, logics=2, jobs=2, comets=2, comet={"drain_per_s": 100}) as fabric:
        tcp = list(fabric.tcp.values())
        with people(fabric, PEOPLE, lambda n: tcp[n % 2 :] + tcp[: n % 2]) as found:
            before = statuses(fabric)
            code, said = zim(fabric, "restart", "--rolling")
            assert code == 1, said
            pushes = Pushes(fabric)
            wait_until(lambda: pushes.made > 20, "pushes come")
            code, said = zim(fabric, "restart", "--rolling", "--yes")
            assert code == 0, said
            assert "8 restarted" in said
            more = pushes.made + 20
            wait_until(lambda: pushes.made > more, "pushes come")
            check_all_got(found, pushes.stop())
            after = statuses(fabric)
            assert all(one["state"] == "ready" and one["pid"] != before[name]["pid"] for name, one in after.items())
            reconnects = sum(len(one.places) - 1 for one in found)
            assert reconnects <= 1.1 * (1 + 1 / 2) * len(found), [one.places for one in found]
            assert pushes.broken == []
        assert "node died" not in fabric.log
