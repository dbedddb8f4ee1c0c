"""The logs, and what publishers were answered → what is wrong with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tests.fault.findings import Finding, Where
from tests.fault.history import Joined, Log, Push, Received, Told
from tests.fault.world import World


def check_logs(world: World) -> Iterator[Finding]:
    """Each stream by itself, and against what clients have at the same offsets."""
    at_offset: dict[tuple[str, str, int], tuple[int, str]] = {}
    for log in world.history.logs:
        yield from _check_log(world, log)
        for entry in log.entries:
            at_offset[log.stream, log.epoch, entry.offset] = (entry.number, "the log")
    for client in world.history.clients:
        epochs: dict[str, str] = {}
        for event in client.events:
            if isinstance(event, Joined | Told):
                epochs[event.stream] = event.epoch
            elif isinstance(event, Received) and event.stream in epochs:
                key = (event.stream, epochs[event.stream], event.offset)
                number, who = at_offset.setdefault(key, (event.number, client.name))
                if number != event.number:
                    detail = f"{who} has push {number} there"
                    yield Finding(
                        "disagreement", client.name, event.stream, event.number, event.offset, "", event.at, detail
                    )


def _check_log(world: World, log: Log) -> Iterator[Finding]:
    stored: dict[int, int] = {}
    expected = log.first
    for entry in log.entries:
        if not _have_expired(world, log, expected, entry.offset):
            yield Finding("untold", "log", log.stream, entry.number, entry.offset, detail=f"{expected} was expected")
        expected = entry.offset + 1
        if entry.number in stored:
            detail = f"stored at {stored[entry.number]} already"
            yield Finding("duplicate", "log", log.stream, entry.number, entry.offset, detail=detail)
        stored.setdefault(entry.number, entry.offset)
        if why := world.why_unexpected(entry.number, log.stream):
            yield Finding("unexpected", "log", log.stream, entry.number, entry.offset, detail=why)
    if log.entries and not _have_expired(world, log, expected, log.head + 1):
        yield Finding("untold", "log", log.stream, 0, log.head, detail=f"the last one that it has is {expected - 1}")
    if world.is_live(log.stream):
        return  # what was accepted may be gone by now, and answers do not say in which epoch it was
    for push in world.owed[log.stream]:
        told = push.offsets.get(log.stream) or world.offsets.get((log.stream, push.number))
        offset = stored.get(push.number)
        if offset is None and (log.first == 1 if told is None else told >= log.first):
            where: Where = "end" if told and told > log.head else "middle"
            yield Finding("lost", "log", log.stream, push.number, told or 0, where, push.asked_at, "is not stored")
        elif told is not None and offset is not None and told != offset:
            detail = f"the answer said {told}"
            yield Finding("disagreement", "log", log.stream, push.number, offset, "", push.asked_at, detail)


def _have_expired(world: World, log: Log, first: int, end: int) -> bool:
    """Whether all from first to before end may be left out. Nothing may come again."""
    return first <= end and all(world.may_have_expired(log.stream, log.epoch, offset) for offset in range(first, end))


def check_publishers(world: World) -> Iterator[Finding]:
    """A key is one push, and what went in one train is stored in its order."""
    trains: dict[tuple[str, str], list[Push]] = defaultdict(list)
    for push in world.history.pushes:
        if push.verdict == "accepted" and push.reuses:
            detail = world.why_unexpected(push.number, "")
            yield Finding("unexpected", "publisher", "", push.number, at=push.asked_at, detail=detail)
        if push.verdict == "accepted" and push.train and push.attempts == 1:  # what is asked again may come later
            for stream in push.streams:
                if not world.is_live(stream) and (stream, push.number) in world.offsets:
                    trains[push.train, stream].append(push)
    for (train, stream), pushes in trains.items():
        before = pushes[0]
        for push in pushes[1:]:
            at, at_before = world.offsets[stream, push.number], world.offsets[stream, before.number]
            if at <= at_before:
                detail = f"{train} had it after push {before.number}, which is at {at_before}"
                yield Finding("reordered", "publisher", stream, push.number, at, "", push.asked_at, detail)
            before = push
