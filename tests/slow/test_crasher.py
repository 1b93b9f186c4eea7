"""Ten minutes of writers, readers and kills; LOCORE_CRASHER_SEED takes another seed."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from tests.crasher import Crasher

log = logging.getLogger(__name__)

SECONDS = float(os.environ.get("LOCORE_CRASHER_SECONDS", "600"))


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
def test_no_kill_loses_or_revives_an_image(checkpoint: Path, tmp_path: Path) -> None:
    seed = int(os.environ.get("LOCORE_CRASHER_SEED", "17"))
    report = Crasher(checkpoint, tmp_path, seed).run(SECONDS)
    log.info("seed %d: %s", seed, dict(report.counts))
    assert report.faults == []
    assert report.counts["acknowledged writes"] > SECONDS
