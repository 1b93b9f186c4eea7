"""`locore serve --images` on thousands of pictures: none of them stays in memory."""

from __future__ import annotations

import logging
import re
import shutil
import time
from pathlib import Path

import pytest

from tests.e2e.service import LOCORE, RunningService, running
from tests.own_folders import write_picture
from tests.processes import children

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

log = logging.getLogger(__name__)

DIFFERENT, COPIES = 40, 100
FEW = 500
MOST_GROWTH = 24 << 20
"""Bytes, from FEW pictures to all: of each what HDF5 and we know of its name, not its 27 KB of
descriptors."""


def test_memory_does_not_grow_with_the_pictures(checkpoint: Path, tmp_path: Path) -> None:
    folder, data = tmp_path / "photos", tmp_path / "data"
    for number in range(DIFFERENT):
        write_picture(folder / f"{number}" / "0.png", number)
        for copy in range(1, COPIES):
            shutil.copyfile(folder / f"{number}" / "0.png", folder / f"{number}" / f"{copy}.png")
    command = (LOCORE, "serve", "--images", str(folder))
    with running(checkpoint, data, command=command, extractor="sift") as service:
        while count(service) < FEW:
            time.sleep(0.1)
        beside = own_process(service)
        few, registered_then = resident_bytes(beside), count(service)
        most = few
        started = time.monotonic()
        while "has the pictures" not in service.log:
            most = max(most, resident_bytes(beside) or most)
            time.sleep(0.1)
        seconds = time.monotonic() - started
        log.info(
            "%d MB at %d pictures, at most %d MB until %d, %.0f pictures a second",
            *(few >> 20, registered_then, most >> 20, count(service)),
            (DIFFERENT * COPIES - registered_then) / seconds,
        )
        assert re.search(rf": {DIFFERENT * COPIES} described", service.log)
        assert count(service) == DIFFERENT * COPIES
    assert most - few < MOST_GROWTH


def count(service: RunningService) -> int:
    count_now: int = service.http.get("/gallery?limit=1").json()["count"]
    return count_now


def own_process(service: RunningService) -> int:
    (process,) = children(service.process.pid, "spawn_main")
    return process


def resident_bytes(process: int) -> int:
    """0 of one that has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    match = re.search(r"VmRSS:\s+(\d+) kB", status)
    return 1024 * int(match[1]) if match else 0
