"""Where descriptors of pictures are kept, so that they are not made again by a second run."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path


def kept_file(folder: Path, name: str, *follows_from: object) -> Path:
    """A file in `folder`, which is made: another one for all else that descriptors follow from."""
    digest = hashlib.sha256(repr(follows_from).encode()).hexdigest()[:8]
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{re.sub(r'[^A-Za-z0-9._+@-]', '_', name)[:100]}-{digest}.h5"
