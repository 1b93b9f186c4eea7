"""Programs that tests/slow/install_deploy.sh installs, and waiting for what they bring about."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "build" / "deploy-tools" / "bin"


def tool(name: str) -> str:
    """Where a program is: in our own folder of tools, or on the machine."""
    path = shutil.which(name, path=f"{TOOLS}:{os.environ['PATH']}:/usr/sbin")
    assert path, f"no {name}: run tests/slow/install_deploy.sh"
    return path


def says(name: str, *arguments: object) -> str:
    """What a program prints; its own words where it is not content."""
    ran = subprocess.run(
        [tool(name), *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, f"{name}: {ran.stdout}{ran.stderr}"
    return ran.stdout


def comes_true(condition: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.2)
    return condition()
