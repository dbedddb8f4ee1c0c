"""The header Idempotency-Key: what is read is what was written, and is a key that a document may have, too."""

from __future__ import annotations

import contextlib
import re

from hypothesis import given
from hypothesis import strategies as st

from zim.fabric.names import is_key
from zim.web.idempotency import HEADER_PATTERN, parse_idempotency_key
from zim.web.problems import Problem
from zim.web.push import parse_header


def test_no_header_is_no_key() -> None:
    assert parse_idempotency_key(None) == ""


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=255))
def test_a_key_in_quotation_marks(key: str) -> None:
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    assert parse_idempotency_key(f'"{escaped}"') == key
    if key == key.strip() and not set(key) & set(',"'):
        assert parse_header(key) == key


@given(st.text(st.characters(max_codepoint=0xFF)) | st.text('a\\", ', max_size=8))
def test_any_header(header: str) -> None:
    with contextlib.suppress(ValueError):
        assert is_key(parse_idempotency_key(header))
        assert re.search(HEADER_PATTERN, header)
    with contextlib.suppress(Problem):
        assert parse_header(header)
