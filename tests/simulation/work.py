"""What work costs: the lines of zim that a step of a node runs, for a profile that charges for them.

A line takes a tenth of a microsecond or two. A log's are not counted, for the real one works in threads of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import zim

LINE_S = 2e-7
STEP_LINES = 60_000  # some 10 ms: nobody waits for longer until it is somebody else's turn

_ZIM = Path(zim.__file__).parent
_LOGS = _ZIM / "nodes" / "router" / "log"


class Meter:
    """Counts lines, in steps that end with a pause.

    Attributes:
        lines: of all that was charged last.
        longest: of its steps, the one of most lines.
    """

    def __init__(self) -> None:
        self.lines = self.longest = self._paused_at = 0
        self._ours: dict[CodeType, bool] = {}

    def charge(self, work: Callable[[], Any]) -> None:
        """Does some work, and counts it."""
        self.lines = self.longest = self._paused_at = 0
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            work()
        finally:
            sys.settrace(before)
        self.pause()

    def pause(self) -> None:
        """Others have their turn."""
        self.longest = max(self.longest, self.lines - self._paused_at)
        self._paused_at = self.lines

    def _enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        if code not in self._ours:
            path = Path(code.co_filename)
            self._ours[code] = path.is_relative_to(_ZIM) and not path.is_relative_to(_LOGS)
        return self._count if self._ours[code] else None

    def _count(self, frame: FrameType, event: str, arg: Any) -> Any:
        self.lines += event == "line"
        return self._count
