"""The log makes nobody wait, says what it left out, and gathers what comes too often."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import select
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim import logs
from zim.logs import BURST, DEBUG_BURST, SECOND_S, FieldFormatter, Gathering, LineWriter, PatientHandler

READ_S = 20.0  # a bound on what never comes, not a time that is measured


class Pipe:
    """A pipe whose reader reads when a test says so."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def read(self, until: bytes) -> bytes:
        """All up to and with that; fails if it does not come."""
        found = b""
        while until not in found:
            found += self.some()
        return found

    def some(self) -> bytes:
        """What there is; fails if there is nothing for long."""
        ready, _, _ = select.select([self.reading], [], [], READ_S)
        assert ready, f"nothing has come for {READ_S} s"
        return os.read(self.reading, 1 << 16)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    found = Pipe()
    yield found
    with contextlib.suppress(OSError):
        os.close(found.reading)
    os.close(found.writing)


def test_who_does_not_read_holds_up_nobody_and_is_told_what_was_dropped(pipe: Pipe) -> None:
    writer = LineWriter(pipe.writing, limit_bytes=200_000)
    line = b"x" * 999 + b"\n"
    for _ in range(2_000):
        writer.put(line)  # whoever writes to the pipe itself would wait for ever
    writer.flush(0.01)
    assert 1_000 < writer.dropped < 2_000
    dropped = writer.dropped
    found = b""
    while found.count(b"\n") < 2_000 - dropped:
        found += pipe.some()
    writer.put(b"the last\n")
    rest = found + pipe.read(until=b"the last\n")
    told = re.findall(rb"(\d+) lines of the log were dropped, as nobody read them\n", rest)
    assert sum(map(int, told)) == dropped
    assert rest.count(b"x" * 999) == 2_000 - dropped


def test_a_reader_that_is_gone_is_no_error(pipe: Pipe) -> None:
    writer = LineWriter(pipe.writing)
    os.close(pipe.reading)
    for _ in range(3):
        writer.put(b"a line\n")
        writer.flush(5)
    assert writer._done_bytes == writer._put_bytes


def test_an_event_that_comes_too_often_is_gathered() -> None:
    gathering, event, other = Gathering(), ("zim", 40, "pushes refused"), ("zim", 40, "node died")
    assert [gathering.admits(event, 0.0) for _ in range(BURST + 5)] == [True] * BURST + [False] * 5
    assert gathering.admits(other, 0.0)
    assert list(gathering.due(0.5)) == []
    assert list(gathering.due(SECOND_S)) == [(event, 5)]
    assert list(gathering.due(SECOND_S)) == []
    assert gathering.admits(event, SECOND_S)


class _Bad:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_lines_as_they_look(pipe: Pipe) -> None:
    handler = PatientHandler(LineWriter(pipe.writing))
    handler.setFormatter(FieldFormatter("Büro-1"))
    log = logging.Logger("zim.test")
    log.addHandler(handler)
    for n in range(BURST + 3):
        log.error("pushes refused", extra={"pushes": n})
    log.info("half a pair", extra={"uid": "\ud83d"})
    log.info("bad", extra={"what": _Bad()})
    handler.tell_gathered(time.monotonic() + SECOND_S)
    handler.close()
    text = pipe.read(until=b"more_in_a_second=3\n").decode()
    assert text.count("Büro-1 ERROR pushes refused pushes=") == BURST
    assert "Büro-1 ERROR pushes refused more_in_a_second=3\n" in text
    assert 'half a pair uid="\\ud83d"\n' in text
    assert "'bad' cannot be shown: RuntimeError('no')\n" in text


def test_what_only_v_shows_may_come_more_often() -> None:
    gathering = Gathering()
    admitted = [gathering.admits(("zim", logging.DEBUG, "push here"), 1.0) for _ in range(DEBUG_BURST + 5)]
    assert admitted == [True] * DEBUG_BURST + [False] * 5


@given(st.dictionaries(st.sampled_from(["uid", "reason", "peer"]), st.text()))
def test_what_a_client_wrote_stays_in_its_line_and_in_its_field(fields: dict[str, str]) -> None:
    record = logging.LogRecord("zim", logging.INFO, "", 0, "came", (), None)
    vars(record).update(fields)
    line = FieldFormatter("comet-1").format(record)
    assert line.isprintable()
    found, rest = {}, line.partition(" came")[2]
    while rest:
        name, _, rest = rest[1:].partition("=")
        if rest.startswith('"'):
            found[name], end = json.JSONDecoder().raw_decode(rest)
            rest = rest[end:]
        else:
            found[name], _, rest = rest.partition(" ")
            rest = rest and " " + rest
    assert found == fields


def test_what_was_gathered_is_told_also_if_nothing_else_is_logged(pipe: Pipe) -> None:
    handler = PatientHandler(LineWriter(pipe.writing))
    handler.setFormatter(FieldFormatter("router-1"))
    log = logging.Logger("zim.test")
    log.addHandler(handler)
    for _ in range(BURST + 2):
        log.error("pushes refused")
    assert b"ERROR pushes refused more_in_a_second=2\n" in pipe.read(until=b"more_in_a_second")


def test_a_descriptor_that_does_not_block_is_waited_for(pipe: Pipe) -> None:
    os.set_blocking(pipe.writing, False)
    writer = LineWriter(pipe.writing)
    for _ in range(300):
        writer.put(b"x" * 999 + b"\n")
    writer.put(b"the last\n")
    assert pipe.read(until=b"the last\n").count(b"\n") == 301


def test_one_writer_for_each_output() -> None:
    assert logs.writer(logs.STDERR) is logs.writer(logs.STDERR)
