"""The connections of one goim client → what is wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tests.fault.findings import Finding, Kind, Where
from tests.fault.history import Broken, Client, Closed, Connected, Froze, Received
from tests.fault.world import World


class GoimChecker:
    """One client's connections, each for itself. Its messages name no stream, so their pushes do."""

    def __init__(self, world: World, client: Client) -> None:
        self._world, self._client = world, client
        self._found: list[Finding] = []
        self._freezes = [event for event in client.events if isinstance(event, Froze)]

    def run(self) -> list[Finding]:
        connection: Connected | None = None
        received: list[Received] = []
        for event in self._client.events:
            match event:
                case Connected():
                    connection, received = event, []
                case Received():
                    received.append(event)
                case Closed():
                    if connection:
                        self._check(connection, received, None)
                    connection = None
                case Broken():
                    self._found.append(Finding("broken", self._client.name, "", at=event.at, detail=event.what))
                case _:
                    pass
        if connection:
            self._check(connection, received, connection)
        return self._found

    def _check(self, connection: Connected, received: list[Received], still: Connected | None) -> None:
        counts: Counter[int] = Counter()
        order: dict[str, list[Received]] = {stream: [] for stream in connection.streams}
        for event in received:
            counts[event.number] += 1
            push = self._world.pushes.get(event.number)
            streams = [s for s in connection.streams if push and s in push.streams]
            if why := self._world.why_unexpected(event.number, ""):
                self._add("unexpected", event, "", why)
            elif why := self._world.why_late(event, self._freezes):
                self._add("late", event, "", why)
            elif not streams:
                self._add("unexpected", event, "", "of a stream that it is not in")
            elif counts[event.number] > len(streams):
                self._add("duplicate", event, streams[0])
            if len(streams) == 1 and counts[event.number] == 1:  # of several streams: nobody can tell which copy it is
                order[streams[0]].append(event)
        owed: Counter[int] = Counter()
        for stream, events in order.items():
            self._check_order(stream, events)
            is_to_the_end = still is not None and self._world.history.is_settled
            for finding in self._missing(connection, stream, events, is_to_the_end):
                owed[finding.number] += 1
                if owed[finding.number] > counts[finding.number]:
                    self._found.append(finding)

    def _add(self, kind: Kind, event: Received, stream: str, detail: str = "") -> None:
        self._found.append(Finding(kind, self._client.name, stream, event.number, 0, "", event.at, detail))

    def _check_order(self, stream: str, events: list[Received]) -> None:
        """By offset, where it is known."""
        highest: Received | None = None
        top = 0
        for event in events:
            offset = self._world.offsets.get((stream, event.number), 0)
            if offset and offset < top and highest:
                self._add("reordered", event, stream, f"after push {highest.number}")
            if offset > top:
                top, highest = offset, event
        self._check_causal_order(stream, events)

    def _check_causal_order(self, stream: str, events: list[Received]) -> None:
        """What had been answered before another was asked comes before it, where offsets cannot tell."""
        unknown = [e for e in events if (stream, e.number) not in self._world.offsets]
        latest_asked, latest = -1.0, 0
        for event in unknown:
            push = self._world.pushes[event.number]
            if push.verdict == "accepted" and push.answered_at < latest_asked:
                self._add("reordered", event, stream, f"after push {latest}, which was asked after its answer")
            if push.asked_at > latest_asked:
                latest_asked, latest = push.asked_at, event.number

    def _missing(
        self, connection: Connected, stream: str, events: list[Received], is_to_the_end: bool
    ) -> Iterator[Finding]:
        """What this stream owes, whether or not it came: accepted, and before something that came, or to the end."""
        numbers = {event.number for event in events}
        got = [self._world.pushes[number] for number in numbers]
        offsets = [o for n in numbers if (o := self._world.offsets.get((stream, n), 0))]
        lowest, highest = min(offsets, default=0), max(offsets, default=0)
        first_asked = min((push.asked_at for push in got), default=0.0)
        last_asked = max((push.asked_at for push in got), default=0.0)
        for push in self._world.owed[stream]:
            if push.asked_at < connection.at:
                continue
            offset = self._world.offsets.get((stream, push.number), 0)
            is_before_another = offset <= highest if offset and highest else push.answered_at < last_asked
            if not is_before_another and not is_to_the_end and push.number not in numbers:
                continue
            is_first = offset < lowest if offset and lowest else bool(got) and push.answered_at < first_asked
            where: Where = "start" if is_first else "middle" if is_before_another else "end"
            yield Finding("lost", self._client.name, stream, push.number, offset, where, push.asked_at)
