"""What a node keeps on disk: a lock that makes it the only one of its name, and numbers that only ever grow."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from zim.errors import NodeError, NotNow

_DIGITS = 20  # of a stored number
_FULL = (errno.ENOSPC, errno.EDQUOT)


def _error(error: OSError, text: str) -> NodeError:
    return NotNow(text) if error.errno in _FULL else NodeError(text)


class RunsAlready(NodeError):
    """Another process of this name holds the folder.

    Attributes:
        pid: of that process, in digits; "unknown" where it has not said so.
    """

    def __init__(self, node_name: str, path: Path, pid: str) -> None:
        super().__init__(f"another {node_name} runs on {path} already, pid {pid}")
        self.pid = pid


class StateDir:
    """A node's folder under data_dir, held while the process lives."""

    def __init__(self, data_dir: Path, node_name: str) -> None:
        """Makes the folder and takes its lock.

        Raises:
            RunsAlready: another process of this name runs on the same data_dir.
            NodeError: the folder cannot be used.
        """
        self.path = data_dir / node_name
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as e:
            raise _error(e, f"{self.path} cannot be used: {e.strerror} (fabric.data_dir)") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._lock, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._lock)
            raise RunsAlready(node_name, self.path, holder) from None
        with contextlib.suppress(OSError):  # for people; the lock is held
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def close(self) -> None:
        """Gives the lock back."""
        os.close(self._lock)

    def read(self, name: str) -> int:
        """A number that was stored; 0 if none ever was.

        Raises:
            NodeError: the file holds something else.
        """
        file = self.path / name
        try:
            return max(map(int, file.read_text().split()))
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as e:
            raise NodeError(f"{file} does not hold a number ({e}); remove it if {self.path.name} is new") from None

    def write(self, name: str, number: int) -> None:
        """Stores a number durably: it is on disk when this returns. Blocks for a sync of the disk.

        The file has two of them in places of their own. The smaller one is written over: that takes no room, so it
        works on a full disk, too, and the larger one stays whatever happens meanwhile.

        Raises:
            NodeError: the disk does not take it.
        """
        try:
            with (self.path / name).open("r+") as f:
                numbers = f.read().split(" ")
                if [len(text) for text in numbers] == [_DIGITS, _DIGITS]:
                    f.seek((_DIGITS + 1) * (int(numbers[0]) > int(numbers[1])))
                    f.write(f"{number:0{_DIGITS}}")
                    f.flush()
                    os.fsync(f.fileno())
                    return
        except (OSError, ValueError):
            pass  # there is none yet, or it is of an older zim
        self._make(name, number)

    def _make(self, name: str, number: int) -> None:
        fresh = self.path / f"{name}.new"
        try:
            with fresh.open("w") as f:
                f.write(f"{number:0{_DIGITS}} {0:0{_DIGITS}}")
                f.flush()
                os.fsync(f.fileno())
            fresh.replace(self.path / name)
            folder = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as e:
            raise _error(e, f"{self.path / name} cannot be written: {e.strerror}") from None

    def next_run(self, name: str, at_least: int) -> int:
        """The number of this run of the node (an incarnation): above all before it, and stored.

        Args:
            name: of the number.
            at_least: wall-clock ms, so that a restored backup does not give a number twice.
        """
        number = max(self.read(name) + 1, at_least)
        self.write(name, number)
        return number
