"""What the log must not tell."""

from __future__ import annotations

from typing import Literal

import pytest
import structlog

from service.settings import Settings
from service.watch.logs import configure_logging


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_traceback_has_no_password(
    log_format: Literal["text", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(log_format)
    settings = Settings(redis_url="redis://:hunter2@localhost")
    try:
        local = {"url": settings.redis_url, "settings": settings}
        raise RuntimeError(f"{len(local)} things went wrong")
    except RuntimeError:
        structlog.get_logger("x").exception("failed")
    output = capsys.readouterr().err
    assert "2 things went wrong" in output
    assert "test_a_traceback_has_no_password" in output
    assert "hunter2" not in output
    assert "hunter2" not in repr(settings)
