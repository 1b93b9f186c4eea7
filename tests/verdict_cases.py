"""Judgements by the figures that a test gives them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.evaluation.judgement import Contender, Judgement
from model.evaluation.own_pictures import OwnPictures
from model.evaluation.verdict import Circumstances
from model.formats.labels import LabelledImages

Values = NDArray[np.float64]

QUERIES = 60
TOP = 4


def contender(name: str, precision: Values, recall: Values | None = None) -> Contender:
    recalls = precision if recall is None else recall
    seconds = None if name == "first stage" else 2.345
    return Contender(name, "alpha=0", np.stack((recalls, recalls, precision)), seconds)


def judgement(
    first: Values,
    served: Values,
    *,
    served_recall: Values | None = None,
    chamfer: Values | None = None,
    tuned: Values | None = None,
    in_metric: Values | None = None,
    listed: int = 2,
) -> Judgement:
    """Of mAP@R (queries,). Every query has two right images, gallery images 0 and 1, of which the
    first stage lists `listed` behind two others; served, they are in front."""
    count = len(first)
    relevant = np.zeros((count, 8), np.bool_)
    relevant[:, :2] = True
    before = [2, 3, *(0, 1)[:listed], *(4, 5)[: 2 - listed]]
    after = [*before[2:], *before[:2]]
    return Judgement(
        [f"q{q}.png" for q in range(count)],
        [f"g{g}.png" for g in range(8)],
        relevant,
        np.tile(before, (count, 1)),
        np.tile(after, (count, 1)),
        contender("first stage", first),
        (
            contender("Chamfer", first if chamfer is None else chamfer),
            contender("k-reciprocal", first),
        ),
        contender("tiny", served, served_recall),
        contender("tiny, tuned", served if tuned is None else tuned),
        None if in_metric is None else contender("tiny, in a metric", in_metric),
        0.25,
        0.5,
    )


def circumstances(
    folder: Path, *, views: bool = False, labels: Path | None = None, names: tuple[str, ...] = ()
) -> Circumstances:
    files = {name: folder / name for name in names}
    labelled = LabelledImages([], np.empty(0, np.int64), np.empty(0, np.bool_))
    pictures = OwnPictures(folder, files, None if views else labelled, labels)
    return Circumstances(pictures, "efficientnet-lite0", Path("mine.h5"), 31.7)


def around(mean: float, spread: float = 0.1, count: int = QUERIES, seed: int = 0) -> Values:
    noise = np.random.default_rng(seed).standard_normal(count)
    return np.asarray(mean + spread * (noise - noise.mean()) / noise.std())
