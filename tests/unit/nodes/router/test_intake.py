"""Which pushes a router takes, and that what their publishers hear is true."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from zim.errors import Unavailable, Unknown
from zim.fabric.sharding import Shards
from zim.net.batches import Batches
from zim.nodes.router.admission import Admission, new_push
from zim.nodes.router.directory import Directory
from zim.nodes.router.feed import Feed
from zim.nodes.router.intake import PATIENCE_S, REMEMBER_S, Intake
from zim.nodes.router.log import Appended
from zim.nodes.router.log.memory import MemoryLog
from zim.nodes.router.log.memory_store import Failure, MemoryStore
from zim.protocol.messages import Begin, Changes, Publish, PublishReply, Put
from zim.protocol.publication import Publication

MAX_BEHIND = 10_000


class Counted(Batches[Admission[str]]):
    """A queue that is limited by a number. room: how many pushes it takes."""

    def __init__(self) -> None:
        super().__init__(1 << 30)
        self.room = 1000

    @property
    def waiting(self) -> list[Admission[str]]:
        return [admission for admission, _ in self._items]

    def put(self, item: Admission[str], size: int) -> bool:
        return len(self._items) < self.room and super().put(item, size)


class Desk:
    """A router's intake over a log in memory.

    Attributes:
        answers: statuses and offsets, by request; over: which stream had too much.
        commits, lookups: the intake's queues.
        batch: what waits for the next commit; asked: for being looked up.
    """

    def __init__(self, term: int = 7, store: MemoryStore | None = None, routers: int = 1) -> None:
        self.store = store or MemoryStore("a", term=term - 1)
        self.log = MemoryLog(self.store, lambda: 0.0, lambda: 0.0)
        lease = self.log.acquire("router-1")
        self.lease = lease
        self.directory = Directory(1)
        shards = Shards([f"router-{i}" for i in range(1, routers + 1)])
        self.intake: Intake[str] = Intake("router-1", term, shards, self.directory, MAX_BEHIND)
        self.intake.commits = self.commits = Counted()
        self.intake.lookups = self.lookups = Counted()
        self.answers: dict[int, tuple[str, list[int]]] = {}
        self.homes: dict[int, int] = {}
        self.over: dict[int, int] = {}  # see Outcome
        self.fresh_keys: list[int] = []
        self.fresh: list[tuple[str, int]] = []
        self.now = 0.0
        self._reqs = 0

    @property
    def batch(self) -> list[Admission[str]]:
        return self.commits.waiting

    @property
    def asked(self) -> list[Admission[str]]:
        return self.lookups.waiting

    def publish(self, push_id: str, *streams: str, digest: bytes = b"", body: bytes = b"x", **keys: Any) -> int:
        """A Publish comes; returns its number."""
        self._reqs += 1
        attempt, term = keys.pop("attempt", 1), keys.pop("term", 0)
        share = Publication(push_id, list(streams or ["u:1"]), 5, body, digest, **keys)
        m = Publish("router-1", self._reqs, attempt, term, [share])
        answer = self.intake.publish("logic", m, self.now, int(self.now * 1000), 7)
        if answer is not None:
            self._hear([("logic", answer)])
        return self._reqs

    def commit(self, failure: Failure | None = None) -> None:
        """As zim.nodes.router.node does it."""
        batch = self.commits.drain()
        pushes = [new_push(admission) for admission in batch]
        if failure:
            self.store.failures.append(failure)
        try:
            appended: list[Appended] | None = self.log.append(self.lease, pushes)
        except Unavailable:
            appended = None
        except Unknown:
            appended = self.log.settle(self.lease, pushes)
        if appended is None:
            self._hear(self.intake.not_stored(batch))
            return
        fresh, answers = self.intake.stored(batch, appended, self.now)
        self.fresh += [item for stored in fresh for item in stored.items]
        self._hear(answers)

    def look_up(self) -> None:
        """The log says what it knows of pushes that would be refused."""
        for a in self.lookups.drain():
            self._hear(self.intake.looked_up(a, *self.log.find([new_push(a)])))

    def tick(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        self._hear(self.intake.tick(self.now))

    def _hear(self, answers: list[tuple[str, PublishReply]]) -> None:
        for _, m in answers:
            assert m.req not in self.answers, "two answers to one request"
            ((_, status, offsets, home_ms, _, is_fresh, over, retry_ms),) = map(msgspec.structs.astuple, m.outcomes)
            self.fresh_keys += [m.req] if is_fresh else []
            assert (over > 0) == (retry_ms > 0)
            self.over[m.req] = over
            self.answers[m.req] = status, list(offsets)
            self.homes[m.req] = home_ms

    def serve(self, uid: str = "1") -> Feed:
        """A comet where the user is."""
        changes = Changes("router-1", "comet-1", 1, 7, [Begin(1, 1), Put(2, 1, uid, 0, ())])
        for change in changes.changes:
            feed = self.directory.apply(changes, change, 99.0)
        assert feed is not None
        return feed


def test_a_push_is_answered_with_its_offsets_once_it_is_stored() -> None:
    desk = Desk()
    first, second = desk.publish("a"), desk.publish("b", "u:1", "u:2", "*")
    assert desk.answers == {}
    desk.commit()
    assert desk.answers == {first: ("ok", [1]), second: ("ok", [2, 1, 1])}
    assert desk.fresh == [("u:1", 1), ("u:1", 2), ("u:2", 1), ("*", 1)]


def test_another_routers_stream_is_refused() -> None:
    desk = Desk(routers=2)
    shards = Shards(["router-1", "router-2"])
    mine = next(f"u:{n}" for n in range(99) if shards.of(f"u:{n}") == "router-1")
    other = next(f"u:{n}" for n in range(99) if shards.of(f"u:{n}") == "router-2")
    assert desk.answers[desk.publish("a", mine, other)] == ("refused", [])
    assert desk.batch == []


@pytest.mark.parametrize("digest", [b"", b"d"])
def test_a_repeat_that_meets_its_commit_waits_for_it(digest: bytes) -> None:
    desk = Desk()
    reqs = [desk.publish("a", digest=digest, attempt=n, term=7) for n in (1, 2, 3)]
    assert len(desk.batch) == 1
    desk.commit()
    assert desk.answers == dict.fromkeys(reqs, ("ok", [1]))
    again = desk.publish("a", digest=digest, attempt=4, term=7)
    assert desk.answers[again] == ("ok", [1])
    assert desk.fresh == [("u:1", 1)]


@pytest.mark.parametrize("digest", [b"", b"d"])
def test_a_repeat_is_known_before_it_is_refused(digest: bytes) -> None:
    desk = Desk()
    desk.publish("a", digest=digest)
    desk.commit()
    desk.commits.room = 0
    again = desk.publish("a", digest=digest, attempt=2, term=7)
    assert desk.answers[again] == ("ok", [1])


def test_a_push_without_a_key_is_refused_at_once_when_full() -> None:
    desk = Desk()
    desk.commits.room = 0
    assert desk.answers[desk.publish("a")] == ("unavailable", [])
    assert desk.asked == []


def test_a_push_with_a_key_is_looked_up_before_it_is_refused() -> None:
    desk = Desk()
    stored = desk.publish("a", digest=b"d")
    desk.commit()
    desk.tick(REMEMBER_S + 1)
    desk.tick(REMEMBER_S + 1)
    desk.commits.room = 0
    reqs = [
        desk.publish("a", digest=b"d"),
        desk.publish("a", digest=b"other"),
        desk.publish("b", digest=b"d"),
        desk.publish("a", "u:1", "u:2", digest=b"both"),
    ]
    assert set(desk.answers) == {stored}
    desk.look_up()
    statuses = [desk.answers[req] for req in reqs]
    assert statuses == [("ok", [1]), ("conflict", []), ("unavailable", []), ("conflict", [])]


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_look_up_that_meets_its_repeat_has_its_answer(is_stored: bool) -> None:
    """The first logic is refused for want of room, the second one is not, and the log is asked in between."""
    desk = Desk()
    desk.commits.room = 0
    first = desk.publish("a", digest=b"d")
    desk.commits.room = 9
    second = desk.publish("a", digest=b"d")
    if is_stored:
        desk.commit()
    desk.look_up()
    desk.commit()
    assert desk.answers == {first: ("ok", [1]), second: ("ok", [1])}


def test_when_nobody_can_look_a_key_up_the_answer_is_unknown() -> None:
    desk = Desk()
    desk.commits.room = desk.lookups.room = 0
    assert desk.answers[desk.publish("a", digest=b"d")] == ("unknown", [])


def test_the_same_key_for_another_content_is_a_conflict() -> None:
    desk = Desk()
    first = desk.publish("a", digest=b"d")
    early = desk.publish("a", digest=b"other")
    desk.commit()
    late = desk.publish("a", digest=b"other")
    again = desk.publish("a", digest=b"d")
    desk.commit()
    assert desk.answers[first] == desk.answers[again] == ("ok", [1])
    assert desk.answers[early] == desk.answers[late] == ("conflict", [])
    assert desk.fresh == [("u:1", 1)]


def test_a_key_outlives_the_memory_and_the_router() -> None:
    desk = Desk()
    desk.publish("a", digest=b"d")
    desk.commit()
    later = Desk(term=8, store=desk.store)
    again = later.publish("a", digest=b"d", attempt=2, term=7)
    later.commit()
    assert later.answers[again] == ("ok", [1])
    assert later.fresh == []


def test_a_key_is_one_push_and_the_refused_one_is_stored_nowhere() -> None:
    desk = Desk()
    first = desk.publish("a", "u:1", digest=b"d")
    desk.commit()
    others = [desk.publish("a", "u:1", "u:2", digest=b"e"), desk.publish("a", "u:3", digest=b"f")]
    desk.commit()
    assert desk.answers == {first: ("ok", [1]), **dict.fromkeys(others, ("conflict", []))}
    assert desk.fresh == [("u:1", 1)]


def test_a_key_is_known_by_when_its_home_stored_it() -> None:
    desk = Desk()
    desk.now = 100.0
    req = desk.publish("a", digest=b"d")
    desk.commit()
    assert desk.homes[req] == 100_000  # it is home itself
    desk.publish("a", digest=b"d")
    both = [desk.publish("c", digest=b"d") for _ in range(2)]
    desk.commit()
    assert desk.fresh_keys == [req, both[0]]
    use, repeat = (desk.publish("b", digest=b"d", home_ms=500) for _ in range(2))
    desk.commit()
    again = desk.publish("b", digest=b"d", home_ms=500)
    later = desk.publish("b", digest=b"e", home_ms=700)
    desk.commit()
    assert [desk.answers[r] for r in (use, repeat, again, later)] == [("ok", [3])] * 3 + [("ok", [4])]


def test_the_pushes_of_one_message_are_answered_as_they_are_known() -> None:
    desk = Desk()
    desk.serve("2").behind_bytes = MAX_BEHIND
    m = Publish("router-1", 1, 1, 0, [Publication(name, [f"u:{at}"], 5, b"x") for at, name in enumerate("abc")])
    assert desk.intake.publish("logic", m, 0.0, 0, 0) is None
    appended = [Appended("stored", (1,))] * 2
    batch = desk.commits.drain()
    _, ((_, reply),) = desk.intake.stored(batch, appended, 0.0)
    assert [(o.at, o.status) for o in reply.outcomes] == [(0, "ok"), (1, "ok")]
    ((_, reply),) = desk.intake.tick(PATIENCE_S + 0.1)
    assert [(o.at, o.status) for o in reply.outcomes] == [(2, "unavailable")]


def test_live_only_pushes_are_not_known_after_a_restart_even_with_a_key() -> None:
    desk = Desk()
    req = desk.publish("a", digest=b"d", is_live_only=True, attempt=2, term=6)
    assert desk.answers[req] == ("unknown", [])


@pytest.mark.parametrize(
    ("attempt", "term", "digest", "status"),
    [
        (1, 0, b"", "ok"),
        (1, 6, b"", "ok"),  # logic has heard of an earlier term; it is the first attempt, so nothing is stored
        (2, 7, b"", "ok"),  # this term would know it
        (2, 6, b"", "unknown"),
        (2, 0, b"", "unknown"),
        (2, 6, b"d", "ok"),  # the log knows keys
    ],
)
def test_a_retry_without_a_key_in_another_term_is_unknown(attempt: int, term: int, digest: bytes, status: str) -> None:
    desk = Desk()
    req = desk.publish("a", digest=digest, attempt=attempt, term=term)
    desk.commit()
    assert desk.answers[req][0] == status


@pytest.mark.parametrize(
    ("push_id", "fields", "status"),
    [
        ("stored", {}, "ok"),
        ("new", {}, "ok"),  # it is surely not there: it is taken
        ("stored", {"part": 0, "parts": 2}, "unknown"),  # the id may be there because of the other part
        ("stored", {"part": 1, "parts": 2}, "unknown"),
        ("new", {"part": 1, "parts": 2}, "unknown"),
    ],
)
def test_a_new_owner_of_a_shard_knows_what_was_stored_last(push_id: str, fields: dict[str, Any], status: str) -> None:
    desk = Desk()
    desk.intake.recall(frozenset(["stored"]), lambda stream: False, 0.0)
    req = desk.publish(push_id, attempt=2, term=6, **fields)
    desk.commit()
    assert desk.answers[req] == (status, [1] if push_id == "new" and status == "ok" else [])


def test_a_batch_that_surely_failed_is_unavailable_and_gives_its_offsets_back() -> None:
    desk = Desk()
    plain, keyed = desk.publish("a"), desk.publish("b", digest=b"d")
    desk.commit("unavailable")
    assert desk.answers == {plain: ("unavailable", [])}
    desk.look_up()
    assert desk.answers[keyed] == ("unavailable", [])
    again = desk.publish("a", attempt=2, term=7)  # nobody has heard of it; what came after it may be in the log
    desk.commit()
    assert desk.answers[again] == ("unavailable", [])
    anew = desk.publish("a")
    desk.commit()
    assert desk.answers[anew] == ("ok", [1])


def test_a_batch_whose_end_is_unknown_is_settled() -> None:
    desk = Desk()
    stored = desk.publish("a")
    desk.commit("unknown, stored")
    lost = desk.publish("b")
    desk.commit("unknown, lost")
    assert desk.answers == {stored: ("ok", [1]), lost: ("unavailable", [])}


def test_a_batch_of_which_nobody_can_tell_is_unknown() -> None:
    desk = Desk()
    reqs = [desk.publish("a"), desk.publish("b", digest=b"d"), desk.publish("a", attempt=2, term=7)]
    desk._hear(desk.intake.not_told(desk.commits.drain()))
    assert desk.answers == dict.fromkeys(reqs, ("unknown", []))


def test_push_ids_are_forgotten_after_some_seconds() -> None:
    desk = Desk()
    desk.publish("a")
    desk.commit()
    desk.tick(REMEMBER_S - 1)
    known = desk.publish("a", attempt=2, term=7)
    desk.tick(2)
    new = desk.publish("a", attempt=1)
    desk.commit()
    assert desk.answers[known] == ("ok", [1])
    assert desk.answers[new] == ("ok", [2])


def test_a_push_whose_commit_takes_long_is_not_forgotten() -> None:
    desk = Desk()
    first = desk.publish("a")
    desk.tick(REMEMBER_S + 1)
    second = desk.publish("a", attempt=2, term=7)
    desk.commit()
    assert desk.answers == {first: ("ok", [1]), second: ("ok", [1])}
    assert desk.fresh == [("u:1", 1)]


def test_a_push_waits_for_a_comet_that_is_behind_and_goes_on_when_it_is_not() -> None:
    desk = Desk()
    feed = desk.serve()
    feed.behind_bytes = MAX_BEHIND
    waiting, other = desk.publish("a"), desk.publish("b", "u:2")
    desk.tick(PATIENCE_S / 2)
    assert [a.push.push_id for a in desk.batch] == ["b"]
    feed.behind_bytes = 0
    desk.intake.retry()
    desk.commit()
    assert desk.answers == {other: ("ok", [1]), waiting: ("ok", [1])}


def test_a_push_larger_than_the_limit_goes_to_a_comet_that_has_handled_all() -> None:
    desk = Desk()
    feed = desk.serve()
    feed.behind_bytes = 1
    large, small = desk.publish("a", body=b"x" * 2 * MAX_BEHIND), desk.publish("b")
    assert desk.batch == []
    feed.behind_bytes = 0
    desk.intake.retry()
    assert [a.push.push_id for a in desk.batch] == ["a"]
    desk.commit()
    desk.intake.retry()
    desk.commit()
    assert desk.answers == {large: ("ok", [1]), small: ("ok", [2])}


def test_nobody_overtakes_a_push_that_waits_in_the_same_stream() -> None:
    desk = Desk()
    feed = desk.serve()
    feed.behind_bytes = MAX_BEHIND - 1_000
    large, small = desk.publish("a", body=b"x" * 2_000), desk.publish("b")
    assert desk.batch == []
    feed.behind_bytes = MAX_BEHIND - 2_000  # room for the small one alone
    desk.intake.retry()
    assert desk.batch == []
    feed.behind_bytes = 0
    desk.intake.retry()
    desk.commit()
    assert desk.answers == {large: ("ok", [1]), small: ("ok", [2])}
    again = desk.publish("c")
    assert [a.push.push_id for a in desk.batch] == ["c"]
    desk.commit()
    assert desk.answers[again] == ("ok", [3])


def test_a_standstill_is_no_reason_to_forget_or_to_give_up() -> None:
    desk = Desk()
    feed = desk.serve()
    first = desk.publish("a")
    desk.commit()
    feed.behind_bytes = MAX_BEHIND
    waiting = desk.publish("b")
    desk.intake.stood_still(REMEMBER_S + 1)
    desk.tick(REMEMBER_S + 1)
    retry = desk.publish("a", attempt=2, term=7)
    assert desk.answers == {first: ("ok", [1]), retry: ("ok", [1])}
    feed.behind_bytes = 0
    desk.intake.retry()
    desk.commit()
    assert desk.answers[waiting] == ("ok", [2])


def test_a_repeat_with_its_streams_in_another_order_gets_its_own_offsets() -> None:
    desk = Desk()
    desk.publish("z", "u:1")
    desk.commits.room = 1
    first = desk.publish("a", "u:1", "u:2", digest=b"d")  # refused, and to be looked up
    desk.commit()
    desk.commits.room = 9
    second = desk.publish("a", "u:2", "u:1", digest=b"d")
    desk.commit()
    desk.look_up()
    assert desk.answers[second] == ("ok", [1, 2])
    assert desk.answers[first] == ("ok", [2, 1])


def test_a_repeat_is_not_answered_with_the_offsets_of_one_in_another_order() -> None:
    desk = Desk()
    desk.publish("z", "u:1")
    desk.commits.room = 1
    first = desk.publish("a", "u:1", "u:2", digest=b"d")  # refused, and to be looked up
    desk.commit()
    second = desk.publish("a", "u:2", "u:1", digest=b"d")
    desk.look_up()
    desk.commit()
    assert desk.answers[second] == ("ok", [1, 2])
    assert desk.answers[first] == ("unavailable", [])


def test_it_does_not_wait_for_ever() -> None:
    desk = Desk()
    desk.serve().behind_bytes = MAX_BEHIND
    plain, keyed = desk.publish("a"), desk.publish("b", digest=b"d")
    repeat = desk.publish("a", attempt=2, term=7)
    desk.tick(PATIENCE_S + 0.1)
    assert desk.answers == {plain: ("unavailable", []), repeat: ("unavailable", [])}
    desk.look_up()
    assert desk.answers[keyed] == ("unavailable", [])
    assert desk.batch == []


def test_what_is_admitted_counts_as_behind_until_it_is_stored() -> None:
    desk = Desk()
    feed = desk.serve()
    body = bytes(MAX_BEHIND // 2)
    desk.publish("a", body=body)
    assert feed.admitted_bytes > MAX_BEHIND // 2
    desk.publish("b", body=body)
    assert [a.push.push_id for a in desk.batch] == ["a"]
    desk.commit()
    assert feed.admitted_bytes == 0
    desk.intake.retry()
    assert [a.push.push_id for a in desk.batch] == ["b"]
    desk.commit("unavailable")
    assert feed.admitted_bytes == 0


@pytest.mark.parametrize(("term", "expires_ms", "expected_ms"), [(7, 50, 50), (7, 500, 100), (6, 50, 100), (7, 0, 100)])
def test_a_moment_counts_in_the_log_time_of_this_run_and_a_ttl_never_gets_longer(
    term: int, expires_ms: int, expected_ms: int
) -> None:
    desk = Desk()
    desk.publish("a", "u:1", term=term, ttl_ms=100, expires_ms=expires_ms)
    (admission,) = desk.batch
    assert new_push(admission).expires_ms == expected_ms


def test_records_tell_ttl_and_whom_they_are_for() -> None:
    desk = Desk()
    desk.now = 5.0
    desk.publish("a", "u:1", "u:2", "r:1", ttl_ms=100, only=("1_7", "1_8", "3_1"))
    desk.publish("b", "u:1")
    pushes = [new_push(admission) for admission in desk.batch]
    assert [(p.streams, p.time_ms, p.expires_ms, p.only) for p in pushes] == [
        (["u:1", "u:2", "r:1"], 5000, 5100, {"u:1": ("1_7", "1_8"), "u:3": ("3_1",)}),
        (["u:1"], 5000, 0, {}),
    ]
