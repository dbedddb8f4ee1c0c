"""All streams of one router: the durable ones in its log, the live-only ones in memory. Pure but for its two logs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from zim.fabric.bans import Ban, Banned
from zim.fabric.retention import Retention
from zim.nodes.router.log import Appended, Head, Lease, Log, NewPush, StreamPage, Trimmed
from zim.nodes.router.log.memory import MemoryLog


class _Parted(NamedTuple):
    """A push, and what of it goes into which log; into none if the other one has its key for another push."""

    push: NewPush
    durable: NewPush | None
    live: NewPush | None

    def joined(self, answer: Appended, live: Sequence[int]) -> Appended:
        """The answer of the durable log, with the offsets in the other streams; 0 where there are none."""
        offsets = dict.fromkeys(self.push.streams, 0)
        for part, found in ((self.durable, answer.offsets), (self.live, live)):
            if part is not None:
                offsets.update(zip(part.streams, found, strict=False))
        return answer._replace(offsets=tuple(offsets.values()))


def _is_at_home(push: NewPush) -> bool:
    """Whether this router alone tells what its key was used for."""
    return push.key is not None and not push.key.home_ms


class Streams:
    """The calls of Log, without the leases. A stream's retention says which engine answers. Every call may switch."""

    def __init__(
        self,
        durable: Log,
        lease: Lease,
        live: MemoryLog,
        live_lease: Lease,
        retention: Retention,
        is_owner: Callable[[], bool] = lambda: True,
    ) -> None:
        """
        Args:
            durable, lease: the log, and the right to write it.
            live, live_lease: the same for live-only streams.
            retention: how long which stream is kept.
            is_owner: looked at in the step that keeps something in memory: nothing fences that.
        """
        self._durable, self._lease = durable, lease
        self._live, self._live_lease = live, live_lease
        self._is_owner = is_owner
        self._retention = retention
        self._live_only: dict[str, bool] = {}

    def keep_by(self, retention: Retention) -> None:
        """From now on by these rules, which have the same streams live only."""
        self._retention = retention

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

    def append(self, batch: Sequence[NewPush]) -> list[Appended]:
        """Appends a batch, and answers in its order. The durable part is first: the rest is kept only if that is."""
        parts = self._parts(batch)
        durable = [part.durable for part in parts if part.durable is not None]
        return self._with_live(parts, self._durable.append(self._lease, durable) if durable else [])

    def settle(self, batch: Sequence[NewPush]) -> list[Appended] | None:
        """What became of a batch whose append raised Unknown. If its durable part is not kept, nothing of it is."""
        parts = self._parts(batch)
        durable = self._durable.settle(self._lease, [part.durable for part in parts if part.durable is not None])
        return None if durable is None else self._with_live(parts, durable)

    def _parts(self, batch: Sequence[NewPush]) -> list[_Parted]:
        parts = [self._part(push) for push in batch]
        at_home = [at for at, part in enumerate(parts) if part.durable is not None and _is_at_home(part.push)]
        for at, seen in zip(at_home, self._live.find([parts[at].push for at in at_home]), strict=True):
            if seen is not None:
                parts[at] = _Parted(parts[at].push, None, None)
        return parts

    def _part(self, push: NewPush) -> _Parted:
        """A key is where the push's durable streams are, and in memory if there are none."""
        key = push.key
        if (key is None or not key.is_live_only) and not any(map(self._is_live_only, push.streams)):
            return _Parted(push, push, None)
        durable, live = self._split(push.streams)
        is_passing = key is None or key.is_live_only or bool(key.home_ms)
        if is_passing and not durable:
            return _Parted(push, None, push)
        if not live:
            return _Parted(push, push, None)
        return _Parted(push, push._replace(streams=durable), push._replace(streams=live, key=None))

    def _with_live(self, parts: Sequence[_Parted], durable: Sequence[Appended]) -> list[Appended]:
        """Puts the live-only parts of pushes behind their durable ones. A repeat is not sent there again."""
        kept, refused = iter(durable), iter(self._refused([part for part in parts if part.durable is None]))
        answers = [next(kept if part.durable is not None else refused) for part in parts]
        is_owner = self._is_owner()  # else nothing is kept in memory alone
        live = [
            part.live
            for part, answer in zip(parts, answers, strict=True)
            if part.live is not None and (is_owner if answer is None else answer.outcome == "stored")
        ]
        passed = iter(self._live.append(self._live_lease, live) if live else ())
        found: list[Appended] = []
        for part, answer in zip(parts, answers, strict=True):
            if answer is None:
                found.append(next(passed) if is_owner else Appended("no room"))
            elif part.live is None or answer.outcome not in ("stored", "duplicate"):
                found.append(answer)
            else:
                offsets = next(passed).offsets if answer.outcome == "stored" else ()
                found.append(part.joined(answer, offsets)._replace(is_sure=is_owner))
        return found

    def _refused(self, parts: Sequence[_Parted]) -> list[Appended | None]:
        """The answers to pushes without a durable part whose key is that of another push in the other log."""
        asked = [part.push for part in parts if part.live is not None and _is_at_home(part.push)]
        found = iter(self._durable.find(asked) if asked else ())
        return [
            Appended("conflict") if part.live is None else next(found) if _is_at_home(part.push) else None
            for part in parts
        ]

    def find(self, push: NewPush) -> Appended | None:
        """What a push with a key would be if it came now; nothing if it is new."""
        (part,) = self._parts([push])
        if part.durable is None:
            return self._refused([part])[0] or self._live.find([push])[0]
        (found,) = self._durable.find([part.durable])
        if found is None or part.live is None or found.outcome != "duplicate":
            return found
        return part.joined(found, ())

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

    def ban(self, bans: Sequence[Ban], lifted: Sequence[Banned] = ()) -> None:
        """Keeps bans, and lets go of others."""
        self._durable.ban(self._lease, bans, lifted)

    def reserve_seqs(self, count: int) -> int:
        """The first of `count` session numbers that no one was ever given."""
        return self._durable.reserve_seqs(self._lease, count)

    def trim(self, now_ms: int, before_ms: int, budget: int) -> Trimmed:
        """Lets go of durable records that no rule keeps, as Log.trim does."""
        return self._durable.trim(self._lease, self._retention, now_ms, before_ms, budget)

    def forget(self, now: float, now_ms: int, is_served: Callable[[str], bool], left: Iterable[str] = ()) -> None:
        """Lets go of what is old in live-only streams. See MemoryLog.forget."""
        self._live.forget(now, now_ms, is_served, left)
