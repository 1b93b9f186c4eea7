"""From descriptors to tokens: `[SEP] [global] [locals, best match first]` for every image.

SEP opens an image, so that its tokens are a prefix of its row and padding is only ever behind them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.projected.comparison import IMAGE_FEATURES, LOCAL_FEATURES, Comparison
from model.projected.projected_config import ProjectedConfig
from model.window_batch import WindowBatch

SEP, FIRST_LOCAL = 0, 2
"""Slots of an image's row of tokens; between them is that of the global."""

_TIE = 1e-4


@dataclass(frozen=True, eq=False)
class Matches:
    """The locals that become tokens, t of an image: which they are (w, i, t), which of these are
    real (w, i, t), and their cosines with those of the query, float32 (w, i, t, t)."""

    places: Tensor
    mask: Tensor
    cosines: Tensor

    def of(self, values: Tensor) -> Tensor:
        """(w, i, n, …) to (w, i, t, …)."""
        windows, images = torch.meshgrid(
            *(torch.arange(size, device=values.device) for size in values.shape[:2]), indexing="ij"
        )
        return values[windows.unsqueeze(2), images.unsqueeze(2), self.places]


def best_matches(batch: WindowBatch, to_query: Tensor, best: Tensor, count: int) -> Matches:
    """Only the `count` locals of a gallery image that match a local of the query best, best first,
    and the query's strongest. So few tokens hold nearly all that there is to see of a pair."""
    best = best.clone()
    best[:, 0] = 0.0
    # Among equals the stronger goes first: all of the query's own are equal, and all of an image
    # in the gallery that is the query itself.
    slots = torch.arange(best.shape[2], device=best.device)
    best = (best - _TIE * slots).masked_fill(~batch.local_mask, -torch.inf)
    places = best.argsort(dim=2, descending=True, stable=True)[:, :, :count]
    rows = to_query.gather(2, places.unsqueeze(3).expand(-1, -1, -1, to_query.shape[3]))
    of_query = places[:, :1, None].expand(-1, *places.shape[1:], -1)
    return Matches(places, batch.local_mask.gather(2, places), rows.gather(3, of_query).float())


class Tokens(nn.Module):
    """Projections of descriptors plus embeddings of scale, role and features."""

    def __init__(self, config: ProjectedConfig) -> None:
        super().__init__()
        dim = config.dim
        self.local_projection = nn.Linear(config.descriptor_dim, dim)
        self.global_projection = nn.Linear(config.global_dim, dim)
        self.mean_projection = nn.Linear(config.descriptor_dim, dim)
        self.scale = nn.Embedding(config.scale_levels, dim)
        self.role = nn.Embedding(2, dim)
        self.separator = nn.Parameter(torch.zeros(dim))
        self.local_features = _embedding(LOCAL_FEATURES, dim)
        self.image_features = _embedding(IMAGE_FEATURES, 2 * dim)

    def forward(
        self,
        batch: WindowBatch,
        comparison: Comparison,
        matches: Matches,
        local_features: Tensor,
        image_features: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """tokens (w, i, 2 + t, dim) and their mask (w, i, 2 + t); padded tokens are zero."""
        dtype = self.separator.dtype

        def scaled(units: Tensor) -> Tensor:
            # So that a coordinate of a unit vector is of order 1.
            spread: Tensor = units * units.shape[-1] ** 0.5
            return spread.to(dtype)

        local = self.local_projection(scaled(matches.of(comparison.locals)))
        local = local + self.scale(matches.of(batch.scales))
        local = local + self.local_features(matches.of(local_features).to(dtype))
        global_ = torch.where(
            batch.has_global.unsqueeze(-1),
            self.global_projection(scaled(comparison.globals)),
            self.mean_projection(scaled(comparison.means)),
        )
        for_global, for_separator = self.image_features(image_features.to(dtype)).chunk(2, dim=-1)
        separator = self.separator + for_separator
        tokens = torch.cat(
            (separator.unsqueeze(2), (global_ + for_global).unsqueeze(2), local), dim=2
        )
        role = torch.ones(tokens.shape[1], dtype=torch.long, device=tokens.device)
        role[0] = 0
        tokens = tokens + self.role(role)[:, None, :]
        mask = torch.cat(
            (batch.image_mask.unsqueeze(2).expand(-1, -1, FIRST_LOCAL), matches.mask), dim=2
        )
        return tokens * mask.unsqueeze(-1), mask


def token_cosines(matches: Matches) -> Tensor:
    """(w, i, 2 + t, 2 + t): of an image's tokens with the query's, 0 if one is no local."""
    return F.pad(matches.cosines, (FIRST_LOCAL, 0, FIRST_LOCAL, 0))


def _embedding(features: int, dim: int) -> nn.Sequential:
    # A hidden layer, since what matters in a cosine is where it lies, not its size.
    return nn.Sequential(nn.Linear(features, 64), nn.GELU(), nn.Linear(64, dim))
