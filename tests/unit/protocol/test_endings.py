"""Why connections end: the table in the docs is the one in the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zim.protocol.endings import Ending

DOCS = Path(__file__).parents[3] / "docs" / "client-protocol.md"


def test_the_docs_have_all_that_clients_are_told() -> None:
    rows = re.findall(r"^\| (4[0-9]{3}) \| `([^`]+)` \|", DOCS.read_text(), re.MULTILINE)
    assert rows == sorted((str(ending.zim_code), ending.word) for ending in Ending if ending.zim_code)


@pytest.mark.parametrize("ending", Ending)
def test_what_a_client_did_wrong_is_no_reason_to_come_back(ending: Ending) -> None:
    is_sent_away = ending in (Ending.BANNED, Ending.KICKED, Ending.REPLACED, Ending.TOO_MANY)
    assert (ending.is_broken or is_sent_away) == (4400 <= ending.zim_code < 4600)
    assert ending.code in (0, 1001, 1008, 1013)
    assert not (ending.is_broken and ending.code) or ending is Ending.REFUSED  # goim v1 closes without a word


def test_no_two_are_the_same() -> None:
    codes = [ending.zim_code for ending in Ending if ending.zim_code]
    assert len(set(codes)) == len(codes)
    assert len({ending.word for ending in Ending}) == len(Ending)


def test_what_is_said_of_an_ending() -> None:
    """Whoever is told "spam" alone does not know what has become of the session."""
    assert Ending.BANNED.because("spam") == "banned: spam"
    assert Ending.KICKED.because("") == "kicked"
