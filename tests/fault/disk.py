"""A file system of its own under the data of a fabric, which can be full, and can stand still. Linux, root.

A slow disk is one that stands still again and again: while a file system is frozen all that is written to it waits, as
for a device that does not answer. Nothing in zim knows of it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gevent

SIZE_BYTES = 1 << 30  # of the image, which takes no more room than is written to it
HANG_S, REST_S = (0.05, 0.5), (0.02, 0.3)  # how long it stands still, and does not, at least and at most
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878  # linux/fs.h


def is_possible() -> bool:
    """Whether this machine allows it."""
    tools = all(shutil.which(name) for name in ("mkfs.ext4", "mount", "umount"))
    return sys.platform == "linux" and os.geteuid() == 0 and tools


class Disk:
    """An ext4 image at `folder`, until `close()`.

    Raises:
        OSError: it cannot be mounted here.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._filler = folder, folder / "filler"
        self._hanging: gevent.Greenlet[..., None] | None = None
        self._is_hanging = False
        folder.mkdir(parents=True)
        image = folder.with_name("disk.img")
        with image.open("wb") as file:
            file.truncate(SIZE_BYTES)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
        _run("mount", "-o", "loop", str(image), str(folder))

    def fill(self) -> None:
        """Takes all the room that is left."""
        with self._filler.open("wb") as file:
            step = SIZE_BYTES
            end = 0
            while step >= 4096:
                try:
                    os.posix_fallocate(file.fileno(), end, step)
                    end += step
                except OSError as e:
                    if e.errno != errno.ENOSPC:
                        raise
                    step //= 2

    def hang(self, rng: random.Random) -> None:
        """Stands still again and again, until it is healed."""
        self._is_hanging = True
        self._hanging = gevent.spawn(self._hang, rng)

    def heal(self) -> None:
        """Goes on, and has room."""
        self._is_hanging = False
        if self._hanging:
            self._hanging.join()  # and not killed: a freeze that is under way would stay
            self._hanging = None
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        """Takes it away, once nobody uses it any more. What is on it stays in its image, `disk.img`."""
        self.heal()
        _run("umount", "-l", str(self._folder))
        self._folder.rmdir()

    def _hang(self, rng: random.Random) -> None:
        opened = os.open(self._folder, os.O_RDONLY)
        try:
            while self._is_hanging:
                gevent.get_hub().threadpool.apply(fcntl.ioctl, (opened, FIFREEZE, 0))  # it writes all that is dirty
                try:
                    gevent.sleep(rng.uniform(*HANG_S))
                finally:
                    fcntl.ioctl(opened, FITHAW, 0)
                gevent.sleep(rng.uniform(*REST_S))
        finally:
            os.close(opened)


@contextlib.contextmanager
def own_disk(folder: Path) -> Iterator[Disk]:
    """A disk for the length of a block."""
    disk = Disk(folder)
    try:
        yield disk
    finally:
        disk.close()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
