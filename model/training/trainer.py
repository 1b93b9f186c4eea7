"""The training loop: seeded by step and list, resumable at any step, on one device or several.

A step's lists do not depend on how they are split among processes and passes. Nor does the result,
for a network without dropout.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from model.reranker import ListReranker
from model.training.torchrun import ALONE, Processes
from model.training.training_error import TrainingError
from model.training.training_lists import ListShape, ListSource, TrainingList
from model.window_batch import WindowBatch

R = TypeVar("R", bound=ListReranker)


class TrainingStateError(TrainingError):
    """A saved training state that does not belong to this run."""


@dataclass(frozen=True)
class TrainOptions:
    """A pass has `batch` lists, and a step `accumulate` passes on every process. The learning rate
    warms up, then falls along a cosine to a hundredth. All lists of a step have one random shape,
    so they need little padding. Lists as long as those in use teach more than short ones. `dtype`
    is the type of the products in a pass; weights and the optimizer's state are float32."""

    steps: int = 2000
    batch: int = 4
    accumulate: int = 1
    dtype: Literal["float32", "bfloat16"] = "float32"
    learning_rate: float = 2e-3
    warmup: int = 100
    weight_decay: float = 0.05
    average: float = 0.998
    ranking: float = 3.0
    first_place: float = 1.0
    shortest: int = 32
    longest: int = 100
    fewest_descriptors: int = 16
    max_descriptors: int = 48
    seed: int = 0

    def shape(self, rng: np.random.Generator) -> ListShape:
        return ListShape(
            int(rng.integers(self.shortest, self.longest + 1)),
            int(rng.integers(self.fewest_descriptors, self.max_descriptors + 1)),
        )


@dataclass(frozen=True)
class Step:
    number: int
    loss: float


class Trainer(Generic[R]):
    """Trains any `ListReranker`, together with other `processes`. `model` has the weights that are
    trained, `average` their moving average, which becomes the checkpoint."""

    def __init__(
        self,
        build: Callable[[], R],
        options: TrainOptions,
        device: torch.device,
        data: str = "",
        processes: Processes = ALONE,
    ) -> None:
        """`data` identifies the training data: a run is resumed on the same data only."""
        torch.manual_seed(options.seed)
        self.options = options
        self.data = data
        self.device = device
        self.processes = processes
        self.model = build().to(device)
        self.average = copy.deepcopy(self.model)
        # Averages the gradients of all processes in each backward pass, except under `no_sync`.
        self._parallel = DistributedDataParallel(self.model) if processes.count > 1 else None
        self.step = 0
        self.optimizer = torch.optim.AdamW(
            weight_groups(self.model, options.weight_decay),
            lr=options.learning_rate,
            betas=(0.9, 0.98),
            fused=True,
        )

    def run(self, source: ListSource) -> Iterator[Step]:
        """Yields every step until `options.steps`. One may stop at any step and `save`."""
        passes = product(range(self.step, self.options.steps), range(self.options.accumulate))
        losses: list[float] = []
        # While one pass is computed, the lists of the next are read.
        with ThreadPoolExecutor(1) as reader:
            batches = (reader.submit(self._draw, source, *of) for of in passes)
            upcoming = next(batches, None)
            while upcoming is not None:
                lists, upcoming = upcoming.result(), next(batches, None)
                losses.append(self._pass(lists, len(losses)))
                if len(losses) == self.options.accumulate:
                    self._update()
                    self.step += 1
                    yield Step(self.step, sum(losses) / len(losses))
                    losses.clear()

    def _draw(self, source: ListSource, step: int, number: int) -> list[TrainingList]:
        """Draws the lists of pass `number` of a step for this process."""
        options = self.options
        shape = options.shape(np.random.default_rng((options.seed, step)))
        first = (number * self.processes.count + self.processes.rank) * options.batch
        return [
            source.draw(np.random.default_rng((options.seed, step, place)), shape)
            for place in range(first, first + options.batch)
        ]

    def _pass(self, lists: list[TrainingList], number: int) -> float:
        """Adds to the gradients. Returns the loss of this process's lists."""
        # Seeds dropout: a resumed run gives the same result as one that was not stopped.
        seed = (self.options.seed, self.step, number, self.processes.rank)
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        batch = self.model.collate([item.window for item in lists]).to(self.device)
        relevant, present = (t.to(self.device) for t in targets(lists, batch))
        self.model.train()
        network = self.model if self._parallel is None else self._parallel
        half = self.options.dtype == "bfloat16"
        with ExitStack() as stack:
            if self._parallel is not None and number + 1 < self.options.accumulate:
                stack.enter_context(self._parallel.no_sync())
            with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
                logits, mask = network(batch)
            loss = token_loss(logits, mask, relevant)
            if self.options.ranking:
                scores = self.model.image_scores(logits, mask)
                loss = loss + self.options.ranking * smooth_ap_loss(scores, relevant, present)
                loss = loss + self.options.first_place * first_place_loss(scores, relevant, present)
            (loss / self.options.accumulate).backward()
        return float(loss.detach())

    def _update(self) -> None:
        rate = learning_rate(self.step, self.options)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()),
                list(self.model.parameters()),
                update_share(self.step, self.options.average),
            )

    @property
    def lists(self) -> int:
        """The number of lists in a step, over all passes and processes."""
        return self.options.batch * self.options.accumulate * self.processes.count

    def save(self, path: Path) -> None:
        """Writes all that `resume` needs, atomically."""
        state = {
            "config": self.model.config.model_dump_json(),
            "options": json.dumps(asdict(self.options)),
            "data": self.data,
            "lists": self.lists,
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Continues a saved run. Raises TrainingStateError if sizes, options or data differ."""
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            saved = (state["config"], _fixed_options(json.loads(state["options"])), state["data"])
            own = (
                self.model.config.model_dump_json(),
                _fixed_options(asdict(self.options)),
                self.data,
            )
            lists = state["lists"]
        except (
            OSError,
            EOFError,
            RuntimeError,
            KeyError,
            TypeError,
            ValueError,
            UnpicklingError,
        ) as error:
            why = str(error).partition("\n")[0]
            raise TrainingStateError(f"{path}: not a training state ({why})") from None
        if saved != own:
            raise TrainingStateError(f"{path}: was trained with other sizes, options or data")
        if lists != self.lists:
            raise TrainingStateError(
                f"{path}: {lists} lists a step, but now {self.lists}: --batch x --accumulate x "
                "processes must stay the same"
            )
        try:
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            why = str(error).partition("\n")[0]
            raise TrainingStateError(
                f"{path}: is from another version of the model ({why})"
            ) from None
        self.step = state["step"]


def _fixed_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options that must be the same in a resumed run: all but the split of a step's lists into
    passes."""
    return {name: value for name, value in options.items() if name not in ("batch", "accumulate")}


def learning_rate(step: int, options: TrainOptions) -> float:
    """Linear warm-up, then a cosine to a hundredth of the peak."""
    if step < options.warmup:
        return options.learning_rate * (step + 1) / options.warmup
    progress = (step - options.warmup) / max(1, options.steps - options.warmup)
    return options.learning_rate * cosine_decay(progress)


def cosine_decay(share: float) -> float:
    """Falls from 1 along a cosine to a hundredth, as `share` of the training goes from 0 to 1."""
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))


def update_share(step: int, average: float) -> float:
    """The share of the current weights in their moving average. It is larger in the first steps:
    otherwise the average would stay close to the random start."""
    return 1 - min(average, (1 + step) / (10 + step))


def weight_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The optimizer's groups of weights: only matrices decay."""
    matrices = [weight for weight in network.parameters() if weight.ndim > 1]
    others = [weight for weight in network.parameters() if weight.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def targets(lists: list[TrainingList], batch: WindowBatch) -> tuple[Tensor, Tensor]:
    """(relevant, present), both (w, g): float labels, and which images are real."""
    present = batch.present
    relevant = torch.zeros(present.shape)
    for row, item in zip(relevant, lists, strict=True):
        row[: len(item.relevant)] = torch.from_numpy(item.relevant.astype(np.float32))
    return relevant, present


def token_loss(logits: Tensor, mask: Tensor, relevant: Tensor) -> Tensor:
    """Binary cross-entropy over every real token of every gallery image (LOCORE)."""
    labels = relevant.unsqueeze(-1).expand_as(logits)
    losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (losses * mask).sum() / mask.sum()


def first_place_loss(scores: Tensor, relevant: Tensor, present: Tensor) -> Tensor:
    """The negative log-probability that a relevant image is first, for lists (w, g) whose first
    image is drawn by the softmax of the scores. It is 0 for a list without relevant images."""
    scores = scores.masked_fill(~present, -torch.inf)
    of_relevant = scores.masked_fill(relevant == 0, -torch.inf)
    losses = scores.logsumexp(1) - of_relevant.logsumexp(1)
    return losses.masked_fill(~relevant.any(1), 0.0).mean()


def smooth_ap_loss(
    scores: Tensor, relevant: Tensor, present: Tensor, softness: float = 0.5
) -> Tensor:
    """One minus the mean average precision of lists (w, g). An image's rank is a sum of sigmoids
    over the images above it (Brown et al., "Smooth-AP", ECCV 2020, eq. 7)."""
    above = torch.sigmoid((scores.unsqueeze(1) - scores.unsqueeze(2)) / softness)
    others = ~torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)
    above = above * (present.unsqueeze(1) & others)
    rank = 1 + above.sum(2)
    among_relevant = 1 + (above * relevant.unsqueeze(1)).sum(2)
    precision = (among_relevant / rank * relevant).sum(1) / relevant.sum(1).clamp(min=1)
    return 1 - precision.mean()
