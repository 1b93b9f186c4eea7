"""The input of the Mamba re-ranker: relations between the images of a window, never descriptors.

A relation is a similarity, standardised over the window. So neither its scale and offset matter,
nor the extractor and the length of its descriptors. ELViS (Suma et al., ICLR 2026) showed for pairs
that a network in similarity space carries over to other domains.

The windows here have one shape. For the letters of shapes see `model`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from model.neighbours import GRAPHS, NEIGHBOURHOODS, coherence, neighbourhood_overlaps
from model.standardisation import BOUND, ROUNDING, standardised, standardised_pairs

COMPARED_LOCALS = 8
"""The strongest locals of an image, which are compared with those of other images."""

RELATIONS = (
    "globals",
    "locals",
    "profiles",
    *(f"{graph} {k}" for graph in GRAPHS for k in NEIGHBOURHOODS),
)
"""Between any two images of a window: the cosine of the globals, the Chamfer similarity of the
strongest locals, the correlation of their matches with the query's locals, and the overlap of
neighbourhoods."""

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
"""Between an image and the query: the above, and the matches of their locals. A match is telling
where it is better than in the other images of the list, and rare where few images have one."""

RANKED = ("globals", "query to image", "mutual matches", "trusted 20")
"""Those of TO_QUERY whose ranks are features too."""
IMAGE_FEATURES = len(TO_QUERY) + len(RANKED) + 1
"""The last one: whether the image has a global."""

MATCH = (
    "advantage",
    "cosine",
    "rarity",
    "cosine among the image's matches",
    "gap to a mutual match",
    "mutual",
    "rank in the list",
    "deviation in the list",
    "place in the query",
    "place in the image",
)
MATCH_FEATURES = len(MATCH)

COHERENT = ("globals", "locals")
LIST = ("agreement", "gallery images", "query locals", "images with globals")
SHAPE = ("largest", "fourth largest", "skewness", "kurtosis")
COHESIVE = ("globals", "locals", "trusted 20")
TOP_SIZES = (4, 8, 16, 32, 64)
CONTEXT_FEATURES = (
    len(COHERENT) + len(LIST) + len(SHAPE) * len(RANKED) + 2 * len(COHESIVE) * len(TOP_SIZES)
)
"""Of a list as a whole: coherence of the graphs, its size, the shape of the distribution of each of
RANKED, and the cohesion of its first images."""

_BEST_MATCHES = 8
_BLOCK = 32


@dataclass(frozen=True, eq=False)
class Relations:
    """pairs (w, r, i, i): RELATIONS, standardised over the pairs of a window. image (w, i,
    IMAGE_FEATURES): TO_QUERY standardised over the gallery, ranks, and whether the image has a
    global; the query's row is 0 except for the last. matches (w, g, t, MATCH_FEATURES): the t query
    locals that a gallery image matches best, by its list. context (w, CONTEXT_FEATURES)."""

    pairs: Tensor
    image: Tensor
    matches: Tensor
    context: Tensor


def window_relations(
    locals_: Tensor,
    local_mask: Tensor,
    globals_: Tensor,
    has_global: Tensor,
    query_locals: int,
    max_matches: int,
) -> Relations:
    """Of windows without padding images and with `query_locals` locals in each query: locals
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
        # An image without a global is compared by its locals.
        by_globals = torch.where(both, by_globals, by_locals)
    profiles = F.pad(_profiles(advantage), (1, 0, 1, 0))
    profiles[:, 0, 1:] = profiles[:, 1:, 0] = standardised(advantage.mean(2), (1,))
    trust = coherence(torch.stack((by_globals, by_locals), dim=1), others)
    overlaps = neighbourhood_overlaps(by_globals, by_locals, trust, others)
    direct = torch.stack((by_globals, by_locals, profiles), dim=1)
    pairs = torch.cat((direct, standardised_pairs(overlaps)), dim=1)

    deviation = best.std(1, unbiased=False, keepdim=True)
    query_features = torch.stack(
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
    to_query = standardised(torch.cat((pairs[:, :, 0, 1:], query_features), dim=1), (2,)).mT
    ranked = to_query[:, :, [TO_QUERY.index(name) for name in RANKED]]
    with_global = (has_global[:, 1:] & has_global[:, :1]).unsqueeze(2).to(to_query.dtype)
    image = torch.cat((to_query, _log_ranks(_ranks(ranked)), with_global), dim=2)
    image = F.pad(image, (0, 0, 1, 0))
    image[:, 0, -1] = has_global[:, 0]

    pair_count = max(1, images * (images - 1))
    agreement = (by_globals * by_locals).sum((1, 2)) / pair_count
    present = (others & both).sum((1, 2)) / pair_count
    size = torch.tensor([images - 1, query_locals], device=best.device).log2() / 8
    list_features = (agreement.unsqueeze(1), size.expand(len(best), -1), present.unsqueeze(1))
    context = torch.cat((trust, *list_features, _shape(ranked), _cohesion(pairs)), dim=1)
    place = torch.arange(query_locals, device=best.device) / query_locals
    spread = best.std((1, 2), unbiased=False, keepdim=True)
    spread = spread.clamp(min=torch.finfo(best.dtype).tiny)
    selection = (advantage + mutual).topk(min(max_matches, query_locals), dim=2).indices
    matches = torch.stack(
        [
            feature.expand_as(best).gather(2, selection)
            for feature in (
                advantage,
                overall,
                rarity,
                standardised(best, (2,)),
                (gap / spread).clamp(0, BOUND),
                mutual,
                _log_ranks(ranks),
                (deviation / spread).clamp(0, BOUND),
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
    off = (lengths - 1).abs() > ROUNDING
    return F.normalize(rows, dim=-1) if bool((off & (lengths > 0)).any()) else rows


def _chamfer(locals_: Tensor, mask: Tensor) -> Tensor:
    """(w, i, i): the mean, over the strongest locals and both ways, of the best cosine in the other
    image."""
    # Slots before images, so that the maximum over an image's locals is one of whole rows.
    slots_first = locals_[:, :, :COMPARED_LOCALS].transpose(1, 2).contiguous()
    mask = mask[:, :, :COMPARED_LOCALS].mT.contiguous()
    weight = mask / mask.sum(1, keepdim=True)
    padded = not bool(mask.all())
    windows, _, images, _ = slots_first.shape
    one_way = slots_first.new_zeros(windows, images, images)
    # Cosines are the same both ways: each block of images is compared with itself and those after.
    for first in range(0, images, _BLOCK):
        own, later = slice(first, first + _BLOCK), slice(first, images)
        block, rest = slots_first[:, :, own], slots_first[:, :, later]
        cosines = block.flatten(1, 2) @ rest.flatten(1, 2).mT
        # (w, n, i, n, j)
        cosines = cosines.unflatten(2, rest.shape[1:3]).unflatten(1, block.shape[1:3])
        best_later = best_own = cosines
        if padded:
            best_later = cosines.masked_fill(~mask[:, None, None, :, later], -2.0)
            best_own = cosines.masked_fill(~mask[:, :, own, None, None], -2.0)
        one_way[:, own, later] = (best_later.amax(3) * weight[:, :, own, None]).sum(1)
        one_way[:, later, own] = (best_own.amax(1) * weight[:, None, :, later]).sum(2).mT
    return (one_way + one_way.mT) / 2


def _profiles(advantage: Tensor) -> Tensor:
    """(w, g, g): correlation of two images' matches with the query's locals, standardised."""
    units = F.normalize(advantage - advantage.mean(2, keepdim=True), dim=2)
    return standardised_pairs(units @ units.mT)


def _ranks(values: Tensor) -> Tensor:
    """(w, g, f): the place of each value in its column, 1 for the largest."""
    columns = values.mT.contiguous()
    order = columns.argsort(dim=2, descending=True, stable=True)
    places = torch.arange(1, columns.shape[2] + 1, dtype=values.dtype, device=values.device)
    return torch.empty_like(columns).scatter_(2, order, places.expand_as(columns)).mT


def _log_ranks(ranks: Tensor) -> Tensor:
    """(w, g, f): from 1 for the first of a column down to 0, by the logarithm of the rank."""
    return 1 - ranks.log2() / math.log2(ranks.shape[1] + 1)


def _cohesion(pairs: Tensor) -> Tensor:
    """(w, 2 x COHESIVE x TOP_SIZES): the mean similarity of the first k images to each other, and
    to the query, by each of COHESIVE. Images are ordered by the neighbours that they share with the
    query. Where many images are relevant, cohesion falls late."""
    shared = pairs[:, RELATIONS.index("trusted 20"), 0, 1:]
    order = shared.argsort(dim=1, descending=True, stable=True)
    gallery = order.shape[1]
    cohesive = pairs[:, [RELATIONS.index(name) for name in COHESIVE]]
    columns = order[:, None, None].expand(-1, *cohesive.shape[1:3], -1)
    ordered = cohesive[..., 1:].gather(3, columns)
    to_query = ordered[:, :, 0].cumsum(2)
    among = ordered[:, :, 1:].gather(2, columns[:, :, 1:].mT).cumsum(2).cumsum(3)
    top = torch.tensor([min(k, gallery) for k in TOP_SIZES], device=pairs.device)
    sums = among.diagonal(dim1=2, dim2=3)[..., top - 1]
    mean = torch.cat((sums / (top * (top - 1)).clamp(min=1), to_query[..., top - 1] / top), dim=1)
    return mean.flatten(1).clamp(-BOUND, BOUND) / 2


def _shape(values: Tensor) -> Tensor:
    """(w, 4 f): SHAPE of standardised columns (w, g, f), each of order 1: how many images stand
    out, and how far."""
    descending = values.topk(min(4, values.shape[1]), dim=1).values
    skewness, kurtosis = values.pow(3).mean(1) / 2, values.pow(4).mean(1) / 8
    shape = torch.cat((descending[:, 0] / 4, descending[:, -1] / 4, skewness, kurtosis), dim=1)
    return shape.clamp(-BOUND, BOUND)
