"""`locore eval matrix`: domains by descriptor types by re-rankers, on made-up files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model.config import ExtractorId
from service.cli.common import console
from tests.descriptor_files import write_descriptors
from tests.e2e.command import error_of, stdout_of
from tests.factories import save_tiny

DOMAINS = ("shoes", "coins")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Shoes by two extractors, coins by one, and a domain whose name begins as that of shoes."""
    (tmp_path / "files").mkdir()
    for name in (*DOMAINS, "shoes-old"):
        ids = [f"{name[0]}{c}-{n}.jpg" for c in range(5) for n in range(6)]
        rows = [
            f"{i},{i.split('-')[0]},{'gallery' if n % 3 else 'query'}" for n, i in enumerate(ids)
        ]
        folder = tmp_path / name
        folder.mkdir()
        (folder / "labels.csv").write_text("\n".join(["path,label,role", *rows]) + "\n")
        ids = ids[:3] if name == "shoes-old" else ids
        write_descriptors(tmp_path / "files" / f"{name}-lite0.h5", ids)
    sift = ExtractorId(name="sift", version="1")
    ids = [f"s{c}-{n}.jpg" for c in range(5) for n in range(6)]
    write_descriptors(tmp_path / "files" / "shoes-sift.h5", ids, sizes=(5, 9), extractor=sift)
    return tmp_path


def test_every_re_ranker_in_every_cell(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The console has measured its width when it was made.
    monkeypatch.setattr(console, "width", 250)
    figures, checkpoint = root / "figures.json", save_tiny(root)
    types = ["Lite0", "RootSIFT", "RootSIFT, Lite0's global"]
    arguments: list[object] = ["eval", "matrix", "--descriptors", root / "files"]
    for domain in DOMAINS:
        arguments += ["--data", root / domain]
    for name in types:
        arguments += ["--only", name]
    arguments += ["--checkpoint", checkpoint, "--held-out", "coins", "--json", figures]
    output = stdout_of(capsys, *arguments)
    rows = json.loads(figures.read_text())
    contenders = ["first stage", "Chamfer", "k-reciprocal", "sum of relations", "tiny"]
    expected = [("shoes", name) for name in types] + [("coins", "Lite0")]
    assert [(r["domain"], r["descriptors"], r["contender"]) for r in rows] == [
        (*cell, contender) for cell in expected for contender in contenders
    ]
    assert all(0 <= r["average_precision"] <= r["recall"] <= 1 for r in rows)
    by_name = {(r["domain"], r["descriptors"], r["contender"]): r for r in rows}
    tiny = by_name["shoes", "RootSIFT", "tiny"]
    assert tiny["setting"] == "alpha=0.5 T=1"
    assert f"{100 * tiny['recall']:.1f} / {100 * tiny['average_precision']:.1f}" in output
    for cell in expected:
        first, chamfer = (by_name[(*cell, name)] for name in contenders[:2])
        assert chamfer["average_precision"] >= first["average_precision"]
    for contender in contenders:
        assert contender in output
    assert "means over cells" in output


def test_what_is_wrong_is_one_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["eval", "matrix", "--descriptors", root / "files", "--checkpoint", save_tiny(root)]
    coins = ["--data", root / "coins"]
    labels = root / "coins" / "labels.csv"

    def wrong(*arguments: object) -> str:
        return error_of(capsys, *common, *arguments)

    assert "no file files-EXTRACTOR.h5" in wrong("--data", root / "files")
    assert "no files for RootSIFT" in wrong(*coins, "--only", "RootSIFT")
    assert "--held-out shop: no folder of --data" in wrong(*coins, "--held-out", "shop")
    assert "cannot be written" in wrong(*coins, "--json", root / "no" / "figures.json")
    assert "images are missing" in wrong("--data", root / "shoes-old")
    assert "none.json: no such file" in wrong(*coins, "--checkpoint", root / "none.safetensors")
    labels.write_text(labels.read_text().replace("query", "gallery"))
    assert "coins: no query has a relevant image" in wrong(*coins)
    labels.write_text("odd,columns\n")
    assert "needs columns path and label" in wrong(*coins)
    labels.unlink()
    assert "labels.csv: no such file" in wrong(*coins)
