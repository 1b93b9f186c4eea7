"""`locore eval storage` on made-up files, with a real Valkey."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.cli.common import console
from tests.descriptor_files import write_descriptors
from tests.e2e.command import error_of, stdout_of
from tests.factories import save_tiny


@pytest.fixture
def arguments(tmp_path: Path) -> list[object]:
    ids = [f"s{c}-{n}.jpg" for c in range(4) for n in range(6)]
    rows = [f"{i},{i.split('-')[0]},{'gallery' if n % 3 else 'query'}" for n, i in enumerate(ids)]
    shoes = tmp_path / "shoes"
    shoes.mkdir()
    (shoes / "labels.csv").write_text("\n".join(["path,label,role", *rows]) + "\n")
    write_descriptors(tmp_path / "shoes-lite0.h5", ids)
    checkpoint = save_tiny(tmp_path)
    files = ["--data", shoes, "--descriptors", tmp_path, "--checkpoint", checkpoint]
    return ["eval", "storage", *files, "--locals", 3, "--locals", 48]


def test_every_way_to_store_in_bytes_and_points(
    arguments: list[object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The console has measured its width when it was made.
    monkeypatch.setattr(console, "width", 200)
    figures, plot = tmp_path / "figures.json", tmp_path / "curve.svg"
    output = stdout_of(capsys, *arguments, "--json", figures, "--plot", plot)
    rows = json.loads(figures.read_text())
    # 48 locals are more than this checkpoint reads.
    fewer = [(6, False), (3, True), (3, False)]
    assert [(row["dtype"], row["locals"], row["pooled"]) for row in rows] == [
        ("float32", 6, False),
        *((dtype, *of) for dtype in ("float16", "int8", "int4", "binary") for of in fewer),
    ]
    complete, half = rows[:2]
    assert [row["precision"] for row in (complete, half)] == pytest.approx([0, 0], abs=1)
    assert list(complete["cells"]) == ["shoes, Lite0"]
    for row in rows:
        recall, precision = row["cells"]["shoes, Lite0"]
        assert 0 <= precision <= recall <= 100
        assert row["precision"] == pytest.approx(complete["cells"]["shoes, Lite0"][1] - precision)
        assert 0 < row["cold"] < 10
    sizes = {(row["dtype"], row["locals"]): row["size"] for row in rows}
    assert sizes["float16", 6] > sizes["int8", 6] > sizes["int4", 6] > sizes["binary", 6]
    assert sizes["int4", 6] > sizes["int4", 3]
    assert "The smallest that loses at most 2 in the mean" in output
    assert plot.read_text().lstrip().startswith("<?xml")


def test_what_is_wrong_is_one_line(
    arguments: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "cannot be written" in error_of(capsys, *arguments, "--plot", tmp_path / "no" / "x.svg")
    assert "curve.odd: must end in one of" in error_of(
        capsys, *arguments, "--plot", tmp_path / "curve.odd"
    )
    assert "--held-out shop: no folder" in error_of(capsys, *arguments, "--held-out", "shop")
    assert "no files for Lite2" in error_of(capsys, *arguments, "--only", "Lite2")
