"""Logging: a constant event and fields, one line each, on stderr. It never makes anybody wait.

`log.warning("slow consumer", extra={"uid": "7", "reason": "too slow"})` becomes
`2026-11-24 07:34:09.123+0100 comet-1 WARNING slow consumer uid=7 reason="too slow"`. A value that is not one plain word
is in quotes, with the escapes of JSON: whatever a client wrote stays in its line, and in its field.

Whoever reads stderr may stop reading: a terminal after Ctrl-S, a pipe nobody empties, a slow disk. So a thread of the
operating system writes, out of a bounded queue, and lines that find no room are counted and dropped. An event that
comes too often is gathered: its first lines of a second are written, of the rest how many there were.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from queue import Empty

from gevent.monkey import get_original

QUEUE_BYTES = 1 << 20  # of lines that wait for whoever reads; above it they are dropped
BURST = 10  # lines of one event that are written within a second,
DEBUG_BURST = 200  # and with -v, which follows pushes one by one
SECOND_S = 1.0
FLUSH_S = 0.5  # how long the end of the process waits for a reader

AUDIT, AUDIT_LEVEL = "zim.audit", "AUDIT"  # the logger of who was refused and who did what, and its lines' level

_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}
_SPECIAL = re.compile(r'[\s"=\\]')

_is_verbose = False

_monotonic = time.monotonic
_start_thread = get_original("_thread", "start_new_thread")
_sleep = get_original("time", "sleep")


class FieldFormatter(logging.Formatter):
    """Appends the fields given as `extra`, so that an event's text stays constant and can be counted."""

    def __init__(self, node_name: str) -> None:
        super().__init__(f"%(asctime)s {node_name} %(levelname)s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Local time, with what it is ahead of UTC."""
        at = time.localtime(record.created)
        return f"{time.strftime('%Y-%m-%d %H:%M:%S', at)}.{int(record.msecs):03d}{time.strftime('%z', at)}"

    def format(self, record: logging.LogRecord) -> str:
        """One line: the time, the node, the event, its fields."""
        if record.name == AUDIT:
            record.levelname = AUDIT_LEVEL
        text = super().format(record)
        fields = [f"{k}={_shown(v)}" for k, v in vars(record).items() if k not in _STANDARD]
        head, newline, tail = text.partition("\n")
        return " ".join([head, *fields]) + newline + tail


def _shown(value: object) -> str:
    text = str(value)
    if text.isprintable() and not _SPECIAL.search(text):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


class LineWriter:
    """Writes to a file descriptor without making anybody wait. Its thread ends with the process.

    Attributes:
        dropped: how many lines found no room, ever.
    """

    def __init__(self, fd: int, limit_bytes: int = QUEUE_BYTES) -> None:
        self.dropped = 0
        self.on_idle: Callable[[], None] = lambda: None  # once a second without a line; in the thread
        self._fd, self._limit_bytes = fd, limit_bytes
        self._queue = get_original("queue", "SimpleQueue")()
        self._put_bytes = self._done_bytes = 0  # each is written by one thread alone
        self._told = 0
        _start_thread(self._run, ())

    def put(self, line: bytes) -> None:
        """Takes a line with its end, or drops it. Does not switch and does not block."""
        if self._put_bytes - self._done_bytes + len(line) > self._limit_bytes:
            self.dropped += 1
            return
        self._put_bytes += len(line)
        self._queue.put(line)

    def flush(self, timeout_s: float) -> None:
        """Waits until all is written, but not for ever. Blocks."""
        until = _monotonic() + timeout_s
        while self._done_bytes < self._put_bytes and _monotonic() < until:
            _sleep(0.002)

    def _run(self) -> None:
        """In the thread."""
        while True:
            try:
                line: bytes = self._queue.get(timeout=SECOND_S)
            except Empty:
                self.on_idle()
                continue
            lost = self.dropped - self._told
            if lost:
                self._told += lost
                self._write(b"%d lines of the log were dropped, as nobody read them\n" % lost)
            self._write(line)
            self._done_bytes += len(line)

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody reads any more, or the disk is full
            while data:
                try:
                    data = data[os.write(self._fd, data) :]
                except BlockingIOError:  # whoever gave us the descriptor has made it so
                    _sleep(0.01)


class Gathering:
    """Which lines of an event are written. Pure."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, int, str], list[float]] = {}  # by event: its second's end, lines, those left out

    def admits(self, event: tuple[str, int, str], now: float) -> bool:
        """Whether one more line of the event is written."""
        second = self._seconds.get(event)
        if second is None:
            self._seconds[event] = [now + SECOND_S, 1, 0]
            return True
        second[1] += 1
        if second[1] <= (BURST if event[1] > logging.DEBUG else DEBUG_BURST):
            return True
        second[2] += 1
        return False

    def due(self, now: float) -> Iterator[tuple[tuple[str, int, str], int]]:
        """Events whose second is over, each with how many of its lines were left out."""
        for event, (end, _, left_out) in list(self._seconds.items()):
            if end <= now:
                self._seconds.pop(event, None)
                if left_out:
                    yield event, int(left_out)


class PatientHandler(logging.Handler):
    """Hands lines to a LineWriter, gathered."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer, self._gathering = writer, Gathering()
        self._look_at = 0.0
        writer.on_idle = lambda: self.tell_gathered(_monotonic())

    def emit(self, record: logging.LogRecord) -> None:
        """Does not switch and does not block."""
        now = _monotonic()
        if now >= self._look_at:
            self.tell_gathered(now)
        # What somebody has done is never left out; who is refused may come as often as anybody likes.
        is_done = record.name == AUDIT and record.levelno < logging.WARNING
        if is_done or self._gathering.admits((record.name, record.levelno, str(record.msg)), now):
            try:
                self._writer.put(self.format(record).encode("utf-8", "backslashreplace") + b"\n")
            except Exception as e:  # noqa: BLE001 any, of a field that cannot be shown: it must not end who logs
                self._writer.put(f"{record.msg!r} cannot be shown: {e!r}\n".encode("utf-8", "backslashreplace"))

    def tell_gathered(self, now: float) -> None:
        """A line for each event that came too often in the last second."""
        self._look_at = now + SECOND_S
        for (name, level, event), count in self._gathering.due(now):
            record = logging.LogRecord(name, level, "", 0, event, (), None)
            record.more_in_a_second = count
            self._writer.put(self.format(record).encode("utf-8", "backslashreplace") + b"\n")

    def close(self) -> None:
        """Waits a little for whoever reads. Blocks."""
        self.tell_gathered(float("inf"))
        self._writer.flush(FLUSH_S)
        super().close()


STDOUT, STDERR = 1, 2
_writers: dict[int, LineWriter] = {}


def writer(fd: int) -> LineWriter:
    """The one that writes to a file descriptor of this process."""
    if fd not in _writers:
        _writers[fd] = LineWriter(fd)
    return _writers[fd]


def setup(node_name: str, level: str = "info", *, is_verbose: bool = False) -> None:
    """Sends everything to stderr.

    Args:
        level: "debug", "info" or "warning".
        is_verbose: whoever started the process wants all, whatever the level is.
    """
    global _is_verbose
    _is_verbose = is_verbose
    handler = PatientHandler(writer(STDERR))
    handler.setFormatter(FieldFormatter(node_name))
    logging.basicConfig(handlers=[handler], force=True)
    set_level(level)
    logging.getLogger(AUDIT).setLevel(logging.INFO)


def set_level(level: str) -> None:
    """Lines below it are not written. Those of the audit are always."""
    logging.getLogger().setLevel(logging.DEBUG if _is_verbose else level.upper())
