"""Evaluates a checkpoint on a published benchmark, with given settings or with the best of a
grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from model.checkpoint import LoadedModel
from model.evaluation.benchmark_data import BenchmarkData
from model.evaluation.benchmark_table import Row
from model.evaluation.benchmarks import Benchmark, Files
from model.evaluation.passes import (
    GRID,
    Choice,
    Pass,
    best_of_grid,
    ensembled,
    passes,
    reranked,
    window_logits,
)
from model.evaluation.protocols import Figures
from model.progress import Progress, Tracker, untracked
from model.windows import RerankOptions


@dataclass(frozen=True)
class BenchmarkRun:
    """`rows`: in the order of the protocols; `options`: those used; `choice`: the best of a grid,
    if one was searched; `queries` and `gallery`: the benchmark's numbers of images."""

    rows: Sequence[Row]
    options: RerankOptions
    choice: Choice | None
    queries: int
    gallery: int


def evaluate_benchmark(
    benchmark: Benchmark,
    paths: Files,
    model: LoadedModel,
    options: RerankOptions,
    top: int,
    difficulties: Sequence[str],
    *,
    grid: bool,
    track: Tracker = untracked,
) -> BenchmarkRun:
    """Re-ranks the first `top` images of every list. With `grid` it re-ranks one window, and
    searches for the best alpha and T. Raises what BenchmarkData raises."""
    with BenchmarkData(benchmark, paths, model.config, difficulties) as data:
        every = passes(data)
        choice = None
        if grid:
            rows, choice = _search(data, every, model, options.window, track)
            options = replace(options, alpha=choice.alpha, temperature=choice.temperature)
        else:
            rows = _rows(data, every, model, options, top, track)
        return BenchmarkRun(rows, options, choice, len(data.queries), len(data.gallery))


def _rows(
    data: BenchmarkData,
    every: Sequence[Pass],
    model: LoadedModel,
    options: RerankOptions,
    top: int,
    track: Tracker,
) -> list[Row]:
    rows = []
    for one in every:
        ranking = reranked(
            data, one.lists, one.queries, model, options, top, _progress(one, "Re-ranking", track)
        )
        rows += _compared(one, one.judge(ranking))
    return _in_order(data, rows)


def _search(
    data: BenchmarkData, every: Sequence[Pass], model: LoadedModel, window: int, track: Tracker
) -> tuple[list[Row], Choice]:
    passes_with_logits = [
        (
            one,
            window_logits(
                data, one.lists, one.queries, model, window, _progress(one, "Scoring", track)
            ),
        )
        for one in every
    ]
    choice = best_of_grid(
        passes_with_logits, lambda cells: track(cells, "Choosing alpha and T", len(GRID) ** 2)
    )
    rows = []
    for one, logits in passes_with_logits:
        ranking = ensembled(one.lists, logits, choice.alpha, choice.temperature)
        rows += _compared(one, one.judge(ranking))
    return _in_order(data, rows), choice


def _progress(one: Pass, what: str, track: Tracker) -> Progress:
    names = ", ".join(protocol.name for protocol in one.protocols)
    return lambda queries: track(queries, f"{what} ({names})", len(one.queries))


def _compared(one: Pass, figures: Mapping[str, Figures]) -> list[Row]:
    first_stage = one.judge(one.lists.images)
    return [
        Row(p.name, int(p.counted.sum()), first_stage[p.name], figures[p.name])
        for p in one.protocols
    ]


def _in_order(data: BenchmarkData, rows: Sequence[Row]) -> list[Row]:
    by_name = {row.protocol: row for row in rows}
    return [by_name[protocol.name] for protocol in data.protocols]
