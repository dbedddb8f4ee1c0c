"""A backend that bans, kicks and moves people, and what must come of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.simulation.nodes import LogicNode
from zim.fabric.bans import Banned
from zim.fabric.questions import BanWho, KickUser, LiftBan, MoveUser
from zim.fabric.streams import user_stream
from zim.protocol import codec
from zim.protocol.messages import Answered, Ask

if TYPE_CHECKING:
    from tests.simulation.people import Person, Wire
    from tests.simulation.world import World

PATIENCE_S = 5.0
OBEYED_S = 4.0  # an order that was answered is obeyed by then, whatever is lost: a lease, and some repeats


@dataclass
class _User:
    """What was last asked for about a user's ban, and what is known of it. is_banned: None if it cannot be told."""

    is_banned: bool | None = False
    asked: int = 0
    under_way: set[int] = field(default_factory=set)


class Authority:
    """See the module."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._users: dict[str, _User] = {}
        self.kicked: list[tuple[Wire, float]] = []  # and when that was answered

    # -- what it asks for

    def ban(self, uid: str, logic: int) -> None:
        """Bans a user."""
        self._ask_about(uid, logic, BanWho(Banned(uid), "spam", "sim"), True)

    def lift(self, uid: str, logic: int) -> None:
        """Lifts the ban."""
        self._ask_about(uid, logic, LiftBan(Banned(uid)), False)

    def kick(self, uid: str, logic: int) -> None:
        """Kicks all sessions of a user."""
        there: list[Wire] = []

        def answered(found: Any) -> None:
            if found is not None and found.sessions >= len(there):
                self.kicked += [(wire, self._world.kernel.now) for wire in there]

        runner = self._world.runner_of(self._world.shard_of(user_stream(uid)))
        mine = [p.wire for p in self._world.people if p.uid == uid and p.wire is not None and p.is_ready]
        feeds = runner.shard.directory.feeds if runner is not None else {}
        for wire in mine:  # as far as the router knows them when it is asked
            feed = feeds.get(wire.comet.name)
            if feed is not None and wire.conn in feed.sessions and not feed.sessions[wire.conn].is_leaving:
                there.append(wire)
        if mine and len(there) == len(mine):
            self._ask(logic, KickUser(uid, reason="bye", returns=True), answered)

    def give(self, uid: str, room: str, is_in: bool, logic: int) -> None:
        """Puts a user's sessions into a room, or out of it."""
        rooms = (room,)
        self._ask(logic, MoveUser(uid, rooms, ()) if is_in else MoveUser(uid, (), rooms), lambda _: None)

    def _ask_about(self, uid: str, logic: int, question: BanWho | LiftBan, banned: bool) -> None:
        user = self._users.setdefault(uid, _User())
        user.asked += 1
        mine = user.asked
        has_company = bool(user.under_way)
        user.under_way.add(mine)
        before, user.is_banned = user.is_banned, None

        def answered(found: Any) -> None:
            user.under_way.discard(mine)
            is_done = found is not None
            if mine == user.asked and not has_company:
                user.is_banned = banned if is_done else before if before == banned else None

        if not self._ask(logic, question, answered):
            user.under_way.discard(mine)
            user.is_banned = before if not has_company and mine == user.asked else None

    def _ask(self, logic: int, question: Any, answered: Any) -> bool:
        kernel = self._world.kernel
        node = kernel.nodes[kernel.layout.logics[logic % len(kernel.layout.logics)]]
        assert isinstance(node, LogicNode)
        if not node.is_up or node.is_stopped:
            return False
        shard = node.layout.shards.of(question.asked_at())

        def settled(found: Any) -> None:
            (m,) = found.values()
            is_told = isinstance(m, Answered) and m.answer is not None
            answered(codec.decode_answer(m, question) if is_told else None)

        def make(name: str, req: int) -> Ask:
            return Ask(name, req, question)

        node.perform(node.runner.on_question(settled, [shard], make, PATIENCE_S, PATIENCE_S, kernel.now))
        return True

    # -- what must hold in the end

    def is_banned(self, uid: str) -> bool | None:
        """Whether a user is banned; None if nobody can tell."""
        user = self._users.get(uid)
        return False if user is None else None if user.under_way else user.is_banned

    def check(self, person: Person) -> None:
        """Who is banned is not there."""
        if self.is_banned(person.uid) and person.is_ready:
            self._world.fail(f"{person.name} is banned, and there")

    def check_kicks(self) -> None:
        """Who was kicked has gone, unless the router has forgotten it: a kick is not kept."""
        world = self._world
        for wire, at in self.kicked:
            died_at = world.began_at[world.shard_of(user_stream(wire.person.uid))]
            if not wire.is_closed and died_at < at - PATIENCE_S and world.kernel.now - at > OBEYED_S:
                world.fail(f"{wire.person.name} was kicked at {at:.3f}, and is there")
