"""What is taken away while something else goes on: it is gone all the same."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import gevent
import pytest

from tests.harness import Client, Fabric, running, wait_until
from tests.integration.test_bans import BOUND_S, ban, is_kept_out
from tests.integration.visits import Stranger, enter, issuer_table, knock, sent_away, token
from zim.fabric.sharding import rank
from zim.protocol.endings import Ending
from zim.protocol.frame import Op

BACK_S = 10.0  # until a router that was killed is there again and its comets have registered


@pytest.fixture(scope="module")
def fabric(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fabric]:
    folder = tmp_path_factory.mktemp("races")
    with running(folder, routers=2, comets=2, more=issuer_table(folder / "jwt")) as found:
        yield found
        assert "Traceback" not in found.log


@pytest.fixture(autouse=True)
def _nobody_stays() -> Iterator[None]:
    yield
    for client in list(Client.open):
        client.close()


def owned_by(router: str, kind: str, prefix: str) -> str:
    """A name whose stream this router has."""
    names = (f"{prefix}{n}" for n in range(1000))
    return next(name for name in names if rank(f"{kind}:{name}", ["router-1", "router-2"])[0] == router)


def test_a_room_that_is_not_joined_yet_is_taken_away_too(fabric: Fabric) -> None:
    """Its router stands still while it is joined, and while another token comes that does not cover it."""
    user, room, stays = owned_by("router-1", "u", "7"), owned_by("router-2", "r", "vip"), owned_by("router-2", "r", "a")
    client = enter(fabric, token(user, {"join": [room, stays]}), rooms=[])
    pid = fabric.kill("router-2", signal.SIGSTOP)
    try:
        answer = client.ask(Op.JOIN, {"rooms": [room, stays]}, 2)["streams"]
        assert {start["error"] for start in answer.values()} == {"not joined, retrying"}
        client.ask(Op.REFRESH, {"token": token(user, {"join": [stays]})}, 3)
    finally:
        fabric.kill("router-2", signal.SIGCONT)
    wait_until(lambda: fabric.push({"to": {"rooms": [room]}, "body": "secret"})[0] == 200, "it goes on")
    joined = json.loads(client.take(Op.JOINED).body)["streams"]
    assert set(joined) == {f"r:{stays}"}
    for _ in range(3):
        assert fabric.push({"to": {"rooms": [room, stays]}, "body": "secret"})[0] == 200
    client.wait_for(f"r:{stays}", 3)
    assert client.places(f"r:{room}") == []
    assert fabric.pid("router-2") == pid


@pytest.mark.parametrize("what", ["router", "job-1", "comet-1", "logic-1"])
def test_a_ban_holds_though_a_node_is_killed_as_it_is_answered(fabric: Fabric, what: str) -> None:
    user = f"banned-{what}"
    shown = token(user)
    owner = rank(f"u:{user}", ["router-1", "router-2"])[0] if what == "router" else what
    there = [enter(fabric, shown), enter(fabric, shown, is_ws=True), knock(fabric, shown, comet="comet-2")]
    there[2].wait(1)
    ban(fabric, user=user, reason="spam")
    killed = fabric.kill(owner)
    for client in there:
        client.wait_closed(BACK_S)
        assert owner == "comet-1" or b"spam" in client.packets[-1].body  # it may tell nobody any more
    wait_until(lambda: fabric.pid(owner) not in (0, killed), "it is there again")

    def is_answered() -> bool:
        try:
            client = Stranger(fabric.tcp["comet-1"], None)
        except OSError:
            return False
        client.say(Op.AUTH, json.dumps({"token": token("77")}).encode())
        wait_until(lambda: client.packets or client.is_closed, "an answer")
        return bool(client.packets) and client.packets[0].op == Op.AUTH_REPLY

    wait_until(is_answered, "others come in")
    # That is to be so within a second once the user's own router is there.
    wait_until(lambda: fabric.push({"to": {"users": [user]}, "body": 1})[0] == 200, "the owner is ready")
    is_kept_out(fabric, shown, False, "spam")
    is_kept_out(fabric, shown, True, "spam", "comet-2")


def test_nobody_slips_in_while_a_ban_is_made(fabric: Fabric) -> None:
    """The user logs in all the time, on both comets, while the ban is answered."""
    shown, is_over = token("slippery"), False
    all_: list[Stranger] = []

    def comes(comet: str) -> None:
        while not is_over:
            all_.append(knock(fabric, shown, comet=comet))
            gevent.sleep(0.002)

    coming = [gevent.spawn(comes, comet) for comet in ("comet-1", "comet-2") * 2]
    wait_until(lambda: len(fabric.get("/api/users/slippery")["sessions"]) > 20, "they come")
    ban(fabric, user="slippery", reason="spam")
    before = len(all_)
    gevent.sleep(0.3)
    is_over = True
    gevent.joinall(coming, raise_error=True)
    assert before < len(all_)
    for client in all_:
        assert "spam" in sent_away(client, Ending.BANNED, BOUND_S)
    assert fabric.get("/api/users/slippery")["sessions"] == []
