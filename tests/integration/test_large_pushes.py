"""A push to very many is cut, and is one push all the same: one id, one receipt, one key."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from tests.harness import Fabric, running
from tests.zim_client import ZimClient

MANY = list(range(1, 2_501))


@pytest.fixture(scope="module", params=[1, 2])
def fabric(request: pytest.FixtureRequest) -> Iterator[Fabric]:
    with running(routers=request.param, logics=2) as found:
        yield found


def push(fabric: Fabric, users: list[int], key: str = "", logic: str = "logic-1") -> tuple[int, Any]:
    document = json.dumps({"to": {"users": users}, "body": 1, **({"id": key} if key else {})})
    return fabric.request("POST", "/api/push", document, logic, headers={"Content-Type": "application/json"})


def test_one_id_one_receipt_one_push_in_the_ledger(fabric: Fabric) -> None:
    client = ZimClient(fabric.tcp["comet-1"], "2500")
    before = fabric.get("/api/ledger")
    status, accepted = push(fabric, MANY)
    assert (status, len(accepted["streams"])) == (200, len(MANY))
    assert client.wait_for("u:2500", 1) == [(accepted["streams"]["u:2500"], b"1")]
    receipt = fabric.get(f"/api/pushes/{accepted['id']}?wait_s=10")
    assert (receipt["targeted"], receipt["delivered"], receipt["offline"]) == (1, 1, len(MANY) - 1)
    after = fabric.get("/api/ledger")
    routers = 1 if "router-2" not in fabric.log else 2  # the ledger counts what each router keeps
    assert after["pushes"] - before["pushes"] == routers
    assert after["offline"] - before["offline"] == len(MANY) - 1


def test_a_repeat_is_found_in_any_order_and_another_push_is_refused(fabric: Fabric) -> None:
    status, first = push(fabric, MANY, "large")
    assert status == 200
    assert push(fabric, MANY[::-1], "large", "logic-2") == (200, first)
    status, problem = push(fabric, [*MANY[:-1], 9_999], "large", "logic-2")
    assert (status, problem["type"]) == (422, "urn:zim:problem:conflict")
    assert fabric.get("/api/streams/u:9999?after=0")["messages"] == []
    assert push(fabric, MANY, "large") == (200, first)


def test_a_router_that_dies_in_the_middle_has_each_message_once_after_a_retry(fabric: Fabric) -> None:
    users = list(range(10_001, 30_001))
    pushing = gevent.spawn(push, fabric, users, "killed")
    gevent.sleep(0.12)
    fabric.kill("router-1", signal.SIGKILL)
    status, answer = pushing.get()
    for _ in range(20):
        if status == 200:
            break
        status, answer = push(fabric, users, "killed", "logic-2")
        gevent.sleep(0.2)
    assert (status, len(answer["streams"])) == (200, len(users))
    assert set(answer["streams"].values()) <= {1, None}
    for user in users[:: len(users) // 40]:
        messages = fabric.get(f"/api/streams/u:{user}?after=0")["messages"]
        assert [(m["offset"], m["body"]) for m in messages] == [(1, 1)]
