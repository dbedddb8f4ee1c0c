"""A router's runner: one batch of each kind is under way, and every end of a commit has an honest answer."""

from __future__ import annotations

from typing import Any

import pytest

from zim.errors import Unavailable, Unknown
from zim.fabric.answers import Place
from zim.fabric.questions import UnreadCount, UserSessions
from zim.fabric.sharding import Shards, rank
from zim.fabric.tally import Tally
from zim.nodes.effects import Effect, End, Note, Replies, Send
from zim.nodes.router.effects import Append, ForgetIdle, LookUp, ReadHeads, ReserveSeqs, Settle, StoreReceipts, Trim
from zim.nodes.router.log import Appended, Damaged, Head, Trimmed
from zim.nodes.router.log.clock import LogClock
from zim.nodes.router.receipts import RouterLedger
from zim.nodes.router.shard import SPARE_S, Shard
from zim.nodes.router.shard_runner import SETTLE_S, SETTLED_S, ShardRunner
from zim.nodes.router.upkeep import SEQS, TRIM_AGAIN_S
from zim.protocol.messages import (
    Answer,
    Answered,
    Answers,
    Ask,
    Begin,
    Change,
    Changes,
    Publish,
    PublishReply,
    Push,
    Put,
    Read,
    Records,
)
from zim.protocol.publication import Publication

JOBS = ["job-1", "job-2"]


def fresh(seqs_end: int = 1 << 40) -> ShardRunner[str]:
    shard: Shard[str] = Shard(
        "router-1", 7, Shards(["router-1"]), ["comet-1"], 0.0, 1 << 20, 1, RouterLedger(Tally(), 0, 0, 0)
    )
    return ShardRunner(shard, LogClock(0, 0.0, 0.0), seqs_end, {}, ["comet-1"], JOBS, 0.0)


def publish(runner: ShardRunner[str], req: int, digest: bytes = b"") -> list[Effect]:
    return runner.on_messages(
        "logic-1", [Publish("router-1", req, 1, 0, [Publication(f"id{req}", ["u:1"], 5, b"x", digest)])], 0.0
    )


def statuses(effects: list[Effect]) -> dict[int, str]:
    answers: list[Any] = [m for effect in effects if isinstance(effect, Replies) for _, m in effect.answers]
    return {m.req: m.outcomes[0].status for m in answers if isinstance(m, PublishReply)}


def first(effects: list[Effect], kind: type[Any]) -> Any:
    (found,) = [effect for effect in effects if isinstance(effect, kind)]
    return found


def test_what_comes_while_a_commit_runs_is_the_next_one() -> None:
    runner = fresh()
    append = first(publish(runner, 1), Append)
    assert publish(runner, 2) == []
    assert publish(runner, 3) == []
    effects = runner.on_done(append, [Appended("stored", (1,))], 0.1)
    assert statuses(effects) == {1: "ok"}
    assert [push.push_id for push in first(effects, Append).pushes] == ["id2", "id3"]


def test_a_push_goes_down_to_the_job_that_is_there() -> None:
    best, other = rank("comet-1", JOBS)
    for there, expected in (((), best), ((other,), other), ((best, other), best)):
        runner = fresh()
        runner.on_messages("comet-1", [Changes("router-1", "comet-1", 1, 7, [Begin(1, 1), Put(2, 9, "1", 0, ())])], 0.0)
        for job in there:
            runner.on_link(job, True)
        effects = runner.on_done(first(publish(runner, 1), Append), [Appended("stored", (1,))], 0.1)
        send, replies = effects
        assert isinstance(send, Send)
        assert isinstance(send.message, Push)
        assert send.peer == expected
        assert [(t.comet, t.items) for t in send.message.targets] == [("comet-1", [("u:1", 1)])]
        assert isinstance(replies, Replies)
    runner.on_link(best, False)
    effects = runner.on_done(first(publish(runner, 2), Append), [Appended("stored", (2,))], 0.1)
    assert first(effects, Send).peer == other


def test_a_commit_that_surely_failed_is_503_and_the_next_one_begins() -> None:
    runner = fresh()
    append = first(publish(runner, 1), Append)
    publish(runner, 2)
    effects = runner.on_done(append, Unavailable("the log", "full"), 0.1)
    assert statuses(effects) == {1: "unavailable"}
    assert first(effects, Note).event == "pushes refused"
    assert first(effects, Append)


def test_with_a_key_the_log_is_asked_before_503_is_said() -> None:
    runner = fresh()
    effects = runner.on_done(first(publish(runner, 1, b"d"), Append), Unavailable("the log", "full"), 0.1)
    assert statuses(effects) == {}
    look_up = first(effects, LookUp)
    assert statuses(runner.on_done(look_up, None, 0.2)) == {1: "unavailable"}
    again = first(runner.on_done(first(publish(runner, 2, b"d"), Append), Unavailable("the log", "full"), 0.3), LookUp)
    assert statuses(runner.on_done(again, Unavailable("the log", "full"), 0.4)) == {2: "unknown"}


@pytest.mark.parametrize(("settled", "status"), [([Appended("stored", (1,))], "ok"), (None, "unavailable")])
def test_a_commit_whose_end_is_unknown_is_settled_before_anything_else(settled: Any, status: str) -> None:
    runner = fresh()
    effects = runner.on_done(first(publish(runner, 1), Append), Unknown("the log", "an error"), 0.1)
    settle = first(effects, Settle)
    assert publish(runner, 2) == []
    effects = runner.on_done(settle, settled, 0.2)
    assert statuses(effects) == {1: status}
    assert first(effects, Append)


@pytest.mark.parametrize("error", [Unavailable("the log", "x"), Unknown("the log", "x"), Damaged("log.db", "x")])
def test_what_cannot_be_settled_ends_the_node_and_nothing_is_appended_any_more(error: Exception) -> None:
    runner = fresh()
    settle = first(runner.on_done(first(publish(runner, 1), Append), Unknown("the log", "an error"), 0.1), Settle)
    now = 0.2
    if not isinstance(error, Damaged):  # it may be told yet
        while now < SETTLED_S:
            assert runner.on_done(settle, error, now) == []
            assert not any(isinstance(effect, Settle) for effect in runner.on_tick(now + SETTLE_S / 2, 0.0))
            now += SETTLE_S
            settle = first(runner.on_tick(now, 0.0), Settle)
    effects = runner.on_done(settle, error, now + 0.1)
    assert statuses(effects) == {1: "unknown"}
    assert first(effects, End).why == str(error)
    assert publish(runner, 2) == []


def test_receipts_are_stored_once_a_second_and_not_twice_at_once() -> None:
    runner = fresh()
    runner.on_done(first(publish(runner, 1), Append), [Appended("stored", (1,))], 0.1)
    assert not any(isinstance(e, StoreReceipts) for e in runner.on_tick(0.5, 0.0))
    store = first(runner.on_tick(1.1, 0.0), StoreReceipts)
    assert ([r.push_id for r in store.receipts], store.pushes) == (["id1"], 1)
    runner.on_done(first(publish(runner, 2), Append), [Appended("stored", (2,))], 1.2)
    assert not any(isinstance(e, StoreReceipts) for e in runner.on_tick(9.0, 0.0))
    assert first(runner.on_done(store, Unavailable("the receipts", "full"), 9.1), Note).fields["receipts"] == 1
    store = first(runner.on_tick(9.2, 0.0), StoreReceipts)
    assert ([r.push_id for r in store.receipts], store.pushes) == (["id1", "id2"], 2)  # what failed goes with the next
    assert runner.last_words(9.3) is None


def test_trimming_goes_on_while_there_is_more_and_rests_after_an_error() -> None:
    runner, now = fresh(), 0.0
    while now + 0.5 < SPARE_S:
        now += 0.5
        assert not any(isinstance(e, Trim) for e in runner.on_tick(now, 0.0))
    now += 1.0
    trim = first(runner.on_tick(now, 0.0), Trim)
    assert not any(isinstance(e, Trim) for e in runner.on_tick(now + 0.2, 0.0))  # one is under way
    more = first(runner.on_done(trim, Trimmed(7, 2, has_more=True), now), Trim)
    assert runner.on_done(more, Trimmed(3, 9, has_more=False), now) == []
    assert runner.upkeep.trimmed == 10
    last = first(runner.on_tick(now + 0.2, 0.0), Trim)
    assert first(runner.on_done(last, Unavailable("the log", "full"), now + 0.2), Note)
    assert not any(isinstance(e, Trim) for e in runner.on_tick(now + 0.4, 0.0))
    assert first(runner.on_tick(now + 0.3 + TRIM_AGAIN_S, 0.0), Trim)


def test_session_numbers_are_reserved_long_before_they_are_used_up() -> None:
    runner = fresh(seqs_end=SEQS + 1)
    assert [type(e) for e in runner.on_tick(0.1, 0.0)] == [ForgetIdle]
    runner.shard.directory.next_seq = SEQS // 2 + 2
    reserve = first(runner.on_tick(0.2, 0.0), ReserveSeqs)
    assert not any(isinstance(e, ReserveSeqs) for e in runner.on_tick(0.3, 0.0))
    assert first(runner.on_done(reserve, Unavailable("the log", "full"), 0.4), Note)
    reserve = first(runner.on_tick(0.5, 0.0), ReserveSeqs)
    assert runner.on_done(reserve, SEQS + 1, 0.6) == []
    assert not any(isinstance(e, ReserveSeqs) for e in runner.on_tick(0.7, 0.0))


def test_a_router_speaks_for_its_own_streams_alone() -> None:
    """Whoever asks for others has another topology: silence, or an empty history, would not tell."""
    routers = ["router-1", "router-2"]
    owner = Shards(routers).of
    mine = next(str(n) for n in range(99) if owner(f"u:{n}") == "router-1")
    theirs = next(str(n) for n in range(99) if owner(f"u:{n}") == "router-2")
    shard: Shard[str] = Shard(
        "router-1", 7, Shards(routers), ["comet-1"], 0.0, 1 << 20, 1, RouterLedger(Tally(), 0, 0, 0)
    )
    runner = ShardRunner(shard, LogClock(0, 0.0, 0.0), 1 << 40, {}, ["comet-1"], JOBS, 0.0)

    def ask(*asked: Any) -> tuple[list[Any], list[Note]]:
        effects = runner.on_messages("peer", list(asked), 0.1)
        answers = [m for effect in effects if isinstance(effect, Replies) for _, m in effect.answers]
        return answers, [effect for effect in effects if isinstance(effect, Note)]

    changes: list[Change] = [Begin(1, 2), Put(2, 1, mine, 0, ()), Put(3, 2, theirs, 0, ())]
    effects = runner.on_messages("comet-1", [Changes("router-1", "comet-1", 1, 7, changes)], 0.0)
    heads = {f"u:{mine}": Head("e", 0, 3)}
    (replies,) = runner.on_done(first(effects, ReadHeads), (heads, {f"u:{mine}": 2}), 0.1)
    assert isinstance(replies, Replies)
    ((_, told),) = replies.answers
    assert isinstance(told, Answers)
    assert told.answers == [Answer(1, 0, "", 0, 0), Answer(2, 0, "e", 3, 1, 2), Answer(3, 0, "", 0, 0)]
    located = [shard.directory.locate(uid) for uid in (mine, theirs)]
    assert located == [([Place("comet-1", f"{mine}_1", ())], 1), ([], 0)]
    note = first(effects, Note)
    assert (note.event, note.fields["stream"]) == ("a router refuses a stream: the topologies differ", f"u:{theirs}")
    answers, notes = ask(
        Read("router-1", 4, f"u:{theirs}", 0, 9, 9),
        Ask("router-1", 5, UnreadCount(theirs)),
        Ask("router-1", 6, UserSessions(theirs)),
    )
    assert answers == [
        Records(4, "router-1", f"u:{theirs}", "", 0, 0, [], 0),
        Answered(5, "router-1", None),
        Answered(6, "router-1", None),
    ]
    assert len(notes) == 3
    assert ask(Read("router-1", 7, f"u:{mine}", 0, 9, 9)) == ([], [])
