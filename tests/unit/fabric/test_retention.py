"""Which rule holds for which stream."""

from __future__ import annotations

import pytest

from zim.fabric.retention import Retention, RoomClass, Rule

LIVE, LONG = Rule(0, 0), Rule(9, 9)
RETENTION = Retention(
    Rule(1, 10),
    Rule(2, 20),
    Rule(3, 30),
    (RoomClass("live", ("live-*", "tick?"), LIVE), RoomClass("all", ("l*",), LONG)),
)


@pytest.mark.parametrize(
    ("stream", "rule"),
    [
        ("u:7", Rule(1, 10)),
        ("u:live-7", Rule(1, 10)),
        ("*", Rule(3, 30)),
        ("r:1", Rule(2, 20)),
        ("r:live-1", LIVE),
        ("r:tick1", LIVE),
        ("r:tick", Rule(2, 20)),
        ("r:tick12", Rule(2, 20)),
        ("r:LIVE-1", Rule(2, 20)),
        ("r:long", LONG),
        ("r:my-live-1", Rule(2, 20)),
    ],
)
def test_the_first_class_whose_pattern_fits_says_it(stream: str, rule: Rule) -> None:
    assert RETENTION.rule(stream) == rule


@pytest.mark.parametrize(
    ("rule", "is_live_only"), [(Rule(0, 0), True), (Rule(0, 60), True), (Rule(5, 0), True), (Rule(1, 0.001), False)]
)
def test_nothing_kept_is_live_only(rule: Rule, is_live_only: bool) -> None:
    assert rule.is_live_only == is_live_only


def test_without_a_word_everything_is_kept_for_a_day_and_more() -> None:
    assert Retention().rule("u:7") == Rule(10_000, 7 * 86_400)
    assert Retention().rule("r:1") == Retention().rule("*") == Rule(100_000, 86_400)
