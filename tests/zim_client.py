"""A client of zim's own dialect, for tests on real fabrics."""

from __future__ import annotations

import json
from typing import Any

from tests.harness import Client, wait_until
from zim.protocol import frame
from zim.protocol.frame import Op, Packet


class ZimClient(Client):
    """A client that speaks zim's dialect, and comes back with what it has.

    Attributes:
        auth: the body of the auth reply.
        has: epoch and offset of each stream, for `resume`.
    """

    version = frame.VERSION

    def __init__(
        self,
        address: str,
        token: str | int = "7",
        is_ws: bool = False,
        rooms: list[str] | None = None,
        resume: dict[str, tuple[str, int]] | None = None,
    ) -> None:
        """Connects and waits for the auth reply, which it takes out of `packets`."""
        super().__init__(address, None, is_ws)
        auth = {"token": token, "resume": resume or {}} | ({} if rooms is None else {"rooms": rooms})
        self.say_json(Op.AUTH, auth, seq=1)
        reply = self.take(Op.AUTH_REPLY)
        assert reply.seq == 1
        self.auth: dict[str, Any] = json.loads(reply.body)

    def say_json(self, op: int, body: Any, seq: int = 0) -> None:
        """One packet whose body is JSON, on TCP too."""
        self.say(op, json.dumps(body).encode(), seq)

    def take(self, op: int) -> Packet:
        """Waits for the first packet of an op, and takes it out of `packets`."""

        def found() -> Packet | None:
            return next((p for p in self.packets if p.op == op), None)

        wait_until(lambda: found() or self.is_closed, f"a packet of op {op}, not {self.packets}")
        packet = found()
        assert packet is not None, f"closed ({self.close_code} {self.close_reason}) with {self.packets}"
        self.packets.remove(packet)
        return packet

    def ask(self, op: int, body: Any, seq: int) -> Any:
        """Says something and returns the body of its answer, whose op is the next one."""
        self.say_json(op, body, seq)
        reply = self.take(op + 1)
        assert reply.seq == seq
        return json.loads(reply.body)

    @property
    def starts(self) -> dict[str, dict[str, Any]]:
        """Of its streams, as the auth reply said."""
        found: dict[str, dict[str, Any]] = self.auth["streams"]
        return found

    @property
    def has(self) -> dict[str, tuple[str, int]]:
        """What it would resume from: where it started, and what has come since."""
        found = {stream: (s["epoch"], s["offset"]) for stream, s in self.starts.items() if "error" not in s}
        for packet in self.packets:
            if packet.stream:
                found[packet.stream] = found[packet.stream][0], packet.offset
        return found

    def places(self, stream: str) -> list[tuple[int, bytes]]:
        """Offset and body of all pushes of a stream so far."""
        return [(p.offset, p.body) for p in self.packets if p.stream == stream]

    def wait_for(self, stream: str, count: int) -> list[tuple[int, bytes]]:
        """The places, once there are that many."""
        wait_until(
            lambda: len(self.places(stream)) >= count or self.is_closed, f"{count} of {stream}, not {self.packets}"
        )
        assert len(self.places(stream)) >= count, f"closed with {self.packets}"
        return self.places(stream)
