"""What this machine says of a topology, for a review: modes of files, and how many of them may be open."""

from __future__ import annotations

from pathlib import Path

from zim.supervisor.open_files import raise_open_files
from zim.topology import Topology
from zim.topology.review import Machine, named_files


def look_at_machine(topology: Topology) -> Machine:
    """As it is now, for who runs this."""
    modes: dict[Path, int | None] = {}
    for path in named_files(topology):
        try:
            modes[path] = path.stat().st_mode & (0o777 if _is_open(path) else 0o770)
        except (FileNotFoundError, NotADirectoryError):
            modes[path] = None
        except OSError:
            continue  # it is not for us to see
    return Machine(modes, _clients(topology))


def _is_open(path: Path) -> bool:
    """Others get as far as there: they may enter every folder above."""
    return all(folder.stat().st_mode & 0o1 for folder in path.resolve().parents)


def _clients(topology: Topology) -> int | None:
    """For how many open files are enough, as `zim up` would find; None for as many as the comets take."""
    shortage = raise_open_files(topology.nodes)
    return None if shortage is None else shortage.room
