"""The re-ranker's contract, and the Mamba re-ranker itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from model.batch import Window, WindowBatch, collate
from model.blocks import Block
from model.config import Aggregation, MambaConfig, ModelConfig
from model.descriptors import ImageDescriptors, normalised
from model.neighbours import likeness
from model.scan import Scan, chunked_scan
from model.tokens import (
    FIRST_LOCAL,
    GLOBAL,
    IMAGE_FEATURES,
    SEP,
    Evidence,
    Tokens,
    best_matches,
    correlate,
    correlation_features,
    likeness_to_query,
)


class Reranker(Protocol):
    """What the service and the evaluation ask of a backbone; any sequence model can stand here."""

    @property
    def config(self) -> ModelConfig: ...

    def collate(self, windows: Sequence[Window]) -> WindowBatch:
        """Host side: ragged windows to padded tensors."""
        ...

    def image_logits(self, batch: WindowBatch) -> Tensor:
        """(w, i - 1): a logit for every gallery image; anything at padded images."""
        ...


class ListReranker(nn.Module):
    """A network that gives every token of a gallery image a logit, and so every image one."""

    config: ModelConfig
    keeps_places = False
    """Whether an image's padding among its locals counts as a place."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def collate(self, windows: Sequence[Window]) -> WindowBatch:
        return collate(
            windows,
            descriptors_per_image=self.config.descriptors_per_image,
            global_dim=self.config.global_dim,
            scale_levels=self.config.scale_levels,
            keep_places=self.keeps_places,
        )

    def forward(self, batch: WindowBatch) -> tuple[Tensor, Tensor]:
        """Logits of the gallery's tokens, and which are real: both (w, i - 1, slots)."""
        raise NotImplementedError

    def image_scores(self, logits: Tensor, mask: Tensor) -> Tensor:
        """(w, i - 1) of what `forward` gives."""
        raise NotImplementedError

    def image_logits(self, batch: WindowBatch) -> Tensor:
        return self.image_scores(*self(batch))


class MambaReranker(ListReranker):
    """Blocks of query attention, bidirectional Mamba-2, an MLP, and layers between images.

    A list is put into an order of its own before the first block, so that a score does not depend
    on the order in which the caller named the images (but for exact copies of one image).
    """

    config: MambaConfig

    def __init__(self, config: MambaConfig, scan: Scan = chunked_scan) -> None:
        super().__init__(config)
        self.scan = scan
        self.select = best_matches
        size = config.global_dim + config.descriptor_dim
        self.metric: Tensor
        self.register_buffer("metric", torch.eye(size))
        self.tokens = Tokens(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, 1)
        self.evidence = nn.Linear(IMAGE_FEATURES, 1, bias=False)
        # Untrained, an image's logit is how it compares with the list by everything that needs no
        # learning: what is learnt starts from there.
        with torch.no_grad():
            self.evidence.weight.copy_((torch.arange(IMAGE_FEATURES) >= IMAGE_FEATURES // 2) * 0.5)

    def learn_metric(self, metric: NDArray[np.float32]) -> None:
        """`metric`: of `model.metric`; until it is given one, cosines are as they are. Raises
        ValueError for one of other sizes."""
        if metric.shape != tuple(self.metric.shape):
            raise ValueError(f"a metric is {tuple(self.metric.shape)} here, not {metric.shape}")
        self.metric.copy_(torch.from_numpy(metric))

    def image_scores(self, logits: Tensor, mask: Tensor) -> Tensor:
        return aggregate(logits, mask, self.config.aggregation)

    def order(self, batch: WindowBatch) -> Tensor:
        """(w, i): the places of a window's images in the order in which the blocks read them: the
        query, then the gallery by falling likeness to it, then padding."""
        alike = likeness_to_query(batch).masked_fill(~batch.image_mask, -2.0)
        alike[:, 0] = 2.0
        return alike.argsort(dim=1, descending=True, stable=True)

    def forward(self, batch: WindowBatch) -> tuple[Tensor, Tensor]:
        """A logit for every token of the gallery and which are real: both (w, i - 1, 2 + n)."""
        order = self.order(batch)
        logits, mask = self._read(batch.reordered(order))
        back = order[:, 1:].argsort(dim=1)
        rows = torch.arange(len(back), device=back.device).unsqueeze(1)
        return logits[rows, back], mask[rows, back]

    def _read(self, batch: WindowBatch) -> tuple[Tensor, Tensor]:
        found = correlate(batch, self.metric)
        alike, overlap = likeness(batch, found)
        local_features, image_features = correlation_features(batch, found, overlap)
        whole = Evidence(batch, found, local_features, image_features)
        read = self.select(whole, self.config.tokens_per_image)
        x, mask = self.tokens(read.batch, read.found, read.local_features, read.image_features)
        cosines = F.pad(read.found.local_to_query, (FIRST_LOCAL, 0, FIRST_LOCAL, 0))
        for block in self.blocks:
            x = block(x, mask, cosines, alike, self.scan)
        logits = self.head(self.norm(x[:, 1:])).squeeze(-1)
        logits = logits + self.evidence(image_features[:, 1:].to(logits.dtype))
        return logits.float(), mask[:, 1:]


def aggregate(logits: Tensor, mask: Tensor, how: Aggregation) -> Tensor:
    """(…, slots) to (…): the mean over an image's tokens, its first (the global's), its last
    (of the locals that are read, the one that matches least), or SEP's."""
    if how == "sep":
        return logits[..., SEP]
    if how == "first":
        return logits[..., GLOBAL]
    if how == "last":
        last = mask.sum(-1, keepdim=True).clamp(min=1) - 1
        return logits.gather(-1, last).squeeze(-1)
    return (logits * mask).sum(-1) / mask.sum(-1).clamp(min=1)


@torch.inference_mode()
def score_windows(
    reranker: Reranker, windows: Sequence[Window], device: torch.device
) -> list[NDArray[np.float32]]:
    """The logits of each window's gallery images, all windows in one forward pass."""
    batch = reranker.collate(windows).to(device)
    logits = reranker.image_logits(batch).float().cpu().numpy()
    return [row[: len(window.gallery)] for row, window in zip(logits, windows, strict=True)]


def random_image(rng: np.random.Generator, config: ModelConfig) -> ImageDescriptors:
    """As large as an image can be for this checkpoint; for warming up and measuring."""
    rows = config.descriptors_per_image
    locals_ = rng.standard_normal((rows, config.descriptor_dim)).astype(np.float32)
    global_ = rng.standard_normal(config.global_dim).astype(np.float32)
    return ImageDescriptors(
        normalised(locals_, "locals"),
        np.zeros(rows, np.uint8),
        normalised(global_, "global") if config.global_dim else None,
    )


def random_window(config: ModelConfig, images: int) -> Window:
    """A random query and gallery, always the same."""
    rng = np.random.default_rng(0)
    return Window(random_image(rng, config), [random_image(rng, config) for _ in range(images)])
