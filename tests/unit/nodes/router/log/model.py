"""A log as a reader of the interface would write it down in a minute, and a machine that compares engines with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.unit.nodes.router.log.contract import FOR_EVER, KEY_WINDOW_S, NOW, rules
from zim.nodes.router.log import RECORD_BYTES, Appended, Lease, Log, NewRecord

STREAMS = ("u:1", "u:2", "r:1", "*")


@dataclass
class ModelStream:
    """All that was ever stored; floor says how much of it is gone."""

    records: list[NewRecord] = field(default_factory=list)
    floor: int = 0
    cursor: int = 0


@dataclass
class Model:
    """Dictionaries."""

    streams: dict[str, ModelStream] = field(default_factory=lambda: {name: ModelStream() for name in STREAMS})
    keys: dict[tuple[str, str], tuple[int, bytes, int]] = field(default_factory=dict)

    def append(self, record: NewRecord) -> Appended:
        """What the interface says."""
        key = self.keys.get((record.push_id, record.stream))
        if record.digest and key is not None and key[2] > record.time_ms:
            return Appended("duplicate" if key[1] == record.digest else "conflict", key[0])
        records = self.streams[record.stream].records
        records.append(record)
        if record.digest:
            until = record.time_ms + int(KEY_WINDOW_S * 1000)
            self.keys[record.push_id, record.stream] = len(records), record.digest, until
        return Appended("stored", len(records))

    def trim(self, count: int, age_ms: int, now: int) -> None:
        """All that may go."""
        for stream in self.streams.values():
            head = len(stream.records)
            while stream.floor < head:
                oldest = stream.records[stream.floor]
                if stream.floor + 1 > head - count and oldest.time_ms >= now - age_ms:
                    break
                stream.floor += 1


new_records = st.builds(
    NewRecord,
    stream=st.sampled_from(STREAMS),
    push_id=st.sampled_from("abc"),
    digest=st.sampled_from([b"", b"1", b"2"]),
    op=st.integers(-5, 5),
    body=st.binary(max_size=8),
    time_ms=st.just(0),
    expires_ms=st.sampled_from([0, 20_000, 100_000]),
    only=st.sampled_from([(), ("7_1",), ("7_1", "8_2")]),
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
        self.log, self.model, self.now, self.last_stored = self.make(), Model(), NOW, 0
        self.lease = self.acquire()

    def acquire(self) -> Lease:
        return self.log.acquire("router-1")

    @rule(batch=st.lists(new_records, max_size=12), later=st.sampled_from([0, 1, 5_000, 40_000]))
    def append(self, batch: list[NewRecord], later: int) -> None:
        self.now += later
        timed = [r._replace(time_ms=self.now, expires_ms=r.expires_ms and self.now + r.expires_ms) for r in batch]
        expected = [self.model.append(record) for record in timed]
        assert self.log.append(self.lease, timed) == expected
        if any(answer.outcome == "stored" for answer in expected):
            self.last_stored = self.now

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
            expected.append((offset, record.push_id, record.op, record.body, record.time_ms, record.only))
        assert [(r.offset, r.push_id, r.op, r.body, r.time_ms, r.only) for r in page.records] == expected
        assert (page.floor, page.head, page.last) == (known.floor, head, last)

    @rule(push_id=st.sampled_from("abc"), digest=st.sampled_from([b"1", b"2"]))
    def find(self, push_id: str, digest: bytes) -> None:
        for stream, found in zip(STREAMS, self.log.find(push_id, digest, STREAMS), strict=True):
            key = self.model.keys.get((push_id, stream))
            expected = None
            if key and key[2] > self.last_stored:
                expected = Appended("duplicate" if key[1] == digest else "conflict", key[0])
            is_over = key is not None and key[2] <= self.now  # then a trim may have taken it
            assert found == expected or (found is None and is_over)

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
