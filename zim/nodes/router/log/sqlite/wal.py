"""What SQLite does not say: at a broken frame of its WAL it stops, and what was committed behind it is lost."""

from __future__ import annotations

import struct
from pathlib import Path

# https://sqlite.org/fileformat2.html#the_write_ahead_log
# header  magic 4 | format 4 | page size 4 | checkpoint 4 | salts 8 | checksums 8
# frame   page number 4 | pages of the database after a commit, else 0, 4 | salts 8 | checksums 8 | page
_HEADER = struct.Struct(">IIII8sII")
_FRAME = struct.Struct(">II8sII")
_MAGIC = 0x377F0682  # the last bit tells the byte order of checksums


def lost_commits(path: Path, valid_frames: int) -> int:
    """How many commits stand in a WAL behind the frames that SQLite takes for valid.

    One may be there after a power failure: the batch under way, of which nobody was told. Each commit is on the disk
    before the next one starts, so of two, the first was acknowledged.

    Args:
        path: of the WAL.
        valid_frames: what `PRAGMA wal_checkpoint` calls the size of the log.
    """
    try:
        with path.open("rb") as f:
            header = f.read(_HEADER.size)
            if len(header) < _HEADER.size:
                return 0
            magic, _, page_bytes, _, salts, _, _ = _HEADER.unpack(header)
            if magic & ~1 != _MAGIC:
                return 0
            commits, frame_bytes = 0, _FRAME.size + page_bytes
            f.seek(_HEADER.size + valid_frames * frame_bytes)
            while len(head := f.read(_FRAME.size)) == _FRAME.size:
                _, pages, frame_salts, _, _ = _FRAME.unpack(head)
                commits += bool(pages) and frame_salts == salts
                f.seek(page_bytes, 1)
            return commits
    except FileNotFoundError:
        return 0
