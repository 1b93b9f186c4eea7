"""The error for files that are not in their format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FormatError(ValueError):
    """A file is not in its format. The message is one line and names the file."""


@contextmanager
def opening(path: Path) -> Iterator[None]:
    """Turns an OSError of opening or reading a file into a FormatError."""
    try:
        yield
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file") from None
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from None
