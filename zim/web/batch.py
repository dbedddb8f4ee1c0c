"""`POST /api/push/batch`: a push a line in, its verdict a line out, in the same order.

The lines go to the fabric some hundreds at a time, so that memory holds few of them twice and other requests get their
turn. A line that is broken is answered as such, and spoils no other.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import IO

import msgspec

from zim.fabric.limits import RECIPIENTS
from zim.fabric.port import Fabric
from zim.fabric.principals import Principal
from zim.fabric.push import Published, Push
from zim.net.fairness import give_way
from zim.web.documents import accepted, not_accepted
from zim.web.problems import TOO_LARGE, Problem, defect
from zim.web.push import BATCH_LINE, make_push, n_recipients

log = logging.getLogger(__name__)

MAX_BATCH_BYTES = 16 << 20
MAX_LINES = 10_000
GATHERED_LINES = 500  # go to the fabric at once,
GATHERED_BYTES = 1 << 20  # or so many, and the line that goes beyond

Verdict = Push | Problem


def answer_batch(
    document: IO[bytes], fabric: Fabric, who: Principal, max_body_bytes: int, max_line_bytes: int
) -> bytes:
    """Publish the lines of a document, and say of each what became of it.

    Switches.

    Args:
        document: NDJSON, at its begin; it can be read twice. Blank lines are nothing.
        fabric: what to call.
        who: publishes.
        max_body_bytes: of one push.
        max_line_bytes: of one line.

    Raises:
        Problem: there are too many lines; none was published.
    """
    n_lines = sum(1 for line in document if not _is_blank(line))
    if n_lines > MAX_LINES:
        raise Problem(TOO_LARGE, f"{n_lines} lines, at most {MAX_LINES} are allowed", limit=MAX_LINES)
    document.seek(0)
    batch = _Batch(fabric, who, max_body_bytes, max_line_bytes)
    return b"".join(batch.answer(lines) for lines in _gathered(document))


def _gathered(document: IO[bytes]) -> Iterator[list[tuple[int, bytes]]]:
    """The lines with their numbers, some at a time."""
    lines: list[tuple[int, bytes]] = []
    n_bytes = 0
    for number, line in enumerate(document, 1):
        if _is_blank(line):
            continue
        lines.append((number, line))
        n_bytes += len(line)
        if len(lines) >= GATHERED_LINES or n_bytes > GATHERED_BYTES:
            yield lines
            lines, n_bytes = [], 0
    if lines:
        yield lines


def _is_blank(line: bytes) -> bool:
    return not line.strip(b" \t\r\n")  # JSON's white space


class _Batch:
    def __init__(self, fabric: Fabric, who: Principal, max_body_bytes: int, max_line_bytes: int) -> None:
        self._fabric, self._who = fabric, who
        self._max_body_bytes, self._max_line_bytes = max_body_bytes, max_line_bytes
        self._recipients_left = RECIPIENTS

    def answer(self, lines: list[tuple[int, bytes]]) -> bytes:
        """Publish lines. Switches."""
        give_way()  # lines that are all broken do not switch
        read = [self._read(line) for _, line in lines]
        published = iter(self._publish([push for push in read if isinstance(push, Push)]))
        verdicts = (_verdict(what, published, number) for what, (number, _) in zip(read, lines, strict=True))
        return b"".join(verdicts)

    def _read(self, line: bytes) -> Verdict:
        try:
            if len(line) > self._max_line_bytes:
                why = f"the line has {len(line)} bytes, at most {self._max_line_bytes} are allowed"
                return Problem(TOO_LARGE, why, limit=self._max_line_bytes)
            document = BATCH_LINE.read(line)
            push = make_push(document, self._max_body_bytes)
        except Problem as problem:
            # Its frames lead back to the list that it goes into: a circle for each line, and half a second of
            # collecting them.
            problem.__traceback__ = problem.__context__ = None
            return problem
        self._recipients_left -= n_recipients(document.to)
        if self._recipients_left < 0:
            self._recipients_left = 0
            why = f"with this line the batch has more than {RECIPIENTS} recipients; send it in the next batch"
            return Problem(TOO_LARGE, why, key="to", limit=RECIPIENTS)
        return push

    def _publish(self, pushes: list[Push]) -> list[Published | Problem]:
        """Publish. A defect of ours costs these lines their verdict, not those before and after them."""
        if not pushes:
            return []
        try:
            return list(self._fabric.publish_many(pushes, self._who))
        except Exception:
            log.exception("batch failed")
            return [defect()] * len(pushes)


def _verdict(read: Verdict, published: Iterator[Published | Problem], number: int) -> bytes:
    """One line of the answer."""
    verdict = next(published) if isinstance(read, Push) else read
    if isinstance(verdict, Published):
        if verdict.status == "ok":
            return msgspec.json.encode(accepted(verdict)) + b"\n"
        verdict = not_accepted(verdict, isinstance(read, Push) and read.key != "")
    return verdict.encode(line=number) + b"\n"
