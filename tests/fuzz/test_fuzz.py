"""Each parser, for a moment: its corpus and what comes of it, the same inputs each time. `make fuzz` goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.__main__ import fuzz, main
from tests.fuzz.hammer import Hammer
from tests.fuzz.target import LONGEST_BYTES
from tests.fuzz.targets import TARGETS, corpus, file_name

INPUTS, SECONDS = 3_000, 0.5  # whatever ends first


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_is_too_much(name: str, tmp_path: Path) -> None:
    hammer = Hammer(TARGETS[name], tmp_path / "under_way")

    hammer.mutate(corpus(name), 1, SECONDS, INPUTS)

    assert hammer.findings == {}
    assert hammer.inputs > len(corpus(name))


def test_each_target_has_a_corpus_of_its_own_that_is_small() -> None:
    files = {file_name(name) for name in TARGETS}
    assert len(files) == len(TARGETS)
    assert {file.stem for file in (Path(__file__).parent / "corpus").iterdir()} == files
    for name in TARGETS:
        assert 1 < len(corpus(name)) < 100
        assert max(map(len, corpus(name))) < LONGEST_BYTES


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("fails", "JSONDecodeError at decoder.py"),
        ("hangs", "hangs for more than 1 s"),
        ("hangs in C", "hangs for more than 1 s"),
        ("dawdles", "more than 1 s"),
        ("grows", "memory grew"),
    ],
)
def test_what_is_planted_is_found(name: str, says: str) -> None:
    found = fuzz(name, 1.0, 1, False).findings
    assert [what for what in found if says in what], found


@pytest.mark.slow
def test_a_finding_is_told_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--seconds", "0.5", "--only", "dies", "--seed", "1", "--found", str(tmp_path / "found"), "--plain"])
    assert code == 1
    assert "FOUND dies: hammer: the process died with -11" in capsys.readouterr().out
    (file,) = (path for path in (tmp_path / "found").iterdir() if not path.suffix)
    assert len(file.read_bytes()) > 8, "the input of which it died"
