"""No request that the OpenAPI document suggests, good or bad, is a defect; many more are tried in
tests/slow."""

from __future__ import annotations

from pathlib import Path

from model.descriptors import ImageDescriptors
from tests.e2e.service import running
from tests.schema_fuzz import fuzz


def test_generated_requests_are_answered_as_the_document_says(
    checkpoint: Path, gallery: dict[str, ImageDescriptors], tmp_path: Path
) -> None:
    # A service of their own: some empty a collection.
    with running(checkpoint, tmp_path) as service:
        assert service.register(dict(list(gallery.items())[:20])).is_success
        assert fuzz(service, 8) > 100
        assert '"level": "error"' not in service.log
