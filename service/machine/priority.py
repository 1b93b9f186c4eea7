"""Lowers a process's priority, so that re-ranking goes first."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_OOM_SCORE = Path("/proc/self/oom_score_adj")


def give_way() -> None:
    """Sets a low priority: the process still gets a tenth of a busy core. If the system supports
    it, the process is also the first to be killed when memory runs out."""
    os.nice(10)
    with contextlib.suppress(OSError):
        _OOM_SCORE.write_text("1000")
