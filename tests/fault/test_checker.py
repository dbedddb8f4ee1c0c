"""The checker finds every class of fault that is planted in a clean history, and nothing in a clean one."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fault.checker import check
from tests.fault.findings import Finding, summary
from tests.fault.history import (
    Acknowledged,
    Asked,
    Client,
    Closed,
    Connected,
    Entry,
    Froze,
    History,
    Joined,
    Left,
    Log,
    Push,
    Received,
    Told,
    load,
    save,
)
from tests.fault.world import LATE_S

STREAMS = ("u:7", "r:1", "*")


class Run:
    """A run without faults: a zim client that reconnects and leaves, two goim clients of which one comes back."""

    def __init__(self, seed: int, has_offsets: bool) -> None:
        """has_offsets: publishers are told where their pushes are, and the logs can be read."""
        self.rng = random.Random(seed)
        self.history = History(seed)
        self.has_offsets = has_offsets
        self.logs = {stream: Log(stream, "e1", 1, 0) for stream in STREAMS}
        self.zim, self.stays, self.comes_back = Client("zim", "zim"), Client("goim-1", "goim"), Client("goim-2", "goim")
        self.history.clients = [self.zim, self.stays, self.comes_back]
        self.positions: dict[str, int] = {}
        self.inside: set[str] = set()  # streams that the zim client is in
        self.is_back = True
        self.at = 0.0
        for client in self.history.clients:
            client.events.append(Connected(self.tick(), "comet-1", () if client is self.zim else STREAMS))
        self.join(STREAMS)

    def tick(self) -> float:
        """The time, a little later."""
        self.at += self.rng.uniform(0.001, 0.1)
        return self.at

    def catch_up(self, stream: str) -> None:
        """The zim client gets what it has not."""
        for entry in self.logs[stream].entries[self.positions[stream] :]:
            self.zim.events.append(Received(self.tick(), entry.number, stream, entry.offset))
        self.positions[stream] = self.logs[stream].head

    def join(self, streams: tuple[str, ...]) -> None:
        """The zim client begins with these, or goes on where it was."""
        for stream in streams:
            resume = ("e1", self.positions[stream]) if stream in self.positions else None
            offset = self.positions.setdefault(stream, self.logs[stream].head)
            self.zim.events.append(Joined(self.tick(), stream, "e1", offset, resume is not None, resume))
            self.inside.add(stream)
        for stream in streams:
            self.catch_up(stream)

    def push(self, number: int) -> None:
        """One push, of any verdict."""
        rng = self.rng
        streams = (rng.choice(STREAMS),) if rng.random() < 0.8 else ("u:7", "r:1")
        push = Push(number, streams, self.tick(), key=f"k{number}")
        self.history.pushes.append(push)
        push.verdict = rng.choices(("accepted", "refused", "unknown"), (8, 1, 1))[0]
        if push.verdict == "accepted" or (push.verdict == "unknown" and rng.random() < 0.5):
            self.deliver(push)
        push.answered_at = self.tick()

    def deliver(self, push: Push) -> None:
        """It is appended, and comes to whoever is there."""
        for stream in push.streams:
            log = self.logs[stream]
            log.head += 1
            log.entries.append(Entry(log.head, push.number))
            if push.verdict == "accepted" and self.has_offsets:
                push.offsets[stream] = log.head
            for client in (self.stays, self.comes_back) if self.is_back else (self.stays,):
                client.events.append(Received(self.tick(), push.number))
        for stream in sorted(self.inside):
            self.catch_up(stream)

    def move(self) -> None:
        """Perhaps a client comes, goes, joins or leaves."""
        zim, inside = self.zim, self.inside
        match self.rng.randrange(12):
            case 0 if inside:
                zim.events.append(Closed(self.tick(), "killed"))
                inside.clear()
            case 1 if not inside:
                zim.events.append(Connected(self.tick(), "comet-2"))
                self.join(STREAMS)
            case 2 if "r:1" in inside:
                zim.events.append(Left(self.tick(), "r:1"))
                inside.discard("r:1")
            case 3 if "r:1" not in inside and "*" in inside:
                self.join(("r:1",))
            case 4 if self.is_back:
                self.comes_back.events.append(Closed(self.tick(), "killed"))
                self.is_back = False
            case 5 if not self.is_back:
                self.comes_back.events.append(Connected(self.tick(), "comet-2", STREAMS))
                self.is_back = True

    def end(self) -> None:
        """The zim client is in all streams again."""
        if not self.inside:
            self.zim.events.append(Connected(self.tick(), "comet-2"))
        self.join(tuple(stream for stream in STREAMS if stream not in self.inside))


def clean(seed: int, has_offsets: bool = True) -> History:
    """The history of a run without faults, with pushes of every verdict."""
    run = Run(seed, has_offsets)
    for number in range(1, run.rng.randint(10, 40)):
        run.push(number)
        run.move()
    run.end()
    if has_offsets:
        run.history.logs = list(run.logs.values())
    return run.history


def received(client: Client, is_accepted: set[int] | None = None) -> list[int]:
    """Where in its events pushes came; only those."""
    return [
        i
        for i, event in enumerate(client.events)
        if isinstance(event, Received) and (is_accepted is None or event.number in is_accepted)
    ]


def accepted(history: History, streams: int = 1) -> set[int]:
    """Accepted pushes to that many streams."""
    return {push.number for push in history.pushes if push.verdict == "accepted" and len(push.streams) == streams}


def kinds(findings: list[Finding], who: str = "") -> set[str]:
    """What was found."""
    return {finding.kind for finding in findings if not who or finding.who == who}


@settings(deadline=None)
@given(st.integers(0, 1 << 32), st.booleans())
def test_a_clean_history_is_clean(seed: int, has_offsets: bool) -> None:
    assert check(clean(seed, has_offsets)) == []


def plant(seed: int, plan: Callable[[History, Client, int, Received], object], who: int) -> tuple[list[Finding], int]:
    """Plants one fault at a random push that a client received, if there is one; gives its number, else 0."""
    history = clean(seed)
    client = history.clients[who]
    places = received(client, accepted(history))
    if not places:
        return [], 0
    place = random.Random(seed).choice(places)
    event = client.events[place]
    assert isinstance(event, Received)
    plan(history, client, place, event)
    return check(history), event.number


@settings(deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from([0, 1]))
def test_what_does_not_come_is_lost(seed: int, who: int) -> None:
    findings, number = plant(seed, lambda h, client, place, event: client.events.pop(place), who)
    if number:
        assert ("lost", number) in {(f.kind, f.number) for f in findings}
        assert kinds(findings) <= {"lost", "untold"}


@settings(deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from([0, 1, 2]), st.integers(0, 3))
def test_what_comes_twice_is_a_duplicate(seed: int, who: int, later: int) -> None:
    def repeat(history: History, client: Client, place: int, event: Received) -> None:
        end = place + 1
        while end < len(client.events) and end <= place + later and isinstance(client.events[end], Received):
            end += 1
        client.events.insert(end, event)  # in the same connection

    findings, number = plant(seed, repeat, who)
    if number:
        assert ("duplicate", number) in {(f.kind, f.number) for f in findings}


@settings(deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from([0, 1]))
def test_two_that_change_places_are_reordered(seed: int, who: int) -> None:
    history = clean(seed)
    client = history.clients[who]
    single = accepted(history)
    stream_of = {push.number: push.streams[0] for push in history.pushes}
    pairs = [
        (one, two)
        for one, two in zip(received(client), received(client)[1:], strict=False)
        if two == one + 1
        and {client.events[one].number, client.events[two].number} <= single  # type: ignore[union-attr]
        and stream_of[client.events[one].number] == stream_of[client.events[two].number]  # type: ignore[union-attr]
    ]
    if pairs:
        one, two = random.Random(seed).choice(pairs)
        client.events[one], client.events[two] = client.events[two], client.events[one]
        findings = check(history)
        assert "reordered" in kinds(findings, client.name)
        assert kinds(findings) <= {"reordered", "untold"}


@settings(deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from([0, 1, 2]), st.booleans())
def test_what_nobody_pushed_or_503_refused_is_unexpected(seed: int, who: int, is_refused: bool) -> None:
    def plan(history: History, client: Client, place: int, event: Received) -> None:
        if is_refused:
            next(push for push in history.pushes if push.number == event.number).verdict = "refused"
        else:
            history.pushes = [push for push in history.pushes if push.number != event.number]

    findings, number = plant(seed, plan, who)
    if number:
        assert ("unexpected", number, history_name(who)) in {(f.kind, f.number, f.who) for f in findings}


def history_name(who: int) -> str:
    """The client's name in clean()."""
    return ("zim", "goim-1", "goim-2")[who]


@settings(deadline=None)
@given(st.integers(0, 1 << 32))
def test_a_hole_that_is_told_is_no_fault_and_one_that_is_not_is(seed: int) -> None:
    def tell(history: History, client: Client, place: int, event: Received) -> None:
        history.kept = dict.fromkeys(STREAMS, 1)
        for push in history.pushes:
            push.asked_at -= 100
        client.events[place] = Told(event.at, event.stream, "e1", event.offset, event.offset, "trimmed")

    def keep_silent(history: History, client: Client, place: int, event: Received) -> None:
        del client.events[place]
        client.events.append(Received(event.at, event.number, event.stream, event.offset))

    findings, number = plant(seed, tell, 0)
    if number:
        assert kinds(findings) == {"told"}
        assert not any(f.is_fault for f in findings)
    findings, number = plant(seed, keep_silent, 0)
    assert {"told"} & kinds(findings) == set()


def scene(*events: object, pushes: int = 3, dialect: str = "zim") -> History:
    """A client in r:1, where that many pushes were accepted, at offsets that nobody else tells."""
    history = History()
    history.pushes = [Push(n, ("r:1",), float(n), "", n + 0.5, "accepted") for n in range(1, pushes + 1)]
    history.clients = [Client("c", dialect, list(events))]  # type: ignore[arg-type]
    return history


def joined(offset: int, resume: int | None = None, at: float = 0.0, epoch: str = "e", recovered: bool = True) -> Joined:
    """A reply for r:1."""
    return Joined(at, "r:1", epoch, offset, recovered, None if resume is None else ("e", resume))


def got(number: int, offset: int | None = None) -> Received:
    """A push of r:1, by default at the offset of its number."""
    return Received(number + 0.6, number, "r:1", number if offset is None else offset)


HERE = Connected(0.0, "comet-1", ("r:1",))


def test_losses_are_told_apart_by_where_they_are() -> None:
    for numbers, where in (((2, 3), "start"), ((1, 3), "middle"), ((1, 2), "end"), ((), "start")):
        history = scene(HERE, joined(0), *map(got, numbers))
        history.logs = [Log("r:1", "e", 1, 3, [Entry(n, n) for n in (1, 2, 3)])]
        assert {f.where for f in check(history) if f.kind == "lost"} == {where}
        history.clients[0].dialect = "goim"
        history.clients[0].events = [HERE, *(Received(n + 0.6, n) for n in numbers)]
        expected = where if numbers else "end"
        assert {f.where for f in check(history) if f.kind == "lost"} == {expected}


def test_a_reply_that_starts_elsewhere_than_the_client_was() -> None:
    again = Connected(1.8, "comet-2")
    assert kinds(check(scene(HERE, joined(0), got(1), Closed(1.7, ""), again, joined(1, 1), got(2), got(3)))) == set()
    skips = check(scene(HERE, joined(0), got(1), Closed(1.7, ""), again, joined(2, 1), got(3)))
    assert kinds(skips) == {"untold", "lost"}
    repeats = check(scene(HERE, joined(0), got(1), Closed(1.7, ""), again, joined(0, 1), got(1), got(2), got(3)))
    assert kinds(repeats) == {"untold", "duplicate"}
    for at, kept, kind in ((20.0, 1, "told"), (2.7, 1, "unexplained"), (20.0, 5, "unexplained")):
        told = scene(HERE, joined(0), got(1), Closed(1.7, ""), again, joined(2, 1, at, recovered=False), got(3))
        told.kept = {"r:1": kept}
        if kept == 5:
            told.pushes.append(Push(7, ("r:1",), 21.0, "", 21.5, "accepted", offsets={"r:1": 7}))
            told.logs = [Log("r:1", "e", 3, 7, [])]
        assert kind in kinds(check(told))
    other_epoch = scene(HERE, joined(0), got(1), Closed(1.7, ""), again, joined(1, 1, 1.9, "f"), got(2), got(3))
    assert kinds(check(other_epoch)) == {"untold"}


def test_after_leaving_nothing_comes() -> None:
    assert kinds(check(scene(HERE, joined(0), got(1), Left(1.7, "r:1")))) == set()
    assert kinds(check(scene(HERE, joined(0), got(1), Left(1.7, "r:1"), got(2)))) == {"unexpected"}


def test_a_goim_client_is_owed_what_its_open_connection_could_have_had() -> None:
    def pushed(*numbers: int) -> list[Received]:
        return [Received(n + 0.6, n) for n in numbers]

    assert check(scene(HERE, *pushed(1), Closed(1.7, ""), dialect="goim")) == []  # the end of a connection that broke
    assert kinds(check(scene(HERE, *pushed(2), Closed(2.7, ""), dialect="goim"))) == {"lost"}
    late = Connected(1.2, "comet-1", ("r:1",))  # while push 1 was under way
    assert check(scene(late, *pushed(2, 3), dialect="goim")) == []
    assert kinds(check(scene(HERE, *pushed(2, 1, 3), dialect="goim"))) == {"reordered"}
    assert kinds(check(scene(HERE, *pushed(1, 2, 3, 2), dialect="goim"))) == {"duplicate"}
    assert kinds(check(scene(Connected(0.0, "comet-1", ("*",)), *pushed(1), dialect="goim"))) == {"unexpected"}


def test_the_log_is_held_against_answers_and_clients() -> None:
    history = scene(HERE, joined(0), got(1), got(2), got(3))
    log = Log("r:1", "e", 1, 3, [Entry(n, n) for n in (1, 2, 3)])
    history.logs = [log]
    assert check(history) == []
    log.entries[1] = Entry(2, 1)
    assert kinds(check(history)) == {"duplicate", "disagreement", "lost"}
    log.entries[1:2] = []
    assert kinds(check(history), "log") == {"untold", "lost"}
    log.entries[:] = [Entry(2, 2), Entry(3, 3)]
    log.first = 2  # the first is trimmed
    history.pushes[0].offsets = {"r:1": 1}
    assert check(history) == []
    history.pushes[2].offsets = {"r:1": 4}
    assert kinds(check(history), "log") == {"disagreement"}


def test_a_refused_push_may_not_be_stored() -> None:
    history = scene()
    history.pushes[1].verdict = "refused"
    history.logs = [Log("r:1", "e", 1, 3, [Entry(n, n) for n in (1, 2, 3)])]
    assert [(f.kind, f.number) for f in check(history)] == [("unexpected", 2)]


def test_a_history_can_be_kept(tmp_path: Path) -> None:
    history = clean(1)
    save(history, tmp_path / "history.json")
    assert load(tmp_path / "history.json") == history


def test_a_push_with_a_ttl_is_owed_to_nobody_and_reaches_nobody_late() -> None:
    history = scene(HERE, joined(0), got(1), got(3))
    history.logs = [Log("r:1", "e", 1, 3, [Entry(1, 1), Entry(3, 3)])]  # what has expired is left out
    assert kinds(check(history)) == {"lost", "untold"}
    history.pushes[1].ttl_s = 1.0
    assert check(history) == []
    late = Received(2.5 + 1.0 + LATE_S + 0.1, 2, "r:1", 2)
    history.clients[0].events[3:] = [late, got(3)]
    assert kinds(check(history)) == {"late"}
    history.clients[0].events.insert(2, Froze(late.at - 4.0, late.at - 0.5))  # it was sent in time, and read now
    assert check(history) == []
    goim = scene(HERE, Received(1.6, 1), late, dialect="goim", pushes=2)
    goim.pushes[1].ttl_s = 1.0
    assert kinds(check(goim)) == {"late"}
    goim.clients[0].events.pop()
    assert check(goim) == []


def test_a_key_is_one_push() -> None:
    history = scene(HERE, joined(0), got(1), got(2), got(3))
    history.pushes[2].reuses = 1
    assert {(f.kind, f.who, f.number) for f in check(history)} == {
        ("unexpected", "publisher", 3),
        ("unexpected", "c", 3),
    }
    history.pushes[2].verdict = "unknown"
    del history.clients[0].events[-1]
    assert check(history) == []


def test_a_train_is_stored_in_its_order() -> None:
    history = scene(HERE, joined(0), got(2, 1), got(1, 2), got(3))
    assert check(history) == []
    for push in history.pushes:
        push.train, push.attempts = "batch", 1
    assert [(f.kind, f.who, f.number) for f in check(history)] == [("reordered", "publisher", 2)]
    history.pushes[0].attempts = 2  # it was asked again: it may come later
    assert check(history) == []


def test_a_cursor_is_between_what_was_answered_and_what_was_asked() -> None:
    def life(*events: object) -> set[str]:
        history = scene(HERE, Joined(0.0, "u:7", "e", 0, True), *events, pushes=0)
        return kinds(check(history))

    def again(offset: int) -> tuple[object, ...]:
        return Closed(2.0, ""), Connected(3.0, "comet-2"), Joined(3.1, "u:7", "e", offset, True)

    asked, answered = Asked(1.0, "u:7", 5), Acknowledged(1.1, "u:7", 5)
    assert life(asked, answered, *again(5)) == set()
    assert life(asked, *again(0)) == life(asked, *again(5)) == set()  # the answer may have been lost, or the question
    assert life(asked, answered, *again(4)) == {"cursor"}  # behind what was answered
    assert life(asked, *again(6)) == {"cursor"}  # ahead of what was asked
    assert life(asked, Acknowledged(1.1, "u:7", 6)) == {"cursor"}
    assert life(asked, Acknowledged(1.1, "u:7", 4)) == {"cursor"}


def test_a_client_without_memory_may_get_again_what_it_had_and_no_more() -> None:
    again = Closed(4.0, ""), Connected(5.0, "comet-2")
    assert check(scene(HERE, joined(0), got(1), got(2), got(3), *again, joined(0), got(1), got(2), got(3))) == []
    twice = scene(HERE, joined(0), got(1), got(2), got(3), *again, joined(1), got(2), got(2), got(3))
    assert kinds(check(twice)) == {"duplicate"}
    assert kinds(check(scene(HERE, joined(0), got(1), *again, joined(1), got(3)))) == {"untold", "lost"}


def test_it_may_get_again_what_its_new_comet_did_not_know_of() -> None:
    """It had seen the stream begin anew, and comes to a comet that has not."""
    again = Closed(4.0, ""), Connected(5.0, "comet-2")
    anew = Told(0.5, "r:1", "f", 0, 0, "epoch")
    history = scene(HERE, joined(7), anew, got(1), got(2), *again, joined(7), anew, got(1), got(2), got(3))
    history.kept, history.router_ends = {"r:1": 0}, [0.2]
    assert kinds(check(history)) == {"told"}
    history.clients[0].events += [got(3)]
    assert kinds(check(history)) == {"told", "duplicate"}


def test_a_live_only_stream_begins_anew_with_its_router_only() -> None:
    def life(*ends: float) -> set[str]:
        history = scene(HERE, joined(0), got(1), joined(7, 1, 2.0, "f", recovered=False), got(2, 8))
        history.clients[0].events += [got(3, 9)]
        history.kept, history.router_ends = {"r:1": 0}, list(ends)
        history.logs = [Log("r:1", "f", 9, 9, [Entry(9, 3)])]
        return kinds(check(history))

    assert life(1.5) == {"told"}
    assert life() == life(2.5) == {"unexplained"}


def test_the_summary_names_every_kind() -> None:
    counts = summary([Finding("lost", "c", "r:1", where="middle"), Finding("told", "c", "r:1")])
    assert counts["lost middle"] == counts["told"] == 1
    assert counts["lost start"] == counts["duplicate"] == counts["untold"] == 0
