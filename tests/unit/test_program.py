"""Messages that name a command name one that works from here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from zim.program import zim_command


def test_what_is_in_path_is_called_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zim").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert zim_command() == "zim"


def test_in_a_checkout_it_is_the_one_beside_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    assert zim_command() == "zim"
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "zim").touch(0o755)
    assert zim_command() == ".venv/bin/zim"
