"""Joins that are put off: rooms of which nobody could tell whether a session may be in them. Pure.

They are asked about again until somebody tells: who has waited longest comes first, with all of its rooms at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Generic, TypeVar

from zim.fabric.streams import room_stream
from zim.protocol.vocabularies.base import Resume

S = TypeVar("S")  # who waits


class DeferredJoins(Generic[S]):
    """One comet's."""

    def __init__(self) -> None:
        self._waiting: dict[S, dict[str, tuple[str, int] | None]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def put_off(self, session: S, rooms: Iterable[str], resume: Resume | None) -> None:
        """These are to be asked about again.

        Args:
            resume: what the session has of their streams; what it has of others is passed over.
        """
        found = {room: (resume or {}).get(room_stream(room)) for room in rooms}
        if found:
            self._waiting.setdefault(session, {}).update(found)

    def of(self, session: S) -> Collection[str]:
        """The rooms that it waits for."""
        return self._waiting.get(session, {}).keys()

    def next(self, most: int) -> list[S]:
        """Who is to be asked about now; they wait longest from then on."""
        found = [session for session, _ in zip(self._waiting, range(most), strict=False)]
        for session in found:
            self._waiting[session] = self._waiting.pop(session)
        return found

    def take(self, session: S, rooms: Iterable[str]) -> Resume:
        """It waits for these no more. Returns what it has of their streams."""
        mine = self._waiting.get(session, {})
        found = {room_stream(room): mine.pop(room, None) for room in rooms}
        if not mine:
            self.forget(session)
        return {stream: place for stream, place in found.items() if place is not None}

    def forget(self, session: S) -> None:
        """It is over."""
        self._waiting.pop(session, None)
