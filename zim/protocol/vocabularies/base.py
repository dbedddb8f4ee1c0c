"""What a vocabulary is: what packets mean. Values that mean the same in all of them stand here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, ClassVar, NamedTuple

import msgspec

from zim.fabric.limits import OFFSET
from zim.protocol.endings import Ending
from zim.protocol.errors import WireError
from zim.protocol.fields import Limit
from zim.protocol.frame import Op, Packet

Offset = Annotated[int, msgspec.Meta(ge=0, le=OFFSET)]
Resume = Mapping[str, tuple[str, int]]  # stream → epoch, offset

# ---------------------------------------------------------------- what a client says


class Login(NamedTuple):
    """Who it is. rooms: None for those that its token has. resume: what it has of its streams, if it can say. device:
    what it says that it is."""

    token: bytes
    rooms: tuple[str, ...] | None = None
    resume: Resume | None = None
    device: str = ""


class Join(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rooms that it wants to be in. null is absence."""

    rooms: tuple[str, ...]
    resume: dict[str, tuple[str, Offset]] | None = None


class Leave(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rooms that it wants to be out of."""

    rooms: tuple[str, ...]


class Cursors(NamedTuple):
    """Up to where it has dealt with streams, for good."""

    offsets: Mapping[str, int]


class Refresh(NamedTuple):
    """Another token for the same user."""

    token: bytes


class ReadHistory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a stream has after an offset, at most so many messages."""

    stream: Annotated[str, msgspec.Meta(min_length=1)]
    after: Offset = 0
    limit: Limit = 100


Request = Join | Leave | Cursors | Refresh | ReadHistory  # what others must be asked for

# ---------------------------------------------------------------- what it is told


class Start(NamedTuple):
    """Where a client starts in a stream.

    Attributes:
        stream: its canonical name.
        epoch: which history the offset belongs to.
        offset: everything after it will come.
        recovered: nothing is missing between what the client had and that.
        error: why it is not in the stream; "" if it is.
    """

    stream: str
    epoch: str = ""
    offset: int = 0
    recovered: bool = True
    error: str = ""


class Missed(NamedTuple):
    """Messages of a stream that will not come: first…last; the next one is last + 1, of that epoch."""

    stream: str
    epoch: str
    first: int
    last: int
    reason: str


class KeptRecord(NamedTuple):
    """A message of a stream, as its history has it. time_ms: the wall clock."""

    offset: int
    time_ms: int
    op: int
    body: bytes


class Past(NamedTuple):
    """A piece of a stream's history.

    Attributes:
        first: nothing before it is kept any more; head: the newest one.
        last: up to there the records tell all that the client may see.
        error: why there is none; "" if there is.
    """

    stream: str
    epoch: str = ""
    first: int = 0
    head: int = 0
    last: int = 0
    records: Sequence[KeptRecord] = ()
    error: str = ""


class Onward(NamedTuple):
    """Where a client goes that is sent to another comet.

    Attributes:
        after_s: it comes so much later, for others come too.
        to: addresses of comets, the one to try first first; none where nobody can name one to it.
    """

    after_s: float = 0.0
    to: tuple[str, ...] = ()


# ---------------------------------------------------------------- the vocabulary

# What every vocabulary answers without asking anybody: by a client's operation, the reply to its packet.
REPLIES: Mapping[int, Callable[[Packet], Packet]] = {
    Op.HEARTBEAT: lambda said: Packet(Op.HEARTBEAT_REPLY, said.seq, said.version),
    Op.UPSTREAM: lambda said: Packet(Op.PUSH, said.seq, said.version, said.body),
    Op.TEST: lambda said: Packet(Op.TEST_REPLY, said.seq, said.version, b'{"test":"come on"}'),
}


class Vocabulary(ABC):
    """What packets mean. It has no state: there is one object of each.

    What it has no word for is None: its client cannot be told.

    Attributes:
        version: of the auth packet that chooses it; None: where no other one does.
        requests: by operation, how the body of what others must be asked for is read.
        tells_places: a pushed message says where it stands in its stream.
        tells_starts: its client can be told of each stream where it starts, also later.
        has_cursors: a user's stream starts at what the user has acknowledged.
        resumes: its client comes back for what it missed, so that nothing needs to be left out for it.
    """

    __slots__ = ()
    version: ClassVar[int | None] = None
    requests: ClassVar[Mapping[int, Callable[[bytes], Request]]] = {}
    tells_places: ClassVar[bool] = False
    tells_starts: ClassVar[bool] = False
    has_cursors: ClassVar[bool] = False
    resumes: ClassVar[bool] = False

    @abstractmethod
    def parse_login(self, body: bytes) -> Login:
        """Reads an auth packet's body. Raises: WireError."""

    def parse(self, packet: Packet) -> Packet | Request:
        """Reads what an authenticated client says.

        Returns:
            The reply, where nobody else is needed for it; otherwise what its client wants.

        Raises:
            WireError: an unknown operation, a second auth, or a body that is not what its operation says.
        """
        if (reply := REPLIES.get(packet.op)) is not None:
            return reply(packet)
        if (parse := self.requests.get(packet.op)) is not None:
            return parse(packet.body)
        raise WireError("operation not known", ending=Ending.OPERATION)

    @abstractmethod
    def encode_push(self, op: int, body: bytes, stream: str, offset: int) -> Packet:
        """A pushed message."""

    @abstractmethod
    def encode_opened(
        self, asked: Packet, key: str, heartbeat_s: float, starts: Sequence[Start], expires_s: float | None
    ) -> Packet:
        """The reply to an auth packet. expires_s: how long its grant holds; None for as long as it likes."""

    def encode_joined(self, seq: int, starts: Sequence[Start]) -> Packet | None:
        """It is in rooms. seq: of the packet that asked for it, 0 if this comes late."""
        return None

    def encode_left(self, seq: int, streams: Sequence[str], reason: str = "") -> Packet | None:
        """It is out of rooms, as it asked in packet seq; or as somebody else wants, and seq is 0. reason: of that."""
        return None

    def encode_acknowledged(self, seq: int, stream: str, offset: int) -> Packet | None:
        """A cursor stands there."""
        return None

    def encode_refreshed(self, seq: int, expires_s: float | None, error: str = "") -> Packet | None:
        """Another token is taken, as packet seq asked; or, with an error, it is to be shown again."""
        return None

    def encode_history(self, seq: int, past: Past) -> Packet | None:
        """A piece of a stream's history, as packet seq asked."""
        return None

    def encode_missed(self, missed: Missed) -> Packet | None:
        """A piece of a stream will not come."""
        return None

    def encode_farewell(self, reason: str, ending: Ending, onward: Onward | None = None) -> Packet | None:
        """It is being disconnected. onward: it is to go to another comet."""
        return None

    def close_code(self, ending: Ending) -> int:
        """For a WebSocket close frame; 0 for none."""
        return ending.code
