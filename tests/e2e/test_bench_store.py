"""`locore bench store` against a real Valkey."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from service.cli.common import console
from tests.e2e.command import error_of, run_here
from tests.e2e.service import free_port
from tests.e2e.valkey import plain_valkey


def test_it_measures_and_leaves_the_store_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The console has measured its width when it was made.
    monkeypatch.setattr(console, "width", 250)
    port = free_port()
    with plain_valkey(port, tmp_path), redis.Redis(port=port) as store:
        store.set("somebody", "else")
        arguments = ["--images", 400, "--shortlist", 50, "--requests", 20, "--concurrency", 4]
        arguments += ["--store-dtype", "float16", "--store-dtype", "binary"]
        url = f"redis://127.0.0.1:{port}"
        code, output, _ = run_here(capsys, "bench", "store", "--redis", url, *arguments)
        assert code == 0
        assert "400 images of 48 x 128 and a global of 512; 20 shortlists of 50" in output
        rows = [line.split("│") for line in output.splitlines() if line.startswith("│")]
        assert [row[1].strip() for row in rows] == ["float16", "binary"]
        sizes = [48 * 128 * 2 + 512 * 2 + 48 + 30, 48 * 128 // 8 + 512 + 48 + 6 + 30]
        for row, record in zip(rows, sizes, strict=True):
            told, in_store = (int(cell.replace(",", "")) for cell in row[2:4])
            assert told == record
            assert record < in_store < 3 * record
        assert store.keys() == [b"somebody"]


def test_a_bad_url_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "ftp:// is not a store" in error_of(capsys, "bench", "store", "--redis", "ftp://x")
