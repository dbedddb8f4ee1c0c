from __future__ import annotations

import threading

import pytest

from zim.errors import ZimError
from zim.net.threads import in_thread


def test_a_job_runs_in_another_thread() -> None:
    assert in_thread(threading.get_ident) != threading.get_ident()
    assert in_thread(int, "11", base=2) == 3


def test_what_it_raises_is_raised_here_and_printed_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise ZimError("no")

    with pytest.raises(ZimError, match="no"):
        in_thread(fails)
    assert capfd.readouterr() == ("", "")
