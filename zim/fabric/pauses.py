"""Long work in steps: whoever must not hold up others hands in what gives way to them. Pure: nothing waits here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

Pause = Callable[[], None]

STEP = 1_000  # small things between two pauses


def no_pause() -> None:
    """Gives way to nobody."""


def paused(items: Iterable[T], pause: Pause) -> Iterator[T]:
    """The items, with a pause after every STEP of them."""
    for i, item in enumerate(items):
        if i and not i % STEP:
            pause()
        yield item
