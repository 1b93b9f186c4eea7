"""Benchmarks made up, and what their figures are, in plain lines."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.checkpoint import LoadedModel
from model.reranker import score_windows
from model.windows import Window
from tests.factories import tiny_config
from tests.minibench import Images, as_tensor, made_up, nearest, write_list, write_pickle

CONFIG = tiny_config()
ALPHA, TEMPERATURE = 0.3, 0.7


@dataclass(frozen=True, eq=False)
class Made:
    """A benchmark on disk, and what it was made of. `lists` as published: (2, queries, k)."""

    data: Path
    queries: Images
    gallery: Images
    lists: np.ndarray

    def listed(self, query: int, behind: list[int]) -> list[tuple[int, float]]:
        """(image, similarity), those of `behind` last."""
        pairs = [
            (int(image), float(similarity)) for similarity, image in self.lists[:, query].T.tolist()
        ]
        return [p for p in pairs if p[0] not in behind] + [p for p in pairs if p[0] in behind]

    def ordered(
        self, model: LoadedModel, query: int, pairs: list[tuple[int, float]]
    ) -> list[tuple[int, float]]:
        """One window, by the ensemble."""
        count = CONFIG.descriptors_per_image
        window = Window(
            self.queries.described(query, count),
            [self.gallery.described(image, count) for image, _ in pairs],
        )
        logits = score_windows(model.reranker, [window], torch.device("cpu"))[0]
        scores = [
            ALPHA * similarity + (1 - ALPHA) / (1 + math.exp(-TEMPERATURE * logit))
            for (_, similarity), logit in zip(pairs, logits.tolist(), strict=True)
        ]
        best_first = sorted(range(len(pairs)), key=lambda place: -scores[place])
        return [pairs[place] for place in best_first]


def images_of(pairs: list[tuple[int, float]]) -> list[int]:
    return [image for image, _ in pairs]


def made_roxford(data: Path) -> tuple[Made, list[dict[str, Any]]]:
    """On disk, and its truth: five queries, fifty images of five subjects, lists of forty."""
    rng = np.random.default_rng(1)
    labels = [place % 5 for place in range(50)]
    queries, gallery = made_up(rng, list(range(5)), CONFIG), made_up(rng, labels, CONFIG)
    folder = data / "roxford5k"
    queries.write(folder, "dinov2_query")
    gallery.write(folder, "dinov2_gallery")
    lists = nearest(queries, gallery, 40)
    write_pickle(folder / "nn_dinov2.pkl", as_tensor(lists))
    write_list(folder / "test_query.txt", None, 5)
    write_list(folder / "test_gallery.txt", None, 50)
    truth = []
    for query in range(5):
        right = [place for place in range(50) if labels[place] == query]
        truth.append(
            {
                "bbx": [1.5, 2.0, 30.0, 40.0],
                "easy": right[:4],
                # The last query has nothing hard.
                "hard": right[4:7] if query < 4 else [],
                "junk": right[7:],
            }
        )
    names = {"imlist": [f"g{n}" for n in range(50)], "qimlist": [f"q{n}" for n in range(5)]}
    write_pickle(folder / "gnd_roxford5k.pkl", names | {"gnd": truth}, protocol=2)
    return Made(data, queries, gallery, lists), truth


PROTOCOLS = {
    "easy": (("easy",), ("junk", "hard"), ("junk",)),
    "medium": (("easy", "hard"), ("junk",), ("junk",)),
    "hard": (("hard",), ("junk", "easy"), ("junk", "easy")),
}
"""Positives, what is left out of the ranking, what goes behind before the top is cut."""


def revisited_figures(
    truth: list[dict[str, Any]], protocol: str, ranking: Callable[[int, list[int]], list[int]]
) -> dict[str, float]:
    """`ranking(query, behind)`: images, best first."""
    keys, left_out, last = PROTOCOLS[protocol]
    figures: dict[str, list[float]] = {"mAP": [], "mP@1": [], "mP@5": [], "mP@10": []}
    for query, of in enumerate(truth):
        right = [image for key in keys for image in of[key]]
        if not right:
            continue
        junk = [image for key in left_out for image in of[key]]
        images = ranking(query, [image for key in last for image in of[key]])
        clean = [image for image in images if image not in junk]
        area, seen, place_of_last = 0.0, 0, 0
        for place, image in enumerate(clean):
            if image in right:
                before = seen / place if place else 1.0
                area += (before + (seen + 1) / (place + 1)) / 2
                seen += 1
                place_of_last = place + 1
        figures["mAP"].append(area / min(len(right), len(images)))
        for k in (1, 5, 10):
            at = max(1, min(k, place_of_last))
            figures[f"mP@{k}"].append(sum(image in right for image in clean[:at]) / at)
    return {name: sum(values) / len(values) for name, values in figures.items()}


def labelled_figures(
    asked: list[int], labels: list[int], rankings: list[list[int]], r: int, ks: tuple[int, ...]
) -> dict[str, float]:
    figures = dict.fromkeys([*(f"R@{k}" for k in ks), "mAP@R"], 0.0)
    for label, ranking in zip(asked, rankings, strict=True):
        hits = [labels[image] == label for image in ranking]
        for k in ks:
            figures[f"R@{k}"] += any(hits[:k]) / len(asked)
        precisions = [sum(hits[: n + 1]) / (n + 1) for n in range(r) if hits[n]]
        figures["mAP@R"] += sum(precisions) / r / len(asked)
    return figures


def figures_of(path: Path) -> dict[str, dict[str, Any]]:
    return {row["protocol"]: row for row in json.loads(path.read_text())["protocols"]}


def weights() -> list[object]:
    return ["--alpha", ALPHA, "--temperature", TEMPERATURE]
