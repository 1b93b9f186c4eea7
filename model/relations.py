"""What the Mamba re-ranker reads of a window: relations between its images, never descriptors.

A relation is a similarity that is standardised over the window, so its scale and its offset do not
matter, nor does the extractor or the length of its descriptors. ELViS (Suma et al., ICLR 2026)
showed for pairs that a network in similarity space carries over to other domains.

Shapes, of one window: i images, the query first; g = i - 1 gallery images; n locals of an image;
m locals of the query; r relations between images.
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


@dataclass(frozen=True, eq=False)
class Relations:
    """Of one window. pairs (r, i, i): RELATIONS, standardised over the pairs of the window;
    image (i, IMAGE_FEATURES): TO_QUERY standardised over the gallery, ranks, and whether the image
    has a global; 0 in the query's row but for the last. matches (g, t, MATCH_FEATURES): of every
    gallery image the t query locals that it matches best for this list; context
    (CONTEXT_FEATURES,): of the list as a whole."""

    pairs: Tensor
    image: Tensor
    matches: Tensor
    context: Tensor


def standardised(values: Tensor, dims: tuple[int, ...], mask: Tensor | None = None) -> Tensor:
    """Standardise over `dims`; masked entries are 0. A spread that is within rounding is none:
    then all are 0. Results are bounded by 8."""
    if mask is None:
        count = torch.tensor(float(math.prod(values.shape[dim] for dim in dims)))
        rest = values - values.mean(dims, keepdim=True)
    else:
        weight = mask.to(values.dtype)
        count = weight.sum(dims, keepdim=True).clamp(min=1)
        values = torch.where(mask, values, 0.0)
        rest = (values - values.sum(dims, keepdim=True) / count) * weight
    deviation = torch.linalg.vector_norm(rest, dim=dims, keepdim=True) / count.sqrt()
    # Cosines and standardised values are of order 1, so that is what rounding goes by at least.
    largest = torch.linalg.vector_norm(values, torch.inf, dim=dims, keepdim=True).clamp(min=1.0)
    scale = torch.where(deviation <= _ROUNDING * largest, 0.0, 1 / deviation)
    return (rest * scale).clamp_(-_BOUND, _BOUND)


def window_relations(
    locals_: Tensor, local_mask: Tensor, globals_: Tensor, has_global: Tensor, most_matches: int
) -> Relations:
    """Of one window without padding images: locals (i, n, d), local_mask (i, n), globals (i, e),
    has_global (i,). Valid locals come first in an image's row."""
    images = locals_.shape[0]
    locals_ = F.normalize(locals_, dim=-1)
    query = locals_[0, : int(local_mask[0].sum())]
    gallery_mask = local_mask[1:]
    cosines = (locals_[1:].flatten(0, 1) @ query.mT).unflatten(0, (images - 1, -1))
    if not bool(gallery_mask.all()):
        cosines = cosines.masked_fill_(~gallery_mask.unsqueeze(2), -2.0)  # (g, n, m)
    best, partner = cosines.max(1)  # of a query local in an image: (g, m)
    best_of_image = cosines.amax(2)  # of an image's local in the query: (g, n)
    rarity = standardised(best, (0,))
    overall = standardised(best, (0, 1))
    advantage = standardised(best - best.mean(0), (0, 1))
    gap = best_of_image.gather(1, partner) - best  # 0: the match is mutual
    mutual = (gap <= 0).to(best.dtype)
    ranks = _ranks(best)

    others = ~torch.eye(images, dtype=torch.bool, device=locals_.device)
    both = has_global.unsqueeze(1) & has_global
    units = F.normalize(globals_, dim=-1)
    by_locals = standardised(_chamfer(locals_, local_mask), (0, 1), others)
    by_globals = standardised(units @ units.mT, (0, 1), others & both)
    # Where an image has no global its locals speak for it.
    by_globals = torch.where(both, by_globals, by_locals)
    profiles = F.pad(_profiles(advantage), (1, 0, 1, 0))
    profiles[0, 1:] = profiles[1:, 0] = standardised(advantage.mean(1), (0,))
    trust = coherence(torch.stack((by_globals, by_locals)), others)
    overlaps = neighbourhood_overlaps(by_globals, by_locals, trust, others)
    overlaps = standardised(overlaps, (1, 2), others.unsqueeze(0))
    pairs = torch.cat((torch.stack((by_globals, by_locals, profiles)), overlaps))

    deviation = best.std(0, unbiased=False)
    own = torch.stack(
        (
            best.mean(1),
            _masked_mean(best_of_image, gallery_mask),
            best.topk(min(_BEST_MATCHES, best.shape[1]), dim=1).values.mean(1),
            best @ deviation,
            advantage.clamp(min=0).pow(3).mean(1),
            rarity.mean(1),
            (overall * mutual).sum(1),
            (advantage.clamp(min=0) * mutual).sum(1),
            mutual.sum(1),
            (1 / ranks).mean(1),
        )
    )
    to_query = standardised(torch.cat((pairs[:, 0, 1:], own)), (1,)).mT  # (g, TO_QUERY)
    ranked = to_query[:, [TO_QUERY.index(name) for name in RANKED]]
    with_global = (has_global[1:] & has_global[0]).unsqueeze(1).to(to_query.dtype)
    image = torch.cat((to_query, _log_ranks(_ranks(ranked)), with_global), dim=1)
    image = F.pad(image, (0, 0, 1, 0))
    image[0, -1] = has_global[0]

    pair_count = max(1, images * (images - 1))
    agreement = ((by_globals * by_locals).sum() / pair_count).unsqueeze(0)
    size = torch.tensor([images - 1, query.shape[0]], device=locals_.device).log2() / 8
    present = ((others & both).sum() / pair_count).unsqueeze(0)
    context = torch.cat((trust, agreement, size, present, _shape(ranked), _cohesion(pairs)))
    place = torch.arange(query.shape[0], device=best.device) / query.shape[0]
    spread = best.std(unbiased=False).clamp(min=torch.finfo(best.dtype).tiny)
    chosen = (advantage + mutual).topk(min(most_matches, best.shape[1]), dim=1).indices
    matches = torch.stack(
        [
            feature.expand_as(best).gather(1, chosen)
            for feature in (
                advantage,
                overall,
                rarity,
                standardised(best, (1,)),
                (gap / spread).clamp(0, _BOUND),
                mutual,
                _log_ranks(ranks),
                (deviation / spread).clamp(0, _BOUND),
                place,
                partner / gallery_mask.sum(1, keepdim=True),
            )
        ],
        dim=-1,
    )
    return Relations(pairs, image, matches, context)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum(1) / mask.sum(1)


def _chamfer(locals_: Tensor, mask: Tensor) -> Tensor:
    """(i, i): the mean over the strongest locals of the best cosine in the other image, the mean
    of both ways."""
    locals_, mask = locals_[:, :COMPARED_LOCALS], mask[:, :COMPARED_LOCALS]
    images, count, _ = locals_.shape
    # An image's locals lie apart, so that the largest of them is that of whole rows.
    flat = locals_.transpose(0, 1).flatten(0, 1)
    cosines = flat @ flat.mT
    if not bool(mask.all()):
        cosines = cosines.masked_fill_(~mask.mT.flatten(), -2.0)
    best = cosines.view(count, images, count, images).amax(2)
    weight = (mask / mask.sum(1, keepdim=True)).mT.unsqueeze(2)
    one_way = (best * weight).sum(0)
    return (one_way + one_way.mT) / 2


def _profiles(advantage: Tensor) -> Tensor:
    """(g, g): correlation of how two images match the query's locals, standardised."""
    units = F.normalize(advantage - advantage.mean(1, keepdim=True), dim=1)
    others = ~torch.eye(len(units), dtype=torch.bool, device=units.device)
    return standardised(units @ units.mT, (0, 1), others)


def _ranks(values: Tensor) -> Tensor:
    """(g, f): the place of each value in its column, 1 for the largest."""
    columns = values.mT.contiguous()
    order = columns.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(1, len(values) + 1, dtype=values.dtype, device=values.device)
    return torch.empty_like(columns).scatter_(1, order, places.expand_as(columns)).mT


def _log_ranks(ranks: Tensor) -> Tensor:
    """(g, f): 1 for the first of a column, falling with the logarithm of the rank to 0."""
    return 1 - ranks.log2() / math.log2(len(ranks) + 1)


def _cohesion(pairs: Tensor) -> Tensor:
    """(2 x COHESIVE x SIZES_OF_TOP,): how alike the first k images are to each other, and how alike
    to the query, by each of COHESIVE; first is who shares most neighbours with the query. Where
    many images are relevant it falls late."""
    order = pairs[RELATIONS.index("trusted 20"), 0, 1:].argsort(descending=True, stable=True)
    cohesive = pairs[[RELATIONS.index(name) for name in COHESIVE]]
    to_query = cohesive[:, 0, 1:][:, order].cumsum(1)
    among = cohesive[:, 1:, 1:][:, order][:, :, order].cumsum(1).cumsum(2)
    top = torch.tensor([min(k, len(order)) for k in SIZES_OF_TOP], device=pairs.device)
    sums = among.diagonal(dim1=1, dim2=2)[:, top - 1]
    mean = torch.cat((sums / (top * (top - 1)).clamp(min=1), to_query[:, top - 1] / top))
    return mean.flatten().clamp(-_BOUND, _BOUND) / 2


def _shape(values: Tensor) -> Tensor:
    """(4 f,): of standardised columns (g, f) the largest, the fourth largest, skewness and
    kurtosis, each of order 1: how many images stand out, and how far."""
    falling = values.topk(min(4, len(values)), dim=0).values
    skewness, kurtosis = values.pow(3).mean(0) / 2, values.pow(4).mean(0) / 8
    return torch.cat((falling[0] / 4, falling[-1] / 4, skewness, kurtosis)).clamp(-_BOUND, _BOUND)
