"""Thousands of requests that schemathesis makes of the OpenAPI document, good and bad."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.service import running
from tests.factories import load_tiny
from tests.schema_fuzz import fuzz


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_none_of_them_is_a_defect(tmp_path: Path) -> None:
    load_tiny(tmp_path)
    with running(tmp_path / "tiny.safetensors", tmp_path / "data") as service:
        assert fuzz(service, 500) > 3000
        assert '"level": "error"' not in service.log
