"""The limit of a container goes before what the machine has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from service.machine.memory import memory_limit, resident_memory


def machine() -> int:
    (line,) = [s for s in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in s]
    return int(line.split()[1]) * 1024


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text(f"{512 << 20}\n")
    assert memory_limit([tmp_path / "absent", limit]) == 512 << 20


def test_without_a_limit_it_is_the_machines(tmp_path: Path) -> None:
    unlimited, huge = tmp_path / "memory.max", tmp_path / "memory.limit_in_bytes"
    unlimited.write_text("max\n")
    huge.write_text(str(2**63 - 4096))
    for files in ([], [unlimited], [huge]):
        assert memory_limit(files) == machine()


def test_a_process_that_has_ended_takes_no_memory() -> None:
    assert resident_memory(os.getpid()) > 10 << 20
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert resident_memory(ended.pid) == 0
