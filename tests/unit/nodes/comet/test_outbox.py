"""A connection's backlog: bytes in order, within a limit; and what its rows are told."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from zim.fabric.limits import CHANGES, RESULTS
from zim.nodes.comet.feed import Link
from zim.nodes.comet.outbox import CHUNK_BYTES, Outbox
from zim.nodes.comet.results import Reports, Row
from zim.protocol.messages import Del

CHUNKS = st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=20)


def limit_of(chunks: int, size: int) -> int:
    """What an outbox may hold, so that so many chunks have room that are so large all together."""
    return size + CHUNK_BYTES * chunks


def drain(outbox: Outbox, step: int) -> bytes:
    found = b""
    while outbox:
        data = b"".join(outbox.head(0.0))[:step]
        outbox.sent(len(data))
        found += data
    return found


@given(CHUNKS, st.integers(0, 19), st.integers(1, 50))
def test_all_bytes_come_out_in_order(chunks: list[bytes], sent: int, step: int) -> None:
    outbox = Outbox(limit_of(20, 1000))
    sent = min(sent, len(chunks[0]) - 1)
    outbox.begin(chunks[0], sent)
    assert all(outbox.put(chunk) for chunk in chunks[1:])
    assert outbox.waiting_bytes == limit_of(len(chunks), sum(map(len, chunks)) - sent)
    assert drain(outbox, step) == b"".join(chunks)[sent:]
    assert outbox.waiting_bytes == 0


@given(CHUNKS, st.integers(0, 19), st.integers(1, 4000))
def test_the_limit_holds(chunks: list[bytes], sent: int, limit: int) -> None:
    outbox = Outbox(limit)
    outbox.begin(chunks[0], min(sent, len(chunks[0]) - 1))
    for chunk in chunks[1:]:
        before = outbox.waiting_bytes
        assert outbox.put(chunk) == (outbox.waiting_bytes > before)
    assert outbox.waiting_bytes <= max(limit, limit_of(1, 20))


@given(CHUNKS, st.integers(0, 19), st.integers(1, 4000), st.integers(1, 50))
def test_dropping_the_oldest_never_cuts_a_chunk(chunks: list[bytes], sent: int, limit: int, step: int) -> None:
    outbox = Outbox(limit)
    sent = min(sent, len(chunks[0]) - 1)
    outbox.begin(chunks[0], sent)
    for chunk in chunks[1:]:
        outbox.put_newest(chunk)
    kept = len(chunks) - outbox.dropped
    found = drain(outbox, step)
    if sent:
        assert found == chunks[0][sent:] + b"".join(chunks[len(chunks) - kept + 1 :])
    else:
        assert found == b"".join(chunks[len(chunks) - kept :])


@given(CHUNKS, st.integers(0, 19), st.sampled_from([b"", b"bye"]))
def test_the_end_lets_a_half_sent_chunk_finish(chunks: list[bytes], sent: int, last: bytes) -> None:
    outbox = Outbox(limit_of(20, 1000))
    sent = min(sent, len(chunks[0]) - 1)
    outbox.begin(chunks[0], sent)
    for chunk in chunks[1:]:
        outbox.put(chunk)
    outbox.end_with(last, "gone")
    assert drain(outbox, 7) == (chunks[0][sent:] if sent else b"") + last
    assert outbox.waiting_bytes == 0


# ---------------------------------------------------------------- what becomes of the rows


def test_no_renew_has_more_results_than_routers_take() -> None:
    reports = fresh_reports()
    for n in range(RESULTS + 1):
        Row(reports, n).changed()
    assert len(reports.say(1)) == RESULTS
    reports.heard(1)
    assert len(reports.say(2)) == 1


def test_no_message_has_more_changes_than_routers_take() -> None:
    out: list[Any] = []
    link = Link("router-1", "comet-1", 1, out, most_changes=10 * CHANGES)
    link.is_connected = True
    link.register(1, [lambda n: Del(n, n)] * (2 * CHANGES), 0.0)
    link.flush()
    assert [len(effect.message.changes) for effect in out] == [CHANGES, CHANGES, 1]


def fresh_reports() -> Reports:
    return Reports({"delivered": 0, "gone": 0, "shed": 0, "expired": 0})


def filled(limit: int, chunks: int, sent: int = 0) -> tuple[Outbox, list[Row]]:
    """An outbox of chunks of 10 bytes, and a row for each."""
    reports, outbox = fresh_reports(), Outbox(limit_of(limit // 10, limit))
    rows = [Row(reports, n) for n in range(1, chunks + 1)]
    outbox.begin(bytes(10), sent, rows[:1])
    for row in rows[1:]:
        assert outbox.put(bytes(10), [row])
    return outbox, rows


def outcomes(rows: list[Row]) -> list[tuple[int, int, int]]:
    """Of each row: delivered, gone, shed."""
    return [(row.delivered, row.gone, row.shed) for row in rows]


PENDING, DELIVERED, GONE, SHED = (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)


def test_delivered_is_what_the_kernel_has_the_last_byte_of() -> None:
    outbox, rows = filled(100, 3)
    outbox.sent(9)
    assert outcomes(rows) == [PENDING] * 3
    outbox.sent(11)
    assert outcomes(rows) == [DELIVERED, DELIVERED, PENDING]
    outbox.sent(10)
    assert outcomes(rows) == [DELIVERED] * 3


def test_what_goes_for_newer_ones_is_shed() -> None:
    outbox, rows = filled(30, 3, sent=1)
    newest = Row(fresh_reports(), 4)
    outbox.put_newest(bytes(10), [newest])
    outbox.sent(29)
    assert outcomes([*rows, newest]) == [DELIVERED, SHED, DELIVERED, DELIVERED]
    assert outbox.dropped == 1


def test_a_refused_chunk_tells_its_rows_nothing() -> None:
    outbox, _ = filled(10, 1)
    row = Row(fresh_reports(), 2)
    assert not outbox.put(bytes(10), [row])
    assert outcomes([row]) == [PENDING]


def test_the_end_names_what_becomes_of_the_rest() -> None:
    outbox, rows = filled(100, 3, sent=1)
    outbox.end_with(b"bye", "shed")
    assert outcomes(rows) == [PENDING, SHED, SHED]
    outbox.abandon("gone")
    assert outcomes(rows) == [GONE, SHED, SHED]
    assert outbox.waiting_bytes == 0


@given(st.lists(st.sampled_from(["sent", "put", "newest", "end"]), max_size=20), st.integers(1, 40))
def test_every_row_has_one_outcome_in_the_end(steps: list[str], size: int) -> None:
    outbox, rows = filled(100, 1)
    for n, step in enumerate(steps, 2):
        row = Row(fresh_reports(), n)
        if step == "sent":
            outbox.sent(min(size, sum(map(len, outbox.head(0.0)))))
        elif step == "newest" or (step == "put" and outbox.put(bytes(size), [row])):
            rows.append(row)
            if step == "newest":
                outbox.put_newest(bytes(size), [row])
        elif step == "end":
            outbox.end_with(b"", "shed")
    outbox.abandon("gone")
    assert all(sum(outcome) == 1 for outcome in outcomes(rows))


def test_what_is_worth_nothing_any_more_is_not_sent() -> None:
    reports = Reports({"delivered": 0, "gone": 0, "shed": 0, "expired": 0})
    rows = [Row(reports, n) for n in range(4)]
    outbox = Outbox(limit_of(20, 1000))
    outbox.begin(b"begun", 2, [rows[0]], 5.0)
    for row, until in zip(rows[1:], (5.0, 0.0, 6.0), strict=True):
        assert outbox.put(b"%d" % row.n, [row], until)
    assert outbox.head(5.0) == [b"gun", b"2", b"3"]  # of the first a part is sent
    assert (rows[1].expired, outbox.waiting_bytes, outbox.dropped) == (1, limit_of(3, 5), 0)
    outbox.sent(4)
    assert outbox.head(6.0) == []
    assert [(row.delivered, row.expired) for row in rows] == [(1, 0), (0, 1), (1, 0), (0, 1)]
    assert not outbox
