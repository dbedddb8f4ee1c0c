"""A job's runner: the fan-out, first half. Fourth stop of a push.

In: a Push, with all comets that it is for. Out: one Entry for each of them. Pure: no socket, no clock; the simulator
runs it as it ships.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from zim.nodes.effects import Effect, Send
from zim.protocol.messages import Entry, Push, entry_bytes


class JobRunner:
    """It decides nothing: what a comet does not get it fetches.

    Attributes:
        pushes: how many came.
        entries: how many went.
    """

    def __init__(self, comets: Collection[str]) -> None:
        self.pushes = self.entries = 0
        self._comets = comets

    def on_messages(self, pushes: Sequence[Push], now: float) -> list[Effect]:
        """Routers hand pushes down."""
        out: list[Effect] = []
        for p in pushes:
            for t in p.targets:
                if t.comet in self._comets:
                    number = p.shard, t.comet, t.inc, t.begin, t.n
                    entry = Entry(*number, p.push_id, p.op, p.body, t.items, p.expires_ms, p.only)
                    out.append(Send(t.comet, entry, entry_bytes(p.body, t.items, p.only)))
        self.pushes += len(pushes)
        self.entries += len(out)
        return out
