"""Targets that are wrong on purpose: what does not find these finds nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import time

from tests.fuzz.target import Target

_KEPT: list[bytes] = []


def _fails(data: bytes) -> None:
    if len(data) % 3 == 1:
        json.loads(data)


def _hangs(data: bytes) -> None:
    if len(data) > 8:
        while True:
            pass


def _hangs_in_c(data: bytes) -> None:
    if len(data) > 8:
        re.fullmatch(r"(a+)+b", "a" * 40)


def _dawdles(data: bytes) -> None:
    began = time.process_time()
    while data == b"planted" and time.process_time() - began < 1.2:
        sum(range(1_000_000))


def _grows(data: bytes) -> None:
    _KEPT.append(bytes(1_000))


def _dies(data: bytes) -> None:
    if len(data) > 8:
        os.kill(os.getpid(), signal.SIGSEGV)


PLANTED: dict[str, Target] = {
    "fails": Target(_fails, (UnicodeDecodeError,)),
    "hangs": Target(_hangs),
    "hangs in C": Target(_hangs_in_c),
    "dawdles": Target(_dawdles),
    "grows": Target(_grows),
    "dies": Target(_dies),
}
