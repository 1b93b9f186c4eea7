"""The id of an image: its path, written in the characters that the service accepts."""

from __future__ import annotations

import os
import re
from pathlib import Path

MAX_ID = 256
"""Characters; POST /gallery takes no longer id."""


def image_id(path: Path) -> str:
    """The path as an id that the service accepts: other characters become `=` and their bytes in
    hex. A name that is not UTF-8 keeps its bytes on disk. An id is unchanged."""
    return re.sub(
        r"[^A-Za-z0-9._:/@=+-]",
        lambda other: "".join(f"={byte:02X}" for byte in os.fsencode(other[0])),
        path.as_posix(),
    )


def portable(name: str) -> Path:
    """The path of a name in a text file, which may come from a system that writes `\\` for `/`."""
    return Path(name.replace("\\", "/"))
