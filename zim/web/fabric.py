"""What the web layer is handed: the fabric as a backend sees it. The logic node implements it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Published:
    """What became of one publish.

    Attributes:
        push_id: names this push at all six stops.
        status: "ok": kept. "unavailable": surely nothing was kept. "unknown": some of it may have been.
        retry_after_s: when an "unavailable" push is worth another try.
    """

    push_id: str
    status: Literal["ok", "unavailable", "unknown"]
    retry_after_s: int = 1


@dataclass(frozen=True)
class Counts:
    """Who is online.

    Attributes:
        rooms: sessions by room, without the `r:` of the stream's name.
        comets: sessions by the id of their comet.
        roomless: sessions in no room.
    """

    rooms: Mapping[str, int]
    comets: Mapping[int, int]
    roomless: int


class Fabric(Protocol):
    """What a backend can ask for."""

    def publish(self, streams: Sequence[str], body: bytes) -> Published:
        """Publish one body to streams, by canonical name: `u:7`, `r:1`, `*`; never twice the same, never none.

        Never raises for faults of the fabric: they are in the answer.

        Switches.
        """

    def counts(self) -> Counts:
        """Count the sessions.

        Switches.

        Raises:
            zim.errors.Unavailable: a router did not answer.
        """

    def forget(self, comet_id: int) -> None:
        """Forget the sessions of a comet, known or not; one that lives registers them anew.

        Switches.

        Raises:
            zim.errors.Unavailable: a router did not answer.
        """
