"""What users, rooms and keys may be called."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.fabric.limits import KEY_BYTES, NAME_BYTES
from zim.fabric.names import KEY, NAME, NAME_PATTERN, is_key, is_name, shown

ANY = st.text(st.characters()) | st.text(st.sampled_from("aé\n\0\x7f\x85\u2028 "), max_size=130)


@given(ANY | ANY.map(lambda text: text * 20))
def test_names_and_keys_differ_in_length_alone(text: str) -> None:
    is_clean = all(unicodedata.category(character) not in ("Cc", "Cs") for character in text)
    size = len(text.encode(errors="replace"))
    assert is_name(text) == (is_clean and 0 < size <= NAME_BYTES)
    assert is_key(text) == (is_clean and 0 < size <= KEY_BYTES)
    if is_key(text):
        assert re.fullmatch(NAME_PATTERN, text)


@pytest.mark.parametrize("letter", ["x", "é", "€"])
def test_limits_are_in_bytes(letter: str) -> None:
    for is_right, most in ((is_name, NAME_BYTES), (is_key, KEY_BYTES)):
        fits = letter * (most // len(letter.encode()))
        assert is_right(fits)
        assert not is_right(fits + letter)


def test_what_is_right_says_how_long() -> None:
    assert str(NAME_BYTES) in NAME
    assert str(KEY_BYTES) in KEY


@given(ANY)
def test_what_is_shown_is_short(text: str) -> None:
    assert shown(text[:32]) == repr(text[:32])
    assert len(shown(text * 100)) <= 32 * len(r"\U0010ffff") + 3
