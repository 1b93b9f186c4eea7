"""Compares a checkpoint with the first stage and Chamfer re-ranking, as rows and as a table."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from model.checkpoint import LoadedModel
from model.evaluation.baselines.chamfer import chamfer
from model.evaluation.retrieval import (
    Quality,
    RetrievalTask,
    Scorer,
    best_alpha,
    first_stage,
    quality,
    reranking_scorer,
    score_shortlists,
    served_options,
)
from model.formats.format_error import FormatError
from model.progress import Tracker, untracked

_TIMED_QUERIES = 20


@dataclass(frozen=True)
class Row:
    """`alpha` is the weight of the first stage; seconds are for 100 images."""

    method: str
    recall_at_1: float
    map_at_r: float
    alpha: float | None
    temperature: float | None
    seconds: float


def compare(
    task: RetrievalTask, model: LoadedModel, top: int, track: Tracker = untracked
) -> list[Row]:
    """First stage, Chamfer with its best alpha, and a re-ranker with its checkpoint's settings.

    Raises FormatError if the checkpoint takes locals of another length."""
    config = model.config
    sizes = task.gallery[0].sizes
    if config.sizes is not None and config.sizes.local_dim != sizes.local_dim:
        raise FormatError(
            f"descriptors of {sizes.local_dim} dimensions, but {config.name} takes "
            f"{config.sizes.local_dim}"
        )
    lists = first_stage(task, top)
    reranker = reranking_scorer(model.reranker, model.device, served_options(config))

    def scores_of(scorer: Scorer, name: str) -> NDArray[np.float32]:
        return score_shortlists(
            scorer, task, lists, lambda queries: track(queries, name, len(task.queries))
        )

    by_chamfer = scores_of(chamfer, "Chamfer")
    reranked = scores_of(reranker, config.name)
    alpha, chamfer_quality = best_alpha(task, lists, by_chamfer)
    rerank = config.rerank
    seconds = _seconds(task, lists.images, {"chamfer": chamfer, "model": reranker})
    return [
        _row("first stage", quality(task, lists, lists.scores), None, None, 0.0),
        _row("Chamfer", chamfer_quality, alpha, None, seconds["chamfer"]),
        _row(
            config.name,
            quality(task, lists, reranked),
            rerank.alpha,
            rerank.temperature,
            seconds["model"],
        ),
    ]


def _row(
    method: str, of: Quality, alpha: float | None, temperature: float | None, seconds: float
) -> Row:
    return Row(method, of.recall_at_1, of.map_at_r, alpha, temperature, seconds)


def _seconds(
    task: RetrievalTask, images: NDArray[np.int64], scorers: dict[str, Scorer]
) -> dict[str, float]:
    """Seconds per 100 images. The scorers take turns query by query; the first query does not
    count."""
    spent: dict[str, list[float]] = {name: [] for name in scorers}
    for q in range(min(_TIMED_QUERIES + 1, len(task.queries))):
        gallery = [task.gallery[i] for i in images[q]]
        for name, scorer in scorers.items():
            started = time.perf_counter()
            scorer(task.queries[q], gallery)
            spent[name].append((time.perf_counter() - started) * 100 / len(gallery))
    return {name: float(np.mean(times[1:] or times)) for name, times in spent.items()}


def figures_table(rows: Sequence[Row], caption: str) -> Table:
    table = Table(caption=caption, caption_justify="left")
    table.add_column("method", overflow="fold")
    for title in ("R@1", "mAP@R", "alpha", "T", "s per 100 images"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(
            row.method,
            f"{100 * row.recall_at_1:.1f}",
            f"{100 * row.map_at_r:.1f}",
            "" if row.alpha is None else f"{row.alpha:.2f}",
            "" if row.temperature is None else f"{row.temperature:g}",
            "" if not row.seconds else f"{row.seconds:.4f}",
        )
    return table


def write_figures(rows: Sequence[Row], path: Path) -> None:
    path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
