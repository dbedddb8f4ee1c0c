"""kill -9 of every kind of node, under load: what HTTP accepted arrives at every client that stayed connected."""

from __future__ import annotations

import signal

import pytest

from tests.fault.load import Publisher, check, subscribe
from tests.harness import Client, running, wait_until
from zim.fabric.sharding import Shards


@pytest.mark.parametrize("kind", ["job", "logic"])
def test_a_job_or_a_logic_dies_and_nothing_is_lost(kind: str) -> None:
    with running(routers=2, logics=2, jobs=2, comets=2) as fabric:
        subscribers = subscribe(fabric, 100)
        publisher = Publisher(fabric, rate=100)
        publisher.push_more(20)
        for name in (f"{kind}-1", f"{kind}-2"):
            if kind == "job":  # so that there is something in it to lose
                fabric.kill(name, signal.SIGSTOP)
                publisher.push_more(20)
            pid = fabric.kill(name)
            publisher.push_more(20)
            wait_until(lambda n=name, p=pid: fabric.pid(n) not in (0, p), f"{name} runs again")  # type: ignore[misc]
            publisher.push_more(20)
        check(subscribers, publisher.stop())


def test_a_comet_dies_and_the_users_of_the_other_do_not_notice() -> None:
    with running(routers=2, logics=2, jobs=2, comets=2) as fabric:
        subscribers = subscribe(fabric, 100)
        publisher = Publisher(fabric, rate=100)
        publisher.push_more(20)
        fabric.kill("comet-1")
        wait_until(lambda: fabric.count("server") == {2: 50}, "its sessions are gone from the counts")
        wait_until(lambda: "node ready again node=comet-1" in fabric.log, "it listens again")
        again = Client(fabric.tcp["comet-1"], "1000")
        publisher.push_more(20)
        fabric.post("/1/push?uid=1000", b'{"n":0}')
        wait_until(lambda: b'{"n":0}' in again.bodies, "who comes back is reachable")
        check([s for s in subscribers if s.comet == "comet-2"], publisher.stop())
        assert set(publisher.answers) == {200}


def test_a_router_dies_and_the_directory_is_whole_again() -> None:
    with running(routers=2, logics=2, jobs=2, comets=2) as fabric:
        subscribers = subscribe(fabric, 100)
        for name in ("router-1", "router-2"):
            pid = fabric.kill(name)
            wait_until(lambda n=name, p=pid: fabric.pid(n) not in (0, p), f"{name} runs again")  # type: ignore[misc]
            wait_until(lambda: fabric.count("server") == {1: 50, 2: 50}, "all sessions are known")
            assert fabric.count("room") == {1: 100}
        publisher = Publisher(fabric, rate=100)
        publisher.push_more(20)
        check(subscribers, publisher.stop())


def test_a_router_that_is_away_is_said_to_be() -> None:
    with running(routers=2) as fabric:
        fabric.kill("router-2", signal.SIGSTOP)
        assert fabric.request("GET", "/1/count?type=room") == (503, {"ret": 65535})
        owner = {Shards(["router-1", "router-2"]).of(f"u:{uid}"): uid for uid in range(10)}
        assert fabric.request("POST", f"/1/push?uid={owner['router-1']}", b"x") == (200, {"ret": 1})
        assert fabric.request("POST", f"/1/push?uid={owner['router-2']}", b"x")[0] == 504
        fabric.kill("router-2", signal.SIGCONT)
        wait_until(lambda: fabric.request("GET", "/1/count?type=room")[0] == 200, "it is back")
        assert "Traceback" not in fabric.log
