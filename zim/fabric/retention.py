"""How long streams are kept: by kind of stream, and by class of room. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from zim.fabric.patterns import matches
from zim.fabric.streams import EVERYBODY, is_user_stream


@dataclass(frozen=True)
class Rule:
    """What is kept of a stream.

    Attributes:
        count: how many of the newest messages.
        age_s: for how many seconds.
    """

    count: int
    age_s: float

    @property
    def is_live_only(self) -> bool:
        """Nothing is: its messages stay in memory for some seconds, for repair."""
        return not self.count or not self.age_s


@dataclass(frozen=True)
class RoomClass:
    """Rooms that differ from others.

    Attributes:
        name: for people.
        rooms: patterns of room names: `ticker-*`.
    """

    name: str
    rooms: tuple[str, ...]
    rule: Rule


DAY_S = 86_400.0


@dataclass(frozen=True)
class Retention:
    """The rules of a fabric."""

    users: Rule = Rule(10_000, 7 * DAY_S)
    rooms: Rule = Rule(100_000, DAY_S)
    everybody: Rule = Rule(100_000, DAY_S)
    classes: tuple[RoomClass, ...] = ()

    @property
    def rules(self) -> list[Rule]:
        """All of them."""
        return [self.users, self.rooms, self.everybody, *(known.rule for known in self.classes)]

    def rule(self, stream: str) -> Rule:
        """The rule of a stream."""
        if is_user_stream(stream):
            return self.users
        if stream == EVERYBODY:
            return self.everybody
        for room_class in self.classes:
            if matches(stream[2:], room_class.rooms):
                return room_class.rule
        return self.rooms
