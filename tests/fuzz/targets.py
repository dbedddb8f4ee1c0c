"""The table of targets, and their corpora: for each a file of inputs, a line each, as Python writes bytes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.fuzz.planted import PLANTED
from tests.fuzz.target import Target
from tests.fuzz.text_targets import TEXT_TARGETS
from tests.fuzz.wire_targets import WIRE_TARGETS

TARGETS: dict[str, Target] = {**WIRE_TARGETS, **TEXT_TARGETS}

ALL = {**TARGETS, **PLANTED}

_CORPUS = Path(__file__).with_name("corpus")


def file_name(target: str) -> str:
    """A target's name, as a file may be called."""
    return re.sub(r"[^a-z]+", "-", target.lower()).strip("-")


def corpus(target: str) -> list[bytes]:
    """Inputs to begin with: right ones, nearly right ones, and those that were found once."""
    if target in PLANTED:
        return [b"planted"]
    lines = (_CORPUS / f"{file_name(target)}.txt").read_text().splitlines()
    return [ast.literal_eval(line) for line in lines if line and not line.startswith("#")]
