"""What SQLite does not say: at a broken frame of its WAL it stops, and what was committed behind it is lost."""

from __future__ import annotations

import struct
from pathlib import Path

# https://sqlite.org/fileformat2.html#the_write_ahead_log
# header  magic 4 | format 4 | page size 4 | checkpoint 4 | salts 8 | checksums 8
# frame   page number 4 | pages of the database after a commit, else 0, 4 | salts 8 | checksums 8 | page
_HEADER = struct.Struct(">IIII8s8x")
_FRAME = struct.Struct(">II8sII")
_MAGIC = 0x377F0682  # its last bit is the byte order of the words that checksums are made of
_WORD = 0xFFFFFFFF


def valid_frames(path: Path) -> int:
    """How many frames SQLite takes for valid: up to the last commit of the unbroken row that starts the file. Slow."""
    valid = at = 0
    try:
        with path.open("rb") as f:
            header = f.read(_HEADER.size)
            if len(header) < _HEADER.size:
                return 0
            magic, _, page_bytes, _, salts = _HEADER.unpack(header)
            if magic & ~1 != _MAGIC:
                return 0
            words = struct.Struct(">II" if magic & 1 else "<II")
            before: tuple[int, int] = struct.unpack(">II", header[-8:])
            while len(head := f.read(_FRAME.size)) == _FRAME.size and len(page := f.read(page_bytes)) == page_bytes:
                _, pages, frame_salts, *stored = _FRAME.unpack(head)
                before = _checksum(before, words, head[:8] + page)
                if frame_salts != salts or before != tuple(stored):
                    break
                at += 1
                valid = at if pages else valid
    except FileNotFoundError:
        pass
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
    try:
        with path.open("rb") as f:
            header = f.read(_HEADER.size)
            if len(header) < _HEADER.size:
                return 0
            magic, _, page_bytes, _, salts = _HEADER.unpack(header)
            if magic & ~1 != _MAGIC:
                return 0
            words = struct.Struct(">II" if magic & 1 else "<II")
            f.seek(_HEADER.size + valid_frames * (_FRAME.size + page_bytes))
            while len(head := f.read(_FRAME.size)) == _FRAME.size and len(page := f.read(page_bytes)) == page_bytes:
                _, pages, frame_salts, *stored = _FRAME.unpack(head)
                if frame_salts != salts:
                    break
                if before is None or _checksum(before, words, head[:8] + page) != (stored[0], stored[1]):
                    row = 0  # this frame is broken, or does not follow the one before
                elif pages:
                    row += 1
                    most = max(most, row)
                before = stored[0], stored[1]
    except FileNotFoundError:
        pass
    return most


def _checksum(before: tuple[int, int], words: struct.Struct, data: bytes) -> tuple[int, int]:
    first, second = before
    for one, other in words.iter_unpack(data):
        first = (first + one + second) & _WORD
        second = (second + other + first) & _WORD
    return first, second
