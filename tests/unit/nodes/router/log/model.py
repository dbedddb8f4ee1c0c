"""A log as a reader of the interface would write it down in a minute, and a machine that compares engines with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.unit.nodes.router.log.contract import CONFLICT, FOR_EVER, KEY_WINDOW_S, NOW, found, rules
from zim.nodes.router.log import RECORD_BYTES, Appended, Lease, Log, NewPush
from zim.nodes.router.log.keys import KeyUse

STREAMS = ("u:1", "u:2", "r:1", "*")


@dataclass
class ModelStream:
    """All that was ever stored; floor says how much of it is gone."""

    records: list[NewPush] = field(default_factory=list)
    floor: int = 0
    cursor: int = 0


@dataclass
class Model:
    """Dictionaries."""

    streams: dict[str, ModelStream] = field(default_factory=lambda: {name: ModelStream() for name in STREAMS})
    keys: dict[str, tuple[bytes, int, int, dict[str, int]]] = field(default_factory=dict)

    def seen(self, push: NewPush) -> Appended | None:
        """What the interface says of a push with a key that may have been here."""
        if push.key is None or push.push_id not in self.keys:
            return None
        digest, time_ms, home_ms, offsets = self.keys[push.push_id]
        if push.key.home_ms:
            if home_ms < push.key.home_ms:
                return None
            is_same = (home_ms, digest) == (push.key.home_ms, push.key.digest)
        elif time_ms + KEY_WINDOW_S * 1000 <= push.time_ms:
            return None
        else:
            is_same = digest == push.key.digest
        return Appended("duplicate", tuple(offsets.get(s, 0) for s in push.streams), home_ms) if is_same else CONFLICT

    def append(self, push: NewPush) -> Appended:
        """What the interface says."""
        if (answer := self.seen(push)) is not None:
            return answer
        offsets = {}
        for stream in push.streams:
            self.streams[stream].records.append(push)
            offsets[stream] = len(self.streams[stream].records)
        home_ms = 0
        if push.key is not None:
            home_ms = push.key.home_ms or push.time_ms
            self.keys[push.push_id] = push.key.digest, push.time_ms, home_ms, offsets
        return Appended("stored", tuple(offsets.values()), home_ms)

    def trim(self, count: int, age_ms: int, now: int) -> None:
        """All that may go."""
        kept_ms = 2 * KEY_WINDOW_S * 1000
        self.keys = {push_id: key for push_id, key in self.keys.items() if key[1] + kept_ms > now}
        for stream in self.streams.values():
            head = len(stream.records)
            while stream.floor < head:
                oldest = stream.records[stream.floor]
                if stream.floor + 1 > head - count and oldest.time_ms >= now - age_ms:
                    break
                stream.floor += 1


KEYS = {b"1": ("u:1",), b"2": ("u:1", "r:1"), b"3": ("u:2", "*"), b"4": ()}  # a digest stands for its streams, too


def keyed_push(push_id: str, digest: bytes, home_ms: int, is_reversed: bool, expires_ms: int) -> NewPush:
    """c has its home elsewhere, the others here."""
    home_ms = home_ms if push_id == "c" else 0
    streams = KEYS[digest][::-1] if is_reversed else KEYS[digest]
    return NewPush(push_id, streams, 5, b"k", 0, expires_ms, {}, KeyUse(digest, home_ms))


expiries = st.sampled_from([0, 20_000, 100_000])
new_pushes = st.one_of(
    st.builds(
        NewPush,
        push_id=st.sampled_from("abc"),
        streams=st.lists(st.sampled_from(STREAMS), min_size=1, max_size=3, unique=True),
        op=st.integers(-5, 5),
        body=st.binary(max_size=8),
        time_ms=st.just(0),
        expires_ms=expiries,
        only=st.sampled_from([{}, {"u:1": ("7_1",)}, {"u:1": ("7_1", "8_2"), "*": ("9_1",)}]),
        key=st.none(),
        wall_ms=st.just(0),
    ),
    st.builds(
        keyed_push,
        st.sampled_from("abc"),
        st.sampled_from(sorted(KEYS)),
        st.sampled_from([5, 7]),
        st.booleans(),
        expiries,
    ),
)


class LogMachine(RuleBasedStateMachine):
    """Any calls in any order, and the engine answers as the model does."""

    def make(self) -> Log:
        """An empty engine."""
        raise NotImplementedError

    def reopen(self) -> Log:
        """The same one, after a restart."""
        raise NotImplementedError

    @initialize()
    def start(self) -> None:
        self.log, self.model, self.now = self.make(), Model(), NOW
        self.lease = self.acquire()

    def acquire(self) -> Lease:
        return self.log.acquire("router-1")

    @rule(batch=st.lists(new_pushes, max_size=12), later=st.sampled_from([0, 1, 5_000, 40_000]))
    def append(self, batch: list[NewPush], later: int) -> None:
        self.now += later
        timed = [r._replace(time_ms=self.now, expires_ms=r.expires_ms and self.now + r.expires_ms) for r in batch]
        expected = [self.model.append(push) for push in timed]
        assert self.log.append(self.lease, timed) == expected

    @rule(
        stream=st.sampled_from(STREAMS),
        after=st.integers(0, 40),
        span=st.integers(0, 40),
        most=st.integers(1, 6),
        size=st.sampled_from([1, 2 * RECORD_BYTES + 5, 1 << 20]),
    )
    def read(self, stream: str, after: int, span: int, most: int, size: int) -> None:
        page = self.log.read(stream, after, after + span, most, size, self.now)
        known = self.model.streams[stream]
        head = len(known.records)
        expected: list[tuple[int, str, int, bytes, int, tuple[str, ...]]] = []
        used, last = 0, max(min(after + span, head), min(after, head))
        for offset in range(max(after, known.floor) + 1, min(after + span, head) + 1):
            record = known.records[offset - 1]
            if record.expires_ms and record.expires_ms <= self.now:
                continue
            used += RECORD_BYTES + len(record.body)
            if expected and (used > size or len(expected) >= most):
                last = expected[-1][0]
                break
            expected.append(
                (offset, record.push_id, record.op, record.body, record.time_ms, record.only.get(stream, ()))
            )
        assert [(r.offset, r.push_id, r.op, r.body, r.time_ms, r.only) for r in page.records] == expected
        assert (page.floor, page.head, page.last) == (known.floor, head, last)

    @rule(push_id=st.sampled_from("abc"), digest=st.sampled_from(sorted(KEYS)))
    def find(self, push_id: str, digest: bytes) -> None:
        push = keyed_push(push_id, digest, 5, False, 0)._replace(time_ms=self.now)
        assert found(self.log, push) == self.model.seen(push)

    @rule(stream=st.sampled_from(STREAMS), offset=st.integers(-1, 40))
    def acknowledge(self, stream: str, offset: int) -> None:
        known = self.model.streams[stream]
        known.cursor = max(known.cursor, min(offset, len(known.records)))
        assert self.log.acknowledge(self.lease, {stream: offset}) == {stream: known.cursor}

    @rule(count=st.sampled_from([0, 2, 5, 100]), age_s=st.sampled_from([0.0, 10.0, 1e9]))
    def trim(self, count: int, age_s: float) -> None:
        self.now += 60_000  # so that a sweep begins
        self.model.trim(count, int(age_s * 1000), self.now)
        self.log.trim(self.lease, rules(count, age_s), self.now, FOR_EVER, 10_000)

    @rule()
    def restart(self) -> None:
        self.log = self.reopen()
        self.lease = self.acquire()

    @invariant()
    def stands_as_the_model(self) -> None:
        if hasattr(self, "model"):
            heads = self.log.heads(STREAMS)
            streams = self.model.streams
            assert {s: h[1:] for s, h in heads.items()} == {s: (m.floor, len(m.records)) for s, m in streams.items()}
            assert self.log.acknowledged(STREAMS) == {s: m.cursor for s, m in streams.items()}
