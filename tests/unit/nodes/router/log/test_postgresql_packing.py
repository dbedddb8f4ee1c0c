"""Arrays as PostgreSQL reads them, and push ids."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.nodes.router.log.postgresql_support import server
from zim.nodes.router.log.postgresql import connecting
from zim.nodes.router.log.postgresql.packing import blobs, pack_id, texts, unpack_id, wholes

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
ids = names | st.from_regex(r"[0-9a-f]{32}", fullmatch=True) | st.from_regex(r"[0-9A-F]{32}", fullmatch=True)


@pytest.fixture(scope="module")
def connection() -> Iterator[connecting.Connection]:
    with server().connect() as found:
        connecting._adapt(found)
        yield found


def test_a_push_id_takes_half_its_room() -> None:
    assert pack_id("00ff" * 8) == bytes.fromhex("00ff" * 8)
    assert len(pack_id("a" * 15)) == 17
    assert pack_id("00FF" * 8) == b"00FF" * 8 + b"\0"


@given(st.lists(ids, unique=True))
def test_push_ids_come_back_and_no_two_are_one(found: list[str]) -> None:
    packed = [pack_id(one) for one in found]
    assert [unpack_id(one) for one in packed] == found
    assert len(set(packed)) == len(found)


def back(connection: connecting.Connection, value: object, of: str) -> list[object]:
    rows = connection.execute(f"SELECT v FROM unnest(%s::{of}[]) AS v".encode(), (value,), binary=True).fetchall()
    return [row[0] for row in rows]


@given(
    numbers=st.lists(st.integers(-(1 << 63), (1 << 63) - 1)),
    told=st.lists(names),
    bodies=st.lists(st.binary() | st.none()),
)
def test_the_server_reads_what_was_packed(
    connection: connecting.Connection, numbers: list[int], told: list[str], bodies: list[bytes | None]
) -> None:
    assert back(connection, wholes(numbers), "bigint") == numbers
    assert back(connection, texts(told), "text") == told
    assert back(connection, blobs(bodies), "bytea") == bodies


def test_a_name_that_no_text_can_have_is_refused(connection: connecting.Connection) -> None:
    with pytest.raises(psycopg.Error):
        back(connection, texts(["a\0b"]), "text")
