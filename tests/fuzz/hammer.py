"""One target, many inputs, in this process: what is let out that may not be, what takes too long, what memory grows.

The input under way stands in a file that is mapped into memory: if the process dies of it, it is there.
"""

from __future__ import annotations

import gc
import mmap
import random
import signal
import struct
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from ctypes import CDLL
from hashlib import sha256
from pathlib import Path
from types import FrameType

import psutil

from tests.fuzz.mutation import mutated
from tests.fuzz.target import LONGEST_BYTES, Target

HANG_S = 1.0  # of processor time: a machine that is busy is no finding
GROWTH_BYTES = 1 << 20  # of a process that has done its work
_LOOK_S = 0.25
_BATCH = 256  # inputs between two looks at the clock
_SIZE = struct.Struct(">I")


class Hung(BaseException):
    """An input takes too long. No target can mistake it for an error of its own."""


class Hammer:
    """Runs a target, and keeps what it finds.

    Attributes:
        inputs: that it was fed.
        findings: by what went wrong and where, the first input that showed it.
        hung: one took too long: others would, too.
    """

    def __init__(self, target: Target, under_way: Path) -> None:
        self._run, self._allowed = target
        self.inputs, self.hung = 0, False
        self.findings: dict[str, bytes] = {}
        self._since = 0.0
        with under_way.open("wb+") as file:
            file.truncate(_SIZE.size + LONGEST_BYTES)
            self._under_way = mmap.mmap(file.fileno(), 0)

    def one(self, data: bytes) -> None:
        """Feeds it one input."""
        data = data[:LONGEST_BYTES]
        self._under_way[: _SIZE.size + len(data)] = _SIZE.pack(len(data)) + data
        self._since = began = time.process_time()
        try:
            self._run(data)
        except self._allowed:
            pass
        except Exception as error:
            self.findings.setdefault(_what(error), data)
        except Hung:
            self.hung = True
            self.findings.setdefault(f"hangs for more than {HANG_S:g} s", data)
        else:
            if time.process_time() - began > HANG_S:
                self.hung = True
                self.findings.setdefault(f"takes more than {HANG_S:g} s", data)
        self._since = 0.0
        self.inputs += 1

    def _look(self, _signal: int, _frame: FrameType | None) -> None:
        if self._since and time.process_time() - self._since > HANG_S:
            raise Hung

    @contextmanager
    def watched(self) -> Iterator[None]:
        """What hangs in Python, or in a regular expression, is ended."""
        before = signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, _LOOK_S, _LOOK_S)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)

    def mutate(self, seeds: Sequence[bytes], seed: int, seconds: float, most: int | None = None) -> None:
        """Feeds it the seeds, then what comes of them, for so long, or so many."""
        r = random.Random(seed)
        with self.watched():
            for data in seeds:
                if not self.hung:
                    self.one(data)
            until = time.perf_counter() + seconds
            while time.perf_counter() < until and (most is None or self.inputs < most):
                for _ in range(_BATCH):
                    if self.hung:
                        return
                    self.one(mutated(r, seeds))


def under_way(file: Path) -> bytes:
    """The last input of a process that has died."""
    with suppress(OSError, struct.error):
        data = file.read_bytes()
        (size,) = _SIZE.unpack_from(data)
        return data[_SIZE.size : _SIZE.size + min(size, LONGEST_BYTES)]
    return b""


def _what(error: Exception) -> str:
    """An error and where it comes from, without what differs from input to input."""
    at = traceback.extract_tb(error.__traceback__)[-1]
    text = str(error)[:100] if isinstance(error, AssertionError) else ""
    return f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno} {text}".strip()


def rss_bytes() -> int:
    """What this process has in memory, without what the garbage collector and the C library would give back."""
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc alone has it
        CDLL("libc.so.6").malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


def write_finding(folder: Path, target: str, what: str, data: bytes) -> Path:
    """A file with the input, and one with what went wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{target}-{sha256(data).hexdigest()[:12]}"
    file.write_bytes(data)
    file.with_suffix(".txt").write_text(f"{what}\n{data!r}\n")
    return file
