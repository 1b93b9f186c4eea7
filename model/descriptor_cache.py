"""A cache of descriptor files, so that a second run need not describe pictures again."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path


def cache_file(folder: Path, name: str, *follows_from: object) -> Path:
    """The path of a descriptor file in `folder`, which is created if necessary; one file for each
    combination of everything that the descriptors depend on."""
    digest = hashlib.sha256(repr(follows_from).encode()).hexdigest()[:8]
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{re.sub(r'[^A-Za-z0-9._+@-]', '_', name)[:100]}-{digest}.h5"
