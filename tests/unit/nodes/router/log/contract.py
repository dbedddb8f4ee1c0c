"""What every engine promises, once for all of them. A test module subclasses Contract and says how to make its log."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence

import msgspec
import pytest

from zim.fabric.bans import Ban, Banned
from zim.fabric.retention import Retention, RoomClass, Rule
from zim.nodes.router.log import RECORD_BYTES, Appended, Fenced, Head, Lease, Log, NewPush, Trimmed
from zim.nodes.router.log.keys import KeyUse

NOW = 1_000_000  # log time
KEY_WINDOW_S = 60.0
DAY_S = 86_400.0
FOR_EVER = 1 << 60


def new(
    stream: str = "u:1",
    push_id: str = "p",
    digest: bytes = b"",
    body: bytes = b"hello",
    at: int = NOW,
    expires: int = 0,
    only: tuple[str, ...] = (),
) -> NewPush:
    """A push to one stream with what matters to a test."""
    key = KeyUse(digest) if digest else None
    return NewPush(push_id, [stream], 5, body, at, expires, {stream: only} if only else {}, key)


def many(push_id: str, *streams: str, digest: bytes = b"d", home_ms: int = 0, age_ms: int = 0) -> NewPush:
    """A push with a key to some streams."""
    return NewPush(push_id, streams, 5, b"hello", NOW, key=KeyUse(digest, home_ms, age_ms))


def stored(*offsets: int) -> list[Appended]:
    """The answers to a batch of pushes without a key, each to one stream."""
    return [Appended("stored", (offset,)) for offset in offsets]


def keyed(*offsets: int, at: int = NOW) -> list[Appended]:
    """The answers to a batch of pushes with a key, each to one stream."""
    return [Appended("stored", (offset,), at) for offset in offsets]


def duplicate(*offsets: int, at: int = NOW) -> Appended:
    """The answer to a repeat."""
    return Appended("duplicate", offsets, at)


CONFLICT = Appended("conflict")


def found(log: Log, push: NewPush) -> Appended | None:
    """What a log knows of one push."""
    (answer,) = log.find([push])
    return answer


def rules(count: int = 1_000, age_s: float = DAY_S) -> Retention:
    """One rule for all streams."""
    rule = Rule(count, age_s)
    return Retention(rule, rule, rule)


class Contract(abc.ABC):
    """The suite. `log` and `lease` are fixtures."""

    @abc.abstractmethod
    def reopen(self, log: Log) -> Log:
        """What the next start of the router finds."""

    @pytest.fixture
    @abc.abstractmethod
    def log(self) -> Log | Iterator[Log]:
        """An empty one, with key window KEY_WINDOW_S."""

    @pytest.fixture
    def lease(self, log: Log) -> Lease:
        return log.acquire("router-1")

    def bodies(self, log: Log, stream: str, after: int = 0, upto: int = 1_000_000, now: int = NOW) -> list[bytes]:
        return [r.body for r in log.read(stream, after, upto, 1_000_000, 1 << 30, now).records]

    def floor_and_head(self, log: Log, stream: str) -> tuple[int, int]:
        return log.heads([stream])[stream][1:]

    # -- append and read

    def test_offsets_count_from_one_in_each_stream(self, log: Log, lease: Lease) -> None:
        assert log.append(lease, [new("u:1", "a"), new("u:2", "a"), new("u:1", "b")]) == stored(1, 1, 2)
        assert log.append(lease, [new("u:1", "c"), new("r:1", "c"), new("*", "d")]) == stored(3, 1, 1)
        assert {name: head[1:] for name, head in log.heads(["u:1", "u:2", "r:1", "*", "u:9"]).items()} == {
            "u:1": (0, 3), "u:2": (0, 1), "r:1": (0, 1), "*": (0, 1), "u:9": (0, 0),
        }  # fmt: skip

    def test_an_empty_batch_is_nothing(self, log: Log, lease: Lease) -> None:
        assert log.append(lease, []) == []

    def test_what_is_read_is_what_was_written(self, log: Log, lease: Lease) -> None:
        body = bytes(range(256)) * 50
        only = {"r:ü": ("7_1", 'é"_2')}
        log.append(lease, [NewPush("p ' \" \\ é", ["r:ü"], -(1 << 31), body, NOW - 5, 0, only, None, 1_234)])
        log.append(lease, [NewPush("q", ["r:ü"], (1 << 31) - 1, b"", NOW, wall_ms=99)])
        first, second = log.read("r:ü", 0, 9, 9, 1 << 20, NOW).records
        assert (first.offset, first.push_id, first.op, first.body) == (1, "p ' \" \\ é", -(1 << 31), body)
        assert (first.time_ms, first.only) == (1_234, ("7_1", 'é"_2'))
        assert (second.offset, second.op, second.body, second.time_ms, second.only) == (2, (1 << 31) - 1, b"", 99, ())

    def test_a_batch_of_any_size_keeps_its_order(self, log: Log, lease: Lease) -> None:
        total = 0
        for count in (1, 2, 3, 64, 65, 1_000, 5_000):
            batch = [new("r:1", f"{total + i}", body=b"%d" % (total + i)) for i in range(count)]
            assert log.append(lease, batch) == stored(*range(total + 1, total + count + 1))
            total += count
        assert self.bodies(log, "r:1") == [b"%d" % i for i in range(total)]

    def test_a_piece_of_a_stream(self, log: Log, lease: Lease) -> None:
        log.append(lease, [new(push_id=str(i), body=b"%d" % i) for i in range(1, 11)])
        page = log.read("u:1", 3, 6, 99, 1 << 20, NOW)
        assert [(r.offset, r.body) for r in page.records] == [(4, b"4"), (5, b"5"), (6, b"6")]
        assert (page.floor, page.head, page.last) == (0, 10, 6)
        assert page.epoch == log.heads(["u:1"])["u:1"].epoch
        for after, upto, last in ((8, 99, 10), (10, 10, 10), (10, 99, 10), (99, 200, 10), (6, 3, 6)):
            page = log.read("u:1", after, upto, 99, 1 << 20, NOW)
            assert ([r.offset for r in page.records], page.last) == (list(range(after + 1, min(upto, 10) + 1)), last)

    def test_a_stream_that_does_not_exist(self, log: Log, lease: Lease) -> None:
        page = log.read("u:9", 0, 9, 9, 9, NOW)
        assert (page.floor, page.head, page.records, page.last) == (0, 0, [], 0)
        assert log.heads(["u:9"]) == {"u:9": Head(page.epoch, 0, 0)}
        assert log.append(lease, [new("u:9")]) == stored(1)
        assert self.floor_and_head(log, "u:9") == (0, 1)

    def test_a_page_is_bounded_but_never_empty(self, log: Log, lease: Lease) -> None:
        log.append(lease, [new(push_id="a", body=b"x" * 500), new(push_id="b", body=b"y" * 500), new(push_id="c")])
        two = 2 * (RECORD_BYTES + 500)
        for after, upto, records, size, found in (
            (0, 3, 9, two, [1, 2]), (0, 3, 9, two - 1, [1]), (0, 3, 9, 1, [1]), (0, 3, 1, two, [1]),
            (1, 2, 9, two, [2]), (1, 3, 2, 1 << 20, [2, 3]),
        ):  # fmt: skip
            page = log.read("u:1", after, upto, records, size, NOW)
            assert [r.offset for r in page.records] == found
            assert page.last == found[-1]

    def test_what_has_expired_is_left_out_and_covered(self, log: Log, lease: Lease) -> None:
        expiries = (0, NOW + 10, NOW + 20, 0, NOW + 10)
        log.append(lease, [new(push_id=str(i), expires=expires) for i, expires in enumerate(expiries)])
        for now, found in ((NOW, [1, 2, 3, 4, 5]), (NOW + 10, [1, 3, 4]), (NOW + 20, [1, 4])):
            page = log.read("u:1", 0, 9, 9, 1 << 20, now)
            assert [r.offset for r in page.records] == found
            assert page.last == 5
        page = log.read("u:1", 1, 9, 1, 1 << 20, NOW + 20)
        assert [r.offset for r in page.records] == [4]
        page = log.read("u:1", 4, 9, 9, 1 << 20, NOW + 20)
        assert (page.records, page.last) == ([], 5)

    def test_one_push_to_many_streams(self, log: Log, lease: Lease) -> None:
        streams = [f"r:{i}" for i in range(300)]
        only = {"r:7": ("1_1",), "r:8": ("2_1", "2_2")}
        log.append(lease, [NewPush("p", streams, 5, b"x" * 9, NOW, only=only), new("r:0", "q")])
        for stream in streams:
            record = log.read(stream, 0, 1, 1, 1, NOW).records[0]
            assert (record.push_id, record.body, record.only) == ("p", b"x" * 9, only.get(stream, ()))
        assert self.floor_and_head(log, "r:0") == (0, 2)

    def test_many_heads_at_once(self, log: Log, lease: Lease) -> None:
        streams = [f"u:{i}" for i in range(20_000)]
        log.append(lease, [NewPush("p", streams[::2], 5, b"", NOW)])
        log = self.reopen(log)
        heads = log.heads([*streams, "u:0"])
        assert [heads[s].head for s in streams] == [1, 0] * 10_000

    def test_everything_is_there_at_the_next_start(self, log: Log, lease: Lease) -> None:
        log.append(lease, [new("u:1", str(i), b"d", body=b"%d" % i, at=NOW + i) for i in range(5)])
        epoch = log.heads(["u:1"])["u:1"].epoch
        first = log.reserve_seqs(lease, 10)
        log.acknowledge(lease, {"u:1": 3})
        log = self.reopen(log)
        assert log.last_time_ms == NOW + 4
        again = log.acquire("router-1")
        assert again.term > lease.term
        assert log.heads(["u:1"]) == {"u:1": Head(epoch, 0, 5)}
        assert self.bodies(log, "u:1") == [b"0", b"1", b"2", b"3", b"4"]
        assert log.append(again, [new("u:1", "3", b"d"), new("u:1", "5", b"d")]) == [
            duplicate(4, at=NOW + 3), *keyed(6),
        ]  # fmt: skip
        assert log.reserve_seqs(again, 1) == first + 10
        assert log.acknowledged(["u:1"]) == {"u:1": 3}

    # -- keys

    def test_the_same_push_twice(self, log: Log, lease: Lease) -> None:
        assert log.append(lease, [new(push_id="a", digest=b"1"), new(push_id="b", digest=b"2")]) == keyed(1, 2)
        batch = [
            new(push_id="b", digest=b"2"), new(push_id="a", digest=b"x"), new(push_id="c", digest=b"3"),
            new(push_id="c", digest=b"3"), new(push_id="c", digest=b"y"), new(push_id="d"),
        ]  # fmt: skip
        assert log.append(lease, batch) == [
            duplicate(2), CONFLICT, *keyed(3), duplicate(3), CONFLICT, *stored(4),
        ]  # fmt: skip
        assert self.floor_and_head(log, "u:1") == (0, 4)
        assert [r.push_id for r in log.read("u:1", 0, 9, 9, 1 << 20, NOW).records] == ["a", "b", "c", "d"]

    def test_a_key_is_one_push_whatever_its_streams(self, log: Log, lease: Lease) -> None:
        assert log.append(lease, [many("a", "u:1")]) == [Appended("stored", (1,), NOW)]
        other = many("a", "u:1", "u:2", digest=b"e")
        assert log.append(lease, [other, many("a", "u:9", digest=b"f")]) == [CONFLICT, CONFLICT]
        assert found(log, other) == CONFLICT
        assert [self.floor_and_head(log, s) for s in ("u:1", "u:2", "u:9")] == [(0, 1), (0, 0), (0, 0)]

    def test_a_repeat_has_its_offsets_in_its_own_order(self, log: Log, lease: Lease) -> None:
        log.append(lease, [new("u:2", "x"), new("u:2", "y"), new("*", "z")])
        assert log.append(lease, [many("a", "u:1", "u:2", "*")]) == [Appended("stored", (1, 3, 2), NOW)]
        log = self.reopen(log)
        lease = log.acquire("router-1")
        assert log.append(lease, [many("a", "*", "u:1", "u:2")]) == [duplicate(2, 1, 3)]
        assert found(log, many("a", "u:2", "*", "u:1")) == duplicate(3, 2, 1)

    def test_each_part_of_a_push_has_a_key_of_its_own(self, log: Log, lease: Lease) -> None:
        home = new("u:1", digest=b"d")
        stored = log.append(lease, [home])[0]
        later = [
            NewPush("p", [f"u:{n}"], 5, b"hello", NOW, key=KeyUse(b"d", stored.home_ms, is_fresh=True, part=n - 1))
            for n in (2, 3)
        ]
        assert log.append(lease, later) == keyed(1, 1)
        assert log.append(lease, [home, *later]) == [duplicate(1)] * 3
        assert log.find([*later, later[0]._replace(streams=["u:9"])]) == [duplicate(1)] * 3
        assert {r.push_id for n in (1, 2, 3) for r in log.read(f"u:{n}", 0, 9, 9, 1 << 20, NOW).records} == {"p"}

    def test_a_key_alone(self, log: Log, lease: Lease) -> None:
        assert log.append(lease, [many("a"), new(), many("a")]) == [
            Appended("stored", (), NOW), *stored(1), duplicate(),
        ]  # fmt: skip
        assert log.append(lease, [many("a", "u:1", digest=b"e")]) == [CONFLICT]
        assert [r.push_id for r in log.read("u:1", 0, 9, 9, 1 << 20, NOW).records] == ["p"]

    def test_a_key_whose_home_is_another_log(self, log: Log, lease: Lease) -> None:
        """Home says when it stored the key: that tells a repeat from a later use, and from one before."""
        first = many("a", "u:1", home_ms=500)
        assert log.append(lease, [first, first]) == [Appended("stored", (1,), 500), duplicate(1, at=500)]
        log = self.reopen(log)
        lease = log.acquire("router-1")
        assert log.append(lease, [first]) == [duplicate(1, at=500)]
        assert log.append(lease, [many("a", "u:1", digest=b"e", home_ms=700)]) == [Appended("stored", (2,), 700)]
        assert log.append(lease, [first]) == [CONFLICT]
        window_ms = int(KEY_WINDOW_S * 1000)
        old = [many(push_id, "u:1", home_ms=9, age_ms=window_ms - n) for n, push_id in ((0, "b"), (1, "c"))]
        assert log.append(lease, old) == [Appended("unknown"), Appended("stored", (3,), 9)]

    def test_a_push_without_a_key_is_stored_each_time(self, log: Log, lease: Lease) -> None:
        assert log.append(lease, [new(), new()]) == stored(1, 2)
        assert log.append(lease, [new()]) == stored(3)

    def test_a_batch_of_duplicates_stores_nothing(self, log: Log, lease: Lease) -> None:
        log.append(lease, [new(digest=b"1")])
        assert log.append(lease, [new(digest=b"1")]) == [duplicate(1)]
        assert self.floor_and_head(log, "u:1") == (0, 1)
        assert log.append(lease, [new(push_id="q")]) == stored(2)

    def test_a_key_is_known_for_its_window(self, log: Log, lease: Lease) -> None:
        log.append(lease, [new(digest=b"1")])
        late = NOW + int(KEY_WINDOW_S * 1000)
        assert log.append(lease, [new(digest=b"1", at=late - 1)]) == [duplicate(1)]
        assert found(log, new(digest=b"1", at=late)) is None
        assert log.append(lease, [new(digest=b"2", at=late)]) == keyed(2, at=late)
        assert log.append(lease, [new(digest=b"2", at=late + 1)]) == [duplicate(2, at=late)]

    def test_keys_past_their_window_go(self, log: Log, lease: Lease) -> None:
        log.append(lease, [new(push_id=str(i), digest=b"1") for i in range(10)])
        late = NOW + 2 * int(KEY_WINDOW_S * 1000)
        log.append(lease, [new("u:2", "x", b"1", at=late)])
        log.trim(lease, rules(), late, 0, 100)
        assert found(log, new(push_id="3", digest=b"1")) is None
        assert found(log, new("u:2", "x", b"1", at=late)) == duplicate(1, at=late)

    def test_trimming_says_when_there_may_be_more_keys(self, log: Log, lease: Lease) -> None:
        for part in range(9):
            log.append(lease, [new(push_id=f"{part} {i}", digest=b"1") for i in range(100)])
        late = NOW + 2 * int(KEY_WINDOW_S * 1000)
        while log.trim(lease, rules(), late, 0, 100).has_more:
            pass
        assert found(log, new(push_id="8 99", digest=b"1")) is None
        assert log.append(lease, [new(push_id="8 99", digest=b"2", at=late)]) == keyed(901, at=late)

    def test_the_newest_pushes(self, log: Log, lease: Lease) -> None:
        log.append(lease, [new("u:1", "a", at=NOW), NewPush("b", ["u:1", "u:2"], 5, b"", NOW + 1)])
        log.append(lease, [new("r:1", "c", at=NOW + 2)])
        assert log.newest(NOW + 1, 0, 9) == log.newest(NOW + 2, 1, 9) == [("c", NOW + 2), ("b", NOW + 1)]
        assert log.newest(0, 0, 2) == log.newest(NOW + 9, 9, 2) == [("c", NOW + 2), ("b", NOW + 1)]
        assert log.newest(NOW + 3, 0, 9) == []

    def test_find(self, log: Log, lease: Lease) -> None:
        log.append(lease, [new("u:1", "q"), many("p", "u:2", "u:1")])
        assert found(log, many("p", "u:1", "u:2")) == duplicate(2, 1)
        assert found(log, many("p", "u:1", "u:2", digest=b"2")) == CONFLICT
        assert found(log, many("z", "u:1")) is None
        several = [many("p", "u:2", "u:1"), many("z", "u:1"), many("p", "u:1", digest=b"2")]
        assert log.find(several) == [duplicate(1, 2), None, CONFLICT]
        assert log.find([]) == []

    # -- the owner

    def test_another_owner_fences(self, log: Log, lease: Lease) -> None:
        log.append(lease, [new()])
        other = log.acquire("router-2")
        assert other.term > lease.term
        calls = (
            lambda: log.append(lease, [new()]),
            lambda: log.reserve_seqs(lease, 1),
            lambda: log.acknowledge(lease, {"u:1": 1}),
        )
        for call in calls:
            with pytest.raises(Fenced):
                call()
        assert log.append(other, [new()]) == stored(2)

    def test_session_numbers_are_never_given_twice(self, log: Log, lease: Lease) -> None:
        first = log.reserve_seqs(lease, 10)
        assert first >= 1
        assert log.reserve_seqs(lease, 5) == first + 10
        log = self.reopen(log)
        assert log.reserve_seqs(log.acquire("router-1"), 1) == first + 15

    # -- cursors

    def test_a_cursor_only_goes_forward_and_not_past_the_head(self, log: Log, lease: Lease) -> None:
        log.append(lease, [new(push_id=str(i)) for i in range(5)])
        assert log.acknowledged(["u:1", "u:2"]) == {"u:1": 0, "u:2": 0}
        for offset, cursor in ((2, 2), (1, 2), (-3, 2), (4, 4), (99, 5), (5, 5)):
            assert log.acknowledge(lease, {"u:1": offset}) == {"u:1": cursor}
            assert log.acknowledged(["u:1"]) == {"u:1": cursor}
        assert log.acknowledge(lease, {"u:9": 7}) == {"u:9": 0}
        assert log.acknowledged(["u:9"]) == {"u:9": 0}

    # -- bans

    def test_bans_are_kept_in_the_order_in_which_they_came_and_each_once(self, log: Log, lease: Lease) -> None:
        assert log.bans() == []
        bob, net = Ban(Banned("bob", "phone"), "spam", "ops", 5, 9), Ban(Banned(network="203.0.113.0/24"))
        log.ban(lease, [bob, net])
        log.ban(lease, [again := msgspec.structs.replace(bob, reason="more spam")])
        assert log.bans() == [net, again]
        log = self.reopen(log)
        assert log.bans() == [net, again]
        lease = log.acquire("router-1")
        log.ban(lease, [], [bob.banned, Banned("nobody")])
        log.ban(lease, [other := Ban(Banned("bob"))], [net.banned])
        assert log.bans() == [other]

    def test_who_is_fenced_bans_nobody(self, log: Log, lease: Lease) -> None:
        log.acquire("router-1")
        with pytest.raises(Fenced):
            log.ban(lease, [Ban(Banned("bob"))])
        assert log.bans() == []

    # -- trimming

    def trim_all(self, log: Log, lease: Lease, retention: Retention, now: int, before: int = FOR_EVER) -> int:
        """Trims until nothing more goes; time for a sweep passes in between."""
        total = 0
        for i in range(10):
            total += log.trim(lease, retention, now + i * 60_000, before, 10_000).records
        return total

    def test_what_is_over_the_count_goes(self, log: Log, lease: Lease) -> None:
        for i in range(100):
            log.append(lease, [new("u:1", f"a{i}", body=b"%d" % i), new("u:2", f"b{i}")])
        log.append(lease, [new("u:3", "c")])
        assert self.trim_all(log, lease, rules(count=40), NOW) == 120
        assert [self.floor_and_head(log, s) for s in ("u:1", "u:2", "u:3")] == [(60, 100), (60, 100), (0, 1)]
        assert self.bodies(log, "u:1") == [b"%d" % i for i in range(60, 100)]
        page = log.read("u:1", 5, 62, 99, 1 << 20, NOW)
        assert ([r.offset for r in page.records], page.floor, page.last) == ([61, 62], 60, 62)
        assert log.append(lease, [new("u:1", "z")]) == stored(101)

    def test_what_is_too_old_goes_and_the_head_stays(self, log: Log, lease: Lease) -> None:
        log.append(lease, [new("u:1", str(i), at=NOW + i * 1000) for i in range(10)] + [new("u:2", "x", at=NOW)])
        assert log.trim(lease, rules(age_s=10), NOW + 10_000, FOR_EVER, 100) == Trimmed(0, 0, False)
        assert self.trim_all(log, lease, rules(age_s=900), NOW + 5_000 + 900_000 - 540_000) == 6
        assert [self.floor_and_head(log, s) for s in ("u:1", "u:2")] == [(5, 10), (1, 1)]
        assert self.trim_all(log, lease, rules(age_s=10), NOW + 999_999_999) == 5
        assert [self.floor_and_head(log, s) for s in ("u:1", "u:2")] == [(10, 10), (1, 1)]
        log = self.reopen(log)
        again = log.acquire("router-1")
        assert [self.floor_and_head(log, s) for s in ("u:1", "u:2")] == [(10, 10), (1, 1)]
        assert log.append(again, [new("u:1", "z"), new("u:2", "z")]) == stored(11, 2)

    def test_what_is_young_stays(self, log: Log, lease: Lease) -> None:
        log.append(lease, [new(push_id=str(i), at=NOW + i) for i in range(100)])
        assert self.trim_all(log, lease, rules(count=10), NOW + 100, before=NOW + 30) == 30
        assert self.floor_and_head(log, "u:1") == (30, 100)
        assert self.trim_all(log, lease, rules(count=10), NOW + 700_000, before=NOW + 1_000) == 60

    def test_the_time_is_kept_also_where_nothing_is_appended(self, log: Log, lease: Lease) -> None:
        log.append(lease, [new()])
        late = NOW + 7 * 86_400_000
        log.trim(lease, rules(age_s=1e9), late, FOR_EVER, 100)
        assert self.reopen(log).last_time_ms == late

    def test_a_budget(self, log: Log, lease: Lease) -> None:
        log.append(lease, [new(push_id=str(i)) for i in range(1_000)])
        went = [log.trim(lease, rules(count=0), NOW + i * 60_000, FOR_EVER, 300) for i in range(6)]
        assert sorted(one.records for one in went) == [0, 0, 100, 300, 300, 300]
        assert sorted(one.has_more for one in went) == [False, False, False, True, True, True]

    def test_a_stream_of_which_nothing_is_kept_any_more(self, log: Log, lease: Lease) -> None:
        log.append(lease, [new("r:t-1", str(i), at=NOW + i) for i in range(5)] + [new("r:1", "x", at=NOW)])
        live = Retention(classes=(RoomClass("live", ("t-*",), Rule(0, 0)),))
        assert self.trim_all(log, lease, live, NOW + 1_000) == 5
        assert self.floor_and_head(log, "r:t-1") == (5, 5)

    def test_a_shared_body_goes_with_its_last_record(self, log: Log, lease: Lease) -> None:
        log.append(lease, [NewPush("p", ["u:1", "u:2", "u:3"], 5, b"hello", NOW)])
        log.append(lease, [new("u:1", f"q{i}") for i in range(50)] + [new("u:3", f"q{i}") for i in range(50)])
        assert self.trim_all(log, lease, rules(count=1), NOW) == 100
        assert self.bodies(log, "u:2") == [b"hello"]

    def test_trimming_between_appends(self, log: Log, lease: Lease) -> None:
        for i in range(60):
            batch: Sequence[NewPush] = [new("u:1", f"{i} {n}", body=b"%d" % (i * 10 + n)) for n in range(10)]
            log.append(lease, batch)
            log.trim(lease, rules(count=50), NOW + i, FOR_EVER, 1_000)
            floor, head = self.floor_and_head(log, "u:1")
            assert head == (i + 1) * 10
            assert 50 <= head - floor + 50 <= 50 + 50 + 16 + 10
            assert self.bodies(log, "u:1") == [b"%d" % n for n in range(floor, head)]
