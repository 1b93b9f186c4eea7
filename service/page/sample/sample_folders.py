"""The folders of the sample gallery. Separate from its making, which needs the extractor's
packages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

COLLECTION = "sample"


@dataclass(frozen=True)
class SampleFolders:
    """The folders of the sample: image files and their descriptors."""

    root: Path

    @property
    def gallery(self) -> Path:
        return self.root / "gallery"

    @property
    def queries(self) -> Path:
        return self.root / "queries"

    @property
    def gallery_file(self) -> Path:
        return self.root / "gallery.h5"

    @property
    def queries_file(self) -> Path:
        return self.root / "queries.h5"

    @property
    def request(self) -> Path:
        """Written last: it marks a complete sample."""
        return self.root / "rerank.json"
