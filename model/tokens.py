"""From descriptors to tokens: `[SEP] [global] [locals, strongest first]` for every image.

SEP opens an image instead of closing it: an image's tokens are then a prefix of its row of the
grid, and padding is only ever behind them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.batch import WindowBatch
from model.config import MambaConfig

SEP, GLOBAL, FIRST_LOCAL = 0, 1, 2
"""Slots of an image's row of tokens."""

LOCAL_FEATURES = 4
IMAGE_FEATURES = 22

_TIE = 1e-4


@dataclass(frozen=True, eq=False)
class Correlation:
    """Cosines between raw descriptors, from which all correlation features and biases are made.

    exact (w, i, n, m): every local with each local of the query, m = n, and local_to_query, the
    same in float32; global_ and refined (w, i, i): the images of a window with each other, as they
    are and in the learnt metric. What is compared,
    ranked or standardised over a list is float64: lists of near duplicates magnify rounding, which
    differs with who shares the batch. And what they are cosines of, float32 rows of length 1:
    locals (w, i, n, d), globals (w, i, g), means of the locals (w, i, d).
    """

    exact: Tensor
    local_to_query: Tensor
    global_: Tensor
    refined: Tensor
    locals: Tensor
    globals: Tensor
    means: Tensor


def correlate(batch: WindowBatch, metric: Tensor) -> Correlation:
    """`metric` (g + d, g + d): of `model.metric`. Where one of two images has no global, the means
    of their locals are compared instead, so the cosine of two images does not depend on who else
    is in the list."""
    exact_locals = F.normalize(batch.locals.double(), dim=-1)
    to_query = torch.einsum("wind,wmd->winm", exact_locals, exact_locals[:, 0])
    locals_ = exact_locals.float()
    globals_ = F.normalize(batch.globals.double(), dim=-1)
    means = F.normalize(exact_locals.sum(2), dim=-1)
    both = batch.has_global.unsqueeze(2) & batch.has_global.unsqueeze(1)
    whole = torch.cat((globals_, means), dim=-1)
    whole = torch.where(batch.in_metric.unsqueeze(-1), whole @ metric.double(), whole)
    refined = F.normalize(whole, dim=-1)
    of_means = means @ means.mT
    return Correlation(
        to_query,
        to_query.float(),
        torch.where(both, globals_ @ globals_.mT, of_means),
        torch.where(both, refined @ refined.mT, of_means),
        locals_,
        globals_.float(),
        means.float(),
    )


def likeness_to_query(batch: WindowBatch) -> Tensor:
    """(w, i) float64: row 0 of `Correlation.global_`, by which the blocks order a list; of two
    images with one global the one whose locals are more like the query's is a little nearer."""
    globals_ = F.normalize(batch.globals.double(), dim=-1)
    means = F.normalize(F.normalize(batch.locals.double(), dim=-1).sum(2), dim=-1)
    both = batch.has_global & batch.has_global[:, :1]
    by_global, by_mean = ((t @ t[:, 0].unsqueeze(2)).squeeze(2) for t in (globals_, means))
    return torch.where(both, by_global + 1e-6 * by_mean, by_mean)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the blocks read: of every image the locals that match best, with their features; and
    the features of images, for which all locals counted."""

    batch: WindowBatch
    found: Correlation
    local_features: Tensor
    image_features: Tensor


def best_matches(whole: Evidence, count: int) -> Evidence:
    """Only the `count` locals of a gallery image that match a local of the query best, best
    first, and the query's strongest. So few tokens hold nearly all that there is to see of a pair
    of images."""
    batch, found = whole.batch, whole.found
    valid = batch.local_mask.unsqueeze(3) & batch.local_mask[:, :1].unsqueeze(2)
    cosines = found.exact.masked_fill(~valid, -1.0)
    best = cosines.amax(3)
    best[:, 0] = 0.0
    # Among equals the stronger goes first: all of the query's own are equal, and all of an image
    # in the gallery that is the query itself.
    slots = torch.arange(best.shape[2], device=best.device)
    best = (best - _TIE * slots).masked_fill(~batch.local_mask, -torch.inf)
    order = best.argsort(dim=2, descending=True, stable=True)[:, :, :count]

    def taken(values: Tensor) -> Tensor:
        return values.gather(2, order.unsqueeze(3).expand(-1, -1, -1, values.shape[3]))

    of_query = order[:, :1, None].expand(-1, order.shape[1], order.shape[2], -1)
    return Evidence(
        replace(
            batch,
            locals=taken(batch.locals),
            local_mask=batch.local_mask.gather(2, order),
            scales=batch.scales.gather(2, order),
        ),
        replace(
            found,
            local_to_query=taken(found.local_to_query).gather(3, of_query),
            locals=taken(found.locals),
        ),
        taken(whole.local_features),
        whole.image_features,
    )


def masked_mean(values: Tensor, mask: Tensor, dim: int) -> Tensor:
    return (values * mask).sum(dim) / mask.sum(dim).clamp(min=1)


def standardised(values: Tensor, mask: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Less their mean and over their spread along `dims`, of what `mask` has; 0 elsewhere."""
    count = mask.sum(dims, keepdim=True).clamp(min=1)
    centre = (values * mask).sum(dims, keepdim=True) / count
    spread = ((values - centre) ** 2 * mask).sum(dims, keepdim=True) / count
    return (values - centre) * torch.rsqrt(spread + 1e-4) * mask


def correlation_features(
    batch: WindowBatch, found: Correlation, overlap: Tensor
) -> tuple[Tensor, Tensor]:
    """(local, image): (w, i, n, LOCAL_FEATURES) and (w, i, IMAGE_FEATURES).

    Of a local: its best and its mean cosine to the query's locals, how far its best match prefers
    another local of the same image (0: mutual), and its lead over the second best match.
    Of an image: the cosine of the globals, and that in the learnt metric; Chamfer similarity both
    ways; the sum of the cosines
    of mutual matches, by the query's number of locals; how far its neighbourhoods overlap with the
    query's (`model.neighbours`); and all of these again, standardised over the window's gallery: a
    list decides what counts as similar.
    """
    cosines = found.exact
    valid = batch.local_mask.unsqueeze(3) & batch.local_mask[:, :1].unsqueeze(2)
    query_mask = batch.local_mask[:, 0]
    masked = cosines.masked_fill(~valid, -1.0)
    best, partner = masked.max(-1)
    if masked.shape[-1] > 1:
        second = masked.topk(2, dim=-1).values[..., 1]
    else:
        second = torch.full_like(best, -1.0)
    mean = masked_mean(cosines, valid, 3)
    best_of_query = masked.max(2).values  # (w, i, m): each query local's best in the image
    preferred = best_of_query.gather(2, partner)
    mutual_gap = preferred - best
    local = torch.stack((best, mean, mutual_gap, best - second), dim=-1)

    to_query = masked_mean(best, batch.local_mask, 2)
    from_query = masked_mean(best_of_query, query_mask.unsqueeze(1), 2)
    mutual = batch.local_mask & (mutual_gap <= 0)
    agreed = (best * mutual).sum(2) / query_mask.sum(1, keepdim=True)
    image = torch.stack(
        (found.global_[:, 0], found.refined[:, 0], from_query, to_query, agreed), dim=-1
    )
    image = torch.cat((image, overlap[:, :, 0].transpose(1, 2)), dim=-1)
    gallery = batch.image_mask.clone()
    gallery[:, 0] = False
    relative = standardised(image, gallery.unsqueeze(-1), (1,))
    local = local.masked_fill(~batch.local_mask.unsqueeze(-1), 0.0)
    return local.float(), torch.cat((image, relative), dim=-1).float()


class Tokens(nn.Module):
    """Projections of descriptors plus embeddings of scale, role and correlation features."""

    def __init__(self, config: MambaConfig) -> None:
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
