"""The trials of `locore eval grocery --table`: trained where they are missing, and kept."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import click
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.table import Table

from model.batch import Window
from model.config import Aggregation, ModelConfig
from model.evaluation.baselines import UNTRAINED
from model.evaluation.comparison import (
    Fold,
    Logits,
    Row,
    Trial,
    TrialFacts,
    contender_row,
    first_stage_row,
    list_logits,
    method_row,
    subset,
)
from model.evaluation.contenders import ABLATIONS, CONTENDERS, Contender
from model.evaluation.retrieval import first_stage
from model.reranker import ListReranker, score_windows
from model.training.lists import ListSource
from model.training.selection import AGGREGATIONS
from model.training.trainer import Trainer, TrainOptions
from service.cli.common import console, tracked
from service.cli.training import TrainingData, run_training

TOP = 100
EVERY = 4
"""Every so many-th query of a fold is judged: the slowest contender takes a second for each."""
SHUFFLED_QUERIES = 12
TIMED_QUERIES = 5
ALL: Mapping[str, Contender] = {**CONTENDERS, **ABLATIONS}
_PACE_STEPS = 6
_PACE_WARM_UP = 2


def judged(data: TrainingData) -> Fold:
    lists = first_stage(data.validation, TOP)
    whole = Fold(data.validation, lists)
    return subset(whole, range(0, len(data.validation.queries), EVERY))


def trial(
    name: str,
    contender: Contender,
    data: TrainingData,
    fold_number: int,
    seed: int,
    minutes: float,
    folder: Path,
    device: torch.device,
) -> Trial:
    """The trial in `folder`, or, where it has none, one trained now; one that was stopped goes
    on."""
    result, facts_path = folder / "logits.npz", folder / "facts.json"
    if result.exists() and facts_path.exists():
        return _read(result, facts_path)
    folder.mkdir(parents=True, exist_ok=True)
    config = _config(contender, data, name)
    options = _planned(contender, config, data.source, seed, minutes, folder, device)
    trainer = Trainer(lambda: contender.build(config), options, device, data.fingerprint)
    state = folder / "state.pt"
    if state.exists():
        trainer.resume(state)
    label = f"{name}, fold {fold_number}, seed {seed}"
    started = time.process_time()
    run_training(trainer, data.source, folder, label, append=state.exists())
    spent = time.process_time() - started

    fold = judged(data)
    few = subset(fold, range(min(SHUFFLED_QUERIES, len(fold.task.queries))))
    reranker = trainer.average.eval()

    def logits(part: Fold, rng: np.random.Generator | None) -> Logits:
        def progress(queries: Iterable[int]) -> Iterable[int]:
            return tracked(queries, f"{label}: lists", len(part.task.queries))

        return list_logits(reranker, part, device, rng, progress)

    found = Trial(
        TrialFacts(
            name,
            fold_number,
            seed,
            sum(p.numel() for p in reranker.parameters()),
            options.steps,
            round(spent, 1),
            _device_name(device),
        ),
        logits(fold, None),
        (logits(few, np.random.default_rng(1)), logits(few, np.random.default_rng(2))),
    )
    _write(found, result, facts_path)
    return found


def _planned(
    contender: Contender,
    config: ModelConfig,
    source: ListSource,
    seed: int,
    minutes: float,
    folder: Path,
    device: torch.device,
) -> TrainOptions:
    """As many steps as fit into the minutes of processor time, by the pace of a few; kept in the
    folder, so that a trial that was stopped is planned once."""
    plan = folder / "plan.json"
    if plan.exists():
        return TrainOptions(**json.loads(plan.read_text()))
    options = TrainOptions(seed=seed, **contender.training)
    pace = Trainer(lambda: contender.build(config), options, device)
    first_steps = islice(pace.run(source), _PACE_WARM_UP + _PACE_STEPS)
    taken = [time.process_time() for _ in first_steps]
    each = (taken[-1] - taken[_PACE_WARM_UP - 1]) / _PACE_STEPS
    steps = max(1, round(60 * minutes / each))
    options = replace(options, steps=steps, warmup=min(options.warmup, steps // 4))
    plan.write_text(json.dumps(asdict(options)))
    return options


def _write(trial: Trial, path: Path, facts: Path) -> None:
    arrays: dict[str, NDArray[np.float32]] = {}
    for prefix, logits in zip(
        ("lists", "first", "second"), (trial.logits, *trial.shuffled), strict=True
    ):
        arrays |= {f"{prefix}-{how}": scores for how, scores in logits.items()}
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    facts.write_text(json.dumps(asdict(trial.facts), indent=2) + "\n")


def _read(path: Path, facts: Path) -> Trial:
    with np.load(path) as arrays:

        def logits(prefix: str) -> dict[Aggregation, NDArray[np.float32]]:
            return {how: arrays[f"{prefix}-{how}"] for how in AGGREGATIONS}

        return Trial(
            TrialFacts(**json.loads(facts.read_text())),
            logits("lists"),
            (logits("first"), logits("second")),
        )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


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


def compared(
    data: Callable[[int], TrainingData],
    folds: Sequence[int],
    seeds: Sequence[int],
    minutes: float,
    runs: Path,
    device: torch.device,
    only: Sequence[str],
) -> list[Row]:
    """A row for the first stage, every method that learns nothing and every contender, or those
    and the ablations that `only` names. Raises click.UsageError for an unknown name."""
    names = tuple(dict.fromkeys(only)) or tuple(CONTENDERS)
    unknown = [name for name in names if name not in ALL]
    if unknown:
        raise click.UsageError(f"{unknown[0]!r} is none of: {'; '.join(ALL)}")
    judged_folds: list[Fold] = []
    trials: dict[str, list[list[Trial]]] = {name: [[] for _ in seeds] for name in names}
    for number in folds:
        found = data(number)
        judged_folds.append(judged(found))
        for name in names:
            for place, seed in enumerate(seeds):
                folder = runs / f"{slug(name)}-fold{number}-seed{seed}"
                trials[name][place].append(
                    trial(name, ALL[name], found, number, seed, minutes, folder, device)
                )
    own = {
        name: ALL[name].build(_config(ALL[name], found, name)).to(device).eval() for name in names
    }
    seconds = timed(own, judged_folds[-1], device, TIMED_QUERIES)
    return [
        first_stage_row(judged_folds),
        *(
            method_row(name, settings, judged_folds)
            for name, settings in tracked(UNTRAINED.items(), "Untrained", len(UNTRAINED))
        ),
        *(
            contender_row(name, judged_folds, trials[name], seconds[name])
            for name in tracked(names, "Choosing alpha and T", len(names))
        ),
    ]


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _config(contender: Contender, data: TrainingData, name: str) -> ModelConfig:
    return ModelConfig(
        name=name,
        extractor=data.extractor,
        descriptor_dim=data.descriptor_dim,
        global_dim=data.global_dim,
        held_out_classes=data.held_out_classes,
        **contender.sizes,
    )


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
