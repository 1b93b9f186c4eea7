"""The similarities of the images of a window, and the network's features made of them.

What is compared, ranked or standardised over a list is float64: lists of near duplicates magnify
rounding, which differs with who shares the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from model.window_batch import WindowBatch

LOCAL_FEATURES = 4
IMAGE_FEATURES = 22


@dataclass(frozen=True, eq=False)
class Comparison:
    """Cosines: to_query (w, i, n, m), every local with each local of the query, m = n; by_globals
    and in_metric (w, i, i), the images of a window with each other, as they are and in the metric.
    And what they are cosines of, rows of length 1: locals (w, i, n, d), float32, globals (w, i, e),
    means of the locals (w, i, d)."""

    to_query: Tensor
    by_globals: Tensor
    in_metric: Tensor
    locals: Tensor
    globals: Tensor
    means: Tensor


def compare(batch: WindowBatch, metric: Tensor) -> Comparison:
    """`metric` (e + d, e + d): what an image's global beside the mean of its locals is multiplied
    with. Where one of two images has no global, the means of their locals are compared instead, so
    the cosine of two images does not depend on who else is in the list."""
    locals_ = F.normalize(batch.locals.double(), dim=-1)
    to_query = torch.einsum("wind,wmd->winm", locals_, locals_[:, 0])
    globals_ = F.normalize(batch.globals.double(), dim=-1)
    means = F.normalize(locals_.sum(2), dim=-1)
    both = batch.has_global.unsqueeze(2) & batch.has_global.unsqueeze(1)
    vectors = F.normalize(torch.cat((globals_, means), dim=-1) @ metric.double(), dim=-1)
    of_means = means @ means.mT
    return Comparison(
        to_query,
        torch.where(both, globals_ @ globals_.mT, of_means),
        torch.where(both, vectors @ vectors.mT, of_means),
        locals_.float(),
        globals_,
        means,
    )


def nearest_first(batch: WindowBatch, comparison: Comparison) -> Tensor:
    """(w, i): the places of a window's images in the order in which the mixer reads them: the
    query, then the gallery by falling similarity to it, then padding. Of two images with one
    global the one whose locals are more like the query's goes first."""
    both = batch.has_global & batch.has_global[:, :1]
    by_means = (comparison.means @ comparison.means[:, 0].unsqueeze(2)).squeeze(2)
    to_query = comparison.by_globals[:, 0] + 1e-6 * by_means * both
    to_query = to_query.masked_fill(~batch.image_mask, -2.0)
    to_query[:, 0] = 2.0
    return to_query.argsort(dim=1, descending=True, stable=True)


def masked_mean(values: Tensor, mask: Tensor, dim: int) -> Tensor:
    return (values * mask).sum(dim) / mask.sum(dim).clamp(min=1)


def standardised(values: Tensor, mask: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Standardise over `dims`; masked entries are 0."""
    count = mask.sum(dims, keepdim=True).clamp(min=1)
    centre = (values * mask).sum(dims, keepdim=True) / count
    spread = ((values - centre) ** 2 * mask).sum(dims, keepdim=True) / count
    return (values - centre) * torch.rsqrt(spread + 1e-4) * mask


def features(
    batch: WindowBatch, comparison: Comparison, overlaps: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(locals, images, best): float32 (w, i, n, LOCAL_FEATURES) and (w, i, IMAGE_FEATURES), and
    the first of the locals' features in float64, (w, i, n).

    Of a local: its best and its mean cosine to the query's locals, how far its best match prefers
    another local of the same image (0: mutual), and its lead over the second best match.
    Of an image: the cosine of the globals, and that in the metric; Chamfer similarity both ways;
    the sum of the cosines of mutual matches, by the query's number of locals; how far its
    neighbourhoods overlap with the query's; and all of these again, standardised over the window's
    gallery: a list decides what counts as similar.
    """
    mask, query_mask = batch.local_mask, batch.local_mask[:, 0]
    valid = mask.unsqueeze(3) & query_mask[:, None, None, :]
    cosines = comparison.to_query.masked_fill(~valid, -1.0)
    best, partner = cosines.max(-1)
    if cosines.shape[-1] > 1:
        second = cosines.topk(2, dim=-1).values[..., 1]
    else:
        second = torch.full_like(best, -1.0)
    best_of_query = cosines.amax(2)  # (w, i, m): each query local's best in the image
    gap = best_of_query.gather(2, partner) - best
    mean = masked_mean(comparison.to_query, valid, 3)
    local = torch.stack((best, mean, gap, best - second), dim=-1)
    local = local.masked_fill(~mask.unsqueeze(-1), 0.0)

    mutual = mask & (gap <= 0)
    own = torch.stack(
        (
            comparison.by_globals[:, 0],
            comparison.in_metric[:, 0],
            masked_mean(best_of_query, query_mask.unsqueeze(1), 2),
            masked_mean(best, mask, 2),
            (best * mutual).sum(2) / query_mask.sum(1, keepdim=True),
        ),
        dim=-1,
    )
    image = torch.cat((own, overlaps[:, :, 0].transpose(1, 2)), dim=-1)
    gallery = batch.image_mask.clone()
    gallery[:, 0] = False
    relative = standardised(image, gallery.unsqueeze(-1), (1,))
    return local.float(), torch.cat((image, relative), dim=-1).float(), best
