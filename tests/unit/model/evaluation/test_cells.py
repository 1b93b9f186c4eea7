"""The comparison judges every contender on the same lists, and sums up fairly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from model.checkpoint import LoadedModel
from model.descriptors import DescriptorSizes, ImageDescriptors
from model.evaluation.cells import (
    FIRST_STAGE,
    WITHOUT_LEARNING,
    Cell,
    DomainFiles,
    Figures,
    cells,
    model_figures,
    summary,
    untrained_figures,
)
from model.evaluation.grocery import validation_classes
from model.evaluation.retrieval import quality
from model.formats.format_error import FormatError
from tests.factories import image, tiny_config, tiny_model

CONFIG = tiny_config()
CLASSES, OF_A_CLASS = 5, 6
IDS = [f"{c}-{n}.jpg" for c in range(CLASSES) for n in range(OF_A_CLASS)]
SIZES = {"lite0": DescriptorSizes(8, 12), "sift": DescriptorSizes(5, 7)}


def read_images(path: Path, ids: Sequence[str]) -> Mapping[str, ImageDescriptors]:
    """Made up: images of a class are somewhat alike. The file's name tells the extractor."""
    sizes, rng = SIZES[path.stem.split("-")[1]], np.random.default_rng(len(path.stem))
    classes = [image(rng, CONFIG, sizes=sizes) for _ in range(CLASSES)]

    def made(of: ImageDescriptors) -> ImageDescriptors:
        noise = image(rng, CONFIG, sizes=sizes)
        assert of.global_ is not None
        assert noise.global_ is not None
        return ImageDescriptors(
            of.locals + noise.locals, of.scales, of.global_ + 1.5 * noise.global_
        )

    every = {image_id: made(classes[int(image_id.split("-")[0])]) for image_id in IDS}
    return {image_id: every[image_id] for image_id in ids}


def domain(root: Path, name: str, *extractors: str) -> DomainFiles:
    folder = root / name
    folder.mkdir()
    roles = ["query", "gallery", "gallery"] * (len(IDS) // 3)
    lines = [f"{i},{i.split('-')[0]},{role}" for i, role in zip(IDS, roles, strict=True)]
    (folder / "labels.csv").write_text("\n".join(["path,label,role", *lines]) + "\n")
    return DomainFiles(folder, {e: root / f"{name}-{e}.h5" for e in extractors})


def test_a_cell_for_every_domain_and_type_of_which_there_are_files(tmp_path: Path) -> None:
    domains = [domain(tmp_path, "a", "lite0", "sift"), domain(tmp_path, "b", "sift")]
    types = ("Lite0", "RootSIFT", "RootSIFT, Lite0's global", "Lite2")
    every_cell = list(cells(domains, read_images, held_out={}, types=types))
    assert [(cell.domain, cell.descriptors) for cell in every_cell] == [
        ("a", "Lite0"),
        ("a", "RootSIFT"),
        ("a", "RootSIFT, Lite0's global"),
        ("b", "RootSIFT"),
    ]
    for cell in every_cell:
        assert cell.task.relevant.shape == (10, 20)
        assert (cell.task.relevant.sum(1) == 4).all()
        assert cell.lists.images.shape == (10, 20)
    assert every_cell[2].task.queries[0].sizes == DescriptorSizes(5, 12)


def test_of_a_domain_that_was_trained_on_only_the_fold_is_judged(tmp_path: Path) -> None:
    where = [domain(tmp_path, "a", "lite0")]
    for fold in range(4):
        (cell,) = cells(where, read_images, held_out={"a": fold}, types=("Lite0",))
        count = len(validation_classes(np.arange(CLASSES), fold))
        assert cell.task.relevant.shape == (2 * count, 4 * count)


def test_one_query_of_several(tmp_path: Path) -> None:
    where = [domain(tmp_path, "a", "lite0")]
    (complete,) = cells(where, read_images, held_out={}, types=("Lite0",))
    (some,) = cells(where, read_images, held_out={}, every=3, types=("Lite0",))
    assert len(some.task.queries) == 4
    np.testing.assert_array_equal(some.task.relevant, complete.task.relevant[::3])


def test_labels_by_which_nothing_can_be_asked_are_refused(tmp_path: Path) -> None:
    where = domain(tmp_path, "a", "lite0")
    labels = where.folder / "labels.csv"
    labels.write_text(labels.read_text().replace("query", "gallery"))
    with pytest.raises(FormatError, match="a: no query has a relevant image"):
        list(cells([where], read_images, held_out={}, types=("Lite0",)))
    labels.unlink()
    with pytest.raises(FormatError, match="no such file"):
        list(cells([where], read_images, held_out={}, types=("Lite0",)))


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    (cell,) = cells([domain(tmp_path, "a", "lite0")], read_images, held_out={}, types=("Lite0",))
    return cell


def test_what_learns_nothing_has_its_best_setting(cell: Cell) -> None:
    rows = untrained_figures(cell)
    assert [row.contender for row in rows] == [FIRST_STAGE, *WITHOUT_LEARNING]
    first, *others = rows
    expected = quality(cell.task, cell.lists, cell.lists.scores)
    assert first.recall.mean() == expected.recall_at_1
    assert first.average_precision.mean() == pytest.approx(expected.map_at_r)
    assert (first.seconds, first.setting) == (0, "")
    for row in others:
        # The first stage alone, alpha 1, is among the settings.
        assert row.average_precision.mean() >= first.average_precision.mean()
        assert "alpha=" in row.setting
        assert row.recall.shape == row.average_precision.shape == (10,)
    assert "k1=" in others[WITHOUT_LEARNING.index("k-reciprocal")].setting


def test_a_checkpoint_has_its_own_setting(cell: Cell) -> None:
    device = torch.device("cpu")
    progress_places: list[int] = []
    for alpha in (1.0, 0.0):
        rerank = CONFIG.rerank.model_copy(update={"alpha": alpha, "temperature": 0.5})
        config = CONFIG.model_copy(update={"rerank": rerank})
        model = LoadedModel(tiny_model(config), device, torch.float32, "plain", None)

        def progress(queries: Iterable[int]) -> Iterator[int]:
            for query in queries:
                progress_places.append(query)
                yield query

        row = model_figures(cell, model, progress)
        assert (row.contender, row.setting) == ("tiny", f"alpha={alpha:g} T=0.5")
        first = untrained_figures(cell)[0]
        same = np.allclose(row.average_precision, first.average_precision)
        assert same == (alpha == 1.0)
    assert progress_places == [*range(10), *range(10)]


def row(domain: str, contender: str, recall: float, precision: float) -> Figures:
    return Figures(domain, "x", contender, np.array([recall]), np.array([precision]), 0.002, "")


def test_gains_are_over_the_best_of_each_cell() -> None:
    figures = [
        *(row("a", *of) for of in ((FIRST_STAGE, 0.5, 0.2), ("Chamfer", 0.6, 0.1))),
        *(row("a", *of) for of in (("k-reciprocal", 0.4, 0.3), ("ours", 0.7, 0.5))),
        *(row("b", *of) for of in ((FIRST_STAGE, 0.5, 0.5), ("Chamfer", 0.5, 0.5))),
        *(row("b", *of) for of in (("k-reciprocal", 0.9, 0.5), ("ours", 0.8, 0.4))),
        # A cell that ours was not judged in does not count for it.
        *(row("c", *of) for of in ((FIRST_STAGE, 1.0, 1.0), ("Chamfer", 1.0, 1.0))),
        row("c", "k-reciprocal", 1.0, 1.0),
    ]
    ours = summary(figures, "ours")
    assert ours.cells == 2
    assert ours.milliseconds == pytest.approx(2)
    assert [ours.recall, ours.average_precision] == pytest.approx([75, 45])
    recall, precision = ours.over_best
    # 70 - 60 and 80 - 90; 50 - 30 and 40 - 50.
    assert [recall.mean, precision.mean] == pytest.approx([0, 5])
    assert [recall.worst, recall.error] == pytest.approx([-10, 10])
    assert recall.worst_cell == "b, x"
    assert ours.over_first[0].mean == pytest.approx(25)
    assert ours.over_chamfer[1].worst == pytest.approx(-10)
    assert summary(figures, "Chamfer").cells == 3
    assert summary(figures[:4], "ours").over_best[0].error == 0
