"""Runs a training, from the start or from a saved state, with its log and checkpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from model.checkpoint import save_checkpoint
from model.progress import Bar, no_bar, tracked
from model.reranker import ListReranker
from model.training.domains import TrainingData
from model.training.selection import Validation, select_on_validation
from model.training.torchrun import Processes
from model.training.trainer import R, Trainer, TrainOptions
from model.training.training_lists import ListSource

SAVE_SECONDS = 120.0
LOG_STEPS = 25


def train(
    data: TrainingData,
    build: Callable[[], ListReranker],
    options: TrainOptions,
    device: torch.device,
    processes: Processes,
    folder: Path,
    output: Path,
    *,
    resume: bool,
    bar: Bar = no_bar,
) -> Validation | None:
    """Trains the network of `build` and writes the checkpoint `output`; log and state are in
    `folder`. Alpha and temperature are chosen on the validation task, if the data have one.

    Raises TrainingStateError if the run cannot be resumed.
    """
    trainer = Trainer(build, options, device, data.fingerprint, processes)
    if resume:
        trainer.resume(folder / "state.pt")
    if not processes.first:
        for _ in trainer.run(data.source):
            pass
        return None
    with bar("Training", options.steps) as advance:
        run_training(trainer, data.source, folder, advance, append=resume)
    validation = None
    if data.validation is not None:
        queries = len(data.validation.queries)
        validation = select_on_validation(
            trainer, data.validation, partial(tracked, bar, "Validating", queries)
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(trainer.average, output)
    return validation


def run_training(
    trainer: Trainer[R],
    source: ListSource,
    folder: Path,
    advance: Callable[[int], None],
    *,
    append: bool,
) -> None:
    """Trains to the last step. Writes `log.jsonl` and, every two minutes, `state.pt` in `folder`;
    calls `advance` with the number of steps done."""
    saved = started = time.monotonic()
    losses: list[float] = []
    state = folder / "state.pt"
    with (folder / "log.jsonl").open("a" if append else "w") as log:
        advance(trainer.step)
        try:
            for step in trainer.run(source):
                advance(1)
                losses.append(step.loss)
                if step.number % LOG_STEPS == 0 or step.number == trainer.options.steps:
                    line = {
                        "step": step.number,
                        "loss": sum(losses) / len(losses),
                        "seconds": round(time.monotonic() - started, 1),
                    }
                    print(json.dumps(line), file=log, flush=True)
                    losses.clear()
                if time.monotonic() - saved > SAVE_SECONDS:
                    trainer.save(state)
                    saved = time.monotonic()
        finally:
            # Also after Ctrl-C, so that resuming loses nothing.
            trainer.save(state)
