"""A file that is there to be given up: a full disk cannot even be trimmed, for that takes room in the WAL.

Everything here blocks, and is called in a thread.
"""

from __future__ import annotations

import os
from pathlib import Path

_PIECE = b"\0" * (1 << 20)


class Ballast:
    """A file of that many bytes, or the lack of it.

    Attributes:
        size: in bytes.
        is_there: whether the room is held.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path, self.size = path, size
        self.is_there = path.exists() and path.stat().st_size >= size

    def free_bytes(self) -> int:
        """What the disk has left for us."""
        disk = os.statvfs(self._path.parent)
        return disk.f_bavail * disk.f_frsize

    def give_up(self) -> None:
        """Gives its room back to the disk."""
        self._path.unlink(missing_ok=True)
        self.is_there = False

    def make(self) -> bool:
        """Takes the room, if as much again stays free.

        Returns:
            Whether it is there now.
        """
        if self.is_there or self.free_bytes() < 2 * self.size:
            return self.is_there
        try:
            with self._path.open("wb") as f:
                for start in range(0, self.size, len(_PIECE)):
                    f.write(_PIECE[: self.size - start])
                f.flush()
                os.fsync(f.fileno())
        except OSError:
            self.give_up()
            return False
        self.is_there = True
        return True
