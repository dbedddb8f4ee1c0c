"""One HTTP address for several logics: HAProxy, on a machine of its own, as docs/several-machines.md has it.

What a logic has been sent it never sends again: then only the logic knows what became of a push. So its own 503 means
what zim's means.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.fault.machines import Machine
from tests.programs import WHERE

PORT = 7172

PAGE = Path(__file__).parents[2] / "docs" / "several-machines.md"


def haproxy() -> str:
    """Where it is; "" if it is not there."""
    return shutil.which("haproxy", path=WHERE) or ""


def configuration() -> str:
    """HAProxy's, as the page has it."""
    found = re.search(r"^```haproxy\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


def balance(machine: Machine) -> str:
    """Starts it on a machine that is on, and whenever its power comes back; returns its address."""
    file = machine.folder / "haproxy.cfg"
    file.write_text(configuration())
    machine.services.append(lambda there: _start(there, file))
    _start(machine, file)
    return f"{machine.ip}:{PORT}"


def _start(machine: Machine, file: Path) -> None:
    with (machine.folder / "haproxy.log").open("ab") as log:
        subprocess.Popen(
            machine.command(haproxy(), "-db", "-f", str(file)), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
