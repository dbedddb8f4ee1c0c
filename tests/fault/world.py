"""What is known of the pushes of a history, from all sides: publishers, clients, logs. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from tests.fault.history import Client, Froze, History, Joined, Push, Received, Told

ON_ITS_WAY_S = 1.0  # how late a client hears what a router has said
SPARE_S = 9.0  # what is younger than 10 s is in the log, or in memory, whatever retention says
LATE_S = 3.0  # for which a message may lie in a socket before its client has read it, if it reads at all
USER_COUNT, COUNT = 10_000, 100_000  # that are kept of a stream, if the history says nothing else


class World:
    """Who owes what to whom.

    Attributes:
        owed: accepted pushes without a ttl, by stream, in the order in which they were asked.
        offsets: (stream, number) → offset, as the log, an answer or any zim client has it. Of live-only streams as
            clients have it.
        epochs: (stream, number) → epoch, of live-only streams, which begin anew with each run of their router.
        epochs_since: (stream, epoch) → when a client was told of it first.
        numbers: (stream, epoch, offset) → number; the epoch is "" but for live-only streams.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.pushes = {push.number: push for push in history.pushes}
        self.logs = {log.stream: log for log in history.logs}
        self.offsets: dict[tuple[str, int], int] = {}
        self.epochs: dict[tuple[str, int], str] = {}
        self.epochs_since: dict[tuple[str, str], float] = {}
        self.numbers: dict[tuple[str, str, int], int] = {}
        self.owed: dict[str, list[Push]] = defaultdict(list)
        for client in history.clients:
            self._add_client(client)
        for push in history.pushes:
            for stream, offset in push.offsets.items():
                if not self.is_live(stream):
                    self.offsets[stream, push.number] = offset
            if push.verdict == "accepted" and not push.ttl_s:
                for stream in push.streams:
                    self.owed[stream].append(push)
        for log in history.logs:
            for entry in log.entries:
                self.offsets.setdefault((log.stream, entry.number), entry.offset)
                if self.is_live(log.stream):
                    self.epochs.setdefault((log.stream, entry.number), log.epoch)
        for (stream, number), offset in self.offsets.items():
            self.numbers.setdefault((stream, self.epochs.get((stream, number), ""), offset), number)
        placed = self.offsets.keys()
        self._may_have_expired = {
            stream
            for push in history.pushes
            if push.ttl_s and push.verdict != "refused"
            for stream in push.streams
            if (stream, push.number) not in placed
        }

    def _add_client(self, client: Client) -> None:
        epochs: dict[str, str] = {}
        for event in client.events:
            if isinstance(event, Joined | Told):
                epochs[event.stream] = event.epoch
                heard_at = self.epochs_since.setdefault((event.stream, event.epoch), event.at)
                self.epochs_since[event.stream, event.epoch] = min(heard_at, event.at)
            elif isinstance(event, Received) and event.stream and event.number > 0:
                place = event.stream, event.number
                if place not in self.offsets:
                    self.offsets[place] = event.offset
                    if self.is_live(event.stream):
                        self.epochs[place] = epochs.get(event.stream, "")

    def kept(self, stream: str) -> int:
        """How many messages of a stream are kept."""
        return self.history.kept.get(stream, USER_COUNT if stream.startswith("u:") else COUNT)

    def is_live(self, stream: str) -> bool:
        """Its messages are in memory for some seconds, and gone with their router."""
        return self.kept(stream) == 0

    def number_at(self, stream: str, epoch: str, offset: int) -> int:
        """The push there; 0 if nobody knows."""
        return self.numbers.get((stream, epoch if self.is_live(stream) else "", offset), 0)

    def may_have_expired(self, stream: str, epoch: str, offset: int) -> bool:
        """What is there may have been past its ttl, which is nothing to be told of."""
        number = self.number_at(stream, epoch, offset)
        return self.pushes[number].ttl_s > 0 if number in self.pushes else stream in self._may_have_expired

    def why_unexpected(self, number: int, stream: str) -> str:
        """Why nobody should ever get that; "" if it is right."""
        push = self.pushes.get(number)
        if push is None:
            return "was never pushed"
        if push.reuses:
            return f"its key is that of push {push.reuses}"
        if push.verdict == "refused":
            return "was answered 503"
        if stream and stream not in push.streams:
            return f"was pushed to {', '.join(push.streams)}"
        return ""

    def why_late(self, event: Received, freezes: Iterable[Froze]) -> str:
        """Whether a push was past its ttl when it came, and not only read late."""
        push = self.pushes.get(event.number)
        if push is None or not push.ttl_s or push.verdict != "accepted":
            return ""
        late_s = event.at - (push.answered_at + push.ttl_s)
        if late_s < LATE_S or any(froze.at <= event.at <= froze.until + LATE_S for froze in freezes):
            return ""
        return f"{late_s:.2f} s after its {push.ttl_s:.2f} s"

    def why_gone(self, stream: str, old_epoch: str, since: float, epoch: str, offset: int, at: float) -> str:
        """What explains that a client was told of a loss; "" if nothing does.

        Args:
            old_epoch: where it was; since: since when it was there.
            epoch, offset: after which it goes on.
            at: when it was told.
        """
        if old_epoch != epoch:
            since = min(since, self.epochs_since.get((stream, old_epoch), at))
            has_ended = any(since - ON_ITS_WAY_S <= end <= at for end in self.history.router_ends)
            return "its router ended" if self.is_live(stream) and has_ended else ""
        push = self.pushes.get(self.number_at(stream, epoch, offset))
        if push is not None and push.asked_at > at - SPARE_S:
            return ""
        if self.is_live(stream):
            return "live only"
        later = self.pushes.get(self.number_at(stream, epoch, offset + self.kept(stream)))
        is_over = later.asked_at <= at if later else stream in self.history.kept
        return f"{self.kept(stream)} are kept" if is_over else ""
