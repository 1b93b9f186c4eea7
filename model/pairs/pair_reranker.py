"""What re-rankers of pairs share: the projection of locals, and the pairs of a batch in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import PairConfig
from model.reranker import ListReranker
from model.window_batch import WindowBatch, collate
from model.windows import Window

_CHUNK_NUMBERS = 1 << 23
"""Numbers that the largest tensor of a chunk of pairs may have: 32 MB."""
_SIGN_VARIANCE = 1e-6
"""Of the noise whose error function stands for the sign in training."""


@dataclass(frozen=True, eq=False)
class RowBatch(WindowBatch):
    """`row_mask` (w, i, n) bool: the rows that an image came with, its padding among them."""

    row_mask: Tensor


@dataclass(frozen=True, eq=False)
class Side:
    """One image of every pair. `locals` (p, n, dim) projected; `mask` (p, n) which of them are
    real, `row_mask` (p, n) which are real or padding that came with the image."""

    locals: Tensor
    mask: Tensor
    row_mask: Tensor


class Signs(nn.Module):
    """(…, d) of any length to (…, bits): the signs of unit rows times `W`. In training an error
    function stands for the sign, so that `W` is learnt."""

    def __init__(self, descriptor_dim: int, bits: int) -> None:
        super().__init__()
        self.W = nn.Parameter(nn.init.orthogonal_(torch.empty(descriptor_dim, bits)))

    def forward(self, locals_: Tensor) -> Tensor:
        products = locals_ @ self.W
        if self.training:
            return torch.erf(products / (2 * _SIGN_VARIANCE) ** 0.5)
        return products.sign()


class PairReranker(ListReranker):
    """Scores the query with each image of its list alone: a logit depends on no other image, on
    no global and on no scale. Parameters have the names that published files give them."""

    config: PairConfig

    def __init__(self, config: PairConfig) -> None:
        super().__init__(config)
        projection: list[nn.Module] = []
        if config.descriptor_dim is not None:
            size = config.bits or config.descriptor_dim
            projection = [nn.Linear(size, config.dim), nn.LayerNorm(config.dim)]
            if config.bits:
                projection.insert(0, Signs(config.descriptor_dim, config.bits))
        self.remap_local = nn.Sequential(*projection)

    def numbers(self, rows: int) -> int:
        """How many numbers the largest tensor has that `compare` makes for a pair of images of so
        many rows."""
        raise NotImplementedError

    def compare(self, query: Side, gallery: Side) -> Tensor:
        """(p,): the logit of every pair."""
        raise NotImplementedError

    def collate(self, windows: Sequence[Window]) -> RowBatch:
        max_rows = self.config.descriptors_per_image
        batch = collate(
            windows, descriptors_per_image=max_rows, keep_places=True, with_globals=False
        )
        row_mask = torch.zeros_like(batch.local_mask)
        for w, window in enumerate(windows):
            for i, image in enumerate((window.query, *window.gallery)):
                row_mask[w, i, : min(image.count, max_rows)] = True
        return RowBatch(
            **{f.name: getattr(batch, f.name) for f in fields(batch)}, row_mask=row_mask
        )

    def forward(self, batch: WindowBatch) -> tuple[Tensor, Tensor]:
        """A logit of every image, and which images are real, both (w, g, 1). Needs a batch that
        `collate` made."""
        if not isinstance(batch, RowBatch):
            raise TypeError("pairs need a RowBatch")
        present = batch.image_mask[:, 1:]
        dtype = next(self.parameters()).dtype
        locals_ = self.remap_local(F.normalize(batch.locals, dim=-1).to(dtype))

        def side(window: Tensor, image: Tensor) -> Side:
            row_mask = batch.row_mask[window, image]
            rows = int(row_mask.sum(1).max())
            place = window, image, slice(rows)
            return Side(locals_[place], batch.local_mask[place], row_mask[:, :rows])

        window, image = present.nonzero(as_tuple=True)
        size = max(1, _CHUNK_NUMBERS // self.numbers(locals_.shape[2]))
        logits = [
            self.compare(side(w, torch.zeros_like(i)), side(w, i + 1)).float()
            for w, i in zip(window.split(size), image.split(size), strict=True)
        ]
        scores = torch.zeros(present.shape, device=present.device)
        scores = scores.index_put((window, image), torch.cat(logits))
        return scores.unsqueeze(-1), present.unsqueeze(-1)
