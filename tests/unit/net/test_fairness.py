"""Whoever gives way lets sockets be polled, whatever else wants to run."""

from __future__ import annotations

import time

import gevent
import pytest
from gevent import socket

from zim.net import fairness


def steps_until_a_socket_is_heard(budget_s: float, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many steps a busy greenlet makes before one that waits for a byte, which is there already, has it."""
    monkeypatch.setattr(fairness, "BUDGET_S", budget_s)
    ours, theirs = socket.socketpair()
    reader = gevent.spawn(ours.recv, 1)
    gevent.sleep(0.001)  # it waits
    steps = 0
    theirs.send(b"x")
    try:
        while not reader.ready() and steps < 1_000:
            steps += 1
            until = time.perf_counter() + 0.0001
            while time.perf_counter() < until:
                pass
            fairness.give_way()
    finally:
        reader.kill()
        ours.close()
        theirs.close()
    return steps


def test_a_socket_is_heard_after_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    assert steps_until_a_socket_is_heard(0.0, monkeypatch) <= 3  # the first one only begins to count


def test_who_was_idle_does_not_yield_at_once() -> None:
    others: list[str] = []
    for _ in range(3):
        gevent.sleep(0.01)  # far longer than the budget
        greenlet = gevent.spawn(others.append, "ran")
        fairness.give_way()
        assert not others
        greenlet.kill()


def test_nobody_yields_before_the_budget_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert steps_until_a_socket_is_heard(3600.0, monkeypatch) == 1_000
