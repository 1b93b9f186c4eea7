"""How many cores this process may use, to choose its number of threads."""

from __future__ import annotations

import math
import os
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")


def usable_cores(control_groups: Path = CONTROL_GROUPS) -> int:
    """The cores that the process is bound to, at most its container's share (control groups version
    2, then 1). The machine's number of cores says nothing about either."""
    bound = len(os.sched_getaffinity(0))
    share = _share(control_groups)
    return bound if share is None else max(1, min(bound, math.ceil(share)))


def _share(folder: Path) -> float | None:
    """In cores; None if there is no limit."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu/cpu.cfs_quota_us").read_text()
            period = (folder / "cpu/cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # `max`
        return None
    return share if share > 0 else None  # version 1 writes -1
