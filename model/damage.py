"""Files on which the HDF5 library never ends, or dies with its process.

A flipped bit is enough for either, and Python can catch neither. So a process of its own goes
through the structure of a file first: names, attributes, strings and the indexes of chunks, not the
numbers. It is started with the first file and serves all later ones; the file is read once more
only where it has come through.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from select import select

import h5py

SECONDS = 10.0
"""For the structure of a file of no size; a healthy small one takes milliseconds."""
_BYTES_PER_SECOND = 10 << 20
"""Far below what a slow disk reads."""
_DONE = b"."


class DamagedFileError(ValueError):
    """The library does not come through the file; the message says what happened."""


class _Process:
    """Reads paths, each with its length in front, and answers each when it is through."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        # Not `-m`: what starts a command decides where Python looks for modules.
        command = [sys.executable, "-P", str(Path(__file__).resolve())]
        self._process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.pid = self._process.pid
        # Its first answer says that it has started.
        self._answer(60 + SECONDS)

    def check(self, path: Path, seconds: float) -> None:
        """Raises DamagedFileError; the process has ended by then."""
        name = os.fsencode(path.resolve())
        assert self._process.stdin is not None  # noqa: S101
        with suppress(BrokenPipeError):
            self._process.stdin.write(len(name).to_bytes(4, "little") + name)
            self._process.stdin.flush()
        self._answer(seconds)

    def _answer(self, seconds: float) -> None:
        assert self._process.stdout is not None  # noqa: S101
        answered, _, _ = select([self._process.stdout], [], [], seconds)
        if not answered:
            self.end()
            raise DamagedFileError("reading it does not end")
        if os.read(self._process.stdout.fileno(), 1) != _DONE:
            self.end()
            raise DamagedFileError("the HDF5 library crashes on it")

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


_lock = threading.Lock()
_process: _Process | None = None


def check_ends(path: Path) -> None:
    """Returns for a file that the library comes through, if only to an error that h5py raises.
    Raises DamagedFileError in bounded time."""
    global _process
    seconds = SECONDS + path.stat().st_size / _BYTES_PER_SECOND
    with _lock:
        if _process is None or _process.owner != os.getpid():
            _process = _Process()
        try:
            _process.check(path, seconds)
        except DamagedFileError:
            _process = None
            raise


def _go_through(path: Path) -> None:
    file_bytes = path.stat().st_size
    with h5py.File(path, "r") as file:
        with suppress(Exception):
            dict(file.attrs)
        for key in file:
            # What h5py raises here it will raise again where it is caught.
            with suppress(Exception):
                _go_through_dataset(file[key], file_bytes)


def _go_through_dataset(dataset: object, file_bytes: int) -> None:
    if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual:
        return
    if dataset.chunks is not None:
        dataset.id.get_num_chunks()
    if h5py.check_string_dtype(dataset.dtype) is None:
        if dataset.shape and dataset.shape[0] and dataset.nbytes // dataset.shape[0] <= file_bytes:
            dataset[0]
    elif dataset.size <= file_bytes:
        dataset[:]


def _serve() -> None:
    while True:
        sys.stdout.buffer.write(_DONE)
        sys.stdout.buffer.flush()
        size = sys.stdin.buffer.read(4)
        if len(size) < 4:
            # Nothing is left to clean up, and a damaged file may have left the library in pieces.
            os._exit(0)
        name = sys.stdin.buffer.read(int.from_bytes(size, "little"))
        with suppress(Exception):
            _go_through(Path(os.fsdecode(name)))


if __name__ == "__main__":
    _serve()
