"""Patterns of names: what they mean, and what may stand as one."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zim.fabric import patterns
from zim.fabric.limits import NAME_BYTES, PATTERN_BYTES
from zim.fabric.names import is_name
from zim.fabric.patterns import ANY, is_pattern, matches, matching

TEXTS = st.text(st.sampled_from("ab-.*?[]!^\\&|~é€\u200d\n "), max_size=12) | st.text(st.characters(), max_size=12)
NAMES = TEXTS.filter(is_name)


def literally(text: str) -> str:
    """A pattern of this text and no other."""
    return re.sub(r"[*?\[]", r"[\g<0>]", text)


@pytest.mark.parametrize(
    ("pattern", "meant", "others"),
    [
        ("chat-*", ["chat-", "chat-7", "chat-*", "chat-a-b"], ["chat", "Chat-7", "my-chat-7", ""]),
        ("*", ["", "a", "r:a", "*"], []),
        ("*-log", ["-log", "a-log"], ["a-log-", "log"]),
        ("a*b*c", ["abc", "axbxc", "abcbc"], ["ab", "acb", "abcd"]),
        ("room?", ["room1", "rooms", "roomé", "room€", "room*"], ["room", "room12"]),
        ("[ab]x", ["ax", "bx"], ["cx", "abx", "x", "Ax"]),
        ("[!ab]x", ["cx", "!x", "Ax"], ["ax", "bx", "x"]),
        ("[a-c]", ["a", "b", "c"], ["d", "-"]),
        ("[*]", ["*"], ["a", "", "[*]"]),
        ("[?]", ["?"], ["a"]),
        ("[[]", ["["], ["]", "[["]),
        ("[]]", ["]"], ["[", ""]),
        ("a[b", ["a[b"], ["ab", "a"]),
        ("a.c", ["a.c"], ["abc"]),
        ("r:*", ["r:1", "r:"], ["u:1", "*"]),
        ("a/*", ["a/b", "a/b/c"], ["a"]),
        ("a*", ["a\u2028b", "a\nb"], []),
        ("", [""], ["a"]),
    ],
)
def test_what_a_pattern_means(pattern: str, meant: list[str], others: list[str]) -> None:
    assert [name for name in meant if not matches(name, [pattern])] == []
    assert [name for name in others if matches(name, [pattern])] == []


def test_one_of_them_is_enough_and_the_first_is_named() -> None:
    patterns = ("a*", "b*", "ab*")
    assert (matching("b7", patterns), matching("ab", patterns), matching("c", patterns)) == ("b*", "a*", "")
    assert matches("b7", patterns)
    assert not matches("c", patterns)
    assert not matches("c", ())
    assert matching("c", ()) == ""
    assert matches("anything", ANY)


@given(TEXTS, TEXTS)
@example("a[b-a]", "a")
@example("[a&&b]", "a")
@example("[--]", "-")
@example("[[:alpha:]]", "a")
@example("[a||b~~c]", "a")
def test_no_text_is_too_strange_for_a_pattern(pattern: str, name: str) -> None:
    assert matches(name, [pattern]) == bool(matching(name, [pattern])) or not pattern


@given(TEXTS, TEXTS, TEXTS)
def test_what_is_written_literally_means_itself(start: str, text: str, end: str) -> None:
    assert matches(text, [literally(text)])
    assert matches(start + text + end, [f"{literally(start)}*{literally(end)}"])
    assert matches(text, [literally(start) + "*"]) == text.startswith(start)
    assert matches(text, [literally(start)]) == (text == start)


def test_many_stars_are_no_way_to_hold_up_a_comet() -> None:
    """A matcher that goes back for every star would not come to an end."""
    assert not matches("a" * NAME_BYTES, ["*a" * 120 + "*b"])
    assert matches("a" * NAME_BYTES, ["*a" * 120])


@pytest.mark.parametrize("letter", ["x", "é", "€", "😀"])
def test_patterns_have_a_limit_in_bytes(letter: str) -> None:
    fits = letter * (PATTERN_BYTES // len(letter.encode()))
    assert is_pattern(fits)
    assert not is_pattern(fits + letter)


@pytest.mark.parametrize("thing", ["", "a\n", "\0", "a\x7f", "\x85", "\ud800", None, 7, True, b"a", ["a"], {"a": 1}])
def test_what_cannot_stand_as_a_pattern(thing: object) -> None:
    assert not is_pattern(thing)


@given(NAMES)
@example("گفت\u200cوگو")
@example("👨\u200d👩\u200d👧")
@example("salle\u00a07")
def test_whatever_stands_in_a_name_stands_in_a_pattern(name: str) -> None:
    """Else there would be rooms that no token can name a class of."""
    assert is_pattern(name)


@given(TEXTS.filter(is_pattern), TEXTS)
def test_a_pattern_means_what_fnmatch_says(pattern: str, name: str) -> None:
    assert matches(name, [pattern]) == fnmatchcase(name, pattern)


def test_patterns_that_differ_for_each_user_do_not_stay_in_memory() -> None:
    for n in range(3 * patterns.COMPILED):
        assert matches(f"chat-{n}-a", [f"chat-{n}-?"])
    before = patterns._compiled.cache_info().currsize
    for n in range(10_000):
        assert matches(f"chat-{n}", [f"chat-{n}"])
        assert matches(f"chat-{n}-a", [f"chat-{n}-*"])
    assert before == patterns._compiled.cache_info().currsize == patterns.COMPILED
