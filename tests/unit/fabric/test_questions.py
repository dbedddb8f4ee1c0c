"""Every question: it and its answers survive the way between logic and router, and several answers become one."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.fabric.answers import (
    Counts,
    Forgotten,
    InRoom,
    KeptBan,
    KeptBans,
    Ledger,
    Lifted,
    Located,
    Place,
    Reached,
    Receipt,
    RoomSize,
    RoomSizes,
    Unread,
)
from zim.fabric.bans import Banned
from zim.fabric.questions import (
    AnyQuestion,
    BanList,
    BanWho,
    ForgetComet,
    KickRoom,
    KickUser,
    LargestRooms,
    LiftBan,
    MoveUser,
    OnlineCounts,
    PushReceipt,
    Question,
    RoomCount,
    UnreadCount,
    UserSessions,
    WholeLedger,
)
from zim.fabric.streams import is_stream
from zim.fabric.tally import Tally, account
from zim.nodes.router.answering import AT_ONCE, COUNTED, KEPT, STORED, WHOLE
from zim.protocol import codec, messages
from zim.protocol.errors import CodecError

KINDS: tuple[type[Question[Any]], ...] = get_args(AnyQuestion)
ROUTERS = ("router-1", "router-2", "router-3")
NAME = st.text(min_size=1, max_size=5).filter(lambda name: name.isprintable())
COUNT = st.integers(0, 99)
NUMBERS = st.dictionaries(NAME, COUNT, max_size=3)
PLACES = st.builds(Place, NAME, NAME, st.lists(NAME, max_size=2).map(tuple))
WHOM = st.builds(Banned, NAME, NAME) | st.builds(Banned, network=st.just("203.0.113.0/24"))
QUESTIONS: dict[type[Question[Any]], st.SearchStrategy[Question[Any]]] = {
    UserSessions: st.builds(UserSessions, NAME),
    UnreadCount: st.builds(UnreadCount, NAME),
    OnlineCounts: st.just(OnlineCounts()),
    RoomCount: st.builds(RoomCount, NAME),
    LargestRooms: st.builds(LargestRooms, st.integers(1, 3)),
    PushReceipt: st.builds(PushReceipt, NAME),
    WholeLedger: st.just(WholeLedger()),
    ForgetComet: st.builds(ForgetComet, NAME),
    KickUser: st.builds(KickUser, NAME, NAME, COUNT, NAME, st.booleans()),
    KickRoom: st.builds(KickRoom, NAME, st.booleans(), NAME, st.booleans()),
    MoveUser: st.builds(MoveUser, NAME, st.lists(NAME, max_size=2).map(tuple), st.lists(NAME, max_size=2).map(tuple)),
    BanWho: st.builds(BanWho, WHOM, NAME, NAME, st.floats(0, 99)),
    LiftBan: st.builds(LiftBan, WHOM),
    BanList: st.builds(BanList, st.integers(1, 3)),
}
TALLIES = st.builds(Tally, *[COUNT] * 6)
HOPS = st.fixed_dictionaries({}, optional={"kept": st.floats(0, 9), "reported": st.floats(0, 9)})
KEPT_BANS = st.builds(KeptBan, COUNT, NAME, NAME, NAME, NAME, NAME, st.none() | st.floats(0, 9), COUNT)
ANSWERS: dict[type[Question[Any]], st.SearchStrategy[Any]] = {
    UserSessions: st.builds(Located, NAME, st.booleans(), st.lists(PLACES, max_size=3), COUNT),
    UnreadCount: st.builds(Unread, NAME, NAME, COUNT, COUNT, COUNT),
    OnlineCounts: st.builds(Counts, NUMBERS, NUMBERS, COUNT),
    RoomCount: st.builds(InRoom, NAME, COUNT, COUNT),
    LargestRooms: st.builds(RoomSizes, st.lists(st.builds(RoomSize, NAME, COUNT), max_size=3)),
    PushReceipt: st.builds(Receipt.of, NAME, TALLIES, COUNT, HOPS, st.lists(st.sampled_from(ROUTERS), max_size=1)),
    WholeLedger: st.builds(Ledger.of, COUNT, st.builds(account, TALLIES, COUNT, COUNT)),
    ForgetComet: st.builds(Forgotten, COUNT),
    KickUser: st.builds(Reached, COUNT),
    KickRoom: st.builds(Reached, COUNT),
    MoveUser: st.builds(Reached, COUNT),
    BanWho: KEPT_BANS,
    LiftBan: st.builds(Lifted, st.booleans()),
    BanList: st.builds(KeptBans, st.lists(KEPT_BANS, max_size=3), COUNT),
}
EACH = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def over_the_wire(question: Question[Any], answer: Any) -> tuple[Question[Any], Any]:
    (asked,) = codec.decode(codec.encode([messages.Ask("router-1", 1, question)]), messages.ToRouter)  # type: ignore[arg-type]
    (answered,) = codec.decode(codec.encode([messages.Answered(1, "router-1", answer)]), messages.ToAsker)
    return asked.question, codec.decode_answer(answered, question)


def test_none_is_left_out() -> None:
    assert set(QUESTIONS) == set(ANSWERS) == set(KINDS) == set(get_args(AT_ONCE | WHOLE | COUNTED | STORED | KEPT))


@EACH
def test_a_question_and_its_answer_survive(kind: type[Question[Any]]) -> None:
    @given(QUESTIONS[kind], ANSWERS[kind])
    def check(question: Question[Any], answer: Any) -> None:
        assert over_the_wire(question, answer) == (question, answer)
        assert hash(question) == hash(over_the_wire(question, answer)[0])

    check()


@EACH
def test_several_answers_become_one_of_their_type(kind: type[Question[Any]]) -> None:
    @given(QUESTIONS[kind], st.lists(ANSWERS[kind], min_size=1, max_size=3), st.data())
    def check(question: Question[Any], answers: list[Any], data: st.DataObject) -> None:
        stream = question.asked_at()
        assert not stream or is_stream(stream)
        by_router = dict(zip(ROUTERS, answers[:1] if stream else answers, strict=False))
        silent = [r for r in ROUTERS if r not in by_router] if question.names_silent else []
        merged = question.merge(by_router, silent)
        assert type(merged) is kind.answer_type()
        assert over_the_wire(question, merged)[1] == merged
        turned = {router: by_router[router] for router in data.draw(st.permutations(list(by_router)))}
        if isinstance(merged, Counts | InRoom | RoomSizes | Ledger | Forgotten):
            assert question.merge(turned, silent) == merged

    check()


@EACH
@pytest.mark.parametrize("answer", [None, 7, [], "x", {}, {"rooms": {"1": "2"}, "comets": {}, "roomless": 0}])
def test_what_is_no_answer_is_an_error(kind: type[Question[Any]], answer: Any) -> None:
    question = kind(*[Banned("x") if name == "banned" else "x" for name in kind.__struct_fields__])
    with pytest.raises(CodecError, match=kind.__name__):
        codec.decode_answer(messages.Answered(1, "router-1", answer), question)


def test_an_answer_to_another_question_is_an_error() -> None:
    with pytest.raises(CodecError):
        codec.decode_answer(messages.Answered(1, "router-1", {"sessions": 3}), UserSessions("7"))


def test_counts_are_sums() -> None:
    answers = {"router-1": Counts({"a": 1, "b": 2}, {"comet-1": 3}, 1), "router-2": Counts({"b": 3}, {"comet-1": 1}, 2)}
    assert OnlineCounts().merge(answers, []) == Counts({"a": 1, "b": 5}, {"comet-1": 4}, 3)


def test_who_is_in_a_room_is_the_sum_over_the_owners_of_users() -> None:
    answers = {"router-1": InRoom("a", 3, 2), "router-2": InRoom("a", 5, 5)}
    assert RoomCount("a").merge(answers, []) == InRoom("a", 8, 7)


def test_the_largest_rooms_are_those_of_all_routers() -> None:
    one, two = [RoomSize("a", 9), RoomSize("d", 1)], [RoomSize("c", 9), RoomSize("b", 9), RoomSize("e", 2)]
    merged = LargestRooms(4).merge({"router-1": RoomSizes(one), "router-2": RoomSizes(two)}, [])
    assert [(size.room, size.sessions) for size in merged.rooms] == [("a", 9), ("b", 9), ("c", 9), ("e", 2)]


@pytest.mark.parametrize("limit", [0, 1_001])
def test_a_question_for_too_many_rooms_is_none(limit: int) -> None:
    with pytest.raises(CodecError):
        codec.decode(codec.encode([messages.Ask("router-1", 1, LargestRooms(limit))]), messages.ToRouter)


def test_a_receipt_is_the_sum_and_its_hops_are_the_slowest() -> None:
    one = Receipt.of("p", Tally(3, 2, shed=1), 1, {"kept": 2.0, "reported": 8.0}, [])
    two = Receipt.of("p", Tally(2, unknown=1), 0, {"kept": 5.0}, ["router-2"], awaited=2)
    never = Receipt.of("p", Tally(), 0, {}, [])
    for turned in ({"router-1": one, "router-2": two}, {"router-2": two, "router-1": one}):
        assert PushReceipt("p").merge(turned, []).hops_ms == {"kept": 5.0, "reported": 8.0}
    merged = PushReceipt("p").merge({"router-1": one, "router-2": two, "router-4": never}, ["router-3"])
    assert (merged.targeted, merged.delivered, merged.shed, merged.unknown, merged.pending) == (5, 2, 1, 1, 1)
    assert (merged.hops_ms, merged.offline, merged.is_known) == ({"kept": 5.0, "reported": 8.0}, 1, True)
    assert (merged.silent, merged.forgotten) == (["router-3"], ["router-2"])
    assert (merged.awaited, never.is_final, two.is_final) == (2, True, False)
    assert not PushReceipt("p").merge({"router-4": never}, ["router-3"]).is_known
    assert not PushReceipt("p").merge({}, list(ROUTERS)).is_known


def test_a_ledger_without_a_router_does_not_balance() -> None:
    part = Ledger.of(2, account(Tally(3, 3), 0))
    assert WholeLedger().merge({"router-1": part, "router-2": part}, []).balanced
    assert not WholeLedger().merge({"router-1": part}, ["router-2"]).balanced
