"""How much memory the service takes and may take, for an alert when it comes close."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

CONTROL_GROUP_FILES = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Where a container sees its own limit: control groups version 2, then 1."""


def resident_memory(process: int) -> int:
    """In bytes; 0 if the process has ended."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except OSError:
        return 0
    return os.sysconf("SC_PAGE_SIZE") * int(pages)


def memory_limit(files: Sequence[Path] = CONTROL_GROUP_FILES) -> int:
    """In bytes: the container's limit if it is below the machine's memory, else the machine's
    memory."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in files:
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        # `max` where there is no limit; version 1 writes a number larger than any machine has.
        if text.isdecimal():
            limits.append(int(text))
    return min(limits)
