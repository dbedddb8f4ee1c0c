"""All streams of one router: the durable ones in its log, the live-only ones in memory. Pure but for its two logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from zim.fabric.retention import Retention
from zim.nodes.router.log import Appended, Head, Lease, Log, NewRecord, StreamPage
from zim.nodes.router.log.memory import MemoryLog


class Streams:
    """The calls of Log, without the leases. A stream's retention says which engine answers. Every call may switch."""

    def __init__(self, durable: Log, lease: Lease, live: MemoryLog, live_lease: Lease, retention: Retention) -> None:
        """
        Args:
            durable, lease: the log, and the right to write it.
            live, live_lease: the same for live-only streams.
            retention: how long which stream is kept.
        """
        self._durable, self._lease = durable, lease
        self._live, self._live_lease = live, live_lease
        self._retention = retention
        self._live_only: dict[str, bool] = {}

    def _is_live_only(self, stream: str) -> bool:
        found = self._live_only.get(stream)
        if found is None:
            if len(self._live_only) > 1 << 16:
                self._live_only.clear()
            found = self._live_only[stream] = self._retention.rule(stream).is_live_only
        return found

    def _split(self, streams: Sequence[str]) -> tuple[list[str], list[str]]:
        durable: list[str] = []
        live: list[str] = []
        for stream in streams:
            (live if self._is_live_only(stream) else durable).append(stream)
        return durable, live

    def append(self, batch: Sequence[NewRecord]) -> list[Appended]:
        """Appends a batch, and answers in its order. The durable part is first: the rest is kept only if that is."""
        is_live = [self._is_live_only(record.stream) for record in batch]
        if not any(is_live):
            return self._durable.append(self._lease, batch)
        kept = [record for record, live in zip(batch, is_live, strict=True) if not live]
        durable = self._durable.append(self._lease, kept) if kept else []
        return self._with_live(batch, is_live, durable)

    def settle(self, batch: Sequence[NewRecord]) -> list[Appended] | None:
        """What became of a batch whose append raised Unknown. If its durable part is not kept, nothing of it is."""
        is_live = [self._is_live_only(record.stream) for record in batch]
        kept = [record for record, live in zip(batch, is_live, strict=True) if not live]
        durable = self._durable.settle(self._lease, kept)
        return None if durable is None else self._with_live(batch, is_live, durable)

    def _with_live(
        self, batch: Sequence[NewRecord], is_live: Sequence[bool], durable: Sequence[Appended]
    ) -> list[Appended]:
        passing = [record for record, live in zip(batch, is_live, strict=True) if live]
        of_live = iter(self._live.append(self._live_lease, passing) if passing else ())
        of_durable = iter(durable)
        return [next(of_live if live else of_durable) for live in is_live]

    def find(self, push_id: str, digest: bytes, streams: Sequence[str]) -> list[Appended | None]:
        """For each stream, where the keyed push of that id is, or nothing."""
        durable, live = self._split(streams)
        found = dict(zip(durable, self._durable.find(push_id, digest, durable), strict=True)) if durable else {}
        found |= zip(live, self._live.find(push_id, digest, live), strict=True)
        return [found[stream] for stream in streams]

    def heads(self, streams: Sequence[str]) -> Mapping[str, Head]:
        """Where streams stand, also those that do not exist."""
        durable, live = self._split(streams)
        found = self._durable.heads(durable) if durable else {}
        return {**found, **self._live.heads(live)} if live else found

    def read(self, stream: str, after: int, upto: int, max_records: int, max_bytes: int, now_ms: int) -> StreamPage:
        """A piece of a stream, within the limits of Log.read."""
        read = self._live.read if self._is_live_only(stream) else self._durable.read
        return read(stream, after, upto, max_records, max_bytes, now_ms)

    def acknowledge(self, offsets: Mapping[str, int]) -> Mapping[str, int]:
        """Moves cursors forward. A stream that is not kept has none: it stays at 0."""
        kept = {stream: offset for stream, offset in offsets.items() if not self._is_live_only(stream)}
        found = self._durable.acknowledge(self._lease, kept) if kept else {}
        return {stream: found.get(stream, 0) for stream in offsets}

    def acknowledged(self, streams: Sequence[str]) -> Mapping[str, int]:
        """The streams' cursors; 0 for a stream that is not kept."""
        durable, live = self._split(streams)
        found = self._durable.acknowledged(durable) if durable else {}
        return {**found, **dict.fromkeys(live, 0)} if live else found

    def reserve_seqs(self, count: int) -> int:
        """The first of `count` session numbers that no one was ever given."""
        return self._durable.reserve_seqs(self._lease, count)

    def trim(self, now_ms: int, before_ms: int, budget: int) -> int:
        """Lets go of durable records that no rule keeps, as Log.trim does. Returns how many went."""
        return self._durable.trim(self._lease, self._retention, now_ms, before_ms, budget)

    def forget(self, now: float, is_served: Callable[[str], bool]) -> None:
        """Lets go of what is old in live-only streams. See MemoryLog.forget."""
        self._live.forget(now, is_served)
