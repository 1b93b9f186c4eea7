"""No request that the OpenAPI document suggests, good or bad, is a defect; many more are tried in
tests/slow."""

from __future__ import annotations

from tests.e2e.service import RunningService
from tests.schema_fuzz import fuzz


def test_generated_requests_are_answered_as_the_document_says(service: RunningService) -> None:
    before = len(service.log)
    assert fuzz(service, 12) > 100
    assert '"level": "error"' not in service.log[before:]
