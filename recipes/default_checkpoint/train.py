"""Trains the shipped checkpoint: from many lists, made by many processes, on one GPU.

    python recipes/default_checkpoint/train.py --data FOLDER… --descriptors FILE… -o OUT

`make.sh` makes the files and calls it. What `locore train` does with few lists, a
step at a time, is done here for a given number of seconds: every step is a CUDA graph, and the
processes compute the relations of the lists (`model.relations`), since a GPU waits for those far
longer than for the network. Without a GPU it runs on the CPU, slowly, and makes few steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from model.checkpoint import save_checkpoint
from model.config import MambaConfig, RerankDefaults
from model.reranker import MambaReranker
from model.tokens import RelationBatch, relate
from model.training.sources import folders_data
from model.training.trainer import (
    TrainOptions,
    cosine_decay,
    first_place_loss,
    smooth_ap_loss,
    targets,
    token_loss,
    update_share,
    weight_groups,
)
from model.training.training_error import TrainingError
from model.training.training_lists import ListSource
from service.cli.common import tracked

LISTS = 16
"""Of a step."""
LISTS_SEED = 977
IMAGES = 1 + TrainOptions.longest
RATE, WARM_UP, AVERAGE, WEIGHT_DECAY = 3e-3, 150, 0.999, 0.05

Batch = tuple[Tensor, ...]
"""pairs, image, matches, context and mask of `RelationBatch`, padded to IMAGES; `places` (w, g) as
in `WindowBatch`; relevant (w, g)."""


_PATH = click.Path(path_type=Path)


class Steps(Dataset[Batch]):
    """The lists of step after step. All of a step are of one random shape."""

    def __init__(self, source: ListSource, config: MambaConfig) -> None:
        self.source, self.config = source, config
        self.network = MambaReranker(config)

    def __len__(self) -> int:
        return 2**31

    def __getitem__(self, step: int) -> Batch:
        torch.set_num_threads(1)
        shape = TrainOptions().shape(np.random.default_rng((LISTS_SEED, step)))
        lists = [
            self.source.draw(np.random.default_rng((LISTS_SEED, step, place)), shape)
            for place in range(LISTS)
        ]
        windows = self.network.collate([item.window for item in lists])
        relations = relate(windows, self.config.matches_per_image)
        images, gallery = relations.image.shape[1], windows.places.shape[1]
        missing = IMAGES - images
        slots = self.config.matches_per_image - relations.matches.shape[2]
        relevant, _ = targets(lists, windows)
        return (
            F.pad(relations.pairs, (0, missing, 0, missing)).half(),
            F.pad(relations.image, (0, 0, 0, missing)).half(),
            F.pad(relations.matches, (0, 0, 0, slots, 0, missing)).half(),
            relations.context,
            F.pad(relations.mask, (0, slots, 0, missing)),
            F.pad(windows.places, (0, IMAGES - 1 - gallery)),
            F.pad(relevant, (0, IMAGES - 1 - gallery)),
        )


class Learner:
    """A network, its moving average and its optimizer; on a GPU a step is a CUDA graph."""

    def __init__(self, config: MambaConfig, seed: int, device: torch.device, like: Batch) -> None:
        """`like`: a batch of the shape of all that come."""
        torch.manual_seed(seed)
        self.network = MambaReranker(config).to(device).train()
        self.average = MambaReranker(config).to(device).eval()
        self.average.load_state_dict(self.network.state_dict())
        self.weights = list(self.network.parameters())
        self.rate = torch.zeros((), device=device)
        self.update_share = torch.zeros((), device=device)
        self.loss = torch.zeros((), device=device)
        on_gpu = device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            weight_groups(self.network, WEIGHT_DECAY),
            lr=self.rate if on_gpu else RATE,
            betas=(0.9, 0.98),
            fused=True,
            capturable=on_gpu,
        )
        self.steps = 0
        self._batch = tuple(tensor.to(device) for tensor in like)
        self._step = self._recorded() if on_gpu else self._learn

    def step(self, batch: Batch, progress: float) -> None:
        """`done`: the share of the training that is over; the rate falls along a cosine."""
        for target, source in zip(self._batch, batch, strict=True):
            target.copy_(source)
        rate = RATE * min(1.0, (self.steps + 1) / WARM_UP) * cosine_decay(min(1.0, progress))
        self.rate.fill_(rate)
        if self.rate.device.type == "cpu":
            for group in self.optimizer.param_groups:
                group["lr"] = rate
        self.update_share.fill_(update_share(self.steps, AVERAGE))
        self._step()
        self.steps += 1

    def _learn(self) -> None:
        *relations, places, relevant = self._batch
        pairs, image, matches, context, mask = relations
        batch = RelationBatch(pairs.float(), image.float(), matches.float(), context, mask)
        scores = self.network.list_logits(batch).gather(1, places)
        present = places > 0
        loss = token_loss(scores.unsqueeze(2), present.unsqueeze(2), relevant)
        loss = loss + TrainOptions.ranking * smooth_ap_loss(scores, relevant, present)
        loss = loss + TrainOptions.first_place * first_place_loss(scores, relevant, present)
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, 1.0, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        with torch.no_grad():
            self.loss.lerp_(loss.detach(), 0.01)
            for mean, weight in zip(self.average.parameters(), self.weights, strict=True):
                mean.lerp_(weight, self.update_share)

    def _recorded(self) -> Callable[[], None]:
        """A step as a CUDA graph. The first steps, which it takes to make one, leave no trace."""
        start = {name: value.clone() for name, value in self.network.state_dict().items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._learn()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._learn()
        self.network.load_state_dict(start)
        self.average.load_state_dict(start)
        for moments in self.optimizer.state.values():
            for value in moments.values():
                value.zero_()
        self.loss.zero_()
        return graph.replay


@click.command()
@click.option("--data", multiple=True, required=True, type=_PATH, help="As of `locore train`.")
@click.option("--descriptors", multiple=True, required=True, type=_PATH)
@click.option("--views", multiple=True, type=_PATH)
@click.option("--fold", type=int, default=0, show_default=True)
@click.option("--seconds", type=float, default=325.0, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=15, show_default=True)
@click.option("--seed", "seeds", multiple=True, type=int, default=(0, 1, 2), show_default=True)
@click.option("-o", "--output", required=True, type=_PATH, help="Folder of relations-SEED.*")
def main(
    data: tuple[Path, ...],
    descriptors: tuple[Path, ...],
    views: tuple[Path, ...],
    fold: int,
    seconds: float,
    workers: int,
    seeds: tuple[int, ...],
    output: Path,
) -> None:
    """Train a network for every seed, all on the same lists."""
    output.mkdir(parents=True, exist_ok=True)
    try:
        training = folders_data(data, descriptors, views, fold, tracked)
    except TrainingError as error:
        raise click.UsageError(str(error)) from None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def config(seed: int) -> MambaConfig:
        return MambaConfig(
            name=f"relations-{seed}",
            extractor=training.extractor,
            held_out_classes=training.held_out_classes,
            rerank=RerankDefaults(alpha=0.0, temperature=0.1),
        )

    loader = DataLoader(
        Steps(training.source, config(0)), batch_size=None, num_workers=workers, prefetch_factor=4
    )
    batches = iter(loader)
    batch = next(batches)
    learners = [Learner(config(seed), seed, device, batch) for seed in seeds]
    started = time.monotonic()
    with click.progressbar(length=100, label="Training") as bar:
        while (progress := (time.monotonic() - started) / seconds) < 1:
            for learner in learners:
                learner.step(batch, progress)
            bar.update(int(100 * progress) - bar.pos)
            batch = next(batches)
    for learner, seed in zip(learners, seeds, strict=True):
        save_checkpoint(learner.average, output / f"relations-{seed}.safetensors")
    losses = ", ".join(f"{float(learner.loss):.3f}" for learner in learners)
    click.echo(f"{learners[0].steps} steps of {LISTS} lists, losses {losses}")


if __name__ == "__main__":
    main()
