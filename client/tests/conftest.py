from __future__ import annotations

import os
import uuid

import pytest
from hypothesis import settings

settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")


@pytest.fixture(scope="session")
def url() -> str:
    """Of a running service whose gallery may be written to."""
    if "LOCORE_URL" not in os.environ:
        pytest.skip("LOCORE_URL names no service")
    return os.environ["LOCORE_URL"]


@pytest.fixture
def name() -> str:
    """Of a collection that is not there yet."""
    return f"test-{uuid.uuid4().hex}"
