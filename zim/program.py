"""How the program `zim` is called from here, for messages that name a command."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path


def zim_command() -> str:
    """`zim` where it is in PATH; else the one beside this Python, as README's fresh clone has it in .venv/bin."""
    beside = Path(sys.executable).with_name("zim")
    if shutil.which("zim") or not beside.is_file():
        return "zim"
    with suppress(OSError):  # the current folder is gone
        return min(os.path.relpath(beside), str(beside), key=len)
    return str(beside)
