"""What nodes tell of themselves, and the ledger: on a real fabric, with clients of every fate."""

from __future__ import annotations

import http.client
import json
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq.green as zmq
from prometheus_client.parser import text_string_to_metric_families

from tests.harness import Client, Fabric, free_ports, running, wait_until
from zim import __version__

ROOT = Path(__file__).parents[2]
OUTCOMES = ("delivered", "gone", "shed", "expired", "unknown")


class Scrape:
    """One answer of a node's `/metrics`."""

    def __init__(self, fabric: Fabric, node: str) -> None:
        text = fabric.metrics(node)
        self.types = dict(re.findall(r"^# TYPE (zim_\w+) (\w+)$", text, re.MULTILINE))
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def get(self, name: str, **labels: str) -> float:
        """The value of one sample."""
        (value,) = [s.value for s in self._samples if s.name == name and s.labels == labels]
        return float(value)

    def labels(self, name: str, label: str) -> dict[str, float]:
        """Values by label."""
        return {s.labels[label]: s.value for s in self._samples if s.name == name}


def ledger(fabric: Fabric) -> dict[str, Any]:
    """`GET /api/ledger`, which balances."""
    status, found = fabric.request("GET", "/api/ledger")
    assert (status, found["balanced"], found["silent"]) == (200, True, [])
    assert found["targeted"] == sum(found[name] for name in (*OUTCOMES, "pending"))
    return dict(found)


def settled(fabric: Fabric, **expected: int) -> dict[str, Any]:
    """The ledger, once it says that."""

    def look() -> dict[str, Any] | None:
        found = ledger(fabric)
        return found if all(found[name] == n for name, n in expected.items()) else None

    try:
        found: dict[str, Any] = wait_until(look, f"the ledger has {expected}")
    except AssertionError as e:
        e.add_note(f"the ledger is {ledger(fabric)}")
        raise
    return found


def check_sums(fabric: Fabric, found: dict[str, Any]) -> None:
    """Every router's own numbers balance; over all of them they are the ledger's, and so are logic's."""
    routers = [Scrape(fabric, name) for name in fabric.names if name.startswith("router")]
    for router in routers:
        sessions = router.labels("zim_router_sessions_total", "outcome")
        assert set(sessions) == set(OUTCOMES)
        pending = router.get("zim_router_pending_sessions")
        assert router.get("zim_router_targeted_sessions") == sum(sessions.values()) + pending
    for name in OUTCOMES:
        assert sum(r.get("zim_router_sessions_total", outcome=name) for r in routers) == found[name]
    for metric, name in (
        ("zim_router_targeted_sessions", "targeted"),
        ("zim_router_pending_sessions", "pending"),
        ("zim_router_offline_users_total", "offline"),
        ("zim_router_pushes_total", "pushes"),
    ):
        assert sum(r.get(metric) for r in routers) == found[name]
    for logic in (Scrape(fabric, name) for name in fabric.http):
        assert logic.get("zim_fabric_silent_routers") == 0
        assert logic.labels("zim_fabric_sessions", "outcome") == {name: found[name] for name in OUTCOMES}
        for metric, name in (
            ("zim_fabric_targeted_sessions", "targeted"),
            ("zim_fabric_pending_sessions", "pending"),
            ("zim_fabric_offline_users", "offline"),
            ("zim_fabric_pushes", "pushes"),
        ):
            assert logic.get(metric) == found[name]


def zim_ledger(fabric: Fabric, *options: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of `zim ledger`."""
    done = subprocess.run(
        [sys.executable, "-m", "zim", "ledger", str(fabric.file), *options], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def stuck(client: Client) -> Client:
    """It reads no more."""
    client.pause()
    return client


def push(fabric: Fabric, **request: Any) -> None:
    """`POST /api/push`."""
    connection = http.client.HTTPConnection(fabric.http["logic-1"], timeout=10)
    connection.request("POST", "/api/push", json.dumps(request), {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert json.load(response)["status"] == "accepted"
    connection.close()


def test_the_docs_name_every_metric_and_its_type() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()  # this fabric has no shared log
    rows = re.findall(r"^\| `(zim_\w+)` \| (\w+) \| (?!with `\[log\]` alone)", text, re.MULTILINE)
    supervisor = f"127.0.0.1:{free_ports(1)[0]}"
    with running(has_admin=True, fabric={"admin": supervisor}) as fabric:
        fabric.admin["zim-up"] = supervisor
        told = Scrape(fabric, "zim-up").types
        for name in fabric.names:
            scrape = Scrape(fabric, name)
            told |= scrape.types
            assert f"zim_{name.partition('-')[0]}_queue_bytes" in scrape.types
    assert len(rows) == len(dict(rows))
    assert dict(rows) == told
    for name, kind in told.items():
        assert name.endswith("_total") == (kind == "counter"), name


def test_admin_answers_two_paths_and_is_in_the_ready_line() -> None:
    with running(has_admin=True) as fabric:
        for name, address in fabric.admin.items():
            fabric.http[name] = address
            assert fabric.request("GET", "/healthz", logic=name) == (200, {"status": "ok"})
            assert fabric.request("GET", "/metrics/", logic=name)[0] == 404
            assert fabric.request("POST", "/metrics", logic=name)[0] == 405
            assert fabric.request("GET", "/metrics", logic=name)[1].endswith("\n")
            assert Scrape(fabric, name).get("zim_node_info", node=name, kind=name[:-2], version=__version__) == 1
            assert re.search(rf"admin +{address}\b", fabric.log)


def test_every_fate_is_in_the_ledger_and_in_the_metrics() -> None:
    """Online on two comets, in a room, offline, too slow, gone, too late."""
    with running(routers=2, comets=2, has_admin=True, comet={"outbox_bytes": 100_000}) as fabric:
        for i in range(4):
            Client(fabric.tcp[f"comet-{i % 2 + 1}"], str(i))
        for i in range(6):  # 4 and 5 are not there
            fabric.post(f"/1/push?uid={i}", b"{}")
        fabric.post("/1/push/room?rid=1", b"{}")
        fabric.post("/1/push/all", b"{}")
        fabric.post("/1/pushs", b'{"u":[0,1,2,8,9],"m":1}')
        found = settled(fabric, targeted=4 + 4 + 4 + 3, delivered=15, pending=0, offline=4)
        check_sums(fabric, found)
        comets = [Scrape(fabric, name) for name in fabric.tcp]
        assert sum(c.get("zim_comet_deliveries_total", outcome="delivered") for c in comets) == 15
        assert sum(c.get("zim_comet_sessions") for c in comets) == 4
        logic = Scrape(fabric, "logic-1")
        assert logic.get("zim_logic_pushes_total", status="ok") == 9
        assert logic.get("zim_logic_http_requests_total", path="/1/push", status="200") == 6
        assert logic.get("zim_logic_auths_total", result="ok") == 4

        fabric.kill("job-1", signal.SIGSTOP)  # what it does not hand on in time the comet fetches too late
        push(fabric, to={"users": ["1"]}, body=1, ttl_s=0.001)
        found = settled(fabric, expired=1, pending=0)
        fabric.kill("job-1", signal.SIGCONT)
        check_sums(fabric, found)
        assert Scrape(fabric, "comet-2").get("zim_comet_deliveries_total", outcome="expired") == 1
        assert sum(Scrape(fabric, "comet-2").labels("zim_comet_fetches_total", "shard").values()) >= 1

        slow = stuck(Client(fabric.tcp["comet-1"], "10"))
        while not ledger(fabric)["shed"]:
            fabric.post("/1/push?uid=10", b"x" * 50_000)
        slow.close()
        found = settled(fabric, pending=0)
        check_sums(fabric, found)
        assert Scrape(fabric, "comet-1").get("zim_comet_closed_connections_total", reason="slow consumer") == 1
        assert Scrape(fabric, "comet-1").get("zim_comet_outbox_bytes") == 0

        stuck(Client(fabric.tcp["comet-2"], "11"))
        while Scrape(fabric, "comet-2").get("zim_comet_outbox_bytes") == 0:
            fabric.post("/1/push?uid=11", b"x" * 50_000)
        assert ledger(fabric)["pending"] > 0
        gone = found["gone"]
        fabric.kill("comet-2")
        found = settled(fabric, pending=0)
        assert found["gone"] > gone
        check_sums(fabric, found)
        assert zim_ledger(fabric)[0] == 0


def test_what_was_pending_when_a_router_died_is_unknown() -> None:
    with running(has_admin=True, comet={"outbox_bytes": 16 << 20}) as fabric:
        stuck(Client(fabric.tcp["comet-1"], "1"))
        while Scrape(fabric, "comet-1").get("zim_comet_outbox_bytes") == 0:
            fabric.post("/1/push?uid=1", b"x" * 50_000)
        fabric.post("/1/push?uid=2", b"nobody")
        pushed = settled(fabric, offline=1)["pushes"]
        wait_until(lambda: _stored(fabric)[:2] == (pushed, 1), "the router has stored it")
        pid = fabric.kill("router-1")
        wait_until(lambda: fabric.pid("router-1") not in (0, pid), "it is back")
        _, _, targeted, pending = _stored(fabric)
        assert pending > 0
        wait_until(lambda: fabric.request("GET", "/api/ledger")[1]["silent"] == [], "it answers")
        found = settled(fabric, targeted=targeted, unknown=pending, pending=0, pushes=pushed, offline=1)
        router = Scrape(fabric, "router-1")
        assert router.get("zim_router_targeted_sessions") == router.get("zim_router_sessions_total", outcome="unknown")
        assert router.get("zim_router_sessions_total", outcome="unknown") == pending
        assert router.get("zim_router_sessions_total", outcome="delivered") == 0
        assert router.get("zim_router_pushes_total") == 0
        assert Scrape(fabric, "logic-1").get("zim_fabric_sessions", outcome="delivered") == found["delivered"]
        wait_until(lambda: not Scrape(fabric, "router-1").get("zim_router_rebuilding"), "the directory is whole")
        Client(fabric.tcp["comet-1"], "3")
        fabric.post("/1/push?uid=3", b"{}")
        settled(fabric, targeted=targeted + 1, unknown=pending, pending=0, pushes=pushed + 1)


def _stored(fabric: Fabric) -> tuple[int, int, int, int]:
    """Pushes, users offline, sessions targeted and pending, as the router's file has them."""
    db = sqlite3.connect(fabric.file.parent / "var" / "router-1" / "receipts.db")
    sql = "SELECT pushes, offline, targeted, targeted - delivered - gone - shed - expired - unknown FROM totals"
    pushes, offline, targeted, pending = db.execute(sql).fetchone() or (0, 0, 0, 0)
    db.close()
    return pushes, offline, targeted, pending


def test_a_router_that_is_stopped_in_order_forgets_nothing() -> None:
    with running() as fabric:
        Client(fabric.tcp["comet-1"], "1")
        fabric.post("/1/push?uid=1", b"{}")
        before = settled(fabric, delivered=1)
        pid = fabric.kill("router-1", signal.SIGTERM)
        wait_until(lambda: fabric.pid("router-1") not in (0, pid), "it is back")
        wait_until(lambda: fabric.request("GET", "/api/ledger")[1]["silent"] == [], "it answers")
        assert ledger(fabric) == before


def test_it_balances_whatever_is_killed() -> None:
    with running(routers=2, comets=2, jobs=2, has_admin=True) as fabric:
        clients = [Client(fabric.tcp[f"comet-{i % 2 + 1}"], str(i)) for i in range(20)]
        for victim in ("job-1", "comet-1", "router-1", "comet-2", "router-2"):
            pid = fabric.pid(victim)
            for i in range(60):
                if i == 20:
                    fabric.kill(victim)
                fabric.request("POST", f"/1/push?uid={i % 20}", b"{}")
                fabric.request("POST", "/1/push/room?rid=1", b"{}")
                found = fabric.request("GET", "/api/ledger")[1]
                assert found["balanced"] or found["silent"], found
            wait_until(lambda pid=pid, victim=victim: fabric.pid(victim) not in (0, pid), "it is back")  # type: ignore[misc]
        wait_until(lambda: not fabric.request("GET", "/api/ledger")[1]["silent"], "all answer")
        settled(fabric, pending=0)
        for client in clients:
            client.close()
        code, _, err = zim_ledger(fabric, "--wait", "20")
        assert (code, err) == (0, "")


def test_the_command_says_what_it_finds_and_exits_accordingly() -> None:
    with running(routers=2, has_admin=True) as fabric:
        Client(fabric.tcp["comet-1"], "1")
        fabric.post("/1/push?uid=1", b"{}")
        fabric.post("/1/push?uid=2", b"{}")
        code, out, err = zim_ledger(fabric, "--wait", "20")
        assert (code, err) == (0, "")
        rows = {line.split()[0]: line.split()[1] for line in out.splitlines()}
        assert rows == {
            **{"pushes": "2", "targeted": "1", "delivered": "1", "gone": "0", "shed": "0", "expired": "0"},
            **{"unknown": "0", "pending": "0", "offline": "1"},
        }
        code, out, _ = zim_ledger(fabric, "--json")
        assert (code, json.loads(out)) == (0, ledger(fabric))

        fabric.kill("router-2", signal.SIGSTOP)
        code, out, err = zim_ledger(fabric, "--json")
        assert (code, json.loads(out)["silent"], json.loads(out)["balanced"]) == (3, ["router-2"], False)
        assert err == "zim ledger: no answer from router-2: what they know is missing here\n"
        logic = Scrape(fabric, "logic-1")
        assert logic.get("zim_fabric_silent_routers") == 1
        for name in ("zim_fabric_sessions", "zim_fabric_targeted_sessions", "zim_fabric_pushes"):
            with pytest.raises(ValueError, match="not enough values"):
                logic.get(name)
        fabric.kill("router-2", signal.SIGCONT)
        assert zim_ledger(fabric, "--wait", "20")[0] == 0

        fabric.stop()
        code, out, err = zim_ledger(fabric)
        assert (code, out) == (3, "")
        assert "is the fabric up?" in err


def test_a_push_to_one_session_reaches_no_other_of_the_user() -> None:
    """By way of the job, and not only when it is fetched."""
    with running(has_admin=True) as fabric:
        one, two = Client(fabric.tcp["comet-1"], "1"), Client(fabric.tcp["comet-1"], "1")
        fabric.post("/1/push?uid=1", b"both")
        for client in (one, two):
            client.wait(1)
        keys = _keys(fabric)
        assert len(keys) == 2
        push(fabric, to={"keys": [keys[0]]}, body=1)
        fabric.post("/1/push?uid=1", b"last")
        for client in (one, two):
            wait_until(lambda client=client: b"last" in client.bodies, "it is through")  # type: ignore[misc]
        assert sorted(len(client.bodies) for client in (one, two)) == [2, 3]
        settled(fabric, targeted=5, delivered=5, pending=0)
        assert sum(Scrape(fabric, "comet-1").labels("zim_comet_fetches_total", "shard").values()) == 0


def _keys(fabric: Fabric) -> list[str]:
    """The sessions of user 1, asked of the router as a person would."""
    with zmq.Context() as context, context.socket(zmq.REQ) as router:
        router.connect(fabric.binds["router-1"])
        router.send(msgpack.packb({"locate": "1"}))
        return [place["key"] for place in msgpack.unpackb(router.recv())["sessions"]]
