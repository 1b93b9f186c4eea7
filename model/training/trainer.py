"""The training loop: seeded by step, resumable after a kill, with a log that can be plotted."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.batch import WindowBatch
from model.config import ModelConfig
from model.reranker import MambaReranker, aggregate
from model.scan import Scan
from model.training.lists import ListSource, TrainingList


class TrainingStateError(ValueError):
    """A saved training state that does not belong to this run."""


@dataclass(frozen=True)
class TrainOptions:
    """`batch` lists a step; the rate warms up, then falls along a cosine to a hundredth."""

    steps: int = 2000
    batch: int = 4
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.05
    average: float = 0.998
    listwise: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Step:
    number: int
    loss: float


class Trainer:
    """Trains a new Mamba re-ranker. `model` is what is trained, `average` the moving average of
    its weights, which is what gets shipped."""

    def __init__(
        self,
        config: ModelConfig,
        options: TrainOptions,
        scan: Scan,
        device: torch.device,
        data: str = "",
    ) -> None:
        """`data` names what is trained on: a run is only ever resumed on the same."""
        torch.manual_seed(options.seed)
        self.options = options
        self.data = data
        self.device = device
        self.model = MambaReranker(config, scan).to(device)
        self.average = MambaReranker(config, scan).to(device)
        self.average.load_state_dict(self.model.state_dict())
        self.step = 0
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": options.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=options.learning_rate,
            betas=(0.9, 0.98),
        )

    def run(self, source: ListSource) -> Iterator[Step]:
        """Step by step until `options.steps`; stop at any step and `save`."""
        while self.step < self.options.steps:
            rng = np.random.default_rng((self.options.seed, self.step))
            lists = [source.draw(rng) for _ in range(self.options.batch)]
            loss = self._learn(lists)
            self.step += 1
            yield Step(self.step, loss)

    def _learn(self, lists: list[TrainingList]) -> float:
        rate = learning_rate(self.step, self.options)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = self.model.collate([item.window for item in lists]).to(self.device)
        relevant, present = (t.to(self.device) for t in targets(lists, batch))
        self.model.train()
        logits, mask = self.model(batch)
        loss = token_loss(logits, mask, relevant)
        if self.options.listwise:
            scores = aggregate(logits, mask, self.model.config.aggregation)
            loss = loss + self.options.listwise * listwise_loss(scores, relevant, present)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        # Early on an average over many steps is mostly the random start.
        keep = min(self.options.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for slow, fast in zip(self.average.parameters(), self.model.parameters(), strict=True):
                slow.lerp_(fast, 1 - keep)
        return float(loss.detach())

    def save(self, path: Path) -> None:
        """All that `resume` needs, written whole or not at all."""
        state = {
            "config": self.model.config.model_dump_json(),
            "options": json.dumps(asdict(self.options)),
            "data": self.data,
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Continue a saved run. Raises TrainingStateError where sizes, options or data differ."""
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            found = (state["config"], json.loads(state["options"]), state["data"])
            own = (self.model.config.model_dump_json(), asdict(self.options), self.data)
        except (OSError, RuntimeError, KeyError, ValueError, UnpicklingError) as error:
            why = str(error).partition("\n")[0]
            raise TrainingStateError(f"{path}: not a training state ({why})") from None
        if found != own:
            raise TrainingStateError(f"{path}: was trained with other sizes, options or data")
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def learning_rate(step: int, options: TrainOptions) -> float:
    """Linear warm-up, then a cosine to a hundredth of the peak."""
    if step < options.warmup:
        return options.learning_rate * (step + 1) / options.warmup
    done = (step - options.warmup) / max(1, options.steps - options.warmup)
    return options.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def targets(lists: list[TrainingList], batch: WindowBatch) -> tuple[Tensor, Tensor]:
    """(relevant, present), both (w, i - 1): float labels, and which images are real."""
    present = batch.image_mask[:, 1:]
    relevant = torch.zeros(present.shape)
    for row, item in zip(relevant, lists, strict=True):
        row[: len(item.relevant)] = torch.from_numpy(item.relevant.astype(np.float32))
    return relevant, present


def token_loss(logits: Tensor, mask: Tensor, relevant: Tensor) -> Tensor:
    """Binary cross-entropy on every real token of every gallery image (LOCORE)."""
    labels = relevant.unsqueeze(-1).expand_as(logits)
    losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (losses * mask).sum() / mask.sum()


def listwise_loss(scores: Tensor, relevant: Tensor, present: Tensor) -> Tensor:
    """Cross-entropy between the softmax over a list's images and its relevant ones (ListNet,
    Cao et al., ICML 2007)."""
    log_shares = scores.masked_fill(~present, float("-inf")).log_softmax(-1)
    log_shares = log_shares.masked_fill(~present, 0.0)
    return -((log_shares * relevant).sum(-1) / relevant.sum(-1).clamp(min=1)).mean()
