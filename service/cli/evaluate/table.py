"""The table of `locore eval grocery --table`, its figures and its plot."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from matplotlib.figure import Figure
from rich.table import Table

from model.batch import Window
from model.evaluation.baselines import IN_METRIC, UNTRAINED
from model.evaluation.baselines.cosine import in_metric
from model.evaluation.comparison import (
    Fold,
    Row,
    Trial,
    contender_row,
    first_stage_row,
    method_row,
)
from model.evaluation.contenders import ABLATIONS, CONTENDERS, Contender
from model.reranker import ListReranker, score_windows
from service.cli.common import console, tracked
from service.cli.evaluate.trials import Budget, judged, sized, trial
from service.cli.training import TrainingData

TIMED_QUERIES = 5
ALL: Mapping[str, Contender] = {**CONTENDERS, **ABLATIONS}


@dataclass(frozen=True)
class Plan:
    """What is compared: `only` these of the trained re-rankers, or, where it is empty, all but
    the ablations. Trials are kept in `runs`."""

    folds: Sequence[int]
    seeds: Sequence[int]
    only: Sequence[str]
    budget: Budget
    runs: Path
    device: torch.device

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.only)) or tuple(CONTENDERS)


def compared(data: Callable[[int], TrainingData], plan: Plan) -> list[Row]:
    """A row for the first stage, every method that learns nothing and every contender.
    `data`: of a fold. Raises click.UsageError for an unknown name."""
    unknown = [name for name in plan.names if name not in ALL]
    if unknown:
        raise click.UsageError(f"{unknown[0]!r} is none of: {'; '.join(ALL)}")
    judged_folds: list[Fold] = []
    in_metrics: list[Fold] = []
    trials: dict[str, list[list[Trial]]] = {name: [[] for _ in plan.seeds] for name in plan.names}
    for number in plan.folds:
        found = data(number)
        judged_folds.append(judged(found))
        if found.metric is not None:
            fold = judged_folds[-1]
            in_metrics.append(replace(fold, task=in_metric(fold.task, found.metric)))
        for name in plan.names:
            for place, seed in enumerate(plan.seeds):
                trials[name][place].append(
                    trial(name, ALL[name], found, number, seed, plan.budget, plan.runs, plan.device)
                )
    own = {
        name: ALL[name].build(sized(ALL[name], found, name)).to(plan.device).eval()
        for name in plan.names
    }
    seconds = timed(own, judged_folds[-1], plan.device, TIMED_QUERIES)
    return [
        first_stage_row(judged_folds),
        *(
            method_row(name, settings, judged_folds)
            for name, settings in tracked(UNTRAINED.items(), "Untrained", len(UNTRAINED))
        ),
        *(
            method_row(name, settings, in_metrics)
            for name, settings in tracked(IN_METRIC.items(), "In the metric", len(IN_METRIC))
        ),
        *(
            contender_row(name, judged_folds, trials[name], seconds[name])
            for name in tracked(plan.names, "Choosing alpha and T", len(plan.names))
        ),
    ]


def timed(
    contenders: Mapping[str, ListReranker], fold: Fold, device: torch.device, queries: int
) -> dict[str, float]:
    """Seconds of a list of a fold, the contenders taking turns query by query; the first is not
    counted. Time does not depend on what was learnt: untrained networks stand for trained ones.
    """
    spent: dict[str, list[float]] = {name: [] for name in contenders}
    queries = min(queries, len(fold.task.queries) - 1)
    for q in tracked(range(queries + 1), "Timing", queries + 1):
        gallery = [fold.task.gallery[i] for i in fold.lists.images[q]]
        window = Window(fold.task.queries[q], gallery)
        for name, reranker in contenders.items():
            started = time.perf_counter()
            score_windows(reranker, [window], device)
            spent[name].append(time.perf_counter() - started)
    return {name: float(np.median(times[1:] or times)) for name, times in spent.items()}


def show_comparison(rows: Sequence[Row], json_path: Path | None, plot_path: Path | None) -> None:
    table = Table(
        caption="means over folds and seeds, their standard deviation, and the gain over the "
        "first stage of the same fold; settings, alpha, T and aggregation are the best of the "
        "other folds, or, with one fold, of that one",
        caption_justify="left",
    )
    table.add_column("method")
    for title in ("R@1", "", "mAP@R", "", "ms a list", "parameters", "order", "tau"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(row.name, *_cells(row))
    console.print(table)
    if json_path is not None:
        json_path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    if plot_path is not None:
        plot(rows, plot_path)


def _cells(row: Row) -> list[str]:
    def or_nothing(value: float | None, form: str, scale: float = 1) -> str:
        return "" if value is None else format(value * scale, form)

    return [
        f"{100 * row.recall_at_1.mean:.1f} ±{100 * row.recall_at_1.deviation:.1f}",
        f"{100 * row.recall_gain.mean:+.1f}",
        f"{100 * row.map_at_r.mean:.1f} ±{100 * row.map_at_r.deviation:.1f}",
        f"{100 * row.map_gain.mean:+.1f}",
        or_nothing(row.seconds, ".1f", 1000),
        or_nothing(row.parameters, ",d"),
        or_nothing(row.order_change, ".2f", 100),
        or_nothing(row.kendall_tau, ".3f"),
    ]


def plot(rows: Sequence[Row], path: Path) -> None:
    """mAP@R by the time of a list, every row a point with its deviation over the folds."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    for row in rows:
        if row.seconds is None:
            axes.axhline(100 * row.map_at_r.mean, color="grey", linestyle=":", label=row.name)
            continue
        x, y = 1000 * row.seconds, 100 * row.map_at_r.mean
        spread = 100 * row.map_at_r.deviation
        axes.errorbar(x, y, yerr=spread, fmt="o", capsize=3, label=row.name)
    axes.set_xscale("log")
    axes.set_xlabel("ms for a list of 100 images")
    axes.set_ylabel("mAP@R, held-out classes")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(path)
