"""What numbers and lists in messages may be. What a peer sends is checked before anything is done with it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from zim.fabric.limits import MESSAGES, OFFSET, RECIPIENTS, ROOMS, TTL_S

Int32 = Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)]
Number = Annotated[int, Meta(ge=0, le=OFFSET)]  # of requests, changes and entries; offsets; how many of something
Run = Annotated[int, Meta(ge=0, lt=1 << 53)]  # terms and incarnations: the next one must be possible, too
Sessions = Annotated[int, Meta(ge=0, lt=1 << 31)]  # how many
SessionNumber = Annotated[int, Meta(ge=0, lt=1 << 53)]
Moment = Annotated[int, Meta(ge=0, lt=1 << 53)]  # ms of log time or of the wall clock; 0 often means none
Ttl = Annotated[int, Meta(ge=0, le=int(TTL_S * 1000))]  # ms; 0 for ever
Limit = Annotated[int, Meta(ge=1, le=MESSAGES)]  # records of one answer

Rooms = Annotated[tuple[str, ...], Meta(max_length=2 * ROOMS)]  # of one session: its token's, and what it asks for
Streams = Annotated[list[str], Meta(max_length=RECIPIENTS + 1)]  # of one push: everybody's comes on top
Keys = Annotated[tuple[str, ...], Meta(max_length=RECIPIENTS)]  # session keys of one push

Item = tuple[str, Number]  # stream, offset
Offsets = Annotated[tuple[Number, ...], Meta(max_length=RECIPIENTS + 1)]
Items = Annotated[list[Item], Meta(max_length=RECIPIENTS + 1)]
