"""Some seconds of what tests/slow/test_crasher.py does for ten minutes."""

from __future__ import annotations

from pathlib import Path

from tests.crasher import KINDS, Crasher


def test_no_kill_loses_or_revives_an_image(checkpoint: Path, tmp_path: Path) -> None:
    report = Crasher(checkpoint, tmp_path, seed=17).run(seconds=4)
    assert report.faults == []
    assert all(report.counts[f"kills of {kind}"] for kind in KINDS)
    assert report.counts["acknowledged writes"] > 20
    assert report.counts["images read"] > 20
