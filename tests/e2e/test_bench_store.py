"""`locore bench store` against a real Valkey."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from tests.e2e.command import refused, run_here
from tests.e2e.service import free_port
from tests.e2e.valkey import plain_valkey


def test_it_measures_and_leaves_the_store_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    with plain_valkey(port, tmp_path), redis.Redis(port=port) as store:
        store.set("somebody", "else")
        arguments = ["--images", 400, "--shortlist", 50, "--requests", 20, "--concurrency", 4]
        url = f"redis://127.0.0.1:{port}"
        code, shown, _ = run_here(capsys, "bench", "store", "--redis", url, *arguments)
        assert code == 0
        assert "400 images of 48 x 128 and a global of 512, float16; 20 shortlists of 50" in shown
        (row,) = [line for line in shown.splitlines() if line.startswith("│")]
        bytes_an_image = int(row.split("│")[1].replace(",", ""))
        record = 48 * 128 * 2 + 512 * 2 + 48
        assert record < bytes_an_image < 3 * record
        assert store.keys() == [b"somebody"]


def test_a_bad_url_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "ftp:// is no store" in refused(capsys, "bench", "store", "--redis", "ftp://x")
