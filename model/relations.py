"""What the Mamba re-ranker reads of a window: relations between its images, never descriptors.

A relation is a similarity that is standardised over the window, so its scale and its offset do not
matter, nor does the extractor or the length of its descriptors. ELViS (Suma et al., ICLR 2026)
showed for pairs that a network in similarity space carries over to other domains.

Shapes: w windows, all of one shape; i images, the query first; g = i - 1 gallery images; n locals
of an image; m locals of the query; r relations between images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from model.neighbours import GRAPHS, NEIGHBOURHOODS, coherence, neighbourhood_overlaps

COMPARED_LOCALS = 8
"""Of each image, its strongest, that are compared with those of other images."""

RELATIONS = (
    "globals",
    "locals",
    "profiles",
    *(f"{graph} {k}" for graph in GRAPHS for k in NEIGHBOURHOODS),
)
"""Between any two images of a window: cosine of the globals; Chamfer similarity of the strongest
locals; how alike two images match the query's locals; and how far neighbourhoods overlap."""

TO_QUERY = (
    *RELATIONS,
    "query to image",
    "image to query",
    "best matches",
    "telling matches",
    "telling matches, cubed",
    "rare matches",
    "mutual matches",
    "mutual telling matches",
    "mutual matches, counted",
    "matches by rank",
)
"""Between an image and the query: all of the above, and how their locals match. A match tells
something where it is better than in the other images of the list, and is rare where few are."""
RANKED = ("globals", "query to image", "mutual matches", "trusted 20")
IMAGE_FEATURES = len(TO_QUERY) + len(RANKED) + 1
MATCH_FEATURES = 10
COHESIVE = ("globals", "locals", "trusted 20")
SIZES_OF_TOP = (4, 8, 16, 32, 64)
CONTEXT_FEATURES = 3 + 3 + 4 * len(RANKED) + 2 * len(COHESIVE) * len(SIZES_OF_TOP)

_BOUND = 8.0
_ROUNDING = 16 * torch.finfo(torch.float32).eps
_BEST_MATCHES = 8
_BLOCK = 32


@dataclass(frozen=True, eq=False)
class Relations:
    """pairs (w, r, i, i): RELATIONS, standardised over the pairs of a window; image
    (w, i, IMAGE_FEATURES): TO_QUERY standardised over the gallery, ranks, and whether the image has
    a global; 0 in the query's row but for the last. matches (w, g, t, MATCH_FEATURES): of every
    gallery image the t query locals that it matches best for its list; context
    (w, CONTEXT_FEATURES): of a list as a whole."""

    pairs: Tensor
    image: Tensor
    matches: Tensor
    context: Tensor


def standardised(values: Tensor, dims: tuple[int, ...], mask: Tensor | None = None) -> Tensor:
    """Standardise over `dims`; masked entries are 0. A spread that is within rounding is none:
    then all are 0. Results are bounded by 8."""
    count: float | Tensor
    if mask is None:
        count = float(math.prod(values.shape[dim] for dim in dims))
        rest = values - values.mean(dims, keepdim=True)
    else:
        weight = mask.to(values.dtype)
        count = weight.sum(dims, keepdim=True).clamp(min=1)
        values = torch.where(mask, values, 0.0)
        rest = (values - values.sum(dims, keepdim=True) / count) * weight
    # Cosines and standardised values are of order 1, so that is what rounding goes by at least.
    largest = torch.linalg.vector_norm(values, torch.inf, dim=dims, keepdim=True).clamp(min=1.0)
    return _scaled(rest, dims, count, largest)


def standardised_pairs(values: Tensor) -> Tensor:
    """Standardise (…, i, i) in place over pairs of two images; the diagonal is 0. Of values that
    are bounded by 1, or as good as."""
    images = values.shape[-1]
    count = float(max(1, images * (images - 1)))
    values.diagonal(dim1=-2, dim2=-1).zero_()
    values -= values.sum((-2, -1), keepdim=True) / count
    values.diagonal(dim1=-2, dim2=-1).zero_()
    return _scaled(values, (-2, -1), count, 1.0)


def _scaled(
    rest: Tensor, dims: tuple[int, ...], count: float | Tensor, largest: float | Tensor
) -> Tensor:
    """In place: differences from the mean over their spread."""
    deviation = torch.linalg.vector_norm(rest, dim=dims, keepdim=True) / count**0.5
    scale = torch.where(deviation <= _ROUNDING * largest, 0.0, 1 / deviation)
    return rest.mul_(scale).clamp_(-_BOUND, _BOUND)


def window_relations(
    locals_: Tensor,
    local_mask: Tensor,
    globals_: Tensor,
    has_global: Tensor,
    query_locals: int,
    most_matches: int,
) -> Relations:
    """Of windows without padding images, whose queries have `query_locals` locals each: locals
    (w, i, n, d), local_mask (w, i, n), globals (w, i, e), has_global (w, i). Valid locals come
    first in an image's row."""
    images = locals_.shape[1]
    locals_ = _unit(locals_)
    gallery_mask = local_mask[:, 1:]
    cosines = locals_[:, 1:].flatten(1, 2) @ locals_[:, 0, :query_locals].mT
    cosines = cosines.unflatten(1, (images - 1, -1))  # (w, g, n, m)
    if not bool(gallery_mask.all()):
        cosines = cosines.masked_fill_(~gallery_mask.unsqueeze(3), -2.0)
    best, partner = cosines.max(2)  # of a query local in an image: (w, g, m)
    best_of_image = cosines.amax(3)  # of an image's local in the query: (w, g, n)
    rarity = standardised(best, (1,))
    overall = standardised(best, (1, 2))
    advantage = standardised(best - best.mean(1, keepdim=True), (1, 2))
    gap = best_of_image.gather(2, partner) - best  # 0: the match is mutual
    mutual = (gap <= 0).to(best.dtype)
    ranks = _ranks(best)

    others = ~torch.eye(images, dtype=torch.bool, device=locals_.device)
    both = has_global.unsqueeze(2) & has_global.unsqueeze(1)
    units = F.normalize(globals_, dim=-1)
    by_locals = standardised_pairs(_chamfer(locals_, local_mask))
    by_globals = units @ units.mT
    if bool(has_global.all()):
        by_globals = standardised_pairs(by_globals)
    else:
        by_globals = standardised(by_globals, (1, 2), others & both)
        # Where an image has no global its locals speak for it.
        by_globals = torch.where(both, by_globals, by_locals)
    profiles = F.pad(_profiles(advantage), (1, 0, 1, 0))
    profiles[:, 0, 1:] = profiles[:, 1:, 0] = standardised(advantage.mean(2), (1,))
    trust = coherence(torch.stack((by_globals, by_locals), dim=1), others)
    overlaps = neighbourhood_overlaps(by_globals, by_locals, trust, others)
    direct = torch.stack((by_globals, by_locals, profiles), dim=1)
    pairs = torch.cat((direct, standardised_pairs(overlaps)), dim=1)

    deviation = best.std(1, unbiased=False, keepdim=True)
    own = torch.stack(
        (
            best.mean(2),
            torch.where(gallery_mask, best_of_image, 0.0).sum(2) / gallery_mask.sum(2),
            best.topk(min(_BEST_MATCHES, query_locals), dim=2).values.mean(2),
            (best * deviation).sum(2),
            advantage.clamp(min=0).pow(3).mean(2),
            rarity.mean(2),
            (overall * mutual).sum(2),
            (advantage.clamp(min=0) * mutual).sum(2),
            mutual.sum(2),
            (1 / ranks).mean(2),
        ),
        dim=1,
    )
    to_query = standardised(torch.cat((pairs[:, :, 0, 1:], own), dim=1), (2,)).mT
    ranked = to_query[:, :, [TO_QUERY.index(name) for name in RANKED]]
    with_global = (has_global[:, 1:] & has_global[:, :1]).unsqueeze(2).to(to_query.dtype)
    image = torch.cat((to_query, _log_ranks(_ranks(ranked)), with_global), dim=2)
    image = F.pad(image, (0, 0, 1, 0))
    image[:, 0, -1] = has_global[:, 0]

    pair_count = max(1, images * (images - 1))
    agreement = (by_globals * by_locals).sum((1, 2)) / pair_count
    present = (others & both).sum((1, 2)) / pair_count
    size = torch.tensor([images - 1, query_locals], device=best.device).log2() / 8
    whole = (agreement.unsqueeze(1), size.expand(len(best), -1), present.unsqueeze(1))
    context = torch.cat((trust, *whole, _shape(ranked), _cohesion(pairs)), dim=1)
    place = torch.arange(query_locals, device=best.device) / query_locals
    spread = best.std((1, 2), unbiased=False, keepdim=True)
    spread = spread.clamp(min=torch.finfo(best.dtype).tiny)
    chosen = (advantage + mutual).topk(min(most_matches, query_locals), dim=2).indices
    matches = torch.stack(
        [
            feature.expand_as(best).gather(2, chosen)
            for feature in (
                advantage,
                overall,
                rarity,
                standardised(best, (2,)),
                (gap / spread).clamp(0, _BOUND),
                mutual,
                _log_ranks(ranks),
                (deviation / spread).clamp(0, _BOUND),
                place,
                partner / gallery_mask.sum(2, keepdim=True),
            )
        ],
        dim=-1,
    )
    return Relations(pairs, image, matches, context)


def _unit(rows: Tensor) -> Tensor:
    """Rows of length 1; most are that already, up to rounding, and padding stays 0."""
    lengths = torch.linalg.vector_norm(rows, dim=-1)
    off = (lengths - 1).abs() > _ROUNDING
    return F.normalize(rows, dim=-1) if bool((off & (lengths > 0)).any()) else rows


def _chamfer(locals_: Tensor, mask: Tensor) -> Tensor:
    """(w, i, i): the mean over the strongest locals of the best cosine in the other image, the mean
    of both ways."""
    # An image's locals lie apart, so that the largest of them is that of whole rows.
    apart = locals_[:, :, :COMPARED_LOCALS].transpose(1, 2).contiguous()
    mask = mask[:, :, :COMPARED_LOCALS].mT.contiguous()
    weight = mask / mask.sum(1, keepdim=True)
    padded = not bool(mask.all())
    windows, _, images, _ = apart.shape
    one_way = apart.new_zeros(windows, images, images)
    # Cosines are the same both ways: each block of images is compared with itself and those after.
    for first in range(0, images, _BLOCK):
        block, rest = slice(first, first + _BLOCK), slice(first, images)
        own, others = apart[:, :, block], apart[:, :, rest]
        cosines = own.flatten(1, 2) @ others.flatten(1, 2).mT
        # (w, n, i, n, j)
        cosines = cosines.unflatten(2, others.shape[1:3]).unflatten(1, own.shape[1:3])
        of_own = of_others = cosines
        if padded:
            of_own = cosines.masked_fill(~mask[:, None, None, :, rest], -2.0)
            of_others = cosines.masked_fill(~mask[:, :, block, None, None], -2.0)
        one_way[:, block, rest] = (of_own.amax(3) * weight[:, :, block, None]).sum(1)
        one_way[:, rest, block] = (of_others.amax(1) * weight[:, None, :, rest]).sum(2).mT
    return (one_way + one_way.mT) / 2


def _profiles(advantage: Tensor) -> Tensor:
    """(w, g, g): correlation of how two images match the query's locals, standardised."""
    units = F.normalize(advantage - advantage.mean(2, keepdim=True), dim=2)
    return standardised_pairs(units @ units.mT)


def _ranks(values: Tensor) -> Tensor:
    """(w, g, f): the place of each value in its column, 1 for the largest."""
    columns = values.mT.contiguous()
    order = columns.argsort(dim=2, descending=True, stable=True)
    places = torch.arange(1, columns.shape[2] + 1, dtype=values.dtype, device=values.device)
    return torch.empty_like(columns).scatter_(2, order, places.expand_as(columns)).mT


def _log_ranks(ranks: Tensor) -> Tensor:
    """(w, g, f): 1 for the first of a column, falling with the logarithm of the rank to 0."""
    return 1 - ranks.log2() / math.log2(ranks.shape[1] + 1)


def _cohesion(pairs: Tensor) -> Tensor:
    """(w, 2 x COHESIVE x SIZES_OF_TOP): how alike the first k images are to each other, and how
    alike to the query, by each of COHESIVE; first is who shares most neighbours with the query.
    Where many images are relevant it falls late."""
    shared = pairs[:, RELATIONS.index("trusted 20"), 0, 1:]
    order = shared.argsort(dim=1, descending=True, stable=True)
    gallery = order.shape[1]
    cohesive = pairs[:, [RELATIONS.index(name) for name in COHESIVE]]
    columns = order[:, None, None].expand(-1, *cohesive.shape[1:3], -1)
    ordered = cohesive[..., 1:].gather(3, columns)
    to_query = ordered[:, :, 0].cumsum(2)
    among = ordered[:, :, 1:].gather(2, columns[:, :, 1:].mT).cumsum(2).cumsum(3)
    top = torch.tensor([min(k, gallery) for k in SIZES_OF_TOP], device=pairs.device)
    sums = among.diagonal(dim1=2, dim2=3)[..., top - 1]
    mean = torch.cat((sums / (top * (top - 1)).clamp(min=1), to_query[..., top - 1] / top), dim=1)
    return mean.flatten(1).clamp(-_BOUND, _BOUND) / 2


def _shape(values: Tensor) -> Tensor:
    """(w, 4 f): of standardised columns (w, g, f) the largest, the fourth largest, skewness and
    kurtosis, each of order 1: how many images stand out, and how far."""
    falling = values.topk(min(4, values.shape[1]), dim=1).values
    skewness, kurtosis = values.pow(3).mean(1) / 2, values.pow(4).mean(1) / 8
    shape = torch.cat((falling[:, 0] / 4, falling[:, -1] / 4, skewness, kurtosis), dim=1)
    return shape.clamp(-_BOUND, _BOUND)
