"""What is to be done, as frozen values: what any node's runner may return. Pure.

A runner decides: it is handed a message, the result of an effect, or the time, and returns effects. A driver performs
them in order; see zim.nodes.base.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from zim.protocol.message import Message

MESSAGE_BYTES = 64  # what a message without a body counts for

INFO, WARNING, ERROR, CRITICAL = logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL


class Effect(msgspec.Struct, frozen=True, gc=False):
    """Something that a driver is to do."""


class Send(Effect, frozen=True):
    """A message to a node, over the link to it. It may get lost; what surely never left is told to the runner.

    Attributes:
        peer: the node's name.
        size: what it counts for in the link's queue, in bytes.
    """

    peer: str
    message: Message
    size: int = MESSAGE_BYTES


class Replies(Effect, frozen=True):
    """Answers, each to whoever asked: by the name that the driver has given to the asker."""

    answers: Sequence[tuple[Any, Message]]


class Note(Effect, frozen=True):
    """A line of the log: a constant event and its fields."""

    level: int
    event: str
    fields: Mapping[str, Any]


class Audit(Note, frozen=True):
    """The same, of the audit: who was refused, and who did what."""


def topologies_differ(**fields: Any) -> Note:
    """A router is asked for a stream of another one."""
    return Note(ERROR, "a router refuses a stream: the topologies differ", fields)


class Drained(Effect, frozen=True):
    """The node has nothing left to do: it ends, and is not started again."""


class End(Effect, frozen=True):
    """The node cannot go on. why: for people."""

    why: str
