from hypothesis import given
from hypothesis import strategies as st

from zim.nodes.comet.outbox import Outbox

CHUNKS = st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=20)


def drain(outbox: Outbox, step: int) -> bytes:
    found = b""
    while outbox:
        data = b"".join(outbox.head())[:step]
        outbox.sent(len(data))
        found += data
    return found


@given(CHUNKS, st.integers(0, 19), st.integers(1, 50))
def test_all_bytes_come_out_in_order(chunks: list[bytes], sent: int, step: int) -> None:
    outbox = Outbox(1000)
    sent = min(sent, len(chunks[0]) - 1)
    outbox.begin(chunks[0], sent)
    assert all(outbox.put(chunk) for chunk in chunks[1:])
    assert outbox.waiting_bytes == sum(map(len, chunks)) - sent
    assert drain(outbox, step) == b"".join(chunks)[sent:]
    assert outbox.waiting_bytes == 0


@given(CHUNKS, st.integers(0, 19), st.integers(1, 60))
def test_the_limit_holds(chunks: list[bytes], sent: int, limit: int) -> None:
    outbox = Outbox(limit)
    outbox.begin(chunks[0], min(sent, len(chunks[0]) - 1))
    for chunk in chunks[1:]:
        before = outbox.waiting_bytes
        assert outbox.put(chunk) == (outbox.waiting_bytes > before)
    assert outbox.waiting_bytes <= max(limit, 20)


@given(CHUNKS, st.integers(0, 19), st.integers(1, 60), st.integers(1, 50))
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
    outbox = Outbox(1000)
    sent = min(sent, len(chunks[0]) - 1)
    outbox.begin(chunks[0], sent)
    for chunk in chunks[1:]:
        outbox.put(chunk)
    outbox.end_with(last)
    assert drain(outbox, 7) == (chunks[0][sent:] if sent else b"") + last
    assert outbox.waiting_bytes == 0
