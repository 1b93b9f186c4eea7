"""Processes that a service, or this process, has started."""

from __future__ import annotations

import time
from pathlib import Path

CHILD = "service.picture_extraction.child"
"""What describes pictures beside a service."""
MODEL = "service.inference"
"""What computes for a service."""


def children(of: int, part: str) -> list[int]:
    """Those of a process whose command line has this part."""
    listed = Path(f"/proc/{of}/task").glob("*/children")
    numbers = [int(number) for file in listed for number in file.read_text().split()]
    return [number for number in numbers if part in command(number)]


def command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""


def gone(process: int) -> bool:
    """Its command line goes first; only a zombie has closed its end of a connection."""
    for _ in range(1000):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False
