"""How the program `zim` is called from here, and where its pages are, for messages that name a command or a page."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

_PAGE = "topology.md"  # which nobody else's docs/ has beside it


def zim_command() -> str:
    """`zim` where it is in PATH; else the one beside this Python, as README's fresh clone has it in .venv/bin."""
    beside = Path(sys.executable).with_name("zim")
    if shutil.which("zim") or not beside.is_file():
        return "zim"
    with suppress(OSError):  # the current folder is gone
        return min(os.path.relpath(beside), str(beside), key=len)
    return str(beside)


def where_docs_are() -> str:
    """A sentence that says where README.md, docs/ and examples/ are; "" if they are here, or were not installed."""
    from importlib.metadata import PackageNotFoundError, files  # for the few who ask

    folders = [Path(__file__).parents[1]]
    with suppress(PackageNotFoundError):
        folders += [Path(str(file.locate())).resolve().parents[1] for file in files("zim") or () if file.name == _PAGE]
    found = next((folder for folder in folders if (folder / "docs" / _PAGE).is_file()), None)
    if found is None or Path("docs", _PAGE).is_file():
        return ""
    return f"README.md, docs/ and examples/ are in {found}."
