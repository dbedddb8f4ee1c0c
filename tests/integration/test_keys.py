"""Keys and order, from outside: a key is one push, at one router and at two; a publisher's pushes stay in its order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness import Fabric, running
from zim.client import ZmqPublisher


@pytest.fixture(scope="module", params=[1, 2])
def fabric(request: pytest.FixtureRequest) -> Iterator[Fabric]:
    with running(routers=request.param, logics=2) as found:
        yield found


def push(fabric: Fabric, users: list[int], body: Any, key: str, logic: str = "logic-1") -> tuple[int, Any]:
    document = json.dumps({"to": {"users": users}, "body": body, "id": key})
    headers = {"Content-Type": "application/json"}
    return fabric.request("POST", "/api/push", document, logic, headers=headers)


def kept(fabric: Fabric, user: int) -> list[Any]:
    return [m["body"] for m in fabric.get(f"/api/streams/u:{user}?after=0")["messages"]]


def test_a_push_that_is_refused_is_delivered_to_nobody(fabric: Fabric) -> None:
    status, first = push(fabric, [411], 1, "k")
    assert status == 200
    status, problem = push(fabric, [411, 412], 2, "k", "logic-2")
    assert (status, problem["type"]) == (422, "urn:zim:problem:conflict")
    assert (kept(fabric, 411), kept(fabric, 412)) == ([1], [])
    assert push(fabric, [411], 1, "k", "logic-2") == (200, first)


def test_one_key_for_several_users(fabric: Fabric) -> None:
    answers = [push(fabric, [user], user, "same")[0] for user in (7, 8, 9, 10, 11, 12)]
    assert answers == [200] + [422] * 5
    assert [kept(fabric, user) for user in (7, 8, 9, 10, 11, 12)] == [[7], [], [], [], [], []]


def test_a_repeat_has_the_same_offsets_whatever_the_order_of_its_users(fabric: Fabric) -> None:
    users = list(range(500, 520))
    status, first = push(fabric, users, "x", "many")
    assert (status, first["streams"]) == (200, {f"u:{user}": 1 for user in users})
    for logic in ("logic-1", "logic-2"):
        status, again = push(fabric, users[::-1], "x", "many", logic)
        assert (status, again["streams"]) == (200, first["streams"])


@pytest.mark.parametrize("has_keys", [False, True])
def test_a_publisher_keeps_its_order(fabric: Fabric, has_keys: bool) -> None:
    count, users = 3_000, [900, 901, 902, 903, 904]
    with ZmqPublisher(fabric.publish["logic-1"]) as publisher:
        users = [user + 10 * has_keys for user in users]
        asked = [
            publisher.push(b"%d" % n, users=[users[n % 5]], id=f"order {n}" if has_keys and n % 3 == 0 else "")
            for n in range(count)
        ]
        publisher.flush(60)
        for one in asked:
            one.result(60)
    for at, user in enumerate(users):
        found = fabric.get(f"/api/streams/u:{user}?after=0&limit=1000")["messages"]
        assert [m["body"] for m in found] == list(range(at, count, 5))
