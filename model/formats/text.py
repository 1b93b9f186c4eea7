"""Text files as any system writes them: UTF-8, or what a byte order mark says; lines that end in
LF, CRLF or CR."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from model.formats.format_error import FormatError, opening

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    # Before UTF-16, whose mark is the first half of this one.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@contextmanager
def text_of(path: Path, newline: str | None = None, what: str = "a text file") -> Iterator[TextIO]:
    """The open file; `newline` as of `open`; `what` it should be. Raises FormatError, also for
    other encodings: to guess one would make other names of the names in it."""
    # Opened once: a pipe cannot be opened again.
    with opening(path), path.open("rb") as file:
        start = file.peek(4)
        encoding = next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8")
        try:
            yield io.TextIOWrapper(file, encoding, newline=newline)
        except UnicodeError:
            raise FormatError(
                f"{path}: not {what}, it is neither UTF-8 nor UTF-16 with a byte order mark"
            ) from None


def lines_of(path: Path) -> list[str]:
    """Without their ends. Raises FormatError."""
    with text_of(path) as text:
        return text.read().split("\n")
