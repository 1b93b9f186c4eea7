"""A trial of the comparison: one contender trained on one fold, by one seed; and kept."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.config import Aggregation, ModelConfig
from model.evaluation.comparison import (
    Fold,
    Logits,
    Trial,
    TrialFacts,
    list_logits,
    subset,
)
from model.evaluation.contenders import Contender
from model.evaluation.retrieval import first_stage
from model.reranker import ListReranker, MambaReranker
from model.training.selection import AGGREGATIONS
from model.training.trainer import Trainer, TrainOptions
from service.cli.common import tracked
from service.cli.training import TrainingData, run_training

TOP = 100
EVERY = 4
"""Every so many-th query of a fold is judged: the slowest contender takes a second for each."""
SHUFFLED_QUERIES = 12
_PACE_STEPS = 6
_PACE_WARM_UP = 2


@dataclass(frozen=True)
class Budget:
    """Of every training: `minutes` of processor time, or so many `steps`."""

    minutes: float
    steps: int | None = None


def judged(data: TrainingData) -> Fold:
    if data.validation is None:
        raise ValueError("nothing to judge on")
    whole = Fold(data.validation, first_stage(data.validation, TOP))
    return subset(whole, range(0, len(data.validation.queries), EVERY))


def trial(
    name: str,
    contender: Contender,
    data: TrainingData,
    fold_number: int,
    seed: int,
    budget: Budget,
    runs: Path,
    device: torch.device,
) -> Trial:
    """The trial that `runs` has, or, where it has none, one trained now; one that was stopped
    goes on."""
    config = sized(contender, data, name)
    key = _key(config, contender.training, budget, data.fingerprint)
    folder = runs / f"{_slug(name)}-fold{fold_number}-seed{seed}-{key}"
    result, facts_path = folder / "logits.npz", folder / "facts.json"
    if facts_path.exists():
        return _read(result, facts_path)
    folder.mkdir(parents=True, exist_ok=True)
    options = _planned(contender, config, data, seed, budget, folder, device)
    trainer = Trainer(lambda: built(contender, config, data), options, device, data.fingerprint)
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


def built(contender: Contender, config: ModelConfig, data: TrainingData) -> ListReranker:
    network = contender.build(config)
    if isinstance(network, MambaReranker) and data.metric is not None:
        network.learn_metric(data.metric)
    return network


def _planned(
    contender: Contender,
    config: ModelConfig,
    data: TrainingData,
    seed: int,
    budget: Budget,
    folder: Path,
    device: torch.device,
) -> TrainOptions:
    """The budget's steps, or as many as fit into its minutes by the pace of a few; kept in the
    folder, so that a trial that was stopped is planned once."""
    options = TrainOptions(seed=seed, **contender.training)
    if budget.steps is not None:
        return replace(options, steps=budget.steps, warmup=min(options.warmup, budget.steps // 4))
    plan = folder / "plan.json"
    if plan.exists():
        return TrainOptions(**json.loads(plan.read_text()))
    pace = Trainer(lambda: built(contender, config, data), options, device)
    first_steps = islice(pace.run(data.source), _PACE_WARM_UP + _PACE_STEPS)
    taken = [time.process_time() for _ in first_steps]
    each = (taken[-1] - taken[_PACE_WARM_UP - 1]) / _PACE_STEPS
    steps = max(1, round(60 * budget.minutes / each))
    options = replace(options, steps=steps, warmup=min(options.warmup, steps // 4))
    _write_whole(plan, json.dumps(asdict(options)))
    return options


def _write(trial: Trial, path: Path, facts: Path) -> None:
    arrays: dict[str, NDArray[np.float32]] = {}
    for prefix, logits in zip(
        ("lists", "first", "second"), (trial.logits, *trial.shuffled), strict=True
    ):
        arrays |= {f"{prefix}-{how}": scores for how, scores in logits.items()}
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    # The facts come last: a trial that has them is whole.
    _write_whole(facts, json.dumps(asdict(trial.facts), indent=2) + "\n")


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)


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


def sized(contender: Contender, data: TrainingData, name: str) -> ModelConfig:
    return contender.config(
        name=name,
        extractor=data.extractor,
        descriptor_dim=data.descriptor_dim,
        global_dim=data.global_dim,
        held_out_classes=data.held_out_classes,
        **contender.sizes,
    )


def _key(config: ModelConfig, training: Mapping[str, Any], budget: Budget, fingerprint: str) -> str:
    """Names what a trial's result depends on, but for the code."""
    spent = f"{budget.minutes} minutes" if budget.steps is None else f"{budget.steps} steps"
    drawn_from = (config.model_dump_json(), asdict(TrainOptions(**training)), spent, fingerprint)
    return hashlib.sha256(repr(drawn_from).encode()).hexdigest()[:8]


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
