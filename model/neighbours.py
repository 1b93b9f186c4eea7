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
_LEAST = 1e-20


def coherence(graphs: Tensor, others: Tensor) -> Tensor:
    """(w, graphs), between -1 and 1: of similarities (w, graphs, i, i) the correlation over pairs
    of images of their similarity with how alike their rows are. Noise has none: there the
    neighbours of neighbours are no nearer than others."""
    weight = others.to(graphs.dtype)
    images = others.shape[0]
    rows = graphs * weight
    means = rows.sum(-1, keepdim=True) / max(1, images - 1)
    grand = rows.sum((-2, -1), keepdim=True) / max(1, images * (images - 1))
    rows = (rows - means - means.mT + grand) * weight
    units = F.normalize(rows, dim=-1)
    return _correlation(rows, units @ units.mT, weight)


def _correlation(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    pairs = (-2, -1)
    count = weight.sum().clamp(min=1)
    first, second = (
        (values - (values * weight).sum(pairs, keepdim=True) / count) * weight
        for values in (first, second)
    )
    lengths = torch.linalg.vector_norm(first, dim=pairs) * torch.linalg.vector_norm(
        second, dim=pairs
    )
    correlation: Tensor = (first * second).sum(pairs) / lengths.clamp(
        min=torch.finfo(first.dtype).tiny
    )
    return correlation


def neighbourhood_overlaps(
    by_globals: Tensor, by_locals: Tensor, trust: Tensor, others: Tensor
) -> Tensor:
    """(w, GRAPHS x NEIGHBOURHOODS, i, i) of standardised similarities (w, i, i); `trust` (w, 2)
    their coherence; `others` (i, i): all pairs but those of an image with itself."""
    weight = trust.clamp(min=_LEAST_TRUST).square()
    weight = (weight / torch.linalg.vector_norm(weight, dim=1, keepdim=True))[:, :, None, None]
    trusted = weight[:, 0] * by_globals + weight[:, 1] * by_locals
    graphs = torch.stack((by_globals, by_locals, trusted), dim=1)
    return _overlaps(graphs, others).flatten(1, 2)


def _overlaps(graphs: Tensor, others: Tensor) -> Tensor:
    """(w, graphs, NEIGHBOURHOODS, i, i): the Bhattacharyya coefficient of two images'
    neighbourhoods, who are, softly, among each other's k nearest, each the mean of those of an
    image and its nearest (k-reciprocal encoding with local query expansion, Zhong et al., eq. 7 and
    11)."""
    apart = graphs.masked_fill(~others, -torch.inf)
    falling = apart.topk(min(NEIGHBOURHOODS[-1] + 1, len(others)), dim=-1).values
    closest = torch.where(falling[..., :1].isfinite(), falling[..., :1], 0.0)
    strength = torch.exp(_SHARPNESS * torch.where(others, graphs, closest)).unsqueeze(2)
    among = _nearest(apart, falling, NEIGHBOURHOODS)
    encoded = _with_itself(among * among.mT, _EDGE**2).mul_(strength)
    encoded /= encoded.sum(-1, keepdim=True)
    expansion = _with_itself(_nearest(apart, falling, [k - 1 for k in EXPANSIONS]), _EDGE)
    expansion /= expansion.sum(-1, keepdim=True)
    # A CPU takes the root of 0 thirty times as long as that of other numbers.
    reached = (expansion @ encoded).clamp_(min=_LEAST).sqrt_()
    return reached @ reached.mT


def _nearest(apart: Tensor, falling: Tensor, sizes: Sequence[int]) -> Tensor:
    """(w, graphs, sizes, i, i): how surely an image of the last axis is among the k nearest, from 0
    to `_EDGE`."""
    last = max(apart.shape[-1] - 2, 0)
    inner = falling[..., [min(k - 1, last) for k in sizes]]
    outer = falling[..., [min(k, last) for k in sizes]]
    edge = (inner + outer).mT.unsqueeze(-1) / 2
    edge = torch.where(edge.isfinite(), edge, 0.0)
    # The edge comes off first: what lies on it is then at the middle to the bit.
    return (apart.unsqueeze(2) - edge).clamp_(-_EDGE / 2, _EDGE / 2).add_(_EDGE / 2)


def _with_itself(weights: Tensor, most: float) -> Tensor:
    """In place, of weights (…, i, i) that an image has none of itself: its own becomes the most."""
    weights.diagonal(dim1=-2, dim2=-1).fill_(most)
    return weights
