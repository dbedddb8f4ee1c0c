"""Where keys are to be after their streams have moved to other shards."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zim.fabric.sharding import Shards
from zim.nodes.router.log.copying import PART_STREAMS, SourceKey, homed

SHARDS = Shards([f"shard-{i}" for i in range(1, 5)])


def key(key_id: str, offsets: dict[str, int] | None, home_ms: int = 7, digest: bytes = b"d") -> SourceKey:
    return SourceKey(1, key_id, digest, 9, home_ms, offsets)


@given(
    st.dictionaries(st.from_regex(r"[ur]:[0-9]{1,3}", fullmatch=True), st.integers(1, 99), max_size=30), st.text("ab")
)
def test_home_and_every_shard_with_a_stream_have_it(offsets: dict[str, int], name: str) -> None:
    names = sorted(offsets)
    found = [key(f"p{name}", {n: offsets[n] for n in names[i::2]}) for i in range(2)]  # from two routers
    rows = {one.shard: one for one in homed(found, SHARDS)}
    assert set(rows) == {SHARDS.of(name) for name in offsets} | {SHARDS.home(f"p{name}")}
    for shard, row in rows.items():
        assert row.offsets == [offsets[name] for name in names if SHARDS.of(name) == shard]
        assert (row.key_id, row.digest, row.time_ms, row.home_ms) == (f"p{name}", b"d", 9, 7)


def test_a_key_whose_streams_are_not_known_is_known_everywhere() -> None:
    rows = homed([key("p", None), key("p", {"u:1": 5})], SHARDS)
    assert sorted(row.shard for row in rows) == sorted(SHARDS.names)
    assert all(row.offsets == [] for row in rows)


def test_a_use_before_the_last_one_does_not_count() -> None:
    rows = homed([key("p", {"u:1": 5}, home_ms=3, digest=b"old"), key("p", {"u:2": 6}, home_ms=8)], SHARDS)
    assert {row.shard for row in rows} == {SHARDS.of("u:2"), SHARDS.home("p")}
    assert {row.digest for row in rows} == {b"d"}


def test_a_push_in_parts_has_keys_for_as_many_as_it_will_have() -> None:
    streams = [f"u:{i}" for i in range(6 * PART_STREAMS)]
    parts = [key(f"p.{i}" if i else "p", dict.fromkeys(streams[i::3], 1)) for i in range(3)]
    by_shard: dict[str, list[str]] = {}
    for row in homed(parts, SHARDS):
        by_shard.setdefault(row.shard, []).append(row.key_id)
    for shard, key_ids in by_shard.items():
        count = sum(SHARDS.of(name) == shard for name in streams)
        assert key_ids == [f"p.{i}" if i else "p" for i in range(-(-count // PART_STREAMS))]
