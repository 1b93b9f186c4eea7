"""From descriptors to tokens: `[SEP] [global] [locals, strongest first]` for every image.

SEP opens an image instead of closing it: an image's tokens are then a prefix of its row of the
grid, and padding is only ever behind them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.batch import WindowBatch
from model.config import ModelConfig

SEP, GLOBAL, FIRST_LOCAL = 0, 1, 2
"""Slots of an image's row of tokens."""

LOCAL_FEATURES = 4
IMAGE_FEATURES = 8


@dataclass(frozen=True, eq=False)
class Correlation:
    """Cosines between raw descriptors, from which all correlation features and biases are made.

    local_to_query (w, i, n, m): every local with each local of the query, m = n;
    global_ (w, i, i): the images of a window with each other. And what they are cosines of, rows
    of length 1: locals (w, i, n, d), globals (w, i, g), means of the locals (w, i, d).
    """

    local_to_query: Tensor
    global_: Tensor
    locals: Tensor
    globals: Tensor
    means: Tensor


def correlate(batch: WindowBatch) -> Correlation:
    """Where one of two images has no global, the means of their locals are compared instead, so
    the cosine of two images does not depend on who else is in the list."""
    locals_ = F.normalize(batch.locals, dim=-1)
    to_query = torch.einsum("wind,wmd->winm", locals_, locals_[:, 0])
    globals_ = F.normalize(batch.globals, dim=-1)
    means = F.normalize(locals_.sum(2), dim=-1)
    both = batch.has_global.unsqueeze(2) & batch.has_global.unsqueeze(1)
    between = torch.where(both, globals_ @ globals_.mT, means @ means.mT)
    return Correlation(to_query, between, locals_, globals_, means)


def _masked_mean(values: Tensor, mask: Tensor, dim: int) -> Tensor:
    return (values * mask).sum(dim) / mask.sum(dim).clamp(min=1)


def correlation_features(batch: WindowBatch, found: Correlation) -> tuple[Tensor, Tensor]:
    """(local, image): (w, i, n, LOCAL_FEATURES) and (w, i, IMAGE_FEATURES).

    Of a local: its best and its mean cosine to the query's locals, how far its best match prefers
    another local of the same image (0: mutual), and its lead over the second best match.
    Of an image: the cosine of the globals; Chamfer similarity both ways; the mean cosine of the
    mutual matches; and these four again, standardised over the window's gallery: a list decides
    what counts as similar.
    """
    cosines = found.local_to_query
    valid = batch.local_mask.unsqueeze(3) & batch.local_mask[:, :1].unsqueeze(2)
    query_mask = batch.local_mask[:, 0]
    masked = cosines.masked_fill(~valid, -1.0)
    best, partner = masked.max(-1)
    if masked.shape[-1] > 1:
        second = masked.topk(2, dim=-1).values[..., 1]
    else:
        second = torch.full_like(best, -1.0)
    mean = _masked_mean(cosines, valid, 3)
    best_of_query = masked.max(2).values  # (w, i, m): each query local's best in the image
    preferred = best_of_query.gather(2, partner)
    mutual_gap = preferred - best
    local = torch.stack((best, mean, mutual_gap, best - second), dim=-1)

    to_query = _masked_mean(best, batch.local_mask, 2)
    from_query = _masked_mean(best_of_query, query_mask.unsqueeze(1), 2)
    mutual = batch.local_mask & (mutual_gap <= 0)
    agreed = (best * mutual).sum(2) / query_mask.sum(1, keepdim=True)
    image = torch.stack((found.global_[:, 0], from_query, to_query, agreed), dim=-1)
    gallery = batch.image_mask.clone()
    gallery[:, 0] = False
    weight = gallery.unsqueeze(-1)
    centre = _masked_mean(image, weight, 1).unsqueeze(1)
    spread = _masked_mean((image - centre) ** 2, weight, 1).unsqueeze(1)
    relative = (image - centre) * torch.rsqrt(spread + 1e-4) * weight
    local = local.masked_fill(~batch.local_mask.unsqueeze(-1), 0.0)
    return local, torch.cat((image, relative), dim=-1)


class Tokens(nn.Module):
    """Projections of descriptors plus embeddings of scale, role and correlation features."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.dim
        self.local_projection = nn.Linear(config.descriptor_dim, dim)
        self.global_projection = nn.Linear(config.global_dim, dim)
        self.mean_projection = nn.Linear(config.descriptor_dim, dim)
        self.scale = nn.Embedding(config.scale_levels, dim)
        self.role = nn.Embedding(2, dim)
        self.separator = nn.Parameter(torch.zeros(dim))
        self.local_features = _feature_embedding(LOCAL_FEATURES, dim)
        self.image_features = _feature_embedding(IMAGE_FEATURES, 2 * dim)

    def forward(
        self,
        batch: WindowBatch,
        found: Correlation,
        local_features: Tensor,
        image_features: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """tokens (w, i, 2 + n, dim) and their mask (w, i, 2 + n); padded tokens are zero."""
        dtype = self.separator.dtype

        def scaled(units: Tensor) -> Tensor:
            # So that a coordinate of a unit vector is of order 1.
            spread: Tensor = units * units.shape[-1] ** 0.5
            return spread.to(dtype)

        local = self.local_projection(scaled(found.locals))
        local = local + self.scale(batch.scales) + self.local_features(local_features.to(dtype))
        global_ = torch.where(
            batch.has_global.unsqueeze(-1),
            self.global_projection(scaled(found.globals)),
            self.mean_projection(scaled(found.means)),
        )
        for_global, for_separator = self.image_features(image_features.to(dtype)).chunk(2, dim=-1)
        separator = self.separator + for_separator
        tokens = torch.cat(
            (separator.unsqueeze(2), (global_ + for_global).unsqueeze(2), local), dim=2
        )
        role = torch.ones(tokens.shape[1], dtype=torch.long, device=tokens.device)
        role[0] = 0
        tokens = tokens + self.role(role)[:, None, :]
        whole = batch.image_mask.unsqueeze(2).expand(-1, -1, FIRST_LOCAL)
        mask = torch.cat((whole, batch.local_mask), dim=2)
        return tokens * mask.unsqueeze(-1), mask


def _feature_embedding(features: int, dim: int) -> nn.Sequential:
    # A hidden layer, since what matters in a cosine is where it lies, not its size.
    return nn.Sequential(nn.Linear(features, 64), nn.GELU(), nn.Linear(64, dim))
