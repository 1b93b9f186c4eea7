"""How far the neighbourhoods of a window's images overlap, and how far that may be trusted.

What k-reciprocal encoding (Zhong et al., CVPR 2017) and diffusion (Iscen et al., CVPR 2017) do by
hand on global descriptors is computed here on standardised similarities, and made smooth.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

GRAPHS = ("globals", "locals", "trusted")
"""By globals, by locals, and by both, each weighted by its coherence."""
NEIGHBOURHOODS = (5, 10, 20, 30)
"""Sizes of neighbourhoods that are compared."""
EXPANSIONS = (2, 3, 5, 6)
"""An image's neighbourhood is the mean over its so many nearest, itself among them."""

_EDGE = 0.2
"""How wide the edge of a neighbourhood is, in spreads of the similarity: rounding moves nothing
far. Four times as wide costs 2 to 3 points of mAP@R."""
_SHARPNESS = 0.5
_LEAST_TRUST = 0.02


def coherence(graphs: Tensor, others: Tensor) -> Tensor:
    """(graphs,), between -1 and 1: of similarities (graphs, i, i) the correlation over pairs of
    images of their similarity with how alike their rows are. Noise has none: there the neighbours
    of neighbours are no nearer than others."""
    weight = others.to(graphs.dtype)
    images = others.shape[0]
    rows = graphs * weight
    means = rows.sum(2, keepdim=True) / max(1, images - 1)
    grand = rows.sum((1, 2), keepdim=True) / max(1, images * (images - 1))
    rows = (rows - means - means.mT + grand) * weight
    units = F.normalize(rows, dim=2)
    return _correlation(rows, units @ units.mT, weight)


def _correlation(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    count = weight.sum().clamp(min=1)
    first, second = (
        (values - (values * weight).sum((1, 2), keepdim=True) / count) * weight
        for values in (first, second)
    )
    lengths = torch.linalg.vector_norm(first, dim=(1, 2)) * torch.linalg.vector_norm(
        second, dim=(1, 2)
    )
    correlation: Tensor = (first * second).sum((1, 2)) / lengths.clamp(
        min=torch.finfo(first.dtype).tiny
    )
    return correlation


def neighbourhood_overlaps(
    by_globals: Tensor, by_locals: Tensor, trust: Tensor, others: Tensor
) -> Tensor:
    """(GRAPHS x NEIGHBOURHOODS, i, i) of standardised similarities (i, i); `trust` (2,) their
    coherence."""
    weight = trust.clamp(min=_LEAST_TRUST).square()
    weight = weight / weight.norm()
    trusted = weight[0] * by_globals + weight[1] * by_locals
    graphs = torch.stack((by_globals, by_locals, trusted))
    return _overlaps(graphs, others).flatten(0, 1)


def _overlaps(graphs: Tensor, others: Tensor) -> Tensor:
    """(graphs, NEIGHBOURHOODS, i, i): the Bhattacharyya coefficient of two images' neighbourhoods,
    who are, softly, among each other's k nearest, each the mean of those of an image and its
    nearest (k-reciprocal encoding with local query expansion, Zhong et al., eq. 7 and 11)."""
    images = others.shape[0]
    itself = torch.eye(images, dtype=graphs.dtype, device=graphs.device)
    apart = graphs.masked_fill(~others, -torch.inf)
    falling = apart.topk(min(NEIGHBOURHOODS[-1] + 1, images), dim=2).values
    among = _nearest(apart, falling, NEIGHBOURHOODS)
    closest = torch.where(falling[:, :, :1].isfinite(), falling[:, :, :1], 0.0)
    strength = torch.exp(_SHARPNESS * torch.where(others, graphs, closest)).unsqueeze(1)
    encoded = (among * among.mT + itself) * strength
    encoded = encoded / encoded.sum(3, keepdim=True)
    expansion = _nearest(apart, falling, [k - 1 for k in EXPANSIONS]) + itself
    expansion = expansion / expansion.sum(3, keepdim=True)
    reached = (expansion @ encoded).sqrt()
    return reached @ reached.mT


def _nearest(apart: Tensor, falling: Tensor, sizes: Sequence[int]) -> Tensor:
    """(graphs, sizes, i, i): softly 1 where an image of the last axis is among the k nearest."""
    last = max(apart.shape[1] - 2, 0)
    inner = falling[:, :, [min(k - 1, last) for k in sizes]]
    outer = falling[:, :, [min(k, last) for k in sizes]]
    edge = (inner + outer).permute(0, 2, 1).unsqueeze(3) / 2
    edge = torch.where(edge.isfinite(), edge, 0.0)
    return ((apart.unsqueeze(1) - edge) / _EDGE + 0.5).clamp(0, 1)
