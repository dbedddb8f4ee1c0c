import os
from pathlib import Path

import pytest

from zim.errors import NodeError
from zim.nodes.state import RunsAlready, StateDir


def test_every_run_has_a_higher_number(tmp_path: Path) -> None:
    state = StateDir(tmp_path, "comet-1")
    assert [state.next_run("incarnation", n) for n in (100, 50, 50, 200)] == [100, 101, 102, 200]
    state.close()
    again = StateDir(tmp_path, "comet-1")
    assert again.next_run("incarnation", 1) == 201
    again.close()


def test_a_number_is_written_over_and_the_larger_one_stays(tmp_path: Path) -> None:
    state = StateDir(tmp_path, "comet-1")
    file = tmp_path / "comet-1" / "incarnation"
    state.write("incarnation", 7)
    inode = file.stat().st_ino
    for number in (8, 9, 1 << 60):
        state.write("incarnation", number)
        assert state.read("incarnation") == number
        assert (file.stat().st_ino, file.stat().st_size) == (inode, 41)
    first, _ = file.read_text().split()
    assert int(first) == 9  # half of the file at most is of the write that is under way
    file.write_text("5")  # of an older zim
    assert state.next_run("incarnation", 1) == 6
    state.close()


def test_only_one_process_may_hold_it(tmp_path: Path) -> None:
    state = StateDir(tmp_path, "comet-1")
    with pytest.raises(RunsAlready, match=r"another comet-1 runs on .* already, pid \d+") as error:
        StateDir(tmp_path, "comet-1")
    assert error.value.pid == str(os.getpid())
    StateDir(tmp_path, "comet-2").close()
    state.close()
    StateDir(tmp_path, "comet-1").close()


def test_a_damaged_number_is_an_error_in_words(tmp_path: Path) -> None:
    state = StateDir(tmp_path, "router-1")
    (tmp_path / "router-1" / "term").write_text("what")
    with pytest.raises(NodeError, match="term does not hold a number"):
        state.next_run("term", 1)
    state.close()
