"""Bans hold: they are in force within a second, they survive the power, and nobody is kicked for ever."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from tests.harness import Client, Fabric, is_listening, running, wait_until
from tests.integration.visits import Stranger, enter, issuer_table, knock, sent_away, token
from tests.zim_client import ZimClient
from zim.protocol.endings import Ending
from zim.protocol.frame import Op

BOUND_S = 1.0  # from the answer to a ban until its sessions are closed; and from readiness, after a restart


@pytest.fixture
def fabric(tmp_path: Path) -> Iterator[Fabric]:
    with running(tmp_path, routers=2, comets=2, more=issuer_table(tmp_path / "jwt")) as found:
        yield found
        assert "Traceback" not in found.log


def ban(fabric: Fabric, **document: Any) -> Any:
    headers = {"Content-Type": "application/json"}
    status, answer = fabric.request("POST", "/api/bans", json.dumps(document), headers=headers)
    assert status == 200, answer
    return answer


def power_fails(fabric: Fabric) -> None:
    """kill -9 of everything, and everything again."""
    fabric.kill_all()
    for client in list(Client.open):
        client.close()
    fabric.start()


def is_kept_out(fabric: Fabric, shown: str, is_ws: bool, why: str, comet: str = "comet-1") -> None:
    """Whoever is banned is refused, or closed within a second."""
    client = knock(fabric, shown, is_ws, comet)
    assert why in sent_away(client, Ending.BANNED, BOUND_S)


@pytest.mark.parametrize("is_ws", [False, True], ids=["tcp", "ws"])
def test_a_ban_of_a_user_survives_the_power(fabric: Fabric, is_ws: bool) -> None:
    shown = token("666")
    there = [enter(fabric, shown, is_ws), Stranger(fabric.tcp["comet-2"], None)]
    there[1].say(Op.AUTH, json.dumps({"token": shown}).encode())
    there[1].wait(1)
    honest = enter(fabric, token("7"))
    ban(fabric, user="666", reason="spam")
    for client in there:
        assert "spam" in sent_away(client, Ending.BANNED, BOUND_S)
    for _ in range(2):
        assert not honest.is_closed
        power_fails(fabric)
        is_kept_out(fabric, shown, is_ws, "spam")
        is_kept_out(fabric, shown, not is_ws, "spam", "comet-2")
        honest = enter(fabric, token("7"))
    assert fabric.get("/api/bans")["total"] == 1
    assert fabric.request("DELETE", "/api/bans?user=666")[1] == {"was_banned": True}
    power_fails(fabric)
    enter(fabric, shown, is_ws)


def test_who_reconnects_while_all_starts_does_not_slip_in(fabric: Fabric) -> None:
    """From the first moment at which a comet listens a client of the banned user tries, again and again."""
    shown = token("666")
    ban(fabric, user="666", reason="spam")
    comets = [fabric.tcp["comet-1"], fabric.tcp["comet-2"]]
    fabric.kill_all()
    stayed: list[float] = []
    refused = [0]
    is_over = False

    def tries(address: str) -> None:
        while not is_over:
            if not is_listening(address):
                gevent.sleep(0.01)
                continue
            try:
                client = Stranger(address, None)
            except OSError:
                continue
            client.say(Op.AUTH, json.dumps({"token": shown}).encode())
            wait_until(lambda client=client: client.packets or client.is_closed, "an answer")  # type: ignore[misc]
            since = time.monotonic()
            client.wait_closed()
            if client.packets and client.packets[0].op == Op.AUTH_REPLY:
                stayed.append(time.monotonic() - since)
            refused[0] += bool(client.packets) and "spam" in client.packets[-1].body.decode()
            client.close()

    trying = [gevent.spawn(tries, address) for address in comets]
    fabric.start()
    wait_until(lambda: refused[0] >= 10, "it was refused ten times")
    is_over = True
    gevent.joinall(trying, raise_error=True)
    assert all(seconds < BOUND_S for seconds in stayed), stayed


def test_a_ban_of_a_network_survives_the_power(fabric: Fabric) -> None:
    there = [enter(fabric, token("7")), enter(fabric, token("8"), is_ws=True)]
    ban(fabric, address="198.51.100.0/24", reason="not here")
    ban(fabric, address="127.0.0.0/30", reason="bad neighbours")
    for client in there:
        assert "bad neighbours" in sent_away(client, Ending.BANNED, BOUND_S)
    power_fails(fabric)
    for is_ws in (False, True):
        for comet in ("comet-1", "comet-2"):
            is_kept_out(fabric, token("9"), is_ws, "bad neighbours", comet)
    assert fabric.request("DELETE", "/api/bans?address=127.0.0.2/30")[1] == {"was_banned": True}
    wait_until(lambda: Op.AUTH_REPLY in [p.op for p in knock(fabric, token("9")).wait(1)], "the ban is over")


def test_a_ban_of_a_class_of_devices_survives_the_power(fabric: Fabric) -> None:
    phone, tablet = token("7", {"device": "phone"}), token("7", {"device": "tablet"})
    there = {name: enter(fabric, shown) for name, shown in (("phone", phone), ("tablet", tablet), ("none", token("7")))}
    other = enter(fabric, token("8", {"device": "phone"}))
    ban(fabric, user="7", device="phone", reason="lost")
    assert "lost" in sent_away(there["phone"], Ending.BANNED, BOUND_S)
    power_fails(fabric)
    is_kept_out(fabric, phone, False, "lost")
    for shown in (tablet, token("7"), token("8", {"device": "phone"})):
        enter(fabric, shown)
    del other


def test_which_networks_a_ban_is_about(fabric: Fabric) -> None:
    """IPv6 may carry an address of IPv4, which is that one. Nobody bans everybody."""
    for network in ("0.0.0.0/0", "::/0", "::ffff:0:0/96"):
        document = json.dumps({"address": network})
        status, problem = fabric.request("POST", "/api/bans", document, headers={"Content-Type": "application/json"})
        assert (status, problem.get("key")) == (400, "address"), network
        assert "everybody" in problem["detail"]
    for network in ("::ffff:127.0.0.1", "::ffff:127.0.0.0/120"):
        client = enter(fabric, token("7"))
        ban(fabric, address=network, reason=network)
        assert network in sent_away(client, Ending.BANNED, BOUND_S)
        fabric.request("DELETE", f"/api/bans?address={network}")
        wait_until(lambda: Op.AUTH_REPLY in [p.op for p in knock(fabric, token("9")).wait(1)], "the ban is over")


# ---------------------------------------------------------------- one phone a user


class Phone:
    """Always comes back, unless it is told to stay away.

    Attributes:
        codes: with which it was closed.
    """

    def __init__(self, fabric: Fabric, comet: str, is_obedient: bool) -> None:
        self._fabric, self._comet, self._is_obedient = fabric, comet, is_obedient
        self._shown = token("7", {"device": "phone"})
        self.client: ZimClient | None = None
        self.codes: list[int] = []
        self.is_over = False
        self._greenlet = gevent.spawn(self._run)

    @property
    def is_in(self) -> bool:
        return self.client is not None and not self.client.is_closed

    def _run(self) -> None:
        while not self.is_over:
            client = knock(self._fabric, self._shown, comet=self._comet)
            wait_until(lambda client=client: client.packets or client.is_closed or self.is_over, "an answer")  # type: ignore[misc]
            self.client = client  # type: ignore[assignment]
            while not client.is_closed and not self.is_over:
                gevent.sleep(0.005)
            client.close()
            if self.is_over or not client.packets:
                continue
            code = json.loads(client.packets[-1].body)["code"]
            self.codes.append(code)
            if code >= 4400 and self._is_obedient:
                return
            gevent.sleep(0.05)

    def end(self) -> None:
        self.is_over = True
        self._greenlet.join()


@pytest.fixture(params=["newest", "oldest"])
def one_phone(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Fabric, str]]:
    more = issuer_table(tmp_path / "jwt") + f'[sessions]\nper_device = 1\nwins = "{request.param}"\n'
    with running(tmp_path, routers=2, comets=2, more=more) as found:
        yield found, request.param


def until_quiet(fact: Callable[[], Any], what: str, quiet_s: float = 3.0) -> Any:
    """What does not change any more for so long."""
    at, found = time.monotonic(), fact()
    until = at + 30
    while time.monotonic() - at < quiet_s:
        assert time.monotonic() < until, f"still changes: {what}: {found}"
        gevent.sleep(0.02)
        if (now := fact()) != found:
            at, found = time.monotonic(), now
    return found


def test_two_phones_of_one_user_end_with_two_kicks_at_most(one_phone: tuple[Fabric, str]) -> None:
    fabric, wins = one_phone
    phones = [Phone(fabric, f"comet-{n}", is_obedient=True) for n in (1, 2)]
    codes = until_quiet(lambda: [list(phone.codes) for phone in phones], "who is closed")
    assert 1 <= sum(map(len, codes)) <= 2, codes
    assert {code for some in codes for code in some} == {4407 if wins == "newest" else 4408}
    assert [phone.is_in for phone in phones].count(True) == 1
    assert len(fabric.get("/api/users/7")["sessions"]) == 1
    for phone in phones:
        phone.end()


def test_two_phones_that_do_not_obey_replace_each_other_twice_a_minute(one_phone: tuple[Fabric, str]) -> None:
    fabric, wins = one_phone
    phones = [Phone(fabric, f"comet-{n}", is_obedient=False) for n in (1, 2)]
    wait_until(lambda: max(phone.codes.count(4408) for phone in phones) >= 20, "one of them comes again and again")
    replaced = sum(phone.codes.count(4407) for phone in phones)
    assert replaced == (2 if wins == "newest" else 0)
    kept_out, stays = sorted(phones, key=lambda phone: phone.codes.count(4408))[::-1]
    assert stays.is_in
    before = list(stays.codes)
    count = len(kept_out.codes)
    wait_until(lambda: len(kept_out.codes) >= count + 10, "ten more times")
    assert stays.codes == before
    assert fabric.push({"to": {"users": ["7"]}, "body": "still there?"})[0] == 200
    assert stays.client is not None
    wait_until(lambda: stays.client is not None and stays.client.bodies, "the one that stays gets pushes")
    for phone in phones:
        phone.end()
