"""A process of our own beside the service, at the other end of a connection."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection


class ClosedError(Exception):
    """No process may start any more."""


class NoAnswerError(Exception):
    """The process died or hung; the message says which."""


class ChildProcess:
    """Runs a Python module, one process at a time, which may be started again after it ended. Its
    arguments are those of `start`, then the descriptors of its connection and of other files.

    `close` may be called from any thread, the rest from one at a time."""

    def __init__(self, module: str, descriptors: Sequence[int] = ()) -> None:
        self._module = module
        self._descriptors = descriptors
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.connection: Connection | None = None
        """None where no process runs."""
        self.closed = False

    @property
    def pid(self) -> int | None:
        process = self._process
        return None if process is None else process.pid

    def start(self, *arguments: str) -> Connection:
        """Raises ClosedError."""
        ours, theirs = multiprocessing.Pipe()
        descriptors = (theirs.fileno(), *self._descriptors)
        command = [sys.executable, "-P", "-m", self._module, *arguments]
        with self._lock, theirs:
            if self.closed:
                ours.close()
                raise ClosedError
            self._process = subprocess.Popen(  # noqa: S603
                [*command, *map(str, descriptors)],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                # What libraries print is not the service's output.
                stdout=subprocess.DEVNULL,
                # Ctrl-C in a terminal drains the service, which still needs it.
                start_new_session=True,
            )
        self.connection = ours
        return ours

    def end(self, connection: Connection) -> int | None:
        """Kills the process at the other end. Returns its exit code, None if it ended before."""
        if self.connection is not connection:
            return None
        self.connection = None
        connection.close()
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        return process.wait()

    def close(self) -> None:
        """Kills the process, for good. Idempotent."""
        with self._lock:
            self.closed = True
            if self._process is not None:
                self._process.kill()
                self._process.wait()


def answer_of(connection: Connection, seconds: float) -> bytes:
    """The next message of a process. Raises NoAnswerError if it ended or takes too long."""
    try:
        if connection.poll(seconds):
            return connection.recv_bytes()
    except (EOFError, OSError):
        raise NoAnswerError("it died") from None
    raise NoAnswerError(f"no answer for {seconds:g} seconds")
