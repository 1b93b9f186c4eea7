"""Lowers a process's priority, so that re-ranking goes first."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_OOM_SCORE = Path("/proc/self/oom_score_adj")


def give_way() -> None:
    """A low priority, at which it still gets a tenth of a core that others want whole; and, where
    the system has such a thing, the first to go where memory is short."""
    os.nice(10)
    with contextlib.suppress(OSError):
        _OOM_SCORE.write_text("1000")
