"""`locore eval mine`: from a folder of pictures to figures, a page and a last line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoint import load_checkpoint
from model.descriptor_file import DescriptorReader
from model.descriptors import ImageDescriptors
from model.evaluation.baselines.k_reciprocal import encodings, jaccard
from model.extraction.registry import load_extractor
from model.reranker import score_windows
from model.windows import Window
from service.cli.common import console
from tests.descriptor_files import write_descriptors
from tests.e2e.command import error_of, output_of, run_here
from tests.factories import save_tiny
from tests.own_folders import write_folders, write_picture

ALPHAS = [step / 20 for step in range(21)]
TEMPERATURES = [0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0]
TOP = 12


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where descriptors are kept, and a checkpoint."""
    monkeypatch.chdir(tmp_path)
    # The console has measured its width when it was made.
    monkeypatch.setattr(console, "width", 120)
    save_tiny(tmp_path)
    return tmp_path


def made_up(root: Path, name: str, labels: int, pictures: int) -> tuple[Path, Path, list[str]]:
    """A folder of pictures, and descriptors of them as the extractor's own would be."""
    folder, file = root / name, root / f"{name}.h5"
    ids = write_folders(folder, labels, pictures)
    extractor = load_extractor("efficientnet-lite0")
    sizes = (extractor.descriptor_dim, extractor.global_dim)
    write_descriptors(file, ids, sizes=sizes, extractor=extractor)  # type: ignore[arg-type]
    return folder, file, ids


class ByHand:
    """What the figures are, in plain lines."""

    def __init__(
        self, file: Path, checkpoint: Path, queries: list[str], gallery: list[str]
    ) -> None:
        with DescriptorReader(file) as reader:
            images = dict(iter(reader))
        self.gallery, self.queries = [images[i] for i in gallery], [images[i] for i in queries]
        self.right = [[g[0] == q[0] for g in gallery] for q in queries]
        self.cosines = [
            {g: float(vector(self.gallery[g]) @ vector(q)) for g in range(len(gallery))}
            for q in self.queries
        ]
        self.order = [sorted(of, key=lambda g: -of[g]) for of in self.cosines]
        self.model = load_checkpoint(checkpoint, torch.device("cpu")).reranker

    def figures(self, scores: list[dict[int, float]]) -> list[list[float]]:
        """R@1, R@5 and mAP@R of every query; scores are of the first TOP images."""
        rows = []
        for right, order, of in zip(self.right, self.order, scores, strict=True):
            ranked = sorted(order[:TOP], key=lambda g: -of[g]) + order[TOP:]
            hits = [right[g] for g in ranked]
            r = sum(right)
            precisions = [sum(hits[: n + 1]) / (n + 1) for n in range(r) if hits[n]]
            rows.append([float(hits[0]), float(any(hits[:5])), sum(precisions) / r])
        return rows

    def chosen(self, every: list[list[list[float]]]) -> list[float]:
        """Means, each query by the setting that is best on the queries of the other four folds."""
        count = len(self.queries)
        rows = []
        for query in range(count):
            others = [q for q in range(count) if q % 5 != query % 5]
            means = [np.mean([rows[q][2] for q in others]) for rows in every]
            rows.append(every[int(np.argmax(means))][query])
        return mean_row(rows)

    def blended(self, scores: list[dict[int, float]], alpha: float) -> list[dict[int, float]]:
        return [
            {g: alpha * cosines[g] + (1 - alpha) * of[g] for g in of}
            for cosines, of in zip(self.cosines, scores, strict=True)
        ]

    def each(self, score: Callable[[ImageDescriptors, list[int]], Any]) -> list[dict[int, float]]:
        return [
            dict(zip(order[:TOP], map(float, score(query, order[:TOP])), strict=True))
            for query, order in zip(self.queries, self.order, strict=True)
        ]

    def chamfer(self, query: ImageDescriptors, places: list[int]) -> list[float]:
        return [(query.locals @ self.gallery[g].locals.T).max(1).mean() for g in places]

    def logits(self, query: ImageDescriptors, places: list[int]) -> Any:
        window = Window(query, [self.gallery[g] for g in places])
        return score_windows(self.model, [window], torch.device("cpu"))[0]

    def k_reciprocal(self, k1: int, k2: int) -> list[dict[int, float]]:
        def score(query: ImageDescriptors, places: list[int]) -> Any:
            every = np.stack([vector(query), *(vector(self.gallery[g]) for g in places)])
            return jaccard(encodings(2 - 2 * every @ every.T, k1, k2))

        return self.each(score)

    def table(self) -> dict[str, list[float]]:
        chamfer, logits = self.each(self.chamfer), self.each(self.logits)

        def relations(alpha: float, t: float) -> list[list[float]]:
            of = [{g: 1 / (1 + np.exp(-t * x)) for g, x in row.items()} for row in logits]
            return self.figures(self.blended(of, alpha))

        served = relations(0.5, 1.0)
        return {
            "first stage": mean_row(self.figures(self.blended(chamfer, 1.0))),
            "Chamfer": self.chosen([self.figures(self.blended(chamfer, a)) for a in ALPHAS]),
            "k-reciprocal": self.chosen(
                [
                    self.figures(self.blended(of, a))
                    for of in (self.k_reciprocal(*k) for k in ((10, 3), (20, 6), (30, 6)))
                    for a in ALPHAS
                ]
            ),
            "tiny": mean_row(served),
            "tiny, tuned": self.chosen(
                [served, *(relations(a, t) for t in TEMPERATURES for a in ALPHAS)]
            ),
        }


def mean_row(rows: list[list[float]]) -> list[float]:
    return [float(mean) for mean in np.mean(rows, axis=0)]


def vector(image: ImageDescriptors) -> Any:
    assert image.global_ is not None
    return image.global_


def written(path: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(path.read_text())["contenders"]}


@pytest.mark.parametrize("by_csv", [False, True])
def test_the_figures_are_those_that_plain_lines_find(
    root: Path, capsys: pytest.CaptureFixture[str], by_csv: bool
) -> None:
    folder, file, ids = made_up(root, "shop", 5, 7)
    if by_csv:
        # Three of the labels, two of each asking.
        ids = [i for i in ids if i[0] in "abd"]
        roles = ["query" if i[-5] in "25" else "gallery" for i in ids]
        lines = [f"{i},label {i[0]},{role}" for i, role in zip(ids, roles, strict=True)]
        (folder / "labels.csv").write_text(
            "\n".join(["path,label,role", *lines, "gone.png,x,query"])
        )
        asks = [i for i, role in zip(ids, roles, strict=True) if role == "query"]
    else:
        asks = [i for i in ids if i[-5] in "036"]
    code, out, err = run_here(
        capsys,
        *("eval", "mine", folder, "--checkpoint", root / "tiny.safetensors"),
        *("--descriptors", file, "--top", TOP, "--json", root / "figures.json"),
    )
    assert code == 0, err
    left_out = [f"left out: gone.png in {folder}/labels.csv, but not in the folder"]
    left_out += [f"left out: 14 pictures, c/c-0.png for one, not in {folder}/labels.csv"]
    assert [line for line in err.splitlines() if "written" not in line] == left_out * by_csv
    rows = written(root / "figures.json")
    by_hand = ByHand(
        file, root / "tiny.safetensors", asks, [i for i in ids if i not in asks]
    ).table()
    for name, expected in by_hand.items():
        means = [rows[name]["figures"][of]["mean"] for of in ("R@1", "R@5", "mAP@R")]
        assert means == pytest.approx(expected, abs=1e-6), name
        gain = rows[name]["gains"]["mAP@R"]
        assert gain["mean"] == pytest.approx(expected[2] - by_hand["first stage"][2], abs=1e-6)
        assert gain["low"] <= gain["mean"] <= gain["high"]
        assert f"{100 * expected[2]:.1f}" in out
    # A metric is learnt from one half of the labels: three are too few.
    assert ("tiny, in a metric" in rows) != by_csv
    last = out.splitlines()[-1]
    assert last.startswith(f"Too few queries to tell, {len(asks)} of at least 30: tiny changes")
    assert "Next: " in last


def rows(file: Path) -> dict[str, bytes]:
    with DescriptorReader(file) as reader:
        return {name: image.locals.tobytes() for name, image in reader}


def test_pictures_are_described_once_and_the_page_shows_them(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, page = root / "holiday", root / "report.html"
    for n in range(5):
        write_picture(folder / f"{n}.png", n)
    (folder / "letter.jpg").write_text("Dear Sir or Madam")
    command = ("eval", "mine", folder, "--checkpoint", root / "tiny.safetensors", "--report", page)
    output = output_of(capsys, *command)
    assert f"left out: {folder}/letter.jpg: not a readable image" in output
    assert "a view of a picture asks for other views of it; 5 queries, 10 gallery images" in output
    assert "Too few queries to tell, 5 of at least 30" in output
    (file,) = (root / ".locore" / "mine").glob("holiday-*.h5")
    with DescriptorReader(file) as reader:
        assert sorted(reader.ids) == [f"{n}.png@{view}" for n in range(5) for view in range(3)]
    html = page.read_text()
    assert "Does re-ranking help on holiday?" in html
    # One more picture, one that changed: only those are described.
    rows_before = rows(file)
    write_picture(folder / "5.png", 5)
    output = output_of(capsys, *command)
    assert "6 queries, 12 gallery images" in output
    assert rows(file).items() >= rows_before.items()
    write_picture(folder / "2.png", 77)
    output = output_of(capsys, *command)
    assert "3 images have changed since .locore/mine/holiday-" in output
    changed = {name for name, row in rows(file).items() if rows_before.get(name, row) != row}
    assert changed == {f"2.png@{view}" for view in range(3)}
    assert "6 queries, 12 gallery images" in output
    (folder / "0.png").unlink()
    assert "5 queries, 10 gallery images" in output_of(capsys, *command)


def test_what_cannot_be_judged_is_one_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(*arguments: object) -> str:
        tiny = root / "tiny.safetensors"
        return error_of(capsys, "eval", "mine", *arguments, "--checkpoint", tiny)

    folder = root / "shop"
    folder.mkdir()
    assert "shop: has no pictures" in wrong(folder)
    assert "does not exist" in wrong(root / "none")
    write_folders(folder, 1, 3)
    assert "1 label that can be judged, but at least two are needed, or --views" in wrong(folder)
    write_folders(folder, 3, 1)
    (folder / "a" / "a-1.png").unlink()
    (folder / "a" / "a-2.png").unlink()
    labels = root / "labels.csv"
    assert "no such file" in wrong(folder, "--labels", labels)
    labels.write_text("picture,kind\n")
    assert "needs columns path and label" in wrong(folder, "--labels", labels)
    labels.write_text("path,label\nx.png,1\n")
    assert "none of its pictures is in the folder, x.png for one" in wrong(
        folder, "--labels", labels
    )
    assert "--views cannot be used with --labels" in wrong(folder, "--views", "--labels", labels)
    assert "cannot be written" in wrong(folder, "--report", root / "no" / "page.html")
    assert "no extractor 'eye'" in wrong(folder, "--extractor", "eye")
    missing = root / "none.safetensors"
    assert "none.json: no such file" in error_of(
        capsys, "eval", "mine", folder, "--checkpoint", missing
    )


def test_folders_without_a_question_or_a_readable_picture_end_with_2(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = ("--checkpoint", root / "tiny.safetensors")
    write_folders(root / "singles", 3, 1)
    code, out, err = run_here(capsys, "eval", "mine", root / "singles", *tiny)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].endswith("but at least two are needed")
    broken = root / "broken"
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"):
        (broken / name).parent.mkdir(parents=True, exist_ok=True)
        (broken / name).write_text("no picture")
    code, out, err = run_here(capsys, "eval", "mine", broken, *tiny)
    assert (code, out) == (2, "")
    *named, last = err.splitlines()
    assert len(named) == 4
    assert last == f"locore: {broken}: no picture could be read"
