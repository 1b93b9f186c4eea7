"""Checks whether the HDF5 library can read a file without hanging or crashing. A flipped bit can
cause either, and Python can catch neither. So a separate process first reads the structure of a
file: names, attributes, strings and the indexes of chunks, not the numbers. It starts with the
first file and serves all later ones. The file is opened here only after this check.
"""

from __future__ import annotations

import math
import os
import selectors
import signal
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import h5py

SECONDS = 10.0
"""For the structure of a file of no size; a healthy small one takes milliseconds."""
_BYTES_PER_SECOND = 10 << 20
"""Far below what a slow disk reads."""
_MAX_SECONDS = 3600.0
_START_SECONDS = 60.0
_DONE = b"."
_HEADER = struct.Struct("<II")
"""Length of a path, and the seconds after which the process ends itself."""


class DamagedFileError(ValueError):
    """The library hangs or crashes on the file. The message says which."""


class _Checker:
    """Takes paths and answers each when the library has read its structure."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        # Not `-m`, since the working directory decides where Python looks for modules. In its own
        # session: an interrupt in the terminal is meant for us.
        command = [sys.executable, "-P", str(Path(__file__).resolve())]
        self._process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.pid = self._process.pid
        # Its first answer says that it has started.
        if self._answer(_START_SECONDS) is not True:
            self.end()
            raise OSError("the process that checks HDF5 files does not start")

    @property
    def usable(self) -> bool:
        """Whether it can be used: not after a fork, nor when it has ended."""
        return self.owner == os.getpid() and self._process.poll() is None

    def check(self, path: Path, seconds: float) -> bool | None:
        """Whether it answers; None if it has not after these seconds."""
        name = os.fsencode(path.resolve())
        assert self._process.stdin is not None  # noqa: S101
        # It also ends itself: this process may be killed while the library hangs.
        header = _HEADER.pack(len(name), math.ceil(2 * seconds) + 1)
        with suppress(BrokenPipeError):
            self._process.stdin.write(header + name)
            self._process.stdin.flush()
        return self._answer(seconds)

    def _answer(self, seconds: float) -> bool | None:
        assert self._process.stdout is not None  # noqa: S101
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                return None
        return os.read(self._process.stdout.fileno(), 1) == _DONE

    def end(self) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None  # noqa: S101
            with suppress(BrokenPipeError):
                pipe.close()
        # A process that waits for a disk cannot be killed immediately.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)


_lock = threading.Lock()
_checker: _Checker | None = None


def check_readable(path: Path) -> None:
    """Returns if h5py reads the file or raises an ordinary exception. Raises DamagedFileError in
    bounded time, and OSError."""
    seconds = min(SECONDS + path.stat().st_size / _BYTES_PER_SECOND, _MAX_SECONDS)
    with _lock:
        answer = _checked(path, seconds)
        if answer is False:
            # It may have been killed for another reason.
            answer = _checked(path, seconds)
    if answer is None:
        raise DamagedFileError("the HDF5 library does not finish reading it")
    if not answer:
        raise DamagedFileError("the HDF5 library crashes on it")


def _checked(path: Path, seconds: float) -> bool | None:
    global _checker
    if _checker is None or not _checker.usable:
        _checker = _Checker()
    checker, answer = _checker, None
    try:
        answer = checker.check(path, seconds)
    finally:
        # An answer that comes later must not count for another file.
        if answer is not True:
            _checker = None
            checker.end()
    return answer


def _read_structure(path: Path) -> None:
    file_bytes = path.stat().st_size
    with h5py.File(path, "r") as file:
        with suppress(Exception):
            dict(file.attrs)
        for key in file:
            # If h5py raises here, it will raise again in the caller, which handles it.
            with suppress(Exception):
                _read_dataset(file[key], file_bytes)


def _read_dataset(dataset: object, file_bytes: int) -> None:
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
        header = sys.stdin.buffer.read(_HEADER.size)
        if len(header) < _HEADER.size:
            # Nothing needs cleaning up, and a damaged file may have broken the library.
            os._exit(0)
        size, seconds = _HEADER.unpack(header)
        name = sys.stdin.buffer.read(size)
        signal.alarm(seconds)
        with suppress(Exception):
            _read_structure(Path(os.fsdecode(name)))
        signal.alarm(0)


if __name__ == "__main__":
    _serve()
