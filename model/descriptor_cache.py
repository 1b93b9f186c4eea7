"""Where descriptors of pictures are kept, so that a second run need not make them again."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path


def cache_file(folder: Path, name: str, *follows_from: object) -> Path:
    """A descriptor file in `folder`, which is made if need be; one for each value of all else that
    the descriptors follow from."""
    digest = hashlib.sha256(repr(follows_from).encode()).hexdigest()[:8]
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{re.sub(r'[^A-Za-z0-9._+@-]', '_', name)[:100]}-{digest}.h5"
