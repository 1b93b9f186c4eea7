"""The notebook's cells run in their order, from a folder to its plots."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

from tests.own_folders import write_folders, write_picture

NOTEBOOK = Path(__file__).parents[2] / "recipes" / "own_pictures.ipynb"


@pytest.mark.parametrize("by_views", [False, True])
def test_from_a_folder_to_its_plots(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    by_views: bool,
) -> None:
    if by_views:
        for n in range(4):
            write_picture(tmp_path / f"{n}.png", n)
        (tmp_path / "broken.jpg").write_text("no picture")
    else:
        write_folders(tmp_path, 3, 4)
        (tmp_path / "a" / "broken.jpg").write_text("no picture")
    monkeypatch.setenv("PICTURES", str(tmp_path))
    mpl.use("agg")
    monkeypatch.setattr(plt, "show", lambda: None)
    plt.close("all")
    names: dict[str, object] = {"__name__": "__main__"}
    try:
        for number, cell in enumerate(json.loads(NOTEBOOK.read_text())["cells"]):
            # Outputs belong to whoever runs it.
            assert not cell.get("outputs")
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)  # noqa: S102
        intervals, examples = (plt.figure(number) for number in plt.get_fignums())
    finally:
        plt.close("all")
    output = capsys.readouterr().out
    assert "left out: " in output
    assert "12 images described" in output
    assert "relations" in output
    labels = [label.get_text() for label in intervals.axes[0].get_yticklabels()]
    assert labels[:3] == ["Chamfer", "k-reciprocal", "relations"]
    assert all(len(axes.get_images()) == 1 for axes in examples.axes)
    assert [axes.get_title() for axes in examples.axes].count("query") == 2
