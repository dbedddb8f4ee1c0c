"""What connections speak: each pair of a framing and a vocabulary. A new one of either is registered here."""

from __future__ import annotations

from itertools import product

from zim.protocol.framings.base import Framing
from zim.protocol.framings.tcp import TCP
from zim.protocol.framings.text import TEXT, TEXT_OBJECTS
from zim.protocol.vocabularies.base import Vocabulary
from zim.protocol.vocabularies.goim import GOIM
from zim.protocol.vocabularies.zim import ZIM

FRAMINGS: tuple[Framing, ...] = (TCP, TEXT, TEXT_OBJECTS)
VOCABULARIES: tuple[Vocabulary, ...] = (GOIM, ZIM)


class Speech:
    """One pair. There is one object of each; what a push looks like in it is encoded once.

    Attributes:
        number: its place in SPEECHES.
    """

    __slots__ = ("framing", "number", "vocabulary")

    def __init__(self, number: int, framing: Framing, vocabulary: Vocabulary) -> None:
        self.number, self.framing, self.vocabulary = number, framing, vocabulary

    def __repr__(self) -> str:
        return f"{type(self.framing).__name__}-{type(self.vocabulary).__name__}"

    def of_version(self, version: int) -> Speech:
        """What a connection speaks whose auth packet has this version."""
        is_named = [v for v in VOCABULARIES if v.version == version]
        return speech(self.framing, is_named[0] if is_named else GOIM)


SPEECHES = tuple(Speech(number, *pair) for number, pair in enumerate(product(FRAMINGS, VOCABULARIES)))
_BY_PAIR = {(s.framing, s.vocabulary): s for s in SPEECHES}


def speech(framing: Framing, vocabulary: Vocabulary = GOIM) -> Speech:
    """The object of a pair; of a framing alone, what is spoken before the first packet has said more."""
    return _BY_PAIR[framing, vocabulary]
