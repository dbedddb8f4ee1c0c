"""Pipeline without sockets: whatever is lost, every push is settled once, and what is said of it is true."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from zim.client import Accepted, PushRefused, PushUnavailable, PushUnknown
from zim.client.pipeline import Outcome, Pipeline, PushJob
from zim.protocol.messages import Submit, Submitted

ANSWER_S, RETRY_S = 6.0, 15.0
NODES = st.integers(0, 1)
STEPS = st.lists(
    st.tuples(st.just("push"), st.integers(1, 5))
    | st.tuples(st.sampled_from(["connect", "lose", "full", "swallow"]), NODES)
    | st.tuples(st.sampled_from(["send", "ok", "stored, no answer", "unavailable", "unknown", "invalid"]), NODES)
    | st.tuples(st.just("wait"), st.integers(0, 8)),
    max_size=80,
)


class Handle:
    """Remembers what became of a push."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def settle(self, outcome: Outcome) -> None:
        """It is settled."""
        self.outcomes.append(outcome)


class World:
    """A pipeline and two logic nodes behind it."""

    def __init__(self) -> None:
        self.pipeline: Pipeline[Handle] = Pipeline(2, ANSWER_S)
        self.now = 0.0
        self.jobs: list[PushJob[Handle]] = []
        self.at_node: list[list[Submit]] = [[], []]
        self.stored: Counter[str] = Counter()
        self.is_connected = [False, False]

    def settle(self, settled: list[tuple[PushJob[Handle], Outcome]]) -> None:
        """Tells the handles."""
        for job, outcome in settled:
            job.handle.settle(outcome)

    def step(self, act: str, what: int) -> None:
        """Something happens."""
        pipeline = self.pipeline
        if act == "push":
            for _ in range(what):
                submit = Submit(len(self.jobs), f"k{len(self.jobs)}", ["u:7"], 5, b"")
                job = PushJob(submit, Handle(), 100, self.now + RETRY_S)
                self.jobs.append(job)
                pipeline.add([job])
        elif act == "wait":
            self.now += what
            self.settle(pipeline.tick(self.now))
            assert pipeline.next_at() > self.now
        elif act == "connect" and not self.is_connected[what]:
            self.is_connected[what] = True
            pipeline.connected(what)
        elif act == "lose" and self.is_connected[what]:
            self.is_connected[what], self.at_node[what] = False, []
            pipeline.lost(what, self.now)
        elif act in ("send", "full", "swallow"):
            if pipeline.can_send:
                submits = pipeline.take(250, self.now)
                assert 0 < len(submits) <= 2
                if act == "full":
                    pipeline.untake(submits)
                elif act == "send":
                    self.at_node[pipeline.node] += submits
        elif self.at_node[what]:
            self.answer(act, what, self.at_node[what].pop(0))

    def answer(self, act: str, node: int, submit: Submit) -> None:
        """A node handles a push; its link may still be there."""
        if act in ("ok", "stored, no answer"):
            self.stored[submit.key] = 1
        if act in ("ok", "unavailable", "unknown", "invalid"):
            answer = Submitted(submit.req, "p" + submit.key, act, "because")  # type: ignore[arg-type]
            self.settle(self.pipeline.answered(node, [answer], self.now))


@settings(max_examples=400)
@given(STEPS)
def test_every_push_is_settled_once_and_honestly(steps: list[tuple[str, int]]) -> None:
    world = World()
    for act, what in steps:
        world.step(act, what)
        assert len(world.pipeline) == len([job for job in world.jobs if not job.handle.outcomes])
    world.settle(world.pipeline.end())
    for job in world.jobs:
        (outcome,) = job.handle.outcomes
        if isinstance(outcome, Accepted):
            assert world.stored[job.submit.key]
        elif isinstance(outcome, PushUnavailable):
            assert not world.stored[job.submit.key]
        else:
            assert isinstance(outcome, PushUnknown | PushRefused)
            assert outcome.id == job.submit.key


@given(STEPS)
def test_nothing_waits_for_ever(steps: list[tuple[str, int]]) -> None:
    world = World()
    for act, what in steps:
        world.step(act, what)
    for _ in range(20):
        world.step("send", 0)
        world.step("wait", 5)
    assert len(world.pipeline) == 0
    assert world.pipeline.next_at() == float("inf")
    assert all(len(job.handle.outcomes) == 1 for job in world.jobs)


def test_order_is_kept_when_a_link_breaks() -> None:
    world = World()
    for act, what in [("connect", 0), ("connect", 1), ("push", 5), ("send", 0), ("send", 0)]:
        world.step(act, what)
    world.step("lose", 0)
    for _ in range(3):
        world.step("send", 1)
    assert [submit.req for submit in world.at_node[1]] == [0, 1, 2, 3, 4]


def test_an_older_attempts_answer() -> None:
    """Success is success, whoever says it; a failure is the present attempt's to say."""
    world = World()
    for act, what in [("connect", 0), ("push", 2), ("send", 0), ("connect", 1), ("wait", 6), ("send", 0)]:
        world.step(act, what)
    assert world.pipeline.node == 1
    world.step("unavailable", 0)
    assert not world.jobs[0].handle.outcomes
    world.step("ok", 0)
    assert world.jobs[1].handle.outcomes == [Accepted("pk1")]
    world.step("ok", 1)
    assert world.jobs[0].handle.outcomes == [Accepted("pk0")]


def limited_job(retry_ms: int, give_up_at: float = RETRY_S) -> tuple[Pipeline[Handle], PushJob[Handle]]:
    """A push that was answered with a limit at 1.0."""
    pipeline: Pipeline[Handle] = Pipeline(1, ANSWER_S)
    pipeline.connected(0)
    job = PushJob(Submit(0, "k", ["u:7"], 5, b""), Handle(), 100, give_up_at)
    pipeline.add([job])
    pipeline.take(1000, 1.0)
    answer = Submitted(0, "", "unavailable", "more than pushes_per_key allows", retry_ms, "pushes_per_key")
    assert pipeline.answered(0, [answer], 1.0) == []
    return pipeline, job


def test_what_is_limited_goes_again_when_the_node_says() -> None:
    pipeline, _ = limited_job(2_500)
    assert pipeline.next_at() == 3.5
    pipeline.tick(3.4)
    assert not pipeline.can_send
    pipeline.tick(3.5)
    assert [submit.key for submit in pipeline.take(1000, 3.5)] == ["k"]


def test_a_short_wait_is_no_shorter_than_without_one() -> None:
    pipeline, _ = limited_job(1)
    assert pipeline.next_at() == 1.05


def test_what_is_limited_for_too_long_says_when_it_would_be_worth_it() -> None:
    """As soon as it cannot be in time."""
    pipeline, job = limited_job(60_000)
    assert pipeline.next_at() == RETRY_S
    ((settled, error),) = pipeline.tick(RETRY_S)
    assert settled is job
    assert isinstance(error, PushUnavailable)
    assert (error.retry_after_s, str(error)) == (60.0, "not accepted: more than pushes_per_key allows")


def test_what_came_of_another_attempt_is_not_said_to_be_limited() -> None:
    pipeline, _ = limited_job(1_000, give_up_at=20.0)
    pipeline.tick(2.0)
    pipeline.take(1000, 2.0)
    pipeline.answered(0, [Submitted(0, "", "unavailable", "too many pushes are under way")], 2.5)
    ((_, error),) = pipeline.tick(20.0)
    assert isinstance(error, PushUnavailable)
    assert error.retry_after_s == 0
