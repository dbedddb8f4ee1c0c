"""Publishers, who remember what they were told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.simulation.disk import is_live
from tests.simulation.kernel import Kernel, Node, Violation
from tests.simulation.nodes import LogicNode
from zim.fabric.push import Published, Push
from zim.fabric.streams import user_stream
from zim.protocol.messages import Submit, Submitted

if TYPE_CHECKING:
    from tests.simulation.world import World


class Backend:
    """A publisher. With a key it asks again until it knows, at any logic, sometimes at two at once; without it takes
    what it hears."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pushes: dict[str, tuple[Push, float]] = {}
        self.heard: dict[str, list[Published]] = {}
        self.asked_at: dict[str, list[tuple[float, bool]]] = {}  # when a logic read it; it knew all log times
        self.attempts: dict[str, int] = {}
        self._shared: set[str] = set()

    def push(
        self,
        push_id: str,
        streams: Sequence[str],
        is_keyed: bool,
        logic: int,
        races: bool,
        ttl_s: float = 0.0,
        aim: Sequence[int] = (),
    ) -> None:
        """Asks for a push. aim: for which people's sessions, of users that it is for."""
        people = [self.world.people[who] for who in aim]
        only = tuple(dict.fromkeys(p.key for p in people if user_stream(p.uid) in streams))
        push = Push(list(streams), push_id.encode(), key=push_id if is_keyed else "", ttl_s=ttl_s, only=only)
        self.pushes[push_id] = push, self.world.kernel.now
        self.heard[push_id] = []
        self._attempt(push_id, logic, 0)
        if races:
            self._attempt(push_id, logic + 1, 0)

    def crowd(self, push_id: str, users: int, is_keyed: bool, logic: int) -> None:
        """Asks for a push to so many users."""
        self.push(push_id, [f"u:{n}" for n in range(1, users)], is_keyed, logic, False)

    def steal(self, push_id: str, victim: str, streams: Sequence[str], logic: int) -> None:
        """Asks for another push under a key that was used, or will be."""
        self.pushes[push_id] = Push(list(streams), push_id.encode(), key=victim), self.world.kernel.now
        self.heard[push_id] = []
        self._shared |= {push_id, victim}
        self._attempt(push_id, logic, 0)

    def is_shared(self, push_id: str) -> bool:
        """Another push has the same key."""
        return push_id in self._shared

    def _attempt(self, push_id: str, logic: int, tries: int) -> None:
        kernel, (push, asked_at) = self.world.kernel, self.pushes[push_id]
        logics = kernel.layout.logics
        node = kernel.nodes[logics[logic % len(logics)]]
        assert isinstance(node, LogicNode)
        answered: list[Published] = []
        self.attempts[push_id] = self.attempts.get(push_id, 0) + 1

        def answer(p: Published) -> None:
            answered.append(p)
            self.heard[push_id].append(p)
            self.world.check_answer(push_id, p)

        def ask() -> None:
            if kernel.now - asked_at > self.world.key_window_s - 2.5:
                return  # the logic stood still: whoever asked is gone, and after the window it would be another push
            self.asked_at.setdefault(push_id, []).append((kernel.now, self.world.knows_time(node, push.streams)))
            node.publish(push, answer)

        if node.is_up:
            node.later(0.001, ask)

        def again() -> None:
            is_late = asked_at < self.world.settled_at or kernel.now - asked_at > self.world.key_window_s - 2.5
            if push.key and tries < 15 and not is_late and not {"ok", "conflict"} & self.statuses(push_id):
                self._attempt(push_id, logic + 1, tries + 1)

        kernel.after(6.0 + 2.0 * kernel.rng.random(), again)  # never all at once

    def is_in_memory(self, push_id: str) -> bool:
        """Something under its key is in live-only streams, whose router forgets keys when it dies."""
        key = self.pushes[push_id][0].key
        return (
            any(is_live(s) for push, _ in self.pushes.values() if push.key == key for s in push.streams)
            if key
            else True
        )

    def is_told(self, push_id: str) -> bool:
        """Every attempt got an answer."""
        return self.attempts[push_id] == len(self.heard[push_id])

    def statuses(self, push_id: str) -> set[str]:
        """All that it heard of a push."""
        return {p.status for p in self.heard[push_id]}


class Publisher(Node):
    """A publisher over ZeroMQ, which sends on without waiting for answers.

    Attributes:
        sent: the ids of its pushes, in its order, by the run of the logic that it sent them to.
    """

    def __init__(self, kernel: Kernel, world: World) -> None:
        super().__init__(kernel, "publisher-1")
        self.world = world
        self.sent: dict[int, list[str]] = {}
        self._asked: list[str] = []

    def submit(self, push_id: str, streams: Sequence[str], is_keyed: bool) -> None:
        """Asks for a push."""
        backend, logic = self.world.backend, self.kernel.nodes[self.kernel.layout.logics[0]]
        push = Push(list(streams), push_id.encode(), key=push_id if is_keyed else "")
        backend.pushes[push_id] = push, self.kernel.now
        backend.heard[push_id], backend.attempts[push_id] = [], 1
        self.sent.setdefault(logic.run, []).append(push_id)
        self._asked.append(push_id)
        self.send(logic.name, Submit(len(self._asked) - 1, push.key, list(streams), push.op, push.body))

    def receive(self, src: str, run: int, m: Submitted) -> None:
        """What became of one."""
        push_id = self._asked[m.req]
        if m.status == "invalid" or m.status == "forbidden" or m.status == "unauthorized":
            raise Violation(f"{push_id} is refused: {m.why}")
        published = Published(m.push_id, m.status)
        self.world.backend.heard[push_id].append(published)
        self.world.check_answer(push_id, published)
