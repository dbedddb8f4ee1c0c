"""What SQLite does not say: at a broken frame of its WAL it stops, and what was committed behind it is lost."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

# https://sqlite.org/fileformat2.html#the_write_ahead_log
# header  magic 4 | format 4 | page size 4 | checkpoint 4 | salts 8 | checksums 8
# frame   page number 4 | pages of the database after a commit, else 0, 4 | salts 8 | checksums 8 | page
_HEADER = struct.Struct(">IIII8sII")
_FRAME = struct.Struct(">II8sII")
_MAGIC = 0x377F0682  # its last bit is the byte order of the words that checksums are made of
_WORD = 0xFFFFFFFF


class _Wal(NamedTuple):
    """What the header says. words: how checksums are made of a page; sums: where they begin."""

    page_bytes: int
    salts: bytes
    words: struct.Struct
    sums: tuple[int, int]


def _read_header(f: BinaryIO) -> _Wal | None:
    header = f.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    magic, _, page_bytes, _, salts, *sums = _HEADER.unpack(header)
    if magic & ~1 != _MAGIC:
        return None
    return _Wal(page_bytes, salts, struct.Struct(">II" if magic & 1 else "<II"), (sums[0], sums[1]))


def _frames(f: BinaryIO, wal: _Wal) -> Iterator[tuple[bytes, int, tuple[int, int]]]:
    """From here on: what the checksums are of, pages of the database after a commit or 0, and the stored checksums."""
    while len(head := f.read(_FRAME.size)) == _FRAME.size and len(page := f.read(wal.page_bytes)) == wal.page_bytes:
        _, pages, salts, *stored = _FRAME.unpack(head)
        if salts != wal.salts:
            return
        yield head[:8] + page, pages, (stored[0], stored[1])


def valid_frames(path: Path) -> int:
    """How many frames SQLite takes for valid: up to the last commit of the unbroken row that starts the file. Slow."""
    valid = 0
    with path.open("rb") as f:
        wal = _read_header(f)
        if wal is None:
            return 0
        before = wal.sums
        for at, (data, pages, stored) in enumerate(_frames(f, wal), 1):
            before = _checksum(before, wal.words, data)
            if before != stored:
                break
            valid = at if pages else valid
    return valid


def lost_commits(path: Path, valid_frames: int) -> int:
    """How many commits stand in one unbroken row behind the frames that SQLite takes for valid.

    One may, after a power failure or a COMMIT that failed: a batch of which nobody was told. Each commit is on the disk
    before the next one starts, so of two in a row, the first was acknowledged.

    Args:
        path: of the WAL.
        valid_frames: what `PRAGMA wal_checkpoint` calls the size of the log.
    """
    most = row = 0
    before: tuple[int, int] | None = None
    if not path.exists():
        return 0
    with path.open("rb") as f:
        wal = _read_header(f)
        if wal is None:
            return 0
        f.seek(_HEADER.size + valid_frames * (_FRAME.size + wal.page_bytes))
        for data, pages, stored in _frames(f, wal):
            if before is None or _checksum(before, wal.words, data) != stored:
                row = 0  # this frame is broken, or does not follow the one before
            elif pages:
                row += 1
                most = max(most, row)
            before = stored
    return most


def _checksum(before: tuple[int, int], words: struct.Struct, data: bytes) -> tuple[int, int]:
    first, second = before
    for one, other in words.iter_unpack(data):
        first = (first + one + second) & _WORD
        second = (second + other + first) & _WORD
    return first, second
