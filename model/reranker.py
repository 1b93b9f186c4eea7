"""The re-ranker's contract, and the Mamba re-ranker itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.blocks import Block
from model.config import MambaConfig, ModelConfig
from model.relations import CONTEXT_FEATURES, RELATIONS, TO_QUERY
from model.scan import Scan, chunked_scan
from model.tokens import IMAGE, Evidence, RelationBatch, Tokens, relate
from model.window_batch import WindowBatch, collate, collate_distinct
from model.windows import Window


class Reranker(Protocol):
    """The interface of a backbone, for the service and the evaluation."""

    @property
    def config(self) -> ModelConfig: ...

    def collate(self, windows: Sequence[Window]) -> WindowBatch:
        """Host side: ragged windows to padded tensors."""
        ...

    def image_logits(self, batch: WindowBatch) -> Tensor:
        """(w, g): a logit for every gallery image, in list order; undefined at padded images."""
        ...


class ListReranker(nn.Module):
    """A network that computes a logit for every gallery image of a window."""

    config: ModelConfig

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def collate(self, windows: Sequence[Window]) -> WindowBatch:
        return collate(windows, descriptors_per_image=self.config.descriptors_per_image)

    def forward(self, batch: WindowBatch) -> tuple[Tensor, Tensor]:
        """Logits for the loss, (w, g, s), of a gallery image's tokens or, with one slot, of the
        image itself; and which are real, (w, g, s)."""
        raise NotImplementedError

    def image_scores(self, logits: Tensor, mask: Tensor) -> Tensor:
        """(w, g): from the results of `forward`."""
        return (logits * mask).sum(-1) / mask.sum(-1).clamp(min=1)

    def image_logits(self, batch: WindowBatch) -> Tensor:
        return self.image_scores(*self(batch))


class MambaReranker(ListReranker):
    """Reads the relations between the images of a window (`model.relations`), never a descriptor:
    bidirectional Mamba-2 over the tokens of the whole list, then attention between images.

    Copies of an image count once, and the list is sorted by content. So a score depends neither on
    the order in which the caller names the images nor on how often.
    """

    config: MambaConfig

    def __init__(self, config: MambaConfig, scan: Scan = chunked_scan) -> None:
        super().__init__(config)
        self.scan = scan
        self.tokens = Tokens(config)
        self.trust = nn.Linear(CONTEXT_FEATURES, len(RELATIONS))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, 1)
        self.evidence = Evidence()
        with torch.no_grad():
            self.trust.weight.zero_()
            self.trust.bias.zero_()
            self.head.weight.mul_(0.1)

    def collate(self, windows: Sequence[Window]) -> WindowBatch:
        return collate_distinct(windows, descriptors_per_image=self.config.descriptors_per_image)

    def forward(self, batch: WindowBatch) -> tuple[Tensor, Tensor]:
        logits = self.list_logits(relate(batch, self.config.matches_per_image))
        return logits.gather(1, batch.places).unsqueeze(2), batch.present.unsqueeze(2)

    def image_logits(self, batch: WindowBatch) -> Tensor:
        with one_thread(batch.locals.device):
            return super().image_logits(batch)

    def list_logits(self, relations: RelationBatch) -> Tensor:
        """(w, i): a logit for every image; the query's has no meaning."""
        order = scan_order(relations)
        x = self.tokens(relations)
        trust = 2 * torch.sigmoid(self.trust(relations.context.to(x.dtype)))
        pairs = relations.pairs.to(x.dtype)
        for block in self.blocks:
            x = block(x, relations.mask, order, pairs, trust, self.scan)
        logits: Tensor = self.head(self.norm(x[:, :, IMAGE])).squeeze(-1)
        logits = logits + self.evidence(relations)
        return logits.float()


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """Uses one thread on a CPU: the many small products of a pass gain nothing from several, which
    also wait for each other if another process uses a core."""
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def scan_order(relations: RelationBatch) -> Tensor:
    """(w, i): the query, then the gallery by descending evidence, then padding."""
    evidence = relations.image[:, :, : len(TO_QUERY)].sum(2)
    evidence = evidence.masked_fill(~relations.mask[:, :, IMAGE], -torch.inf)
    query = torch.arange(evidence.shape[1], device=evidence.device) == 0
    evidence = evidence.masked_fill(query, torch.inf)
    return evidence.argsort(dim=1, descending=True, stable=True)


@torch.inference_mode()
def score_windows(
    reranker: Reranker, windows: Sequence[Window], device: torch.device
) -> list[NDArray[np.float32]]:
    """The logits of each window's gallery images, all windows in one forward pass."""
    batch = reranker.collate(windows).to(device)
    logits = reranker.image_logits(batch).float().cpu().numpy()
    return [row[: len(window.gallery)] for row, window in zip(logits, windows, strict=True)]
